"""The two servers under test, their certificates, and the link between them."""

import contextlib
import os
import random
import secrets
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

START_S = 60


def free_port():
    """A port that nobody listens on.

    One below those that the system gives to outgoing connections: such a connection could else take
    it before a server that is started again listens on it.
    """
    first_given = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    while True:
        port = random.randrange(10000, first_given)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


class Relay:
    """A port that leads to another, while it is open."""

    def __init__(self, target):
        self.target, self.is_open, self.pairs = target, True, set()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            near, _ = self.listener.accept()
            if not self.is_open:
                near.close()
                continue
            threading.Thread(target=self.carry, args=(near,), daemon=True).start()

    def carry(self, near):
        try:
            far = socket.create_connection(("127.0.0.1", self.target))
        except OSError:
            near.close()
            return
        pair = (near, far)
        self.pairs.add(pair)
        with contextlib.suppress(OSError, ValueError):
            while self.is_open:
                for ready in select.select(pair, [], [], 0.2)[0]:
                    data = ready.recv(65536)
                    if not data:
                        raise OSError("closed")
                    (far if ready is near else near).sendall(data)
        self.pairs.discard(pair)
        near.close()
        far.close()

    def cut(self):
        self.is_open = False

    def mend(self):
        self.is_open = True


class Authority:
    """A certificate authority for one run."""

    def __init__(self, folder):
        self.folder = folder
        self.certificate = folder / "ca.pem"
        self.openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                     "-days", "2", "-subj", "/CN=interop", "-keyout", "ca.key", "-out", "ca.pem",
                     "-addext", "basicConstraints=critical,CA:TRUE")

    def openssl(self, *arguments):
        subprocess.run(["openssl", *arguments], cwd=self.folder, check=True, capture_output=True)

    def issue(self, name):
        """A certificate for localhost, and its key."""
        key, request, certificate = f"{name}.key", f"{name}.csr", f"{name}.pem"
        self.openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                     "-subj", "/CN=localhost", "-keyout", key, "-out", request)
        extensions = self.folder / f"{name}.ext"
        extensions.write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
        self.openssl("x509", "-req", "-in", request, "-CA", "ca.pem", "-CAkey", "ca.key",
                     "-CAcreateserial", "-days", "2", "-extfile", str(extensions), "-out", certificate)
        return self.folder / certificate, self.folder / key


class Server:
    """A homeserver in a process of its own."""

    kind = None

    def __init__(self, folder, authority):
        self.folder, self.authority, self.process = folder, authority, None
        folder.mkdir()
        self.certificate, self.key = authority.issue(self.kind)
        self.client_port, self.federation_port = free_port(), free_port()
        self.relay = Relay(self.federation_port)
        self.name = f"localhost:{self.relay.port}"
        self.client_url = f"http://127.0.0.1:{self.client_port}"
        self.configure()

    def start(self):
        log = open(self.folder / "log", "ab")
        self.process = subprocess.Popen(
            self.command(), cwd=self.folder, stdout=log, stderr=log, env=self.environment())
        end = time.monotonic() + START_S
        while True:
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"{self.client_url}/_matrix/client/versions", timeout=5).close()
                return
            if self.process.poll() is not None or time.monotonic() > end:
                tail = (self.folder / "log").read_text()[-3000:]
                sys.exit(f"{self.kind} did not start:\n{tail}")
            time.sleep(0.1)

    def environment(self):
        return dict(os.environ)

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


class Millrace(Server):
    kind = "millrace"
    binary = None

    def configure(self):
        (self.folder / "conduit.toml").write_text(f"""
[global]
server_name = "{self.name}"
address = "127.0.0.1"
port = {self.client_port}
database_path = "{self.folder}/data"
allow_registration = true
allow_public_rooms_over_federation = true
trusted_servers = []
federation_address = "127.0.0.1"
federation_port = {self.federation_port}
tls_certificate_path = "{self.certificate}"
tls_key_path = "{self.key}"
federation_ca_file = "{self.authority.certificate}"
ip_range_whitelist = ["127.0.0.0/8", "::1/128"]

[global.rate_limits]
enabled = false

[global.password_hash]
memory_kib = 8
iterations = 1
""")

    def command(self):
        return [str(self.binary), "serve", "--config", str(self.folder / "conduit.toml")]


class Synapse(Server):
    kind = "synapse"

    def configure(self):
        fast = "{per_second: 10000, burst_count: 10000}"
        (self.folder / "log.yaml").write_text(
            "version: 1\nhandlers: {c: {class: logging.StreamHandler}}\n"
            "root: {level: INFO, handlers: [c]}\ndisable_existing_loggers: false\n")
        seed = secrets.token_bytes(32)
        import base64
        key = base64.b64encode(seed).decode().rstrip("=")
        (self.folder / "signing.key").write_text(f"ed25519 a_key {key}\n")
        (self.folder / "homeserver.yaml").write_text(f"""
server_name: "{self.name}"
pid_file: {self.folder}/pid
listeners:
  - {{port: {self.client_port}, bind_addresses: ['127.0.0.1'], type: http, resources: [{{names: [client, media]}}]}}
  - {{port: {self.federation_port}, bind_addresses: ['127.0.0.1'], type: http, tls: true, resources: [{{names: [federation]}}]}}
tls_certificate_path: {self.certificate}
tls_private_key_path: {self.key}
federation_custom_ca_list: [{self.authority.certificate}]
database: {{name: sqlite3, args: {{database: {self.folder}/homeserver.db}}}}
log_config: {self.folder}/log.yaml
media_store_path: {self.folder}/media
signing_key_path: {self.folder}/signing.key
macaroon_secret_key: macaroon
form_secret: form
report_stats: false
push: {{group_unread_count_by_room: false}}
trusted_key_servers: []
suppress_key_server_warning: true
enable_registration: true
enable_registration_without_verification: true
bcrypt_rounds: 4
federation_ip_range_blacklist: []
ip_range_blacklist: []
allow_public_rooms_over_federation: true
room_list_publication_rules: [{{action: allow}}]
rc_message: {fast}
rc_registration: {fast}
rc_login: {{address: {fast}, account: {fast}, failed_attempts: {fast}}}
rc_joins: {{local: {fast}, remote: {fast}}}
rc_joins_per_room: {fast}
rc_invites: {{per_room: {fast}, per_user: {fast}, per_issuer: {fast}}}
rc_presence: {{per_user: {fast}}}
federation: {{destination_min_retry_interval: 1s, destination_max_retry_interval: 2s}}
caches: {{sync_response_cache_duration: 0}}
""")

    def command(self):
        return [sys.executable, "-m", "synapse.app.homeserver", "-c", str(self.folder / "homeserver.yaml")]


class Pair:
    """Both servers, running."""

    def __init__(self, folder, binary):
        folder = Path(folder)
        Millrace.binary = binary
        authority = Authority(folder)
        self.millrace = Millrace(folder / "millrace", authority)
        self.synapse = Synapse(folder / "synapse", authority)
        self.all = [self.synapse, self.millrace]

    def start(self):
        for server in self.all:
            server.start()

    def stop(self):
        for server in self.all:
            server.stop()

    def cut(self):
        """No request gets through, either way."""
        for server in self.all:
            server.relay.cut()

    def mend(self):
        for server in self.all:
            server.relay.mend()
