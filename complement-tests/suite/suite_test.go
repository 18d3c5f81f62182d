package suite

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestSubstitutionsWantTheirTextExactlyOnce(t *testing.T) {
	rules := []substitution{{"a()", "b()"}}
	if got, err := substitute("x a() y", rules); err != nil || got != "x b() y" {
		t.Errorf("%q, %v", got, err)
	}
	for _, text := range []string{"", "a() a()"} {
		if _, err := substitute(text, rules); err == nil {
			t.Errorf("%q was accepted", text)
		}
	}
}

func TestAnInterruptedCopyIsMadeAgain(t *testing.T) {
	cache, work := t.TempDir(), t.TempDir()
	write(t, filepath.Join(cache, "a.go"), "package a")
	write(t, filepath.Join(work, "complement@v1.part", "old.go"), "half")
	for range 2 { // the second time it is there
		to, err := copyModule(module{Dir: cache, Version: "v1"}, work)
		if err != nil {
			t.Fatal(err)
		}
		files, err := os.ReadDir(to)
		if err != nil || len(files) != 1 || files[0].Name() != "a.go" {
			t.Errorf("%v, %v", files, err)
		}
	}
}

func TestTheOverlayIsRefusedWhenComplementChanged(t *testing.T) {
	source := t.TempDir()
	write(t, filepath.Join(source, "test_main.go"), "package complement")
	if _, err := writeOverlay("root", source, t.TempDir()); err == nil || !strings.Contains(err.Error(), "has changed") {
		t.Errorf("%v", err)
	}
}

func TestAModuleThatDoesNotResolveIsUnavailable(t *testing.T) {
	root := t.TempDir()
	write(t, filepath.Join(root, "go.mod"), "module m\n\ngo 1.25.0\n\nrequire "+Module+" v0.0.1\n")
	t.Setenv("GOENV", "off") // nothing of this machine's own set-up
	t.Setenv("GOPROXY", "off")
	t.Setenv("GOPRIVATE", "")
	t.Setenv("GONOPROXY", "")
	t.Setenv("GOFLAGS", "-modcacherw")
	t.Setenv("GOMODCACHE", t.TempDir())
	_, err := download(root)
	expectUnavailable(t, err)
	if err := resolve(Options{Root: root, Packages: []string{"tests"}}, filepath.Join(root, "go.mod"), overlayOfNothing(t)); err != nil {
		expectUnavailable(t, err)
	} else {
		t.Error("its packages were found")
	}
}

func expectUnavailable(t *testing.T, err error) {
	t.Helper()
	if u, ok := err.(*Unavailable); !ok || strings.Contains(u.Error(), "\n") || u.Reason == "" {
		t.Errorf("%v", err)
	}
}

func overlayOfNothing(t *testing.T) string {
	file := filepath.Join(t.TempDir(), "overlay.json")
	write(t, file, "{}")
	return file
}

func TestTwoRunsDoNotShareAWorkFolder(t *testing.T) {
	work := t.TempDir()
	unlock, err := lock(work)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lock(work); err == nil {
		t.Error("locked twice")
	}
	unlock()
	again, err := lock(work)
	if err != nil {
		t.Fatal(err)
	}
	again()
}

func TestPackagesAndPatternsReachGoTest(t *testing.T) {
	o := Options{Root: "/r", Packages: []string{"tests/csapi"}, Run: "TestA", Skip: "TestB", AtOnce: 2, Parallel: 3}
	args := arguments(o, "m.mod", "o.json")
	for _, want := range []string{"-run=TestA", "-skip=TestB", "-p=2", "-parallel=3", "-exec=/r/nsexec.sh", Module + "/tests/csapi"} {
		if !slices.Contains(args, want) {
			t.Errorf("no %s in %q", want, args)
		}
	}
	for _, a := range arguments(Options{}, "m.mod", "o.json") {
		if strings.HasPrefix(a, "-run=") || strings.HasPrefix(a, "-skip=") {
			t.Errorf("an empty pattern became %s", a)
		}
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}
