// Command complement runs Complement's own tests against homeserver processes, without containers,
// and compares the results with the passes that are known. See README.md beside go.mod.
package main

import (
	"errors"
	"flag"
	"fmt"
	"hash/fnv"
	"io"
	"log"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"sort"
	"strings"

	"millrace/complement-tests/suite"
	"millrace/complement-tests/verdict"
)

// What the command returns.
const (
	exitLost   = 1 // a known pass was lost
	exitBroken = 2 // the suite could not be run
)

// defaultPackages are those of the specification, and of the MSCs that have become part of it or that
// clients use today. The others in Complement are of proposals that Millrace does not implement.
var defaultPackages = []string{
	"tests", "tests/csapi",
	"tests/msc3391", "tests/msc3757", "tests/msc3874", "tests/msc3890", "tests/msc3902",
	"tests/msc3930", "tests/msc3967", "tests/msc4155", "tests/msc4222", "tests/msc4306",
}

type options struct {
	suite.Options
	server      string
	local       bool
	update      bool
	ifAvailable bool
	retry       bool
	lines       int
	out         string
}

func main() {
	log.SetFlags(0)
	o, err := parse(os.Args[1:])
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err != nil {
		log.Print(err)
		os.Exit(exitBroken)
	}
	lost, err := run(o)
	var unavailable *suite.Unavailable
	switch {
	case errors.As(err, &unavailable) && o.ifAvailable:
		fmt.Println(err, "(not run)")
	case err != nil:
		log.Print(err)
		os.Exit(exitBroken)
	case lost > 0:
		os.Exit(exitLost)
	}
}

func parse(args []string) (options, error) {
	var o options
	root, err := os.Getwd()
	if err != nil {
		return o, err
	}
	o.Root = root
	f := flag.NewFlagSet("complement-tests/run", flag.ContinueOnError)
	f.Usage = func() {
		fmt.Fprintf(f.Output(), "complement-tests/run [flags] [packages, default %s]\n", strings.Join(defaultPackages, " "))
		f.PrintDefaults()
	}
	f.StringVar(&o.server, "server", "millrace", "the homeserver: a script hs/`NAME`.sh")
	f.BoolVar(&o.local, "local", false, "only the tests of local-tests.tsv: no second server, no encryption keys, no media")
	f.BoolVar(&o.update, "update", false, "add new passes to known-passes.txt")
	f.BoolVar(&o.ifAvailable, "if-available", false, "where Complement cannot be had, say so and succeed")
	f.BoolVar(&o.retry, "retry", true, "run what was lost once more, alone: it is lost if it fails again")
	f.StringVar(&o.Run, "run", "", "go test -run")
	f.StringVar(&o.Skip, "skip", "", "go test -skip")
	f.StringVar(&o.Timeout, "timeout", "60m", "go test -timeout, per package")
	f.IntVar(&o.AtOnce, "p", 2, "packages at once")
	f.IntVar(&o.Parallel, "parallel", 4, "parallel tests in a package")
	f.BoolVar(&o.Fresh, "fresh", false, "new servers for each test (slow)")
	f.IntVar(&o.lines, "lines", 6, "lines of output shown per failure (twice as many for a lost pass)")
	f.StringVar(&o.Work, "work", defaultWork(root), "scratch folder")
	f.StringVar(&o.out, "o", "", "also write go test -json to this file")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	if o.Packages = f.Args(); len(o.Packages) == 0 {
		o.Packages = defaultPackages
	}
	if o.local && o.Run != "" {
		return o, errors.New("-local and -run exclude each other")
	}
	if o.Work, err = filepath.Abs(o.Work); err != nil {
		return o, err
	}
	return o, o.findServer()
}

// defaultWork is a folder that only runs of this checkout use.
func defaultWork(root string) string {
	h := fnv.New32a()
	io.WriteString(h, root)
	return filepath.Join(os.TempDir(), fmt.Sprintf("millrace-complement-%08x", h.Sum32()))
}

func (o *options) findServer() error {
	script := filepath.Join(o.Root, "hs", o.server+".sh")
	if _, err := os.Stat(script); err != nil {
		return fmt.Errorf("-server %s: %w", o.server, err)
	}
	o.Command = "exec '" + script + "'"
	if o.server != "millrace" {
		o.Kind = o.server // Millrace is spared nothing
		return nil
	}
	bin := os.Getenv("MILLRACE_BIN")
	if bin == "" {
		target := os.Getenv("CARGO_TARGET_DIR")
		if target == "" {
			target = filepath.Join(o.Root, "../target")
		}
		bin = filepath.Join(target, "debug/millrace")
	}
	bin, err := filepath.Abs(bin)
	if err != nil {
		return err
	}
	if _, err := os.Stat(bin); err != nil {
		return fmt.Errorf("no millrace to test: %w (build it, or set MILLRACE_BIN)", err)
	}
	return os.Setenv("MILLRACE_BIN", bin)
}

