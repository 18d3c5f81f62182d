"""Millrace and a real Synapse: what users of one see of users of the other. See README.md."""

import argparse
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import time
import traceback
import zlib
from pathlib import Path

from client import Client, Refused, quote
from push import Browser, Gateway
from servers import Pair

SCENARIOS = []


def scenario(function):
    SCENARIOS.append(function)
    return function


class World:
    """One scenario's users: Alice is on the `here` server, Bob on the `there` server."""

    def __init__(self, pair, here, there, number):
        self.pair, self.here, self.there, self.number = pair, here, there, number
        self.alice, self.bob = self.user(here, "alice"), self.user(there, "bob")

    def user(self, server, name):
        return Client(server, f"{name}{self.number}")

    def shared_room(self, **options):
        """A room that Alice made and Bob joined."""
        room = self.alice.create(**{"preset": "public_chat", **options})
        self.bob.join(room, self.here.name)
        self.alice.sees_member(room, self.bob.user, "join")
        self.bob.sees_member(room, self.bob.user, "join")
        return room


def refused(call, *status):
    try:
        call()
    except Refused as error:
        assert error.status in status, error
        return
    raise AssertionError("was not refused")


def eventually(what, check, seconds=30):
    end = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < end, f"waited {seconds} s in vain for {what}"
        time.sleep(0.3)


def bodies(client, room):
    return [e["content"].get("body") for e in client.history(room) if e["type"] == "m.room.message"]


@scenario
def join_by_alias_and_talk(w):
    room = w.alice.create(preset="public_chat", room_alias_name=f"lobby{w.number}")
    assert w.bob.join(f"#lobby{w.number}:{w.here.name}") == room
    w.alice.sees_member(room, w.bob.user, "join")
    w.bob.sees(room, w.alice.send(room, "hello"))
    w.alice.sees(room, w.bob.send(room, "hello yourself"))


@scenario
def invite_accepted_and_rejected(w):
    room = w.alice.create(preset="private_chat", name="Private")
    w.alice.membership("invite", room, w.bob.user)
    names = [e["content"].get("name") for e in w.bob.sees_invite(room)]
    assert "Private" in names, names
    w.bob.join(room)
    w.alice.sees_member(room, w.bob.user, "join")
    w.bob.sees(room, w.alice.send(room, "you came"))
    other = w.alice.create(preset="private_chat", invite=[w.bob.user])
    w.bob.sees_invite(other)
    w.bob.membership("leave", other)
    w.alice.sees_member(other, w.bob.user, "leave")


@scenario
def edits_reactions_and_redactions(w):
    room = w.shared_room()
    event = w.alice.send(room, "tpyo")
    w.bob.sees(room, event)
    edit = {"msgtype": "m.text", "body": "* typo", "m.new_content": {"msgtype": "m.text", "body": "typo"},
            "m.relates_to": {"rel_type": "m.replace", "event_id": event}}
    w.bob.sees(room, w.alice.send(room, edit))
    seen = lambda: w.bob.get(f"/rooms/{quote(room)}/event/{quote(event)}")
    replaced = seen()["unsigned"]["m.relations"]["m.replace"]
    assert replaced["content"]["m.new_content"]["body"] == "typo", replaced
    reaction = {"m.relates_to": {"rel_type": "m.annotation", "event_id": event, "key": "+1"}}
    w.alice.sees(room, w.bob.send(room, reaction, "m.reaction"))
    w.bob.sees(room, w.alice.redact(room, event))
    eventually("the redaction to be applied", lambda: "body" not in seen()["content"])


