#!/usr/bin/env python3
"""A bot on mautrix-python, an application service that encrypts, answers a user of matrix-nio:

    bot_client.py BASE_URL PORT AS_TOKEN HS_TOKEN

The bot is told everything by transactions and never syncs: events, messages to its device, whose
devices changed, and how many one-time keys it has left. It makes its device itself (MSC4190).
"""

import asyncio
import sys
import tempfile
import time

import nio
from mautrix.appservice import AppService
from mautrix.appservice.state_store import ASStateStore
from mautrix.client import Client
from mautrix.client.state_store.memory import MemoryStateStore
from mautrix.crypto import OlmMachine
from mautrix.crypto.store import MemoryCryptoStore, StateStore
from mautrix.errors import EncryptionError
from mautrix.types import EventType, Membership, MessageType, TextMessageEventContent

from steps import expect, step

USER, PASSWORD, BOT = "ada", "correct horse battery staple", "@echo:localhost"
WAIT_S = 60
QUESTIONS = 5


class States(ASStateStore, MemoryStateStore):
    """What the bot knows of rooms."""

    def __init__(self):
        ASStateStore.__init__(self)
        MemoryStateStore.__init__(self)


class CryptoStates(StateStore):
    """The same, as the cryptography wants it."""

    def __init__(self, states):
        self.states = states

    async def is_encrypted(self, room_id):
        return bool(await self.states.is_encrypted(room_id))

    async def get_encryption_info(self, room_id):
        return await self.states.get_encryption_info(room_id)

    async def find_shared_rooms(self, user_id):
        rooms = [room for room, members in self.states.members.items() if user_id in members]
        return [room for room in rooms if await self.states.is_encrypted(room)]


class Bot:
    """Answers each message with what it says, encrypted where the room is."""

    def __init__(self, base, port, as_token, hs_token):
        states = States()
        self.port, self.token = port, as_token
        self.az = AppService(server=base, domain="localhost", as_token=as_token, hs_token=hs_token,
                             bot_localpart="echo", id="echo", state_store=states,
                             ephemeral_events=True, encryption_events=True)
        store = MemoryCryptoStore("", "pickle key")
        self.client = Client(base_url=base, mxid=BOT, sync_store=store, state_store=states)
        self.crypto = OlmMachine(self.client, store, CryptoStates(states))
        self.az.otk_handler = self.crypto.handle_as_otk_counts
        self.az.device_list_handler = self.crypto.handle_as_device_lists
        self.az.to_device_handler = self.crypto.handle_as_to_device_event
        self.az.matrix_event_handler(self.on_event)
        self.typed, self.tasks = set(), set()

    async def start(self):
        await self.az.start(host="127.0.0.1", port=self.port)
        self.client.api.token = self.token
        await self.client.create_device_msc4190(device_id="ECHO", initial_display_name="Echo")
        await self.crypto.load()
        await self.crypto.share_keys()
        await self.az.ping_self()

    async def on_event(self, event):
        task = asyncio.create_task(self.handle(event))  # keys come by the same transactions
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def handle(self, event):
        try:
            if event.type == EventType.ROOM_MEMBER and event.state_key == BOT:
                if event.content.membership == Membership.INVITE:
                    await self.az.intent.join_room(event.room_id)
                    await self.az.intent.get_joined_members(event.room_id)
                    await self.az.intent.get_state(event.room_id)
            elif event.type == EventType.TYPING:
                self.typed.update(event.content.user_ids)
            elif event.type == EventType.ROOM_ENCRYPTED:
                await self.answer(await self.decrypted(event))
            elif event.type == EventType.ROOM_MESSAGE:
                await self.answer(event)
        except Exception as error:
            print(f"the bot failed at {event.type}: {error!r}", file=sys.stderr)

    async def decrypted(self, event):
        where, session = event.room_id, event.content.session_id
        # mautrix waits for the session to come even where it is there.
        if not await self.crypto.crypto_store.has_group_session(where, session):
            await self.crypto.wait_for_session(where, session, timeout=20)
        return await self.crypto.decrypt_megolm_event(event)

    async def sealed(self, room, kind, content):
        try:
            return await self.crypto.encrypt_megolm_event(room, kind, content)
        except EncryptionError:  # the session is not shared yet, or used up
            await self.crypto.share_group_session(room, await self.az.state_store.get_members(room))
            return await self.crypto.encrypt_megolm_event(room, kind, content)

    async def answer(self, event):
        if event.sender == BOT:
            return
        room, kind = event.room_id, EventType.ROOM_MESSAGE
        content = TextMessageEventContent(msgtype=MessageType.NOTICE, body=f"echo: {event.content.body}")
        if await self.az.state_store.is_encrypted(room):
            content, kind = await self.sealed(room, kind, content), EventType.ROOM_ENCRYPTED
        await self.az.intent.send_message_event(room, kind, content)


