package verdict

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
)

// ReadList reads a file of tests, one "package<TAB>test" per line; empty lines and lines that begin
// with # are passed over. A file that does not exist is an empty list.
func ReadList(path string) ([]Test, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var out []Test
	lines := bufio.NewScanner(f)
	for n := 1; lines.Scan(); n++ {
		line := lines.Text()
		if line == "" || line[0] == '#' {
			continue
		}
		pkg, name, ok := strings.Cut(line, "\t")
		if !ok || pkg == "" || name == "" || strings.Contains(name, "\t") {
			return nil, fmt.Errorf("%s:%d: %q is not package<TAB>test", path, n, line)
		}
		out = append(out, Test{pkg, name})
	}
	return out, lines.Err()
}

// WriteList writes the tests sorted and without repetition, so that the file is either the old or
// the new one.
func WriteList(path string, tests []Test) error {
	sorted := append([]Test(nil), tests...)
	sortTests(sorted)
	var text strings.Builder
	for i, t := range sorted {
		if i == 0 || t != sorted[i-1] {
			fmt.Fprintf(&text, "%s\t%s\n", t.Package, t.Name)
		}
	}
	if err := os.WriteFile(path+".new", []byte(text.String()), 0o644); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}
