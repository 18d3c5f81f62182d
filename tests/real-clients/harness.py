#!/usr/bin/env python3
"""Starts millrace, lets real clients use it, restarts it, and counts the steps that held.

Called by `run`, which installs the clients. With --base-url a server that runs already is used,
and is not restarted.
"""

import argparse
import os
import pathlib
import secrets
import subprocess
import sys
import tempfile

import bridge_client
from servers import Server, free_port

HERE = pathlib.Path(__file__).resolve().parent
CLIENT_LIMIT_S = 300

BOT = """\
id: echo
url: http://127.0.0.1:{port}
as_token: {as_token}
hs_token: {hs_token}
sender_localpart: echo
rate_limited: false
receive_ephemeral: true
de.sorunome.msc2409.push_ephemeral: true
org.matrix.msc3202: true
io.element.msc4190: true
namespaces:
  users: []
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


def run_client(count, command, phase):
    """Runs a client script for one phase and counts the lines of its steps."""
    run_script(count, [*command[:-1], phase, command[-1]], phase)


def run_script(count, command, phase):
    """Runs a script and counts the lines of its steps."""
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE,
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


def run_bot(count, binary, folder, python):
    """A bot, an application service, on a server of its own."""
    services, port = folder / "appservices", free_port()
    services.mkdir(parents=True)
    tokens = [secrets.token_hex(32), secrets.token_hex(32)]
    registration = BOT.format(port=port, as_token=tokens[0], hs_token=tokens[1])
    (services / "echo.yaml").write_text(registration, encoding="utf-8")
    server, failed = Server(binary, folder, 'appservice_dir = "{folder}/appservices"\n'), count.failed
    try:
        held = server.start()
        count.add(held, "ok millrace starts with a bot" if held else "FAILED millrace starts with a bot")
        if held:
            script = [python, str(HERE / "bot_client.py"), server.base_url, str(port), *tokens]
            run_script(count, script, "bot")
    finally:
        server.end(count.failed > failed)


def default_binary():
    """The debug binary, or what MILLRACE_BIN names."""
    target = os.environ.get("CARGO_TARGET_DIR") or HERE.parent.parent / "target"
    return os.environ.get("MILLRACE_BIN") or str(pathlib.Path(target) / "debug" / "millrace")


def main():
    options = argparse.ArgumentParser(prog="tests/real-clients/run")
    options.add_argument("--node-scripts", required=True, help=argparse.SUPPRESS)
    options.add_argument("--bridge-python", required=True, help=argparse.SUPPRESS)
    options.add_argument("--bot-python", required=True, help=argparse.SUPPRESS)
    options.add_argument("--base-url", help="use this server instead of a millrace of our own")
    options.add_argument("--only", choices=["nio", "js-sdk", "encrypted", "bridge", "bot"],
                         help="only one of the clients")
    options = options.parse_args()
    count = Count()
    with tempfile.TemporaryDirectory(prefix="millrace-real-clients-") as name:
        folder = pathlib.Path(name)
        server = None if options.base_url else Server(default_binary(), folder)
        base = options.base_url or server.base_url
        clients = {
            "nio": [sys.executable, str(HERE / "nio_client.py"), base, str(folder / "nio.json")],
            "js-sdk": ["node", f"{options.node_scripts}/client.mjs", base, str(folder / "js-sdk.json")],
            "encrypted": ["node", f"{options.node_scripts}/encrypted.mjs", base, str(folder / "encrypted.json")],
        }
        chosen = [c for n, c in clients.items() if options.only in (None, n)]
        try:
            if chosen:
                run_all(count, chosen, server)
        finally:
            if server:
                server.end(count.failed)
        if options.only in (None, "bridge") and not options.base_url:
            bridge_client.run(count, default_binary(), folder / "bridge", options.bridge_python)
        if options.only in (None, "bot") and not options.base_url:
            run_bot(count, default_binary(), folder / "bot", options.bot_python)
    print(f"{count.passed} passed, {count.failed} failed")
    sys.exit(count.failed > 0)


if __name__ == "__main__":
    main()
