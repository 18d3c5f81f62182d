"""A homeserver under measurement: what search.py and keys.py share.

A target is NAME=URL,secret=REGISTRATION_SHARED_SECRET,pidfile=FILE[+FILE]. CPU is that of the processes in
the pidfiles and their children, from /proc.
"""

import hashlib
import hmac
import http.client
import json
import os
import urllib.parse
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


class Target:
    def __init__(self, text):
        self.text = text
        self.name, rest = text.split("=", 1)
        url, *options = rest.split(",")
        options = dict(option.split("=", 1) for option in options)
        self.address = urllib.parse.urlsplit(url).netloc
        self.secret, self.pidfiles = options["secret"], options["pidfile"].split("+")
        self.token = None

    def connect(self):
        return http.client.HTTPConnection(self.address, timeout=300)

    def call(self, connection, method, path, body=None):
        headers = {"content-type": "application/json"}
        if self.token:
            headers["authorization"] = f"Bearer {self.token}"
        connection.request(method, path, json.dumps(body) if body is not None else None, headers)
        answer = connection.getresponse()
        text = answer.read()
        if answer.status != 200:
            raise SystemExit(f"{self.name}: {method} {path}: {answer.status} {text[:300]}")
        return json.loads(text)

    def register(self, user):
        """Makes an account, whose token is used from now on, and returns the answer."""
        connection = self.connect()
        nonce = self.call(connection, "GET", "/_synapse/admin/v1/register")["nonce"]
        parts = [nonce, user, "secret-password", "notadmin"]
        mac = hmac.new(self.secret.encode(), "\0".join(parts).encode(), hashlib.sha1).hexdigest()
        body = {"nonce": nonce, "username": user, "password": parts[2], "admin": False, "mac": mac}
        answer = self.call(connection, "POST", "/_synapse/admin/v1/register", body)
        self.token = answer["access_token"]
        return answer

    def cpu_s(self):
        """CPU seconds of all its processes."""
        roots = {int(Path(file).read_text().split()[0]) for file in self.pidfiles}
        fields = {}
        for folder in Path("/proc").iterdir():
            if folder.name.isdigit():
                try:
                    stat = (folder / "stat").read_text().rsplit(")", 1)[1].split()
                except OSError:
                    continue  # it has ended
                fields[int(folder.name)] = (int(stat[1]), int(stat[11]) + int(stat[12]))
        def is_ours(pid):
            while pid in fields and pid not in roots:
                pid = fields[pid][0]
            return pid in roots
        return sum(ticks for pid, (_, ticks) in fields.items() if is_ours(pid)) / TICKS
