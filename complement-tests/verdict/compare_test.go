package verdict

import (
	"reflect"
	"strings"
	"testing"
)

func all(t *testing.T, run, skip string) *Selection {
	t.Helper()
	s, err := NewSelection([]string{"tests", "tests/csapi", "broken"}, run, skip)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestAKnownPassIsLostWhenItFailsIsSkippedOrIsNeverReached(t *testing.T) {
	known := []Test{
		{"tests/csapi", "TestB"}, {"tests", "TestA/sub"}, {"broken", "TestC"}, {"tests", "TestA/fine"},
	}
	c := Compare(read(t, stream), known, all(t, "", ""))
	want := []Test{{"broken", "TestC"}, {"tests", "TestA/sub"}, {"tests/csapi", "TestB"}}
	if !reflect.DeepEqual(c.Lost, want) {
		t.Errorf("lost: %v", c.Lost)
	}
	if len(c.New) != 0 {
		t.Errorf("new: %v", c.New)
	}
}

func TestAKnownPassOutsideTheSelectionIsNotLost(t *testing.T) {
	known := []Test{{"tests", "TestZ"}, {"tests/msc9999", "TestM"}, {"tests", "TestA/slow"}}
	if c := Compare(read(t, stream), known, all(t, "TestA$", "TestA/slow")); len(c.Lost) != 0 {
		t.Errorf("lost: %v", c.Lost)
	}
}

func TestAPassThatWasNotKnownIsNew(t *testing.T) {
	c := Compare(read(t, stream), nil, all(t, "", ""))
	if want := []Test{{"tests", "TestA/fine"}}; !reflect.DeepEqual(c.New, want) {
		t.Errorf("new: %v", c.New)
	}
}

func TestTheReportNamesLossesWithTheirOutputAndEndsWithTheCount(t *testing.T) {
	r := read(t, stream)
	var w strings.Builder
	Compare(r, []Test{{"tests", "TestA"}, {"tests", "TestA/sub"}, {"broken", "TestC"}}, all(t, "", "")).Report(&w, r, 3)
	got := w.String()
	for _, want := range []string{
		"Lost passes:\n", "  tests TestA (fail)\n  tests TestA/sub (fail)\n          a.go:1: no room\n",
		"  broken TestC (not reached)\n      undefined: x\n", "New passes:\n  tests TestA/fine\n",
		"Package broken ran no test:\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in:\n%s", want, got)
		}
	}
	if !strings.HasSuffix(got, "\n1 passed, 2 failed, 1 skipped\n") {
		t.Errorf("the end is not the count:\n%s", got)
	}
}

func TestWhatPassesAtTheSecondTryIsUnsteadyNotLost(t *testing.T) {
	r := read(t, stream)
	c := Compare(r, []Test{{"tests", "TestA/sub"}, {"broken", "TestC"}}, all(t, "", ""))
	second := &Results{Outcomes: map[Test]Outcome{{"tests", "TestA/sub"}: Pass, {"broken", "TestC"}: Fail}}
	c = c.Retry(r, second)
	if want := []Test{{"broken", "TestC"}}; !reflect.DeepEqual(c.Lost, want) {
		t.Errorf("lost: %v", c.Lost)
	}
	if want := []Test{{"tests", "TestA/sub"}}; !reflect.DeepEqual(c.Unsteady, want) {
		t.Errorf("unsteady: %v", c.Unsteady)
	}
	var w strings.Builder
	c.Report(&w, r, 3)
	if !strings.Contains(w.String(), "Passed at the second try only:\n  tests TestA/sub\n") {
		t.Errorf("the report hides it:\n%s", w.String())
	}
}
