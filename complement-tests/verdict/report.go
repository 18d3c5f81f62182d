package verdict

import (
	"fmt"
	"io"
)

// Report writes what the run showed: failures that were not known passes with a short reason, new
// passes, lost passes with the end of their output, and as its last line
// "N passed, N failed, N skipped", subtests included. lines is how much of each output is shown.
func (c Change) Report(w io.Writer, r *Results, lines int) {
	lost := map[Test]bool{}
	for _, t := range c.Lost {
		lost[t] = true
	}
	heading := false
	for _, t := range r.With(Fail) {
		if lost[t] {
			continue
		}
		if !heading {
			fmt.Fprintln(w, "\nFailing, and not among the known passes:")
			heading = true
		}
		fmt.Fprintf(w, "  %s\n", t)
		if !r.hasFailedSubtest(t) {
			show(w, r.Tail(t, lines))
		}
	}
	for pkg, o := range r.Packages {
		if o == Fail && !r.anyIn(pkg) {
			fmt.Fprintf(w, "\nPackage %s ran no test:\n", pkg)
			show(w, r.Tail(Test{pkg, ""}, 4*lines))
		}
	}
	if len(c.New) > 0 {
		fmt.Fprintln(w, "\nNew passes:")
		for _, t := range c.New {
			fmt.Fprintf(w, "  %s\n", t)
		}
	}
	if len(c.Unsteady) > 0 {
		fmt.Fprintln(w, "\nPassed at the second try only:")
		for _, t := range c.Unsteady {
			fmt.Fprintf(w, "  %s\n", t)
			if !r.hasFailedSubtest(t) {
				show(w, r.Tail(t, lines))
			}
		}
	}
	if len(c.Lost) > 0 {
		fmt.Fprintln(w, "\nLost passes:")
		for _, t := range c.Lost {
			outcome, ran := r.Outcomes[t]
			if !ran {
				outcome = "not reached"
			}
			fmt.Fprintf(w, "  %s (%s)\n", t, outcome)
			if !r.hasFailedSubtest(t) {
				show(w, r.Tail(t, 2*lines))
			}
		}
	}
	p, f, s := r.Count(true)
	fmt.Fprintf(w, "\nTop-level tests: %d passed, %d failed, %d skipped. Known passes lost: %d, new: %d.\n",
		p, f, s, len(c.Lost), len(c.New))
	p, f, s = r.Count(false)
	fmt.Fprintf(w, "%d passed, %d failed, %d skipped\n", p, f, s)
}

func show(w io.Writer, lines []string) {
	for _, l := range lines {
		if len(l) > 600 {
			l = l[:600] + "…"
		}
		fmt.Fprintf(w, "      %s\n", l)
	}
}

// hasFailedSubtest tells whether a failure below t explains that of t.
func (r *Results) hasFailedSubtest(t Test) bool {
	for other, o := range r.Outcomes {
		if o == Fail && other.Package == t.Package && len(other.Name) > len(t.Name) &&
			other.Name[:len(t.Name)+1] == t.Name+"/" {
			return true
		}
	}
	return false
}

func (r *Results) anyIn(pkg string) bool {
	for t := range r.Outcomes {
		if t.Package == pkg {
			return true
		}
	}
	return false
}
