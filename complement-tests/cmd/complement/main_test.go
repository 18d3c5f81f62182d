package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"millrace/complement-tests/verdict"
)

func TestTheLocalPatternMatchesExactlyTheListedTests(t *testing.T) {
	file := filepath.Join(t.TempDir(), "local-tests.tsv")
	if err := verdict.WriteList(file, []verdict.Test{{Package: "tests", Name: "TestA"}, {Package: "tests/csapi", Name: "TestB"}}); err != nil {
		t.Fatal(err)
	}
	pattern, err := localPattern(file)
	if err != nil {
		t.Fatal(err)
	}
	re := regexp.MustCompile(pattern)
	for name, want := range map[string]bool{"TestA": true, "TestB": true, "TestAB": false, "XTestA": false} {
		if re.MatchString(name) != want {
			t.Errorf("%s matched by %s: %v", name, pattern, !want)
		}
	}
}

func TestAnEmptyLocalListIsAnErrorNotEveryTest(t *testing.T) {
	if pattern, err := localPattern(filepath.Join(t.TempDir(), "none")); err == nil {
		t.Errorf("it became %q", pattern)
	}
}

func TestMillraceIsSparedNoTestAndAnotherServerHasItsOwnKind(t *testing.T) {
	t.Chdir("../..")
	bin, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("MILLRACE_BIN", bin)
	for server, kind := range map[string]string{"millrace": "", "synapse": "synapse"} {
		o, err := parse([]string{"-server", server})
		if err != nil {
			t.Fatal(err)
		}
		if o.Kind != kind || len(o.Packages) != len(defaultPackages) {
			t.Errorf("%s: kind %q, packages %q", server, o.Kind, o.Packages)
		}
	}
	for _, bad := range [][]string{{"-server", "nobody"}, {"-local", "-run", "TestA"}} {
		if _, err := parse(bad); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}

func TestLostTestsAreTriedAgainByTheirTopLevelNamesUnlessTooManyAreLost(t *testing.T) {
	lost := []verdict.Test{{Package: "tests/csapi", Name: "TestB/one"}, {Package: "tests", Name: "TestA"}, {Package: "tests/csapi", Name: "TestB/two"}}
	again := retryable(lost)
	if again.pattern() != "^(TestA|TestB)$" || len(again.packages) != 2 {
		t.Errorf("%q in %q", again.pattern(), again.packages)
	}
	for i := range retriedMax {
		lost = append(lost, verdict.Test{Package: "tests", Name: fmt.Sprintf("TestC%d", i)})
	}
	if again := retryable(lost); len(again.tests) != 0 {
		t.Errorf("%d tests would be tried again", len(again.tests))
	}
}
