// Package suite gets Complement and runs its unmodified tests: it copies the module from the module
// cache to a work folder (go refuses overlays inside the cache), lays one file of ours and two
// substitutions over it, and starts go test. Complement's files are never copied into this
// repository.
package suite

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Module is Complement's module path; go.mod says which version.
const Module = "github.com/matrix-org/complement"

// Unavailable says why the suite cannot run on this machine at all, which is no failure of the
// server under test.
type Unavailable struct{ Reason string }

func (u *Unavailable) Error() string { return "Complement is not available here: " + u.Reason }

// tools are the programs that nsexec.sh and the runner start.
var tools = []string{"go", "unshare", "setpriv", "ip"}

// module is a downloaded module as `go mod download -json` tells of it.
type module struct{ Dir, Version, Error string }

// download finds Complement in the module cache, or brings it there.
func download(root string) (module, error) {
	var m module
	for _, tool := range tools {
		if _, err := exec.LookPath(tool); err != nil {
			return m, &Unavailable{"there is no " + tool + " in the PATH"}
		}
	}
	cmd := exec.Command("go", "mod", "download", "-json", Module)
	cmd.Dir = root
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, runErr := cmd.Output()
	if err := json.Unmarshal(out, &m); err != nil {
		return m, &Unavailable{firstLine(stderr.String(), err.Error())}
	}
	if runErr != nil || m.Dir == "" {
		return m, &Unavailable{firstLine(m.Error, stderr.String())}
	}
	return m, nil
}

// canIsolate checks that this machine lets us make namespaces.
func canIsolate(o Options, data string) error {
	cmd := exec.Command(filepath.Join(o.Root, "nsexec.sh"), "true")
	cmd.Env = append(os.Environ(), "COMPLEMENT_WORK_DIR="+data)
	if out, err := cmd.CombinedOutput(); err != nil {
		return &Unavailable{"no namespaces: " + firstLine(string(out), err.Error())}
	}
	return nil
}

// resolve finds the modules that the tests need besides Complement itself.
func resolve(o Options, modfile, overlay string) error {
	args := []string{"list", "-mod=mod", "-modfile=" + modfile, "-overlay=" + overlay, "-deps", "-test", "-f", ""}
	cmd := exec.Command("go", append(args, importPaths(o.Packages)...)...)
	cmd.Dir = o.Root
	out, err := cmd.CombinedOutput()
	if err == nil {
		return nil
	}
	var lines []string // without the progress of downloads
	for _, line := range strings.Split(string(out), "\n") {
		if !strings.HasPrefix(line, "go: downloading ") {
			lines = append(lines, line)
		}
	}
	return &Unavailable{firstLine(strings.Join(lines, "\n"), err.Error())}
}

func importPaths(packages []string) []string {
	var out []string
	for _, p := range packages {
		out = append(out, Module+"/"+p)
	}
	return out
}

// firstLine is the first line of the first text that has one.
func firstLine(texts ...string) string {
	for _, t := range texts {
		if line, _, _ := strings.Cut(strings.TrimSpace(t), "\n"); line != "" {
			return line
		}
	}
	return "the go command did not say why"
}

// copyModule copies the module to the work folder once per version and returns the copy.
func copyModule(m module, work string) (string, error) {
	to := filepath.Join(work, "complement@"+m.Version)
	if _, err := os.Stat(to); !errors.Is(err, fs.ErrNotExist) {
		return to, err
	}
	part := to + ".part" // an interrupted copy must not be taken for a whole one
	if err := os.RemoveAll(part); err != nil {
		return "", err
	}
	if err := os.CopyFS(part, os.DirFS(m.Dir)); err != nil {
		return "", fmt.Errorf("copying %s: %w", m.Dir, err)
	}
	return to, os.Rename(part, to)
}