// run runs the suite and returns how many known passes were lost.
func run(o options) (lost int, err error) {
	if o.local {
		if o.Run, err = localPattern(filepath.Join(o.Root, "local-tests.tsv")); err != nil {
			return 0, err
		}
	}
	selected, err := verdict.NewSelection(o.Packages, o.Run, o.Skip)
	if err != nil {
		return 0, err
	}
	knownFile := filepath.Join(o.Root, "known-passes.txt")
	if o.server != "millrace" {
		knownFile = filepath.Join(o.Root, "known-passes-"+o.server+".txt")
	}
	known, err := verdict.ReadList(knownFile)
	if err != nil {
		return 0, err
	}
	results, err := runSuite(o)
	if err != nil {
		return 0, err
	}
	change := verdict.Compare(results, known, selected)
	if again := retryable(change.Lost); len(again.tests) > 0 && o.retry {
		fmt.Printf("\nA second try of what was lost: %s\n", again.pattern())
		second := o
		second.Packages, second.Run, second.out = again.packages, again.pattern(), ""
		secondResults, err := runSuite(second)
		if err != nil {
			return 0, err
		}
		change = change.Retry(results, secondResults)
	}
	fmt.Printf("\nServers' logs: %s\n", suite.DataDir(o.Work))
	change.Report(os.Stdout, results, o.lines)
	if o.update && len(change.New) > 0 {
		if err := verdict.WriteList(knownFile, append(known, change.New...)); err != nil {
			return 0, err
		}
	}
	if len(results.Outcomes) == 0 {
		return 0, errors.New("no test ran")
	}
	return len(change.Lost), nil
}

// retriedMax bounds the second try: a server that lost more than this is broken, not unlucky.
const retriedMax = 20

// again is what a second try runs: top-level tests.
type again struct {
	packages []string
	tests    []string
}

// retryable are the tests to be run once more; none where too much was lost.
func retryable(lost []verdict.Test) again {
	packages, tests := map[string]bool{}, map[string]bool{}
	for _, t := range lost {
		name, _, _ := strings.Cut(t.Name, "/")
		packages[t.Package], tests[name] = true, true
	}
	if len(tests) > retriedMax {
		return again{}
	}
	return again{slices.Sorted(maps.Keys(packages)), slices.Sorted(maps.Keys(tests))}
}

// pattern is the -run of exactly these tests.
func (a again) pattern() string {
	return exactly(a.tests)
}

// exactly is the -run of the top-level tests of these names.
func exactly(names []string) string {
	quoted := make([]string, len(names))
	for i, name := range names {
		quoted[i] = regexp.QuoteMeta(name)
	}
	sort.Strings(quoted)
	return "^(" + strings.Join(quoted, "|") + ")$"
}

// runSuite runs the tests and tells of each top-level test as it ends.
func runSuite(o options) (*verdict.Results, error) {
	read, write := io.Pipe()
	var stream io.Writer = write
	if o.out != "" {
		f, err := os.Create(o.out)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		stream = io.MultiWriter(f, write)
	}
	done := make(chan error, 1)
	go func() {
		err := suite.Run(o.Options, stream, os.Stderr)
		write.Close()
		done <- err
	}()
	results, readErr := verdict.Read(read, suite.Module+"/", func(t verdict.Test, outcome verdict.Outcome) {
		if t.TopLevel() {
			fmt.Printf("%s %s\n", outcome, t)
		}
	}, os.Stderr)
	read.CloseWithError(readErr) // else the suite would wait for a reader for ever
	if err := <-done; err != nil {
		return nil, err
	}
	return results, readErr
}

// localPattern is the -run of exactly the tests in the list.
func localPattern(file string) (string, error) {
	tests, err := verdict.ReadList(file)
	if err != nil {
		return "", err
	}
	if len(tests) == 0 {
		return "", fmt.Errorf("%s lists no test", file)
	}
	var names []string
	for _, t := range tests {
		names = append(names, t.Name)
	}
	return exactly(names), nil
}