@scenario
def receipts_typing_and_presence(w):
    room = w.shared_room()
    event = w.alice.send(room, "read me")
    w.bob.sees(room, event)
    w.bob.post(f"/rooms/{quote(room)}/receipt/m.read/{quote(event)}")
    w.alice.sees_ephemeral(room, "a receipt", lambda e: e["type"] == "m.receipt"
                           and w.bob.user in e["content"].get(event, {}).get("m.read", {}))
    w.bob.put(f"/rooms/{quote(room)}/typing/{quote(w.bob.user)}", {"typing": True, "timeout": 20000})
    w.alice.sees_ephemeral(room, "Bob to type", lambda e: e["type"] == "m.typing"
                           and w.bob.user in e["content"]["user_ids"])
    w.bob.put(f"/presence/{quote(w.bob.user)}/status", {"presence": "online", "status_msg": "here"})
    w.alice.until("Bob's presence", lambda: w.alice.presence.get(w.bob.user, {}).get("status_msg") == "here")


@scenario
def profiles(w):
    room = w.shared_room()
    w.bob.put(f"/profile/{quote(w.bob.user)}/displayname", {"displayname": "Bobby"})
    shown = lambda: w.alice.state[room]["m.room.member", w.bob.user]["content"].get("displayname") == "Bobby"
    w.alice.until("Bob's new name", shown)
    assert w.alice.get(f"/profile/{quote(w.bob.user)}/displayname") == {"displayname": "Bobby"}


@scenario
def kick_ban_and_return(w):
    room = w.shared_room()
    w.alice.membership("kick", room, w.bob.user, reason="out")
    w.bob.sees_member(room, w.bob.user, "leave")
    refused(lambda: w.bob.send(room, "still here"), 403)
    w.bob.join(room, w.here.name)
    w.alice.sees_member(room, w.bob.user, "join")
    w.bob.sees(room, w.alice.send(room, "welcome back"))
    w.alice.membership("ban", room, w.bob.user)
    w.bob.sees_member(room, w.bob.user, "ban")
    refused(lambda: w.bob.join(room, w.here.name), 403)
    w.alice.membership("unban", room, w.bob.user)
    w.bob.join(room, w.here.name)
    w.alice.sees_member(room, w.bob.user, "join")


@scenario
def knocking(w):
    rules = {"type": "m.room.join_rules", "state_key": "", "content": {"join_rule": "knock"}}
    room = w.alice.create(preset="private_chat", initial_state=[rules])
    refused(lambda: w.bob.join(room, w.here.name), 403)
    w.bob.knock(room, w.here.name)
    w.alice.sees_member(room, w.bob.user, "knock")
    w.alice.membership("invite", room, w.bob.user)
    w.bob.sees_invite(room)
    w.bob.join(room, w.here.name)
    w.alice.sees_member(room, w.bob.user, "join")


@scenario
def restricted_rooms(w):
    club = w.shared_room()
    rules = {"type": "m.room.join_rules", "state_key": "", "content": {
        "join_rule": "restricted", "allow": [{"type": "m.room_membership", "room_id": club}]}}
    room = w.alice.create(preset="private_chat", initial_state=[rules])
    carol = w.user(w.there, "carol")
    refused(lambda: carol.join(room, w.here.name), 403)
    w.bob.join(room, w.here.name)
    member = w.alice.sees_member(room, w.bob.user, "join")
    assert member["content"]["join_authorised_via_users_server"] == w.alice.user
    w.alice.sees(room, w.bob.send(room, "made it"))


@scenario
def aliases_and_directory(w):
    name = f"Shop {w.number}"
    room = w.alice.create(preset="public_chat", visibility="public", name=name, room_alias_name=f"shop{w.number}")
    found = w.bob.get(f"/directory/room/{quote(f'#shop{w.number}:{w.here.name}')}")
    assert found["room_id"] == room and w.here.name in found["servers"], found
    listed = w.bob.post(f"/publicRooms?server={quote(w.here.name)}", {"filter": {"generic_search_term": name}})
    assert [r["room_id"] for r in listed["chunk"]] == [room], listed
    refused(lambda: w.bob.get(f"/directory/room/{quote(f'#nothing:{w.here.name}')}"), 404)


