package suite

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
)

// Options say what to run and how.
type Options struct {
	Root     string   // the folder complement-tests
	Work     string   // scratch folder: the copy of Complement, servers' data and logs
	Packages []string // relative to Complement's module, such as tests/csapi
	Run      string   // go test -run; empty for all
	Skip     string   // go test -skip
	Timeout  string   // go test -timeout, per package
	AtOnce   int      // packages side by side
	Parallel int      // parallel tests within a package
	Command  string   // starts one homeserver, see deploy.EnvCommand
	Kind     string   // runtime.Homeserver: tests skip what they know that server lacks
	Fresh    bool     // new servers for each test instead of one set per package
}

// Run prepares Complement and runs its tests; stream receives go test -json. That tests failed is
// no error. It is [Unavailable] where Complement cannot be had.
func Run(o Options, stream, messages io.Writer) error {
	found, err := download(o.Root)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(o.Work, 0o755); err != nil {
		return err
	}
	unlock, err := lock(o.Work)
	if err != nil {
		return err
	}
	defer unlock()
	source, err := copyModule(found, o.Work)
	if err != nil {
		return err
	}
	overlay, err := writeOverlay(o.Root, source, o.Work)
	if err != nil {
		return err
	}
	modfile, err := writeModfile(o.Root, source, o.Work)
	if err != nil {
		return err
	}
	if err := resolve(o, modfile, overlay); err != nil {
		return err
	}
	data := DataDir(o.Work)
	if err := os.RemoveAll(data); err != nil { // servers of the last run must not come alive again
		return err
	}
	if err := os.MkdirAll(data, 0o755); err != nil {
		return err
	}
	if err := canIsolate(o, data); err != nil {
		return err
	}
	cmd := exec.Command("go", arguments(o, modfile, overlay)...)
	cmd.Dir = o.Root
	cmd.Env = append(os.Environ(), environment(o, data)...)
	cmd.Stdout, cmd.Stderr = stream, messages
	err = cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == 1 {
		return nil // some test failed, which the stream tells
	}
	return err
}

// DataDir is where the servers of a run keep data and logs; it is emptied when the next run begins.
func DataDir(work string) string { return filepath.Join(work, "data") }

func arguments(o Options, modfile, overlay string) []string {
	args := []string{
		"test", "-json", "-vet=off", "-mod=mod", "-modfile=" + modfile, "-overlay=" + overlay,
		"-exec=" + filepath.Join(o.Root, "nsexec.sh"), "-count=1", "-timeout=" + o.Timeout,
		fmt.Sprintf("-p=%d", o.AtOnce), fmt.Sprintf("-parallel=%d", o.Parallel),
	}
	if o.Run != "" {
		args = append(args, "-run="+o.Run)
	}
	if o.Skip != "" {
		args = append(args, "-skip="+o.Skip)
	}
	return append(args, importPaths(o.Packages)...)
}

func environment(o Options, data string) []string {
	dirty := "1"
	if o.Fresh {
		dirty = ""
	}
	return []string{
		"COMPLEMENT_BASE_IMAGE=none",
		"DOCKER_HOST=unix:///nonexistent/docker.sock",
		"COMPLEMENT_HS_KIND=" + o.Kind,
		"COMPLEMENT_HS_CMD=" + o.Command,
		"COMPLEMENT_ENABLE_DIRTY_RUNS=" + dirty,
		"COMPLEMENT_WORK_DIR=" + data,
	}
}

// lock keeps two runs from sharing a work folder.
func lock(work string) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(work, "lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("another run uses %s (choose another with -work): %w", work, err)
	}
	return func() { f.Close() }, nil
}
