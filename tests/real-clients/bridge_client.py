"""heisenbridge, a bridge to IRC that others wrote, between a user of matrix-nio and an IRC client.

`run(count, binary, folder, python)` starts millrace, an IRC server and the bridge, lets both sides
talk, kills the bridge for a while, and counts the steps that held. `python` is the interpreter that
has heisenbridge and its IRC library.
"""

import asyncio
import pathlib
import re
import signal
import subprocess
import time

import nio

from servers import Server, free_port

USER, PASSWORD, OWNER = "alice", "correct horse battery staple", "@alice:localhost"
BOT, PUPPET = "@heisenbridge:localhost", "@irc_test_bob:localhost"
WAIT_S = 60
OUTAGE_MESSAGES = 30

CONFIG = """\
appservice_dir = "{folder}/appservices"
appservice_timeout_s = 10
appservice_retry_max_s = 2
[global.rate_limits]
enabled = false
"""


class Gate:
    """What millrace connects to: passes on to the bridge while it is open, and refuses else."""

    def __init__(self, port, behind):
        self.port, self.behind, self.server = port, behind, None

    async def open(self):
        self.server = await asyncio.start_server(self._pass_on, "127.0.0.1", self.port)

    async def close(self):
        self.server.close()
        self.server = None

    async def _pass_on(self, reader, writer):
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.behind)
        except OSError:
            writer.close()
            return

        async def copy(source, target):
            try:
                while data := await source.read(65536):
                    target.write(data)
                    await target.drain()
            except OSError:
                pass
            finally:
                target.close()

        try:
            await asyncio.gather(copy(reader, far_writer), copy(far_reader, writer))
        except asyncio.CancelledError:  # the test is over
            pass


class Irc:
    """A client of IRC that keeps what it is sent."""

    def __init__(self, nick):
        self.nick, self.lines, self.changed = nick, [], asyncio.Event()

    async def connect(self, port):
        end = time.monotonic() + WAIT_S
        while True:
            try:
                reader, self.writer = await asyncio.open_connection("127.0.0.1", port)
                break
            except OSError:
                if time.monotonic() > end:
                    raise
                await asyncio.sleep(0.1)
        self.task = asyncio.create_task(self._read(reader))
        self.send(f"NICK {self.nick}")
        self.send(f"USER {self.nick} 0 * :{self.nick}")
        await self.until(lambda line: " 001 " in line)

    def send(self, line):
        self.writer.write(line.encode() + b"\r\n")

    async def _read(self, reader):
        while line := await reader.readline():
            line = line.decode(errors="replace").rstrip()
            if line.startswith("PING"):
                self.send("PONG" + line[4:])
            self.lines.append(line)
            self.changed.set()

    async def until(self, found, start=0):
        """Waits for a line, and returns its place."""
        try:
            async with asyncio.timeout(WAIT_S):
                while True:
                    self.changed.clear()
                    for at, line in enumerate(self.lines[start:], start):
                        if found(line):
                            return at
                    await self.changed.wait()
        except TimeoutError:
            raise AssertionError(f"in {WAIT_S} s IRC only told {self.nick} {self.lines[start:]}") from None

    def said(self, channel):
        """Who said what in a channel."""
        pattern = re.compile(rf":([^! ]+)\S* PRIVMSG {re.escape(channel)} :(.*)")
        matches = map(pattern.match, self.lines)
        return [(match[1], match[2]) for match in matches if match]


class User:
    """A user of Matrix who keeps what is said in her rooms, and joins where she is invited."""

    def __init__(self, base):
        self.client = nio.AsyncClient(base, USER)
        self.events = []

    async def begin(self):
        answer = await self.client.register(USER, PASSWORD)
        if isinstance(answer, nio.ErrorResponse):
            raise AssertionError(answer.message)

    async def sync(self):
        answer = await self.client.sync(timeout=1000)
        if isinstance(answer, nio.ErrorResponse):
            raise AssertionError(answer.message)
        for room in answer.rooms.invite:
            await self.client.join(room)
        for room, joined in answer.rooms.join.items():
            self.events += [(room, event) for event in joined.timeline.events]

    async def until(self, found):
        """Syncs until `found(room, event)` gives something true, and returns that."""
        seen = 0
        async with asyncio.timeout(WAIT_S):
            while True:
                for room, event in self.events[seen:]:
                    if result := found(room, event):
                        return result
                seen = len(self.events)
                await self.sync()

    async def until_said(self, text, sender=None):
        """The room in which somebody says something with this text in it."""
        def found(room, event):
            body = getattr(event, "body", "")
            return room if text in body and sender in (None, event.sender) else None
        return await self.until(found)

    async def say(self, room, text):
        content = {"msgtype": "m.text", "body": text}
        answer = await self.client.room_send(room, "m.room.message", content)
        if isinstance(answer, nio.ErrorResponse):
            raise AssertionError(answer.message)

    async def command(self, room, text, answer):
        """Tells the bridge something, and waits until it says that it is done.

        It keeps what it is told in one piece: of two commands at once the older piece could be the
        one that lasts, and after its restart it would not know the newer.
        """
        await self.say(room, text)
        await self.until_said(answer)

    async def room_named(self, name):
        """The room that has this name, once she is in it."""
        async def named():
            for room, state in self.client.rooms.items():
                if state.name and name in state.name:
                    return room
            return None
        async with asyncio.timeout(WAIT_S):
            while not (room := await named()):
                await self.sync()
        return room


