package verdict

import "testing"

func TestSelectionFollowsGoTestRun(t *testing.T) {
	for _, c := range []struct {
		run, skip, name string
		want            bool
	}{
		{"", "", "TestA/b", true},
		{"TestA", "", "TestABC", true},
		{"^TestA$", "", "TestABC", false},
		{"TestA|TestB", "", "TestB/sub", true},
		{"^(TestA|TestB)$", "", "TestB/sub", true},
		{"TestA/b", "", "TestA", true}, // it runs, so that TestA/b is reached
		{"TestA/b", "", "TestA/b/c", true},
		{"TestA/b", "", "TestA/c", false},
		{"TestA/b c", "", "TestA/b_c", true},
		{"Test[A|/]", "", "TestA/x", true},
		{`TestA\|x`, "", "TestA", false},
		{"", "TestA", "TestA/b", false},
		{"", "TestA/b", "TestA", true},
		{"", "TestA/b", "TestA/b/c", false},
	} {
		s, err := NewSelection([]string{"tests"}, c.run, c.skip)
		if err != nil {
			t.Fatal(err)
		}
		if got := s.Has(Test{"tests", c.name}); got != c.want {
			t.Errorf("-run %q -skip %q: %s selected: %v", c.run, c.skip, c.name, got)
		}
		if s.Has(Test{"tests/other", c.name}) {
			t.Errorf("%s is selected in a package that is not run", c.name)
		}
	}
}

func TestABadPatternIsRefused(t *testing.T) {
	for _, args := range [][2]string{{"(", ""}, {"", "["}} {
		if _, err := NewSelection(nil, args[0], args[1]); err == nil {
			t.Errorf("-run %q -skip %q: no error", args[0], args[1])
		}
	}
}