@scenario
def upgrade(w):
    room = w.shared_room(room_version="10")
    new = w.alice.post(f"/rooms/{quote(room)}/upgrade", {"new_version": "11"})["replacement_room"]
    tombstone = lambda: w.bob.state[room].get(("m.room.tombstone", ""))
    w.bob.until("the tombstone", tombstone)
    assert tombstone()["content"]["replacement_room"] == new
    w.bob.join(new, w.here.name)
    w.alice.sees_member(new, w.bob.user, "join")
    w.bob.sees(new, w.alice.send(new, "moved"))


@scenario
def history_from_before_the_join(w):
    room = w.alice.create(preset="public_chat")
    said = [f"message {n}" for n in range(130)]
    for text in said:
        w.alice.send(room, text)
    w.bob.join(room, w.here.name)
    assert bodies(w.bob, room)[::-1] == said
    kinds = {e["type"] for e in w.bob.history(room)}
    assert "m.room.create" in kinds, kinds


@scenario
def a_fork_heals(w):
    room = w.shared_room()
    w.alice.membership("invite", room, w.user(w.here, "dora").user)
    levels = w.alice.get_state(room, "m.room.power_levels")
    levels["users"][w.bob.user] = 50
    w.bob.sees(room, w.alice.set_state(room, "m.room.power_levels", levels))
    w.pair.cut()
    mine = [w.alice.send(room, f"alice {n}") for n in range(5)]
    w.alice.set_state(room, "m.room.topic", {"topic": "Alice's"})
    w.alice.set_state(room, "m.room.name", {"name": "Alice's"})
    theirs = [w.bob.send(room, f"bob {n}") for n in range(5)]
    w.bob.set_state(room, "m.room.topic", {"topic": "Bob's"})
    w.pair.mend()
    # The next event of each side makes the other look for what it missed.
    nudges = [w.alice.send(room, "back"), w.bob.send(room, "back")]
    has = lambda client, events: set(events) <= {e["event_id"] for e in client.history(room)}
    eventually("Bob to have Alice's events", lambda: has(w.bob, mine + nudges[:1]), 60)
    eventually("Alice to have Bob's events", lambda: has(w.alice, theirs + nudges[1:]), 60)
    w.alice.send(room, "one more")
    eventually("the same state", lambda: w.alice.whole_state(room) == w.bob.whole_state(room), 60)


@scenario
def one_server_is_down_for_a_while(w):
    room = w.shared_room()
    w.there.stop()
    said = [w.alice.send(room, f"while you were away {n}") for n in range(60)]
    w.there.start()
    eventually("what was said meanwhile",
               lambda: set(said) <= {e["event_id"] for e in w.bob.history(room)}, 60)
    w.alice.sees(room, w.bob.send(room, "caught up"))


@scenario
def messages_to_devices(w):
    w.shared_room()
    device = w.bob.get("/account/whoami")["device_id"]
    for number in range(3):
        body = {"messages": {w.bob.user: {device: {"number": number}}}}
        w.alice.put(f"/sendToDevice/com.example.test/{w.number}-{number}", body)
    got = lambda: [e["content"]["number"] for e in w.bob.to_device if e["type"] == "com.example.test"]
    w.bob.until("messages to the device", lambda: len(got()) >= 3)
    w.bob.sync()
    assert got() == [0, 1, 2], got()


@scenario
def media(w):
    png = make_png(640, 480)
    for data, kind, name in [(b"plain text " * 1000, "text/plain", "a note.txt"), (png, "image/png", "picture.png")]:
        uri = w.alice.upload(data, kind, name)
        assert w.bob.download(uri) == (data, kind)
    thumbnail, kind = w.bob.raw("GET", f"/_matrix/client/v1/media/thumbnail/{uri}?width=32&height=32&method=scale")
    assert kind.startswith("image/") and 0 < len(thumbnail) < len(png), (kind, len(thumbnail))
    refused(lambda: w.bob.download(f"{w.here.name}/nothing"), 404)


def make_png(width, height):
    """A picture in which no two rows are alike."""
    rows = b"".join(b"\0" + bytes((x * y + channel * 80) % 251 for x in range(width) for channel in range(3))
                    for y in range(height))
    chunk = lambda kind, data: struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@scenario
