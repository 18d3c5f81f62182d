package verdict

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func TestAListIsWrittenSortedWithoutRepetitionAndReadBack(t *testing.T) {
	path := filepath.Join(t.TempDir(), "list")
	if err := WriteList(path, []Test{{"tests/csapi", "TestA"}, {"tests", "TestB/x y"}, {"tests", "TestB"}, {"tests", "TestB"}}); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if want := "tests\tTestB\ntests\tTestB/x y\ntests/csapi\tTestA\n"; string(text) != want {
		t.Errorf("%q", text)
	}
	got, err := ReadList(path)
	if err != nil {
		t.Fatal(err)
	}
	if want := []Test{{"tests", "TestB"}, {"tests", "TestB/x y"}, {"tests/csapi", "TestA"}}; !reflect.DeepEqual(got, want) {
		t.Errorf("%v", got)
	}
}

func TestALineThatIsNoTestIsNamed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "list")
	if err := os.WriteFile(path, []byte("# a comment\n\ntests TestA\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadList(path); err == nil || !strings.Contains(err.Error(), "list:3:") {
		t.Errorf("%v", err)
	}
}

func TestAMissingListIsEmpty(t *testing.T) {
	if got, err := ReadList(filepath.Join(t.TempDir(), "none")); err != nil || len(got) != 0 {
		t.Errorf("%v, %v", got, err)
	}
}

func TestTheListsOfThisFolderAreInOrder(t *testing.T) {
	for _, name := range []string{"local-tests.tsv", "known-passes.txt", "known-passes-synapse.txt"} {
		tests, err := ReadList(filepath.Join("..", name))
		if err != nil {
			t.Fatal(err)
		}
		sorted := append([]Test(nil), tests...)
		sortTests(sorted)
		if !reflect.DeepEqual(tests, sorted) {
			t.Errorf("%s is not sorted", name)
		}
		for i := 1; i < len(sorted); i++ {
			if sorted[i] == sorted[i-1] {
				t.Errorf("%s has %s twice", name, sorted[i])
			}
		}
		if name == "local-tests.tsv" && len(tests) != 103 {
			t.Errorf("%s has %d tests", name, len(tests))
		}
	}
}
