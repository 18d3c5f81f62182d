"""The push gateway as a process, and a browser with its push service: what arrives is decrypted with
the cryptography package, by RFC 8291 as it is written."""

import base64
import contextlib
import http.server
import json
import os
import ssl
import subprocess
import sys
import threading
import time
import urllib.request

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from servers import free_port


def encoded(data):
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def point(key):
    form = serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
    return key.public_bytes(*form)


def derived(secret, salt, info, length):
    return HKDF(hashes.SHA256(), length, salt, info).derive(secret)


class Browser:
    """A subscription at a push service of its own."""

    def __init__(self, authority):
        self.key, self.auth = ec.generate_private_key(ec.SECP256R1()), os.urandom(16)
        self.received, self.gone = [], False
        certificate, key = authority.issue(f"browser-{encoded(os.urandom(6))}")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        browser = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                proved = self.headers["authorization"].startswith("vapid t=")
                wanted = self.headers["content-encoding"] == "aes128gcm" and int(self.headers["ttl"]) >= 0
                status = 410 if browser.gone else 201 if proved and wanted else 400
                if status == 201:
                    browser.received.append(json.loads(browser.opened(body)))
                self.send_response(status)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.endpoint = f"https://localhost:{self.server.server_address[1]}/subscription"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def opened(self, sealed):
        salt, length = sealed[:16], sealed[20]
        theirs, record = sealed[21:21 + length], sealed[21 + length:]
        ours = point(self.key.public_key())
        peer = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), theirs)
        shared = self.key.exchange(ec.ECDH(), peer)
        secret = derived(shared, self.auth, b"WebPush: info\0" + ours + theirs, 32)
        key = derived(secret, salt, b"Content-Encoding: aes128gcm\0", 16)
        nonce = derived(secret, salt, b"Content-Encoding: nonce\0", 12)
        return AESGCM(key).decrypt(nonce, record, None).rstrip(b"\0").removesuffix(b"\2")

    def pusher(self, gateway):
        return {
            "kind": "http", "app_id": "web", "pushkey": encoded(point(self.key.public_key())),
            "app_display_name": "Web", "device_display_name": "Browser", "lang": "en",
            "data": {"url": gateway.url, "endpoint": self.endpoint, "auth": encoded(self.auth)},
        }


class Gateway:
    """The gateway in a process of its own."""

    def __init__(self, folder, authority, binary):
        self.folder = folder / "gateway"
        self.folder.mkdir()
        key = ec.generate_private_key(ec.SECP256R1()).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption())
        (self.folder / "vapid.pem").write_bytes(key)
        port = free_port()
        self.base = f"http://127.0.0.1:{port}"
        self.url = f"{self.base}/_matrix/push/v1/notify"
        config = self.folder / "push-gateway.toml"
        config.write_text(f"""
address = "127.0.0.1:{port}"
ca_certificates = ["{authority.certificate}"]
allowed_addresses = ["127.0.0.0/8", "::1"]
[apps.web]
type = "webpush"
vapid_private_key = "{self.folder}/vapid.pem"
vapid_contact_email = "admin@localhost"
""")
        log = open(self.folder / "log", "ab")
        self.process = subprocess.Popen([binary, "--config", config], stdout=log, stderr=log)
        for _ in range(200):
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"{self.base}/health", timeout=5).close()
                return
            time.sleep(0.05)
        sys.exit(f"the gateway did not start:\n{(self.folder / 'log').read_text()}")

    def stop(self):
        self.process.terminate()
        assert self.process.wait(60) == 0
