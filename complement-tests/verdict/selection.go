package verdict

import (
	"fmt"
	"regexp"
	"strings"
)

// Selection is what a run was asked to run: packages, and the patterns of go test -run and -skip.
// A known pass outside it is not lost when it does not show up.
type Selection struct {
	packages map[string]bool
	run      alternatives
	skip     alternatives
}

// pattern is one alternative of -run: an expression for each level of subtests.
type pattern []*regexp.Regexp

type alternatives []pattern

// NewSelection compiles what was asked for; empty patterns are none.
func NewSelection(packages []string, run, skip string) (*Selection, error) {
	s := &Selection{packages: map[string]bool{}}
	for _, p := range packages {
		s.packages[p] = true
	}
	var err error
	if s.run, err = compile(run); err != nil {
		return nil, fmt.Errorf("-run: %w", err)
	}
	if s.skip, err = compile(skip); err != nil {
		return nil, fmt.Errorf("-skip: %w", err)
	}
	return s, nil
}

// Has tells whether go test would run this test.
func (s *Selection) Has(t Test) bool {
	if !s.packages[t.Package] {
		return false
	}
	name := strings.Split(t.Name, "/")
	if len(s.run) > 0 && !s.run.match(name, false) {
		return false
	}
	return !s.skip.match(name, true)
}

func compile(expression string) (alternatives, error) {
	if expression == "" {
		return nil, nil
	}
	var out alternatives
	for _, alternative := range splitOutsideBrackets(expression, '|') {
		var p pattern
		for _, level := range splitOutsideBrackets(alternative, '/') {
			re, err := regexp.Compile(strings.ReplaceAll(level, " ", "_"))
			if err != nil {
				return nil, err
			}
			p = append(p, re)
		}
		out = append(out, p)
	}
	return out, nil
}

// match follows the testing package: a level without an expression matches, and so does, unless
// whole, a test that the pattern goes deeper than (it must run for its subtests to be reached).
func (as alternatives) match(name []string, whole bool) bool {
	for _, p := range as {
		if whole && len(p) > len(name) {
			continue
		}
		ok := true
		for i, level := range name {
			if i < len(p) && !p[i].MatchString(level) {
				ok = false
				break
			}
		}
		if ok {
			return true
		}
	}
	return false
}

// splitOutsideBrackets cuts an expression at the separator where it stands in no (), [] or escape.
func splitOutsideBrackets(s string, separator byte) []string {
	var out []string
	depth, inClass, begin := 0, false, 0
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '\\':
			i++
		case inClass:
			inClass = c != ']'
		case c == '[':
			inClass = true
		case c == '(':
			depth++
		case c == ')':
			depth--
		case c == separator && depth == 0:
			out = append(out, s[begin:i])
			begin = i + 1
		}
	}
	return append(out, s[begin:])
}
