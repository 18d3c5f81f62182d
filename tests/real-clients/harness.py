#!/usr/bin/env python3
"""Starts millrace, lets real clients use it, restarts it, and counts the steps that held.

Called by `run`, which installs the clients. With --base-url a server that runs already is used,
and is not restarted.
"""

import argparse
import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
START_LIMIT_S = 60
STOP_LIMIT_S = 30
CLIENT_LIMIT_S = 300

CONFIG = """\
[global]
server_name = "localhost"
database_path = "{folder}/database"
address = "127.0.0.1"
port = {port}
allow_registration = true
log = "info"
"""


class Count:
    """Steps that held and that did not."""

    passed = 0
    failed = 0

    def add(self, held, line):
        """Prints the line and counts it."""
        print(line, flush=True)
        if held:
            self.passed += 1
        else:
            self.failed += 1


class Server:
    """A millrace process with its own folder and port."""

    def __init__(self, binary, folder):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.binary, self.log = binary, folder / "millrace.log"
        self.base_url = f"http://127.0.0.1:{port}"
        self.config = folder / "conduit.toml"
        self.config.write_text(CONFIG.format(folder=folder, port=port), encoding="utf-8")
        self.process = None

    def start(self):
        """Starts it and returns whether it answers."""
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen([self.binary, "serve", "--config", str(self.config)],
                                            stdout=log, stderr=log, start_new_session=True)
        end = time.monotonic() + START_LIMIT_S
        while time.monotonic() < end and self.process.poll() is None:
            try:
                with urllib.request.urlopen(self.base_url + "/_matrix/client/versions", timeout=5):
                    return True
            except (urllib.error.URLError, OSError):
                time.sleep(0.05)
        return False

    def interrupt(self):
        """Sends what Ctrl-C sends and returns whether it ended well and in time."""
        self.process.send_signal(signal.SIGINT)
        try:
            return self.process.wait(STOP_LIMIT_S) == 0
        except subprocess.TimeoutExpired:
            return False

    def kill(self):
        """Ends it whatever it does."""
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def run_client(count, command, phase):
    """Runs a client script for one phase and counts the lines of its steps."""
    try:
        done = subprocess.run([*command[:-1], phase, command[-1]], stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True, timeout=CLIENT_LIMIT_S, check=False)
    except subprocess.TimeoutExpired as error:
        print(error.stdout or "", end="")
        count.add(False, f"FAILED {command[0]} {phase}: it did not end in {CLIENT_LIMIT_S} s")
        return
    failed_before = count.failed
    for line in done.stdout.splitlines():
        if line.startswith(("ok ", "FAILED ")):
            count.add(line.startswith("ok "), line)
        else:
            print(line)
    if done.returncode == 0:
        return
    print(done.stderr, end="")  # both libraries chatter there also when all is well
    if count.failed == failed_before:
        count.add(False, f"FAILED {command[0]} {phase}: exit status {done.returncode}")


def run_all(count, clients, server):
    """Both phases of every client, with a restart in between where there is a server of ours."""
    if server:
        held = server.start()
        count.add(held, "ok millrace starts" if held else "FAILED millrace starts")
        if not held:
            return
    for command in clients:
        run_client(count, command, "talk")
    if server:
        held = server.interrupt()
        count.add(held, "ok millrace ends on SIGINT" if held
                  else f"FAILED millrace ends on SIGINT: status {server.process.poll()}")
        server.kill()
        held = server.start()
        count.add(held, "ok millrace starts again" if held else "FAILED millrace starts again")
        if not held:
            return
    for command in clients:
        if os.path.exists(command[-1]):  # else its first phase failed, which is counted
            run_client(count, command, "return")


def default_binary():
    """The debug binary, or what MILLRACE_BIN names."""
    target = os.environ.get("CARGO_TARGET_DIR") or HERE.parent.parent / "target"
    return os.environ.get("MILLRACE_BIN") or str(pathlib.Path(target) / "debug" / "millrace")


def main():
    options = argparse.ArgumentParser(prog="tests/real-clients/run")
    options.add_argument("--node-script", required=True, help=argparse.SUPPRESS)
    options.add_argument("--base-url", help="use this server instead of a millrace of our own")
    options.add_argument("--only", choices=["nio", "js-sdk"], help="only one of the clients")
    options = options.parse_args()
    count = Count()
    with tempfile.TemporaryDirectory(prefix="millrace-real-clients-") as name:
        folder = pathlib.Path(name)
        server = None if options.base_url else Server(default_binary(), folder)
        base = options.base_url or server.base_url
        clients = {
            "nio": [sys.executable, str(HERE / "nio_client.py"), base, str(folder / "nio.json")],
            "js-sdk": ["node", options.node_script, base, str(folder / "js-sdk.json")],
        }
        try:
            run_all(count, [c for n, c in clients.items() if options.only in (None, n)], server)
        finally:
            if server:
                server.kill()
                if count.failed and server.log.exists():
                    print("The end of millrace's log:")
                    print(*server.log.read_text(errors="replace").splitlines()[-40:], sep="\n")
    print(f"{count.passed} passed, {count.failed} failed")
    sys.exit(count.failed > 0)


if __name__ == "__main__":
    main()
