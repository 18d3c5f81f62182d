#!/usr/bin/env python3
"""Makes the README's speed tables from the load driver's JSON: table.py OUT.json [IDLE.json]
or table.py --federation OUT.json [OUT.json …]

CPU is summed over all rounds (one round of a fast step is near the clock's 10 ms), latencies are
medians over the rounds. The first target (or pair of servers) is the base of the ratios, the second
is compared with it. Exit status 1 when a goal is missed.
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
    cpu: int  # at least this many times less CPU; 0: not held to it
    # Of what ("p50", "p99", or "rate": how many a second are through) at least so many times better;
    # 0: not held to it.
    faster: tuple = (("p50", 0),)


GOALS = [
    Goal("send-1", "send", "send, sequential", 60, (("p50", 20),)),
    Goal("send-par", "send", "send, concurrent", 60),
    Goal("deliver", "K=100", "deliver to 100 long-polls, per delivery", 50, (("p99", 20),)),
    Goal("initial-sync", "again (distinct", "initial sync", 100),
    Goal("incremental-sync", "sync, no news", "sync without news", 40),
    Goal("ephemeral", "receipts", "receipts", 20),
    Goal("ephemeral", "typing", "typing", 20),
    Goal("e2ee-queue", "to-device", "message to 500 devices", 0),
    Goal("e2ee-queue", "keys/upload", "upload of 50 one-time keys", 0),
    Goal("e2ee-queue", "keys/claim", "claim of a one-time key", 0),
]

DELIVERY = (("p50", 20), ("p99", 8))
FEDERATION_GOALS = [
    Goal("federation", "deliver A->B, 10 receivers, small", "delivery, small room", 20, DELIVERY),
    Goal("federation", "deliver A->B, 10 receivers, large", "delivery, large room", 20, DELIVERY),
    Goal("federation", "first remote join, 60 members", "join of a room of 60", 0, (("p50", 20),)),
    Goal("federation", "first remote join, 500 members", "join of a room of 500", 0, (("p50", 20),)),
    Goal("federation", "inbound", "inbound events until visible", 0, (("rate", 40),)),
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
    rate: float = 0.0  # operations a second, where the step measures them

    def slowness(self, what):
        """What is to be small."""
        if what == "rate":
            return 1 / self.rate if self.rate else float("inf")
        return self.p99_ms if what == "p99" else self.p50_ms


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
    seen_s = sum((s.get("extra") or {}).get("seen_s", 0.0) for s in rounds)
    return Figures(cpu / ops * 1000, median["p50_ms"], median["p99_ms"], ops,
                   sum(s["errors"] for s in rounds), ops / seen_s if seen_s else 0.0)


def targets(report, option="target"):
    """The names of the first two targets (or pairs), in the order of the command line."""
    args = report["args"]
    given = [v for k, v in zip(args, args[1:]) if k in (f"-{option}", f"--{option}")]
    base, new = (g.split("=", 1)[0] for g in given[:2])
    return base, new


def row(goal, base, new):
    """A Markdown row, and whether all its goals are met."""
    if base is None or new is None or new.cpu_s == 0:
        return f"| {goal.title} | not measured | | | | |", False
    cpu = base.cpu_s / new.cpu_s
    met = cpu >= goal.cpu and new.errors == 0
    held = f"{cpu:.0f} ×" + (f" (goal {goal.cpu})" if goal.cpu else "")
    speeds = []
    for what, factor in goal.faster:
        faster = base.slowness(what) / new.slowness(what)
        met = met and faster >= factor
        at = "" if what == "rate" else f" at {what}"
        speeds.append(f"{faster:.0f} ×{at}" + (f" (goal {factor})" if factor else ""))
    errors = f" ({base.errors}/{new.errors} errors)" if base.errors or new.errors else ""
    if goal.faster[0][0] == "rate":
        latency = f"{base.rate:.3g} → {new.rate:.3g} a second"
    else:
        latency = f"{base.p50_ms:.3g} / {base.p99_ms:.3g} → {new.p50_ms:.3g} / {new.p99_ms:.3g}"
    return (f"| {goal.title}{errors} | {base.cpu_s:.3g} → {new.cpu_s:.3g} | {held} "
            f"| {latency} | {', '.join(speeds)} | {'yes' if met else '**no**'} |"), met


def idle_line(report):
    """A sentence about idle long-polls, and whether the goals are met."""
    [step] = [s for s in report["median"] if s["scenario"] == "idle-polls" and s["step"] == "idle"]
    extra = step["extra"]
    met = (step["rss_after_mib"] < IDLE_MIB_MAX and extra["server%core"] <= IDLE_CORE_PERCENT_MAX
           and step["errors"] == 0 and extra["open"] == step["ops"])
    return (f"{extra['open']:.0f} idle long-polls on a fresh process: {step['rss_after_mib']:.0f} MiB resident in all "
            f"(goal: below {IDLE_MIB_MAX}), {extra['server%core']:.2f} % of a core "
            f"(goal: at most {IDLE_CORE_PERCENT_MAX}). Goals {'met' if met else '**missed**'}."), met


def read(name):
    """A report of the driver."""
    with open(name, encoding="utf-8") as file:
        return json.load(file)


def head(base, new):
    """The head of a table."""
    print(f"| step | CPU s per 1,000, {base} → {new} | less CPU | ms p50 / p99 | faster | goal met |")
    print("|---|---|---|---|---|---|")


def clients(files):
    """Prints the table of one server's clients and returns whether all goals are met."""
    reports = [read(name) for name in files]
    base, new = targets(reports[0])
    head(base, new)
    all_met = True
    for goal in GOALS:
        line, met = row(goal, figures(reports[0], goal, base), figures(reports[0], goal, new))
        print(line)
        all_met = all_met and met
    if len(reports) > 1:
        line, met = idle_line(reports[1])
        print("\n" + line)
        all_met = all_met and met
    return all_met


def federation(files):
    """Prints the table of two servers of a kind, each goal from the first report that has its step."""
    reports = [read(name) for name in files]
    base, new = targets(reports[0], "pair")
    head(base, new)
    all_met = True
    for goal in FEDERATION_GOALS:
        found = [(figures(r, goal, base), figures(r, goal, new)) for r in reports]
        line, met = row(goal, *next((pair for pair in found if None not in pair), (None, None)))
        print(line)
        all_met = all_met and met
    return all_met


def main(args):
    """Prints the tables and returns the exit status."""
    met = federation(args[1:]) if args[0] == "--federation" else clients(args)
    return 0 if met else 1


if __name__ == "__main__":
    arguments = sys.argv[1:]
    of_federation = arguments[:1] == ["--federation"]
    if not (len(arguments) > 1 if of_federation else len(arguments) in (1, 2)):
        sys.exit(__doc__)
    sys.exit(main(arguments))