def encrypted_conversation(w):
    """Two devices on each server, by matrix-js-sdk: tests/real-clients/js-sdk/encrypted.mjs."""
    with tempfile.TemporaryDirectory() as folder:
        urls = f"{w.here.client_url},{w.there.client_url}"
        done = subprocess.run(["node", f"{w.pair.node_scripts}/encrypted.mjs", urls, "talk", f"{folder}/state"],
                              capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout


@scenario
def a_browser_is_pushed_to_through_the_gateway(world):
    """Bob's server, whichever it is, hands what Alice writes to our gateway; only his browser can read it."""
    folder, authority = world.pair.millrace.folder.parent, world.pair.millrace.authority
    folder = Path(tempfile.mkdtemp(dir=folder))
    gateway = Gateway(folder, authority, world.pair.gateway)
    browser = Browser(authority)
    try:
        room = world.shared_room(name="Kitchen")
        world.bob.post("/pushers/set", browser.pusher(gateway))
        first = world.alice.send(room, "Tea?")
        eventually("a notification", lambda: len(browser.received) == 1)
        pushed = browser.received[0]
        assert (pushed["event_id"], pushed["room_id"], pushed["unread"]) == (first, room, 1), pushed
        assert pushed["content"] == {"msgtype": "m.text", "body": "Tea?"}, pushed
        assert (pushed["sender"], pushed["room_name"]) == (world.alice.user, "Kitchen"), pushed
        second = world.alice.send(room, "Still hot")
        eventually("another", lambda: len(browser.received) == 2)
        assert browser.received[1]["unread"] == 2, browser.received
        world.bob.sees(room, second)
        world.bob.post(f"/rooms/{quote(room)}/receipt/m.read/{quote(second)}")
        eventually("the badge to be cleared", lambda: browser.received[-1].get("unread") == 0)
        assert "event_id" not in browser.received[-1], browser.received
        browser.gone = True
        world.alice.send(room, "Cold now")
        eventually("the pusher to be gone", lambda: not world.bob.get("/pushers")["pushers"])
    finally:
        gateway.stop()


def main():
    parser = argparse.ArgumentParser()
    root = Path(__file__).resolve().parents[2]
    target = Path(os.environ.get("CARGO_TARGET_DIR", root / "target"))
    built = os.environ.get("MILLRACE_BIN", target / "debug/millrace")
    parser.add_argument("--millrace", default=built)
    parser.add_argument("--gateway", default=target / "debug/millrace-push-gateway")
    parser.add_argument("--node-scripts", help="folder with encrypted.mjs and matrix-js-sdk")
    parser.add_argument("--keep", action="store_true", help="keep the servers' folders")
    parser.add_argument("names", nargs="*")
    arguments = parser.parse_args()
    folder = tempfile.mkdtemp(prefix="millrace-interop-")
    pair = Pair(folder, Path(arguments.millrace).resolve())
    pair.node_scripts = arguments.node_scripts
    pair.gateway = Path(arguments.gateway).resolve()
    chosen = [s for s in SCENARIOS if not arguments.names or s.__name__ in arguments.names]
    failed = []
    try:
        pair.start()
        turns = [(pair.synapse, pair.millrace), (pair.millrace, pair.synapse)]
        plan = [(function, here, there) for function in chosen for here, there in turns]
        for number, (function, here, there) in enumerate(plan):
            label = f"{function.__name__} ({here.kind}'s room)"
            begun = time.monotonic()
            try:
                function(World(pair, here, there, number))
                print(f"pass {label} {time.monotonic() - begun:.1f} s", flush=True)
            except Exception:
                failed.append(label)
                print(f"FAIL {label}\n{traceback.format_exc()}", flush=True)
                pair.mend()
    finally:
        pair.stop()
        if failed or arguments.keep:
            print(f"The servers' folders: {folder}")
        else:
            shutil.rmtree(folder)
    print(f"{len(chosen) * 2 - len(failed)} passed, {len(failed)} failed")
    sys.exit(1 if failed or not chosen else 0)


if __name__ == "__main__":
    main()
