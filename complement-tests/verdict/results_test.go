package verdict

import (
	"io"
	"reflect"
	"strings"
	"testing"
)

const stream = `{"Action":"start","Package":"m/tests"}
{"Action":"run","Package":"m/tests","Test":"TestA"}
{"Action":"output","Package":"m/tests","Test":"TestA","Output":"=== RUN   TestA\n"}
{"Action":"output","Package":"m/tests","Test":"TestA","Output":"    a.go:1: \u001b[31mno room\u001b[39m\n"}
{"Action":"output","Package":"m/tests","Test":"TestA/sub","Output":"=== RUN   TestA/sub\n"}
{"Action":"pass","Package":"m/tests","Test":"TestA/fine"}
{"Action":"fail","Package":"m/tests","Test":"TestA/sub"}
{"Action":"fail","Package":"m/tests","Test":"TestA"}
go: a message of the go command
{"Action":"skip","Package":"m/tests/csapi","Test":"TestB"}
{"Action":"pass","Package":"m/tests/csapi"}
{"ImportPath":"m/broken [m/broken.test]","Action":"build-output","Output":"undefined: x\n"}
{"Action":"fail","Package":"m/broken"}
{"Action":"fail","Package":"m/tests"}
`

func read(t *testing.T, text string) *Results {
	t.Helper()
	r, err := Read(strings.NewReader(text), "m/", nil, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestOutcomesAreReadFromTheStream(t *testing.T) {
	var stray strings.Builder
	var ended []string
	r, err := Read(strings.NewReader(stream), "m/", func(t Test, o Outcome) {
		ended = append(ended, string(o)+" "+t.String())
	}, &stray)
	if err != nil {
		t.Fatal(err)
	}
	want := map[Test]Outcome{
		{"tests", "TestA"}: Fail, {"tests", "TestA/sub"}: Fail, {"tests", "TestA/fine"}: Pass,
		{"tests/csapi", "TestB"}: Skip,
	}
	if !reflect.DeepEqual(r.Outcomes, want) {
		t.Errorf("outcomes: %v", r.Outcomes)
	}
	if want := map[string]Outcome{"tests": Fail, "tests/csapi": Pass, "broken": Fail}; !reflect.DeepEqual(r.Packages, want) {
		t.Errorf("packages: %v", r.Packages)
	}
	if len(ended) != 4 || ended[3] != "skip tests/csapi TestB" {
		t.Errorf("heard of %q", ended)
	}
	if stray.String() != "go: a message of the go command\n" {
		t.Errorf("stray: %q", stray.String())
	}
}

func TestTheTailOfASilentSubtestIsThatOfTheTestAroundIt(t *testing.T) {
	r := read(t, stream)
	want := []string{"    a.go:1: no room"}
	for _, name := range []string{"TestA", "TestA/sub", "TestA/sub/never_reached"} {
		if got := r.Tail(Test{"tests", name}, 5); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %q", name, got)
		}
	}
	if got := r.Tail(Test{"broken", "TestAny"}, 5); !reflect.DeepEqual(got, []string{"undefined: x"}) {
		t.Errorf("a package that does not compile: %q", got)
	}
}

func TestOnlyTheEndOfALongOutputIsKept(t *testing.T) {
	var text strings.Builder
	for range 3 * outputLinesMax {
		text.WriteString(`{"Action":"output","Package":"m/p","Test":"T","Output":"early\n"}` + "\n")
	}
	text.WriteString(`{"Action":"output","Package":"m/p","Test":"T","Output":"last\n"}` + "\n")
	r := read(t, text.String())
	if got := r.Tail(Test{"p", "T"}, 2); !reflect.DeepEqual(got, []string{"early", "last"}) {
		t.Errorf("%q", got)
	}
	if n := len(r.output[Test{"p", "T"}]); n != outputLinesMax {
		t.Errorf("%d lines kept", n)
	}
}

func TestCountsCanLeaveOutSubtests(t *testing.T) {
	r := read(t, stream)
	if p, f, s := r.Count(false); p != 1 || f != 2 || s != 1 {
		t.Errorf("all: %d %d %d", p, f, s)
	}
	if p, f, s := r.Count(true); p != 0 || f != 1 || s != 1 {
		t.Errorf("top level: %d %d %d", p, f, s)
	}
}
