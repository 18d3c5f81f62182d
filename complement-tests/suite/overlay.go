package suite

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// substitution is a text that stands exactly once in Complement's test_main.go, and ours for it.
type substitution struct{ theirs, ours string }

// substitutions are what Complement's custom deployment hook does not reach: the old-style
// blueprints and the clean-up at the end of a package.
var substitutions = []substitution{
	{"return testPackage.OldDeploy(t, blueprint)", "return processOldDeploy(t, blueprint)"},
	{"return m.Run()", "return processRun(m)"},
}

// substitute applies each of them, and refuses a text that is not as they expect it.
func substitute(text string, all []substitution) (string, error) {
	for _, s := range all {
		if n := strings.Count(text, s.theirs); n != 1 {
			return "", fmt.Errorf("it should have %q once, not %d times", s.theirs, n)
		}
		text = strings.Replace(text, s.theirs, s.ours, 1)
	}
	return text, nil
}

// writeOverlay writes what go test -overlay wants and returns the file that describes it.
func writeOverlay(root, source, work string) (string, error) {
	original := filepath.Join(source, "test_main.go")
	text, err := os.ReadFile(original)
	if err != nil {
		return "", err
	}
	changed, err := substitute(string(text), substitutions)
	if err != nil {
		return "", fmt.Errorf("%s has changed: %w", original, err)
	}
	replacement := filepath.Join(work, "test_main.go")
	if err := os.WriteFile(replacement, []byte(changed), 0o644); err != nil {
		return "", err
	}
	description, err := json.MarshalIndent(map[string]any{"Replace": map[string]string{
		original: replacement,
		filepath.Join(source, "zz_process_deployer.go"): filepath.Join(root, "overlay/process_deployer.go.txt"),
	}}, "", "  ")
	if err != nil {
		return "", err
	}
	file := filepath.Join(work, "overlay.json")
	return file, os.WriteFile(file, description, 0o644)
}

// writeModfile writes a go.mod (and go.sum) like ours that takes Complement from the copy.
func writeModfile(root, source, work string) (string, error) {
	ours, err := os.ReadFile(filepath.Join(root, "go.mod"))
	if err != nil {
		return "", err
	}
	var sums []byte
	for _, dir := range []string{root, source} { // ours, and what Complement's tests need
		more, err := os.ReadFile(filepath.Join(dir, "go.sum"))
		if err != nil {
			return "", err
		}
		sums = append(sums, more...)
	}
	modfile := filepath.Join(work, "complement.mod")
	if err := os.WriteFile(modfile, ours, 0o644); err != nil {
		return "", err
	}
	if err := os.WriteFile(filepath.Join(work, "complement.sum"), sums, 0o644); err != nil {
		return "", err
	}
	edit := exec.Command("go", "mod", "edit", "-replace="+Module+"="+source, modfile)
	if out, err := edit.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go mod edit: %w\n%s", err, out)
	}
	return modfile, nil
}
