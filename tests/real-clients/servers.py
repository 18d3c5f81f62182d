"""A millrace of a test's own."""

import pathlib
import random
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request

START_LIMIT_S = 60
STOP_LIMIT_S = 30

CONFIG = """\
[global]
server_name = "localhost"
database_path = "{folder}/database"
address = "127.0.0.1"
port = {port}
allow_registration = true
log = "info"
"""


def free_port():
    """A port that nobody listens on.

    One below those that the system gives to outgoing connections: such a connection could else take
    it before a server that is started again listens on it.
    """
    first_given = int(pathlib.Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    while True:
        port = random.randrange(10000, first_given)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


class Server:
    """A millrace process with its own folder and port, and more lines of configuration."""

    def __init__(self, binary, folder, more=""):
        port = free_port()
        self.binary, self.log = binary, folder / "millrace.log"
        self.base_url = f"http://127.0.0.1:{port}"
        self.config = folder / "conduit.toml"
        text = (CONFIG + more).format(folder=folder, port=port)
        self.config.write_text(text, encoding="utf-8")
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

    def end(self, failed):
        """Ends it, and shows the end of its log where something failed."""
        self.kill()
        if failed and self.log.exists():
            lines = self.log.read_text(errors="replace").splitlines()
            lines = [line for line in lines if " ruma_state_res::" not in line]
            print("The end of millrace's log:", *lines[-40:], sep="\n")
