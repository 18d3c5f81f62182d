#!/usr/bin/env python3
"""Two users of matrix-nio talk with each other: nio_client.py BASE_URL talk|return STATE_FILE

`talk` is everything up to the restart of the server, `return` what comes after it. Each step
prints a line; the exit status is 1 when one did not hold.
"""

import asyncio
import logging
import secrets
import sys

import nio

from steps import expect, load, save, step

PASSWORD = "correct horse battery staple"
MESSAGES = 12  # from each of the two
PAGE = 5
POLL_MS = 20_000
POLLS_MAX = 20


def good(response):
    """The response, or an error with what the server said."""
    if isinstance(response, nio.ErrorResponse):
        raise AssertionError(f"{type(response).__name__}: {response.status_code} {response.message}")
    return response


async def log_in(base, user, device):
    client = nio.AsyncClient(base, user, config=nio.AsyncClientConfig(max_limit_exceeded=5, max_timeouts=2))
    good(await client.login(PASSWORD, device_name=device))
    return client


async def poll_until(client, found):
    """Long-polls /sync until `found(response)` gives something true, and returns that."""
    for _ in range(POLLS_MAX):
        response = good(await client.sync(timeout=POLL_MS))
        if result := found(response):
            return result
    raise AssertionError(f"not in {POLLS_MAX} answers of /sync")


def texts(response, room):
    """The message texts of a sync response in a joined room."""
    joined = response.rooms.join.get(room)
    return [e.body for e in joined.timeline.events if isinstance(e, nio.RoomMessageText)] if joined else []


async def send(client, room, text):
    content = {"msgtype": "m.text", "body": text}
    return good(await client.room_send(room, "m.room.message", content)).event_id


async def deliver(sender, receiver, room, text):
    """Sends while the receiver waits in a long-poll, and wants it there."""
    waiting = asyncio.create_task(poll_until(receiver, lambda r: text in texts(r, room)))
    await asyncio.sleep(0)  # the poll is on its way first; either order must deliver
    await send(sender, room, text)
    await waiting


async def history(client, room):
    """All message texts, oldest first, by paging backwards from the end."""
    found, start, pages = [], "", 0
    while True:
        page = good(await client.room_messages(room, start=start, limit=PAGE, direction=nio.MessageDirection.back))
        found += [e.body for e in page.chunk if isinstance(e, nio.RoomMessageText)]
        pages += 1
        if not page.end or not page.chunk:
            break
        start = page.end
    expect(pages > 1, "the history came in one page")
    return found[::-1]


async def talk(base, state):
    tag = secrets.token_hex(4)
    names = [f"anna-{tag}", f"ben-{tag}"]
    with step("nio: two users register"):
        for name in names:
            client = nio.AsyncClient(base, name)
            registered = good(await client.register(name, PASSWORD, "registration"))
            expect(registered.user_id.startswith(f"@{name}:"), registered.user_id)
            await client.close()
    with step("nio: they log in"):
        anna = await log_in(base, names[0], "laptop")
        ben = await log_in(base, names[1], "phone")
        for client in (anna, ben):
            expect(good(await client.whoami()).user_id == client.user_id, "whoami is somebody else")
            good(await client.sync(timeout=0, full_state=True))
    with step("nio: a room is created, with a name and a topic"):
        room = good(await anna.room_create(name="Tea", topic="What to drink")).room_id
    with step("nio: an invitation reaches the other by long-poll"):
        waiting = asyncio.create_task(poll_until(ben, lambda r: room in r.rooms.invite))
        good(await anna.room_invite(room, ben.user_id))
        await waiting
    with step("nio: joining shows at both"):
        seen = asyncio.create_task(poll_until(anna, lambda r: any(
            isinstance(e, nio.RoomMemberEvent) and e.state_key == ben.user_id and e.membership == "join"
            for e in (r.rooms.join[room].timeline.events if room in r.rooms.join else []))))
        good(await ben.join(room))
        await poll_until(ben, lambda r: room in r.rooms.join)
        await seen
        expect(ben.rooms[room].name == "Tea", f"the room is called {ben.rooms[room].name}")
    said = []
    with step(f"nio: {MESSAGES} messages each way arrive by long-poll"):
        for i in range(MESSAGES):
            for sender, receiver, who in ((anna, ben, "anna"), (ben, anna, "ben")):
                said.append(f"{who} says {i} ({tag}) \N{TEACUP WITHOUT HANDLE}")
                await deliver(sender, receiver, room, said[-1])
    with step("nio: paging back gives the whole history in order"):
        got = await history(ben, room)
        expect(got == said, f"{got} is not {said}")
    with step("nio: a token is dead after log-out"):
        spare = await log_in(base, names[0], "borrowed")
        good(await spare.logout())
        spare.access_token = spare.access_token or "gone"
        expect(isinstance(await spare.whoami(), nio.WhoamiError), "the token still works")
        await spare.close()
        token = anna.access_token
        good(await anna.logout())
        anna.access_token = token
        expect(isinstance(await anna.whoami(), nio.WhoamiError), "the token still works")
    save(state, {"names": names, "room": room, "said": said,
                 "ben": {"token": ben.access_token, "device": ben.device_id, "user": ben.user_id,
                         "since": ben.next_batch}})
    await anna.close()
    await ben.close()


async def come_back(base, state):
    kept = load(state)
    room, said = kept["room"], kept["said"]
    with step("nio, after the restart: both log in again"):
        anna = await log_in(base, kept["names"][0], "laptop")
        ben = await log_in(base, kept["names"][1], "tablet")
    with step("nio, after the restart: the room is there with its name, members and last messages"):
        for client in (anna, ben):
            recent = texts(good(await client.sync(timeout=0, full_state=True)), room)
            expect(recent and said[-len(recent):] == recent, f"the timeline is {recent}")
            expect(client.rooms[room].name == "Tea", f"the room is called {client.rooms[room].name}")
            members = {m.user_id for m in good(await client.joined_members(room)).members}
            expect(members == {anna.user_id, ben.user_id}, f"members: {members}")
    with step("nio, after the restart: the whole history is there"):
        got = await history(anna, room)
        expect(got == said, f"{got} is not {said}")
    with step("nio, after the restart: a device that stayed logged in syncs on from its old token"):
        phone = nio.AsyncClient(base, kept["ben"]["user"])
        phone.restore_login(kept["ben"]["user"], kept["ben"]["device"], kept["ben"]["token"])
        phone.next_batch = kept["ben"]["since"]
        missed = texts(good(await phone.sync(timeout=0)), room)
        expect(missed == said[-1:], f"it had seen all but its own last message, and gets {missed}")
        await deliver(anna, phone, room, "still there?")
    with step("nio, after the restart: they talk on, and log out everywhere"):
        await deliver(phone, anna, room, "of course")
        for client in (phone, anna):
            good(await client.logout(all_devices=True))
        expect(isinstance(await ben.whoami(), nio.WhoamiError), "the tablet is still logged in")
    for client in (anna, ben, phone):
        await client.close()


def main():
    base, phase, state = sys.argv[1:]
    logging.getLogger("nio").setLevel(logging.CRITICAL)  # it warns of every error answer we ask for
    asyncio.run({"talk": talk, "return": come_back}[phase](base, state))


if __name__ == "__main__":
    main()