def good(response):
    """The response, or an error with what the server said."""
    if isinstance(response, nio.ErrorResponse):
        raise AssertionError(f"{type(response).__name__}: {response.status_code} {response.message}")
    return response


async def until(ada, found):
    """Syncs until something is so."""
    end = time.monotonic() + WAIT_S
    while not (result := found()):
        expect(time.monotonic() < end, f"not in {WAIT_S} s")
        good(await ada.sync(timeout=1000))
        if ada.should_upload_keys:
            good(await ada.keys_upload())
        if ada.should_query_keys:
            good(await ada.keys_query())
    return result


async def room_with_bot(ada, encrypted):
    state = [nio.EnableEncryptionBuilder().as_dict()] if encrypted else []
    room = good(await ada.room_create(invite=[BOT], initial_state=state)).room_id
    await until(ada, lambda: room in ada.rooms and BOT in ada.rooms[room].users
                and BOT not in ada.rooms[room].invited_users)
    return room


async def talk(ada, room, heard):
    for n in range(QUESTIONS):
        content = {"msgtype": "m.text", "body": f"question {n}"}
        good(await ada.room_send(room, "m.room.message", content, ignore_unverified_devices=True))
        await until(ada, lambda n=n: (room, BOT, f"echo: question {n}") in heard)
    said = [text for where, who, text in heard if where == room and who == BOT]
    expect(said == [f"echo: question {n}" for n in range(QUESTIONS)], f"it said {said}")


async def main(base, port, as_token, hs_token):
    bot, heard, sealed = Bot(base, port, as_token, hs_token), [], []
    with tempfile.TemporaryDirectory() as store:
        with step("a bot on mautrix-python starts, makes its device and uploads its keys"):
            await bot.start()
        config = nio.AsyncClientConfig(encryption_enabled=True)
        ada = nio.AsyncClient(base, USER, store_path=store, config=config)
        ada.add_event_callback(lambda room, event: heard.append((room.room_id, event.sender, event.body)),
                               nio.RoomMessage)
        ada.add_event_callback(lambda room, event: sealed.append(event), nio.MegolmEvent)
        with step("a user registers and uploads her keys"):
            good(await ada.register(USER, PASSWORD))
            good(await ada.sync(timeout=0))
            if ada.should_upload_keys:
                good(await ada.keys_upload())
        with step("the bot answers in a room without encryption"):
            room = await room_with_bot(ada, encrypted=False)
            await talk(ada, room, heard)
        with step("the bot answers in an encrypted room"):
            room = await room_with_bot(ada, encrypted=True)
            await talk(ada, room, heard)
            expect(not sealed, f"{len(sealed)} events could not be decrypted")
            kinds = {event["type"] for event in (await raw_events(ada, room)) if event["sender"] == BOT
                     and "state_key" not in event}
            expect(kinds == {"m.room.encrypted"}, f"it sent {kinds}")
        with step("the bot is told who types"):
            good(await ada.room_typing(room, True))
            end = time.monotonic() + WAIT_S
            while "@ada:localhost" not in bot.typed:
                expect(time.monotonic() < end, f"only {bot.typed}")
                await asyncio.sleep(0.1)
        await ada.close()


async def raw_events(ada, room):
    """The newest events as the server has them."""
    path = f"/_matrix/client/v3/rooms/{room}/messages?dir=b&limit=100"
    headers = {"Authorization": f"Bearer {ada.access_token}"}
    answer = await ada.send("GET", path, headers=headers)
    return (await answer.json())["chunk"]


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), *sys.argv[3:]))
