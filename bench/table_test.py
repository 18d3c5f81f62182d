#!/usr/bin/env python3
"""Tests of table.py: python3 bench/table_test.py"""

import unittest

import table

GOAL = table.Goal("send-1", "send", "send", 60, (("p50", 20),))


def step(target, round_number, cpu, p50=10.0, ops=100, errors=0, name="send"):
    return {"scenario": "send-1", "step": name, "target": target, "round": round_number, "ops": ops, "errors": errors,
            "server_cpu_s": cpu, "db_cpu_s": 0.0, "p50_ms": p50, "p99_ms": 2 * p50}


def report(*steps):
    return {"args": ["-run", "all", "-target", "synapse=http://a,secret=…", "-target", "millrace=http://b"],
            "rounds": [s for s in steps if s["round"]], "median": [s for s in steps if not s["round"]]}


class Table(unittest.TestCase):
    def test_the_targets_come_in_the_order_of_the_command_line(self):
        self.assertEqual(table.targets(report()), ("synapse", "millrace"))

    def test_cpu_is_summed_over_the_rounds_and_latency_is_the_median(self):
        got = table.figures(report(step("a", 1, 0.0), step("a", 2, 0.01, errors=1), step("a", 0, 9, p50=3.0)), GOAL, "a")
        self.assertEqual(got, table.Figures(0.05, 3.0, 6.0, 200, 1))

    def test_a_step_that_a_target_did_not_run_meets_no_goal(self):
        self.assertIsNone(table.figures(report(), GOAL, "a"))
        line, met = table.row(GOAL, None, table.Figures(1, 1, 1, 1, 0))
        self.assertIn("not measured", line)
        self.assertFalse(met)

    def test_each_goal_of_a_row_must_be_met(self):
        base = table.Figures(60.0, 20.0, 40.0, 100, 0)
        for new, want in [((1.0, 1.0, 2.0, 100, 0), True), ((1.1, 1.0, 2.0, 100, 0), False),
                          ((1.0, 1.1, 2.0, 100, 0), False), ((1.0, 1.0, 2.0, 100, 1), False)]:
            self.assertEqual(table.row(GOAL, base, table.Figures(*new))[1], want, new)

    def test_a_goal_of_throughput_looks_at_when_all_was_seen(self):
        goal = table.Goal("send-1", "send", "inbound", 0, (("rate", 40),))
        seen = [step("a", 1, 1.0) | {"extra": {"seen_s": 4.0}}, step("a", 2, 1.0) | {"extra": {"seen_s": 6.0}}, step("a", 0, 1.0)]
        base = table.figures(report(*seen), goal, "a")
        self.assertEqual(base.rate, 20.0)
        for rate, want in [(800.0, True), (799.0, False)]:
            line, met = table.row(goal, base, table.Figures(1.0, 1.0, 1.0, 100, 0, rate))
            self.assertEqual(met, want, line)

    def test_every_quantile_that_a_goal_names_must_be_met(self):
        goal = table.Goal("federation", "deliver", "delivery", 0, table.DELIVERY)
        base = table.Figures(60.0, 20.0, 80.0, 100, 0)
        for new, want in [((1.0, 1.0, 10.0, 100, 0), True), ((1.0, 1.0, 11.0, 100, 0), False), ((1.0, 2.0, 10.0, 100, 0), False)]:
            self.assertEqual(table.row(goal, base, table.Figures(*new))[1], want, new)

    def test_idle_polls_that_are_not_open_do_not_count(self):
        idle = {"scenario": "idle-polls", "step": "idle", "rss_after_mib": 100.0, "errors": 0, "ops": 2000,
                "extra": {"open": 2000.0, "server%core": 0.5}}
        self.assertTrue(table.idle_line({"median": [idle]})[1])
        for change in ({"rss_after_mib": 200.0}, {"errors": 1}, {"extra": {"open": 1999.0, "server%core": 0.5}},
                       {"extra": {"open": 2000.0, "server%core": 1.01}}):
            self.assertFalse(table.idle_line({"median": [idle | change]})[1], change)


if __name__ == "__main__":
    unittest.main()
