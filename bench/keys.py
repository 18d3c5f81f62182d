#!/usr/bin/env python3
"""Encryption's keys on several homeservers, one after the other: keys.py TARGET...

Targets are as target.py says. One device uploads KEYS (500, the most that Synapse keeps) one-time keys, 50 at
a time, and another user claims them one by one; then that user asks for the keys of MEMBERS (1000) users at
once, QUERIES (20) times. All signatures are real (PyNaCl, which Synapse brings along). Prints a table in
Markdown; the last target is compared with the first.
"""

import base64
import json
import os
import statistics
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from nacl.signing import SigningKey

from target import Target

KEYS = int(os.environ.get("KEYS", "500"))
MEMBERS = int(os.environ.get("MEMBERS", "1000"))
QUERIES = int(os.environ.get("QUERIES", "20"))
KEYS_AT_ONCE = 50
MAKERS = 8


def text(octets):
    return base64.b64encode(octets).decode().rstrip("=")


class Device:
    """A new user's only device, whose keys are uploaded."""

    def __init__(self, target, name):
        account = Target(target.text)  # with a token of its own
        answer = account.register(name)
        self.account, self.connection = account, account.connect()
        self.user, self.id, self.key = answer["user_id"], answer["device_id"], SigningKey.generate()
        keys = {
            f"ed25519:{self.id}": text(bytes(self.key.verify_key)),
            f"curve25519:{self.id}": text(os.urandom(32)),
        }
        algorithms = ["m.olm.v1.curve25519-aes-sha2", "m.megolm.v1.aes-sha2"]
        self.upload(device_keys=self.signed(
            {"user_id": self.user, "device_id": self.id, "algorithms": algorithms, "keys": keys}))

    def signed(self, content):
        """The object with this device's signature (specification: Appendices, Signing JSON)."""
        canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        signature = self.key.sign(canonical.encode()).signature
        return content | {"signatures": {self.user: {f"ed25519:{self.id}": text(signature)}}}

    def one_time_keys(self, count):
        return {f"signed_curve25519:{text(os.urandom(9))}": self.signed({"key": text(os.urandom(32))})
                for _ in range(count)}

    def post(self, path, body):
        return self.account.call(self.connection, "POST", f"/_matrix/client/v3/keys/{path}", body)

    def upload(self, **what):
        return self.post("upload", what)


def timed(target, work, arguments):
    """p50, p99 and CPU of one call, in ms."""
    took, cpu = [], target.cpu_s()
    for argument in arguments:
        at = time.monotonic()
        work(argument)
        took.append((time.monotonic() - at) * 1000)
    cpu = (target.cpu_s() - cpu) * 1000 / len(took)
    took.sort()
    return statistics.median(took), took[int(len(took) * 0.99)], cpu


def measure(target):
    run = f"keys{time.time_ns()}"
    owner, asking = Device(target, f"{run}owner"), Device(target, f"{run}asking")
    batches = [owner.one_time_keys(KEYS_AT_ONCE) for _ in range(KEYS // KEYS_AT_ONCE)]
    wanted = {"one_time_keys": {owner.user: {owner.id: "signed_curve25519"}}}
    claimed = set()

    def claim(_):
        keys = asking.post("claim", wanted)["one_time_keys"][owner.user][owner.id]
        claimed.update(keys)

    figures = {
        f"upload of {KEYS_AT_ONCE} one-time keys":
            timed(target, lambda keys: owner.upload(one_time_keys=keys), batches),
        "claim of one": timed(target, claim, range(KEYS_AT_ONCE * len(batches))),
    }
    if len(claimed) != KEYS_AT_ONCE * len(batches):
        raise SystemExit(f"{target.name}: {len(claimed)} keys were claimed, each once")
    with ThreadPoolExecutor(MAKERS) as pool:
        members = list(pool.map(lambda n: Device(target, f"{run}member{n}").user, range(MEMBERS)))
    wanted = {"device_keys": {user: [] for user in members}}

    def query(_):
        if len(asking.post("query", wanted)["device_keys"]) != MEMBERS:
            raise SystemExit(f"{target.name}: the keys of some are missing")

    figures[f"keys of {MEMBERS} users"] = timed(target, query, range(QUERIES))
    return figures


def main():
    if not sys.argv[1:] or "-h" in sys.argv:
        raise SystemExit(__doc__)
    targets = [Target(text) for text in sys.argv[1:]]
    all_figures = {target.name: measure(target) for target in targets}
    first, last = all_figures[targets[0].name], all_figures[targets[-1].name]
    print("| step | " + " | ".join(f"{name}: p50, p99, CPU" for name in all_figures) + " | ratios |")
    print("|---" * (len(all_figures) + 2) + "|")
    for step in first:
        cells = ["{:.2f}, {:.2f}, {:.2f} ms".format(*figures[step]) for figures in all_figures.values()]
        ratios = [f"{a / max(b, 0.001):.1f}x" for a, b in zip(first[step], last[step])]
        print(f"| {step} | " + " | ".join(cells) + " | " + ", ".join(ratios) + " |")


main()
