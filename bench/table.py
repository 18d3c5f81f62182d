#!/usr/bin/env python3
"""Makes the README's speed table from the load driver's JSON: table.py OUT.json [IDLE.json]

CPU is summed over all rounds (one round of a fast step is near the clock's 10 ms), latencies are
medians over the rounds. The first target of OUT.json is the base of the ratios, the second is
compared with it. Exit status 1 when a goal is missed.
"""

import json
import sys
from dataclasses import dataclass


@dataclass(frozen=True)
class Goal:
    """A row of the table: a step of the driver, and what the second target is held to."""

    scenario: str
    step: str  # the beginning of the step's name
    title: str
    cpu: int  # at least this many times less CPU
    latency: str = "p50"
    latency_factor: int = 0  # at least this many times faster; 0: not held to it


GOALS = [
    Goal("send-1", "send", "send, sequential", 60, "p50", 20),
    Goal("send-par", "send", "send, concurrent", 60),
    Goal("deliver", "K=100", "deliver to 100 long-polls, per delivery", 50, "p99", 20),
    Goal("initial-sync", "again (distinct", "initial sync", 100),
    Goal("incremental-sync", "sync, no news", "sync without news", 40),
    Goal("ephemeral", "receipts", "receipts", 20),
    Goal("ephemeral", "typing", "typing", 20),
]

IDLE_MIB_MAX = 200
IDLE_CORE_PERCENT_MAX = 1


@dataclass(frozen=True)
class Figures:
    """What one target needed for one step."""

    cpu_s: float  # per 1,000 operations, server and database
    p50_ms: float
    p99_ms: float
    ops: int
    errors: int


def figures(report, goal, target):
    """The figures of a step, or None where the target did not run it."""
    rounds = [s for s in report["rounds"] if s["scenario"] == goal.scenario
              and s["step"].startswith(goal.step) and s["target"] == target]
    ops = sum(s["ops"] for s in rounds)
    if not ops:
        return None
    [median] = [s for s in report["median"] if s["scenario"] == goal.scenario
                and s["step"].startswith(goal.step) and s["target"] == target]
    cpu = sum(s["server_cpu_s"] + s["db_cpu_s"] for s in rounds)
    return Figures(cpu / ops * 1000, median["p50_ms"], median["p99_ms"], ops,
                   sum(s["errors"] for s in rounds))


def targets(report):
    """The names of the first two targets, in the order of the command line."""
    args = report["args"]
    given = [v for k, v in zip(args, args[1:]) if k in ("-target", "--target")]
    base, new = (g.split("=", 1)[0] for g in given[:2])
    return base, new


def row(goal, base, new):
    """A Markdown row, and whether all its goals are met."""
    if base is None or new is None or new.cpu_s == 0:
        return f"| {goal.title} | not measured | | | | |", False
    cpu = base.cpu_s / new.cpu_s
    met = cpu >= goal.cpu and new.errors == 0
    held = f"{cpu:.0f} × (goal {goal.cpu})"
    faster = base.p99_ms / new.p99_ms if goal.latency == "p99" else base.p50_ms / new.p50_ms
    speed = f"{faster:.0f} × at {goal.latency}"
    if goal.latency_factor:
        met = met and faster >= goal.latency_factor
        speed += f" (goal {goal.latency_factor})"
    errors = f" ({base.errors}/{new.errors} errors)" if base.errors or new.errors else ""
    return (f"| {goal.title}{errors} | {base.cpu_s:.3g} → {new.cpu_s:.3g} | {held} "
            f"| {base.p50_ms:.3g} / {base.p99_ms:.3g} → {new.p50_ms:.3g} / {new.p99_ms:.3g} | {speed} "
            f"| {'yes' if met else '**no**'} |"), met


def idle_line(report):
    """A sentence about idle long-polls, and whether the goals are met."""
    [step] = [s for s in report["median"] if s["scenario"] == "idle-polls" and s["step"] == "idle"]
    extra = step["extra"]
    met = (step["rss_after_mib"] < IDLE_MIB_MAX and extra["server%core"] <= IDLE_CORE_PERCENT_MAX
           and step["errors"] == 0 and extra["open"] == step["ops"])
    return (f"{extra['open']:.0f} idle long-polls on a fresh process: {step['rss_after_mib']:.0f} MiB resident in all "
            f"(goal: below {IDLE_MIB_MAX}), {extra['server%core']:.2f} % of a core "
            f"(goal: at most {IDLE_CORE_PERCENT_MAX}). Goals {'met' if met else '**missed**'}."), met


def main(files):
    """Prints the table and returns the exit status."""
    reports = []
    for name in files:
        with open(name, encoding="utf-8") as file:
            reports.append(json.load(file))
    base, new = targets(reports[0])
    print(f"| step | CPU s per 1,000, {base} → {new} | less CPU | ms p50 / p99 | faster | goal met |")
    print("|---|---|---|---|---|---|")
    all_met = True
    for goal in GOALS:
        line, met = row(goal, figures(reports[0], goal, base), figures(reports[0], goal, new))
        print(line)
        all_met = all_met and met
    if len(reports) > 1:
        line, met = idle_line(reports[1])
        print("\n" + line)
        all_met = all_met and met
    return 0 if all_met else 1


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1:]))
