package verdict

// Change is how a run differs from the known passes.
type Change struct {
	// Lost are known passes that the run should have shown and that did not pass: failed, skipped,
	// or never reached.
	Lost []Test
	// New are passes that were not known.
	New []Test
	// Unsteady are known passes that passed at the second try only.
	Unsteady []Test
}

// Retry takes over what a second run of the lost passes showed: those that pass there are lost no more,
// but unsteady.
func (c Change) Retry(r, second *Results) Change {
	lost := c.Lost
	c.Lost = nil
	for _, t := range lost {
		if second.Outcomes[t] != Pass {
			c.Lost = append(c.Lost, t)
			continue
		}
		r.Outcomes[t] = Pass
		c.Unsteady = append(c.Unsteady, t)
	}
	return c
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
