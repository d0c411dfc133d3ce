"""What alerts are told to in tests: a real HTTP server and a real SMTP server on loopback."""

import base64
import json
import socketserver
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email import message_from_bytes, policy
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec


class Channel(ThreadingHTTPServer):
    """A webhook's server; `answers` are the statuses to come, 200 when they are used up. Others take nothing."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Hook)
        self.received: list[dict[str, Any]] = []
        self.keys: list[str] = []
        """Idempotency keys, in the order of `received`."""
        self.answers: list[int] = []
        self.before: Callable[[], None] = lambda: None
        """Called when a request is there."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/hook/t0ken"


class _Hook(BaseHTTPRequestHandler):
    server: Channel

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.before()
        status = self.server.answers.pop(0) if self.server.answers else 200
        if status == 200:
            self.server.received.append(body)
            self.server.keys.append(self.headers["Idempotency-Key"])
        self.send_response(status)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@dataclass
class Mailbox:
    """What an SMTP server has taken in, and what it asks for."""

    tls: ssl.SSLContext | None = None
    tls_from_the_start: bool = False
    login: tuple[str, str] | None = None
    answers: list[str] = field(default_factory=list)
    """Answers to the next letters; 250 when they are used up."""
    strangers: set[str] = field(default_factory=set)
    """Recipients that it does not know."""
    farewell: str = "221 bye"
    letters: list[EmailMessage] = field(default_factory=list)
    recipients: list[list[str]] = field(default_factory=list)
    encrypted: list[bool] = field(default_factory=list)
    port: int = 0


class _Smtp(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, mailbox: Mailbox, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Dialogue)
        self.mailbox = mailbox
        mailbox.port = self.server_address[1]

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that breaks off says so itself."""


class _Dialogue(socketserver.StreamRequestHandler):
    """RFC 5321 with STARTTLS (3207) and AUTH (4954), as far as a client of one letter goes."""

    server: _Smtp

    def setup(self) -> None:
        self.encrypted = self.logged_in = False
        if self.server.mailbox.tls_from_the_start:
            self._encrypt()
        super().setup()

    def _encrypt(self) -> None:
        assert self.server.mailbox.tls is not None
        self.request = self.server.mailbox.tls.wrap_socket(self.request, server_side=True)
        self.encrypted = True

    def _say(self, text: str) -> None:
        self.wfile.write(f"{text}\r\n".encode())

    def _line(self) -> str:
        return self.rfile.readline().decode().rstrip("\r\n")

    def handle(self) -> None:
        box, recipients = self.server.mailbox, []
        self._say("220 loopback ESMTP")
        while line := self._line():
            verb, _, rest = line.partition(" ")
            match verb.upper():
                case "EHLO":
                    offers = ["250-loopback", *(["250-STARTTLS"] if box.tls and not self.encrypted else [])]
                    self._say("\r\n".join([*offers, *(["250-AUTH PLAIN"] if box.login else []), "250 8BITMIME"]))
                case "STARTTLS":
                    self._say("220 go on")
                    self._encrypt()
                    socketserver.StreamRequestHandler.setup(self)
                    self.encrypted = True
                case "AUTH":
                    given = base64.b64decode(rest.partition(" ")[2]).decode().split("\0")[1:]
                    self.logged_in = box.login == tuple(given)
                    self._say("235 welcome" if self.logged_in else f"535 {given} is not known here")
                case "MAIL":
                    self._say("250 ok" if self.logged_in or box.login is None else "530 log in first")
                case "RCPT":
                    recipient = rest.partition("<")[2].partition(">")[0]
                    known = recipient not in box.strangers
                    recipients += [recipient] if known else []
                    self._say("250 ok" if known else "550 no such person")
                case "DATA":
                    self._take(recipients)
                case "QUIT":
                    self._say(box.farewell)
                    return
                case _:
                    self._say("250 ok")

    def _take(self, recipients: list[str]) -> None:
        box, lines = self.server.mailbox, []
        self._say("354 go on")
        while (line := self.rfile.readline()) not in (b".\r\n", b""):
            lines.append(line.removeprefix(b"."))
        answer = box.answers.pop(0) if box.answers else "250 taken"
        if answer.startswith("250"):
            made = message_from_bytes(b"".join(lines), policy=policy.default)
            assert isinstance(made, EmailMessage)
            box.letters.append(made)
            box.recipients.append(list(recipients))
            box.encrypted.append(self.encrypted)
        self._say(answer)


@contextmanager
def channel_open() -> Iterator[Channel]:
    """A running webhook."""
    with Channel() as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield server
        server.shutdown()


@contextmanager
def mail_server(mailbox: Mailbox) -> Iterator[Mailbox]:
    """A running SMTP server; its port is that which the mailbox had before, if any."""
    with _Smtp(mailbox, mailbox.port) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield mailbox
        server.shutdown()


def certificate(folder: Path) -> tuple[Path, ssl.SSLContext]:
    """A self-signed certificate of 127.0.0.1, as a file to check against, and a server's context with it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    today = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(today - timedelta(days=1))
        .not_valid_after(today + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    file, private = folder / "certificate.pem", folder / "key.pem"
    file.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file, private)
    return file, context