class Bridge:
    """A process of heisenbridge."""

    def __init__(self, python, registration, base, log):
        self.command = [python, "-m", "heisenbridge", "-v", "-c", registration]
        self.base, self.log, self.process = base, log, None

    def generate(self, port):
        command = [*self.command, "--listen-port", str(port), "--generate"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

    def start(self, port):
        with open(self.log, "ab") as log:
            command = [*self.command, "--listen-port", str(port), self.base]
            self.process = subprocess.Popen(command, stdout=log, stderr=log)

    async def running(self):
        """Waits until it takes invitations: what comes before breaks it."""
        async with asyncio.timeout(WAIT_S):
            while "bridge is now running" not in self.log.read_text(errors="replace"):
                await asyncio.sleep(0.1)

    def kill(self):
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()


class Steps:
    """Counts steps; after one that does not hold the rest is left out."""

    def __init__(self, count):
        self.count = count

    async def step(self, name, work):
        try:
            result = await work
        except Exception as error:
            self.count.add(False, f"FAILED bridge: {name}: {type(error).__name__}: {error}")
            raise
        self.count.add(True, f"ok bridge: {name}")
        return result


async def open_channel(alice, irc_port):
    """Makes the bridge connect to the IRC server, and returns the room of #room."""
    answer = await alice.client.room_create(is_direct=True, invite=[BOT])
    control = answer.room_id
    await alice.until_said("Howdy")
    await alice.command(control, "addnetwork test", "Network added")
    await alice.command(control, f"addserver test 127.0.0.1 {irc_port}", "Server added")
    await alice.say(control, "open test")
    network = await alice.room_named("test")
    await alice.command(network, "nick alice", "Nickname set to alice")
    await alice.command(network, "connect", "Welcome to __main__")  # so the IRC server greets
    await alice.say(network, "join #room")
    return await alice.room_named("#room")


async def talk(steps, alice, bob, gate, bridge, ports):
    channel = await steps.step("it connects to IRC and opens a channel as a room",
                               open_channel(alice, ports["irc"]))

    async def from_irc():
        bob.send("PRIVMSG #room :hello from IRC")
        room = await alice.until_said("hello from IRC", PUPPET)
        assert room == channel, f"it was said in {room}"
    await steps.step("what is said on IRC comes from a puppet", from_irc())

    async def from_matrix():
        await alice.say(channel, "hello from Matrix")
        await bob.until(lambda line: line.endswith(" PRIVMSG #room :hello from Matrix"))
        assert ("alice", "hello from Matrix") in bob.said("#room"), bob.said("#room")
    await steps.step("what is said on Matrix comes to IRC", from_matrix())

    async def outage():
        await gate.close()
        bridge.kill()
        start = len(bob.lines)
        for n in range(OUTAGE_MESSAGES):
            await alice.say(channel, f"meanwhile {n}")
        await asyncio.sleep(5)
        bridge.start(ports["bridge"])
        # It takes what it is sent as soon as it listens, and drops what is for channels that it has
        # not joined yet: so the gate stays closed until it has.
        await bob.until(lambda line: re.match(r":alice\S* JOIN :?#room", line), start)
        await asyncio.sleep(1)
        before = len(bob.said("#room"))
        await gate.open()
        await alice.say(channel, "after")
        await bob.until(lambda line: line.endswith(" PRIVMSG #room :after"), start)
        told = [text for nick, text in bob.said("#room")[before:] if nick == "alice"]
        wanted = [f"meanwhile {n}" for n in range(OUTAGE_MESSAGES)] + ["after"]
        assert told == wanted, f"IRC was told {told}"
    await steps.step("what is said while the bridge is dead comes afterwards, in order and once", outage())

    async def back():
        bob.send("PRIVMSG #room :are you back?")
        await alice.until_said("are you back?", PUPPET)
    await steps.step("it goes on both ways", back())


async def converse(count, server, bridge, ports):
    gate, bob, alice = Gate(ports["gate"], ports["bridge"]), Irc("bob"), User(server.base_url)
    try:
        await gate.open()
        await bob.connect(ports["irc"])
        bob.send("JOIN #room")
        await alice.begin()
        bridge.start(ports["bridge"])
        await bridge.running()
        await talk(Steps(count), alice, bob, gate, bridge, ports)
    finally:
        await alice.client.close()


def telling(log):
    """The lines of a log but those of requests that went well, which would bury the rest."""
    lines = log.read_text(errors="replace").splitlines()
    return [line for line in lines if not ("aiohttp.access" in line and ' 200 ' in line)]


def run(count, binary, folder, python):
    """All of it."""
    folder = pathlib.Path(folder)
    (folder / "appservices").mkdir(parents=True)
    ports = {name: free_port() for name in ["irc", "bridge", "gate"]}
    server = Server(binary, folder, CONFIG)
    bridge = Bridge(python, str(folder / "appservices" / "heisenbridge.yaml"), server.base_url,
                    folder / "bridge.log")
    bridge.generate(ports["gate"])
    irc, failed = None, count.failed
    try:
        command = [python, "-m", "irc.server", "-a", "127.0.0.1", "-p", str(ports["irc"])]
        with open(folder / "irc.log", "ab") as log:
            irc = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)
        if not server.start():
            count.add(False, "FAILED bridge: millrace starts with the registration")
            return
        try:
            asyncio.run(converse(count, server, bridge, ports))
        except Exception as error:  # counted where it happened, but for what comes before the steps
            if count.failed == failed:
                count.add(False, f"FAILED bridge: {type(error).__name__}: {error}")
        if count.failed > failed:
            for log in filter(pathlib.Path.exists, [folder / "bridge.log", folder / "irc.log"]):
                print(f"The end of {log.name}:", *telling(log)[-30:], sep="\n")
    finally:
        bridge.kill()
        if irc:
            irc.kill()
            irc.wait()
        server.end(count.failed > failed)
