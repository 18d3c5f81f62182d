// Package verdict says what a run of the suite means: which tests passed, which known passes were
// lost and which are new. It reads the stream of go test -json and knows nothing of homeservers.
package verdict

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"regexp"
	"sort"
	"strings"
)

// Outcome is how a test ended, in the words of go test -json.
type Outcome string

// The outcomes of a test that ended.
const (
	Pass Outcome = "pass"
	Fail Outcome = "fail"
	Skip Outcome = "skip"
)

// outputLinesMax bounds what is kept of one test's output; the end is what tells.
const outputLinesMax = 400

// Test names a test or subtest. Package is relative to Complement's module, such as tests/csapi.
type Test struct{ Package, Name string }

func (t Test) String() string { return t.Package + " " + t.Name }

// TopLevel tells whether it is a test, not a subtest.
func (t Test) TopLevel() bool { return !strings.Contains(t.Name, "/") }

// parents lists the tests that contain this one, nearest first.
func (t Test) parents() []Test {
	var out []Test
	for i := strings.LastIndexByte(t.Name, '/'); i > 0; i = strings.LastIndexByte(t.Name[:i], '/') {
		out = append(out, Test{t.Package, t.Name[:i]})
	}
	return out
}

// Results is what one run showed.
type Results struct {
	Outcomes map[Test]Outcome
	// Packages has the outcome of each package that was run.
	Packages map[string]Outcome
	output   map[Test][]string // "" as the name: the package's own output
}

// event is one line of go test -json; see `go doc test2json`.
type event struct {
	Action, Package, ImportPath, Test, Output string
}

// Read consumes a stream of go test -json until its end. The prefix (Complement's module path and
// a slash) is taken off package names. ended, when not nil, hears of each test as it ends. Lines
// that are no JSON (messages of the go command) go to stray.
func Read(stream io.Reader, prefix string, ended func(Test, Outcome), stray io.Writer) (*Results, error) {
	r := &Results{
		Outcomes: map[Test]Outcome{}, Packages: map[string]Outcome{}, output: map[Test][]string{},
	}
	lines := bufio.NewScanner(stream)
	lines.Buffer(make([]byte, 0, 1<<16), 64<<20) // a test may print a whole response in one line
	for lines.Scan() {
		var e event
		if json.Unmarshal(lines.Bytes(), &e) != nil || e.Action == "" {
			fmt.Fprintln(stray, lines.Text())
			continue
		}
		if e.Package == "" { // build output names the package so
			e.Package, _, _ = strings.Cut(e.ImportPath, " ")
		}
		t := Test{strings.TrimPrefix(e.Package, prefix), e.Test}
		switch e.Action {
		case "pass", "fail", "skip":
			if t.Name == "" {
				r.Packages[t.Package] = Outcome(e.Action)
				continue
			}
			r.Outcomes[t] = Outcome(e.Action)
			if ended != nil {
				ended(t, Outcome(e.Action))
			}
		case "output", "build-output":
			r.keep(t, e.Output)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("reading the output of go test: %w", err)
	}
	return r, nil
}

func (r *Results) keep(t Test, line string) {
	kept := append(r.output[t], line)
	if len(kept) > outputLinesMax {
		kept = kept[len(kept)-outputLinesMax:]
	}
	r.output[t] = kept
}

var colour = regexp.MustCompile("\x1b\\[[0-9;]*m")

// frame is what go test prints around a test, of no interest where its name is shown already.
var frame = regexp.MustCompile(`^\s*(=== (RUN|PAUSE|CONT|NAME)|--- (PASS|FAIL|SKIP):)`)

// Tail is the end of a test's output, at most n lines without colours. A test that printed nothing
// itself, or never ran, is explained by the nearest that contains it.
func (r *Results) Tail(t Test, n int) []string {
	for _, from := range append(append([]Test{t}, t.parents()...), Test{t.Package, ""}) {
		var lines []string
		whole := colour.ReplaceAllString(strings.Join(r.output[from], ""), "")
		for _, l := range strings.Split(whole, "\n") {
			if strings.TrimSpace(l) != "" && !frame.MatchString(l) {
				lines = append(lines, l)
			}
		}
		if len(lines) > 0 {
			return lines[max(0, len(lines)-n):]
		}
	}
	return nil
}

// With lists the tests that ended so, sorted.
func (r *Results) With(o Outcome) []Test {
	var out []Test
	for t, got := range r.Outcomes {
		if got == o {
			out = append(out, t)
		}
	}
	sortTests(out)
	return out
}

// Count tells how many tests passed, failed and were skipped: subtests included, or top level only.
func (r *Results) Count(topLevelOnly bool) (passed, failed, skipped int) {
	for t, o := range r.Outcomes {
		if topLevelOnly && !t.TopLevel() {
			continue
		}
		switch o {
		case Pass:
			passed++
		case Fail:
			failed++
		case Skip:
			skipped++
		}
	}
	return
}

func sortTests(ts []Test) {
	sort.Slice(ts, func(i, j int) bool {
		if ts[i].Package != ts[j].Package {
			return ts[i].Package < ts[j].Package
		}
		return ts[i].Name < ts[j].Name
	})
}
