package verdict

// Change is how a run differs from the known passes.
type Change struct {
	// Lost are known passes that the run should have shown and that did not pass: failed, skipped,
	// or never reached.
	Lost []Test
	// New are passes that were not known.
	New []Test
}

// Compare sets a run against the known passes.
func Compare(r *Results, known []Test, selected *Selection) Change {
	var c Change
	isKnown := make(map[Test]bool, len(known))
	for _, t := range known {
		isKnown[t] = true
		if selected.Has(t) && r.Outcomes[t] != Pass {
			c.Lost = append(c.Lost, t)
		}
	}
	for _, t := range r.With(Pass) {
		if !isKnown[t] {
			c.New = append(c.New, t)
		}
	}
	sortTests(c.Lost)
	return c
}
