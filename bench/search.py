#!/usr/bin/env python3
"""Full-text search on several homeservers, one after the other: search.py TARGET...

Targets are as target.py says. MESSAGES (20000) of twelve words each go into one room of each; the words are
the same for all targets, few of them frequent and most rare, as in a language. Then SEARCHES (200) for one
and for two words. Prints a table in Markdown; the last target is compared with the first.
"""

import os
import random
import statistics
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from target import Target

MESSAGES = int(os.environ.get("MESSAGES", "20000"))
SEARCHES = int(os.environ.get("SEARCHES", "200"))
WORDS = 8000
WORDS_EACH = 12
SENDERS = 8
INDEXED_WITHIN_S = 600


def vocabulary():
    letters = random.Random(1)
    return ["".join(letters.choices("abcdefghijklmnoprstuvwz", k=letters.randint(3, 10))) for _ in range(WORDS)]


def messages(words):
    chance = random.Random(2)
    weights = [1 / (rank + 1) for rank in range(WORDS)]
    return [" ".join(chance.choices(words, weights, k=WORDS_EACH)) for _ in range(MESSAGES)]


def fill(target, room, texts):
    def send(share):
        connection = target.connect()
        for number in range(share, len(texts), SENDERS):
            path = f"/_matrix/client/v3/rooms/{room}/send/m.room.message/bench{number}"
            target.call(connection, "PUT", path, {"msgtype": "m.text", "body": texts[number]})
    with ThreadPoolExecutor(SENDERS) as pool:
        list(pool.map(send, range(SENDERS)))


def search(target, connection, words):
    events = {"search_term": words, "order_by": "recent"}
    body = {"search_categories": {"room_events": events}}
    return target.call(connection, "POST", "/_matrix/client/v3/search", body)["search_categories"]["room_events"]


def measure(target, texts, queries):
    """p50, p99 (ms) and CPU (ms) of one search, and how many found something."""
    target.register(f"bench{time.time_ns()}")
    connection = target.connect()
    room = target.call(connection, "POST", "/_matrix/client/v3/createRoom", {})["room_id"]
    began = time.monotonic()
    fill(target, room, texts)
    print(f"{target.name}: {len(texts)} messages in {time.monotonic() - began:.0f} s", file=sys.stderr)
    filled = time.monotonic()
    last = " ".join(dict.fromkeys(texts[-1].split()))
    while search(target, connection, last)["count"] == 0:
        if time.monotonic() - filled > INDEXED_WITHIN_S:
            raise SystemExit(f"{target.name}: the last message is not found")
        time.sleep(0.2)
    figures = {}
    for title, terms in queries.items():
        took, found, cpu = [], 0, target.cpu_s()
        for term in terms:
            at = time.monotonic()
            found += search(target, connection, term)["count"] > 0
            took.append((time.monotonic() - at) * 1000)
        cpu = (target.cpu_s() - cpu) * 1000 / len(terms)
        took.sort()
        figures[title] = (statistics.median(took), took[int(len(took) * 0.99)], cpu, found)
    return figures


def main():
    if not sys.argv[1:] or "-h" in sys.argv:
        raise SystemExit(__doc__)
    targets = [Target(text) for text in sys.argv[1:]]
    words = vocabulary()
    texts = messages(words)
    chance = random.Random(3)
    said = [text.split() for text in chance.choices(texts, k=SEARCHES)]
    queries = {
        "one word": [chance.choice(text) for text in said],
        "two words": [" ".join(chance.sample(text, 2)) for text in said],
    }
    all_figures = {target.name: measure(target, texts, queries) for target in targets}
    first, last = targets[0].name, targets[-1].name
    print(f"| search in {MESSAGES} messages | " + " | ".join(f"{name}: p50, p99, CPU" for name in all_figures) + " | ratios |")
    print("|---" * (len(all_figures) + 2) + "|")
    for title in queries:
        row = [all_figures[name][title] for name in all_figures]
        cells = [f"{p50:.1f}, {p99:.1f}, {cpu:.2f} ms ({found} of {SEARCHES} found)" for p50, p99, cpu, found in row]
        ratios = [a / max(b, 0.001) for a, b in zip(all_figures[first][title][:3], all_figures[last][title][:3])]
        print(f"| {title} | " + " | ".join(cells) + " | " + ", ".join(f"{ratio:.1f}x" for ratio in ratios) + " |")


main()
