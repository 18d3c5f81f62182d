"""A Matrix client on the standard library: one user of one server."""

import json
import time
import urllib.error
import urllib.parse
import urllib.request

WAIT_S = 30


class Refused(Exception):
    """The server answered with an error."""

    def __init__(self, status, body):
        super().__init__(f"{status} {body}")
        self.status, self.body = status, body

    @property
    def errcode(self):
        return self.body.get("errcode")


def quote(text):
    return urllib.parse.quote(text, safe="")


class Client:
    """A user, logged in on one device."""

    def __init__(self, server, name):
        self.server, self.token, self.since, self.transactions = server, None, None, 0
        body = {"username": name, "password": "password", "auth": {"type": "m.login.dummy"}}
        answer = self.post("/register", body)
        self.user, self.token = answer["user_id"], answer["access_token"]
        self.timelines, self.state, self.ephemeral, self.invites, self.presence = {}, {}, {}, {}, {}
        self.to_device = []

    def call(self, method, path, body=None, timeout=60):
        data = None if body is None else json.dumps(body).encode()
        return json.loads(self.raw(method, f"/_matrix/client/v3{path}", data, "application/json", timeout)[0])

    def raw(self, method, path, data=None, kind="application/octet-stream", timeout=60):
        """The body of the answer as it came, and its type."""
        request = urllib.request.Request(self.server.client_url + path, data, method=method)
        request.add_header("Content-Type", kind)
        if self.token:
            request.add_header("Authorization", f"Bearer {self.token}")
        try:
            with urllib.request.urlopen(request, timeout=timeout) as answer:
                return answer.read(), answer.headers.get_content_type()
        except urllib.error.HTTPError as error:
            text = error.read()
            try:
                body = json.loads(text)
            except ValueError:
                body = {"error": text.decode(errors="replace")}
            raise Refused(error.code, body) from None

    def get(self, path):
        return self.call("GET", path)

    def post(self, path, body=None):
        return self.call("POST", path, body or {})

    def put(self, path, body):
        return self.call("PUT", path, body)

    def create(self, **options):
        return self.post("/createRoom", options)["room_id"]

    def join(self, room_or_alias, *via):
        query = "&".join(f"server_name={quote(server)}&via={quote(server)}" for server in via)
        return self.post(f"/join/{quote(room_or_alias)}?{query}")["room_id"]

    def knock(self, room, *via):
        query = "&".join(f"server_name={quote(server)}&via={quote(server)}" for server in via)
        return self.post(f"/knock/{quote(room)}?{query}")["room_id"]

    def membership(self, action, room, user=None, **more):
        body = dict(more, **({"user_id": user} if user else {}))
        return self.post(f"/rooms/{quote(room)}/{action}", body)

    def send(self, room, content, kind="m.room.message"):
        if isinstance(content, str):
            content = {"msgtype": "m.text", "body": content}
        self.transactions += 1
        path = f"/rooms/{quote(room)}/send/{kind}/t{self.transactions}"
        return self.put(path, content)["event_id"]

    def redact(self, room, event):
        self.transactions += 1
        path = f"/rooms/{quote(room)}/redact/{quote(event)}/t{self.transactions}"
        return self.put(path, {})["event_id"]

    def upload(self, data, kind, name):
        """The server and the ID of a file that was uploaded."""
        body, _ = self.raw("POST", f"/_matrix/media/v3/upload?filename={quote(name)}", data, kind)
        return json.loads(body)["content_uri"].removeprefix("mxc://")

    def download(self, media):
        """A file's content and type."""
        return self.raw("GET", f"/_matrix/client/v1/media/download/{media}")

    def set_state(self, room, kind, content, key=""):
        path = f"/rooms/{quote(room)}/state/{kind}/{quote(key)}"
        return self.put(path, content)["event_id"]

    def get_state(self, room, kind, key=""):
        return self.get(f"/rooms/{quote(room)}/state/{kind}/{quote(key)}")

    def whole_state(self, room):
        """`(type, state_key) -> event ID` of the room's current state."""
        events = self.get(f"/rooms/{quote(room)}/state")
        return {(event["type"], event["state_key"]): event["event_id"] for event in events}

    def history(self, room, limit=100):
        """The room's events as far back as the server has or gets them, newest first."""
        events, start = [], ""
        while True:
            path = f"/rooms/{quote(room)}/messages?dir=b&limit={limit}{start}"
            page = self.get(path)
            events += page["chunk"]
            if "end" not in page or not page["chunk"]:
                return events
            start = f"&from={quote(page['end'])}"

    def sync(self, timeout_ms=0):
        query = f"?timeout={timeout_ms}" + (f"&since={quote(self.since)}" if self.since else "")
        answer = self.call("GET", f"/sync{query}")
        self.since = answer["next_batch"]
        rooms = answer.get("rooms", {})
        for section in ("join", "leave"):
            for room, news in rooms.get(section, {}).items():
                state = self.state.setdefault(room, {})
                for event in news.get("state", {}).get("events", []):
                    state[event["type"], event["state_key"]] = event
                for event in news.get("timeline", {}).get("events", []):
                    self.timelines.setdefault(room, []).append(event)
                    if "state_key" in event:
                        state[event["type"], event["state_key"]] = event
                for event in news.get("ephemeral", {}).get("events", []):
                    self.ephemeral.setdefault(room, []).append(event)
        for room, news in rooms.get("invite", {}).items():
            self.invites[room] = news["invite_state"]["events"]
        self.to_device += answer.get("to_device", {}).get("events", [])
        for event in answer.get("presence", {}).get("events", []):
            self.presence[event["sender"]] = event["content"]
        return answer

    def until(self, what, found):
        """Syncs until `found()` gives something true, and returns that."""
        end = time.monotonic() + WAIT_S
        while True:
            result = found()
            if result:
                return result
            if time.monotonic() > end:
                raise AssertionError(f"{self.user} waited {WAIT_S} s in vain for {what}")
            self.sync(1000)

    def sees(self, room, event):
        """Waits for an event in the room's timeline."""
        timeline = lambda: self.timelines.get(room, [])
        match = lambda: next((e for e in timeline() if e["event_id"] == event), None)
        return self.until(f"{event} in {room}", match)

    def sees_member(self, room, user, membership):
        """Waits until a member's state is so."""
        member = lambda: self.state.get(room, {}).get(("m.room.member", user))
        match = lambda: (member() or {}).get("content", {}).get("membership") == membership
        self.until(f"{user} to be {membership} in {room}", match)
        return member()

    def sees_invite(self, room):
        return self.until(f"an invitation to {room}", lambda: self.invites.get(room))

    def sees_ephemeral(self, room, what, match):
        events = lambda: self.ephemeral.get(room, [])
        return self.until(what, lambda: next((e for e in events() if match(e)), None))
