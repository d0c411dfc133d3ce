"""Sinks, which notify people: a webhook, e-mail. Each delivers a notice or raises `SinkError`."""

import hashlib
import logging
import os
import smtplib
import ssl
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from email.message import EmailMessage
from email.utils import format_datetime
from typing import Protocol

import httpx

from mlops_tasks.authorities import trusted_authorities
from mlops_tasks.config import EmailSettings, Settings
from mlops_tasks.errors import ConfigError, ErrorKind, MlopsError
from mlops_tasks.secret_files import SecretSource
from mlops_tasks.state.alerts.episodes import Step
from mlops_tasks.state.alerts.rules import configured_sinks
from mlops_tasks.state.tables import AlertEvent

log = logging.getLogger(__name__)
for _each in ("httpx", "httpcore"):
    logging.getLogger(_each).setLevel(logging.WARNING)  # they log whole URLs, which may contain a token

LONGEST = 1500
"""Characters of a message that are sent; `alphaops alerts show` has all of it."""
PASSWORD = SecretSource("mail server's password", "ALERTS_SMTP_PASSWORD", "smtp_password")
_TOLD_AS: Mapping[str, str] = {
    Step.RESOLVED: "over: ",
    Step.REMINDED: "still: ",
    Step.ESCALATED: "nobody has acknowledged: ",
}


class SinkError(MlopsError, RuntimeError):
    """A notice was not delivered. The message contains no address and nothing of the receiver's answer.

    `is_refusal`: the receiver answered but refuses this notice, for example because it is too long; it may accept
    others.
    """

    kind = ErrorKind.TRANSIENT

    def __init__(self, message: str, *, is_refusal: bool = False) -> None:
        super().__init__(message)
        self.is_refusal = is_refusal


@dataclass(frozen=True)
class Notice:
    """A step of an episode, as it is reported."""

    token: str
    """The same for each repetition."""
    kind: str
    subject: str
    episode: int
    step: str
    severity: str
    message: str
    at: datetime

    @classmethod
    def of(cls, event: AlertEvent) -> "Notice":
        """Build it from a row; a long message is cut."""
        message = event.message
        if len(message) > LONGEST:
            message = f"{message[:LONGEST]} ... (all of it: alphaops alerts show)"
        return cls(event.token, event.kind, event.subject, event.episode, event.step, event.severity, message, event.at)

    @property
    def title(self) -> str:
        """Kind and subject on one line."""
        return " ".join(f"{_TOLD_AS.get(self.step, '')}{self.kind} {self.subject}".split())

    @property
    def text(self) -> str:
        """The whole notice as text."""
        return f"{_TOLD_AS.get(self.step, '')}{self.kind} {self.subject}: {self.message}"

    @property
    def thread(self) -> str:
        """Identifier that all notices of an episode share."""
        return hashlib.sha256(f"{self.kind}\n{self.subject}\n{self.episode}".encode()).hexdigest()[:32]


class Sink(Protocol):
    """Notifies people."""

    @property
    def limit_s(self) -> float:
        """How long a delivery takes at most; a process that has not recorded the outcome by then was killed."""
        ...

    def tell(self, notice: Notice) -> None:
        """Return once the receiver has the notice.

        A repetition has the same token, by which the receiver or the reader can recognise it.

        Raises
        ------
        SinkError
            The receiver did not accept it.
        """
        ...


def make_sink(settings: Settings, name: str) -> Sink:
    """The sink of a name.

    Raises
    ------
    ConfigError
        It is not configured.
    """
    alerts = settings.alerts
    if name == "webhook" and alerts.webhook_url is not None:
        return Webhook(alerts.webhook_url.get_secret_value(), alerts.timeout_s)
    if name == "email" and alerts.email is not None:
        return Email(settings, alerts.email)
    if name == "airflow_email" and alerts.airflow_connection is not None:
        return AirflowEmail(settings, alerts.airflow_connection)
    there = ", ".join(configured_sinks(settings)) or "none; see docs/alerts.md"
    raise ConfigError(f"sink {name!r} is not configured; configured: {there}")


_REFUSALS = (400, 413, 422)
"""Statuses that concern the content, not the sender or the time."""


@dataclass(frozen=True)
class Webhook:
    """A URL that accepts a JSON POST, such as that of a chat channel."""

    url: str
    timeout_s: float

    @property
    def limit_s(self) -> float:
        """To connect, to send, to be answered."""
        return 3 * self.timeout_s

    def tell(self, notice: Notice) -> None:
        """The token is the header `Idempotency-Key`, and `id` of the body."""
        body = {
            "text": notice.text,
            "kind": notice.kind,
            "subject": notice.subject,
            "message": notice.message,
            "severity": notice.severity,
            "step": notice.step,
            "episode": notice.thread,
            "id": notice.token,
            "at": notice.at.isoformat(timespec="seconds"),
        }
        headers = {"Idempotency-Key": notice.token}
        try:
            # Only the status counts: the body of the answer, which may be endless, is not read.
            with (
                httpx.Client(timeout=self.timeout_s, verify=trusted_authorities()) as client,
                client.stream("POST", self.url, json=body, headers=headers) as answer,
            ):
                answer.raise_for_status()
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            # The URL may contain a token, and httpx puts it into its messages: only the kind of error is shown.
            code = error.response.status_code if isinstance(error, httpx.HTTPStatusError) else 0
            told = f"{type(error).__name__}{f' {code}' if code else ''}; correct alerts.webhook_url"
            raise SinkError(told, is_refusal=code in _REFUSALS) from None


_SMTP_FOR_GOOD = 500


@dataclass(frozen=True)
class Email:
    """A mail server, used directly."""

    settings: Settings
    server: EmailSettings

    @property
    def limit_s(self) -> float:
        """Each of a dozen commands may be slow, but seldom more than one is."""
        return 3 * self.settings.alerts.timeout_s

    def tell(self, notice: Notice) -> None:
        """The token is the Message-ID; the notices of an episode are one thread."""
        message = mail_of(notice, self.server.sender, self.server.to)
        refused = None
        try:
            password = None if self.server.user is None else PASSWORD.read(self.settings)
            with self._connected() as smtp:
                if self.server.user is not None and password is not None:
                    smtp.login(self.server.user, password)
                refused = smtp.send_message(message)
        except (OSError, smtplib.SMTPException, ConfigError, ValueError) as error:
            if refused is None:  # else the server has the mail, and only did not answer QUIT
                is_refusal = isinstance(error, smtplib.SMTPDataError) and error.smtp_code >= _SMTP_FOR_GOOD
                raise SinkError(f"{_shown(error)}; correct alerts.email", is_refusal=is_refusal) from None
        if refused:  # the other recipients have it
            log.warning("%d of %d addresses were refused; correct alerts.email.to", len(refused), len(self.server.to))

    def _connected(self) -> smtplib.SMTP:
        server, timeout = self.server, self.settings.alerts.timeout_s
        if server.security == "none":
            return smtplib.SMTP(server.host, server.port, timeout=timeout)
        context = ssl.create_default_context(cafile=server.ca_file)
        if server.security == "tls":
            return smtplib.SMTP_SSL(server.host, server.port, timeout=timeout, context=context)
        smtp = smtplib.SMTP(server.host, server.port, timeout=timeout)
        try:
            smtp.starttls(context=context)
        except BaseException:
            smtp.close()
            raise
        return smtp


def mail_of(notice: Notice, sender: str, to: tuple[str, ...]) -> EmailMessage:
    """A notice as an e-mail."""
    domain = sender.rpartition("@")[2]
    message = EmailMessage()
    message["From"], message["To"] = sender, ", ".join(to)
    message["Subject"] = f"[AlphaOps {notice.severity}] {notice.title}"[:200]
    message["Date"] = format_datetime(notice.at)
    message["Message-ID"] = f"<{notice.token}@{domain}>"
    message["References"] = f"<{notice.thread}@{domain}>"
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(
        f"{notice.text}\n\n{notice.severity}, {notice.at:%Y-%m-%d %H:%M:%S} UTC, episode {notice.episode}\n"
        "`alphaops alerts list` shows open alerts; docs/operations.md says how to react to each.\n"
    )
    return message


def _shown(error: Exception) -> str:
    """The kind of an error; a server's own text may quote what it was sent."""
    if isinstance(error, ConfigError):
        return str(error)
    code = getattr(error, "smtp_code", None)
    return f"{type(error).__name__} {code}" if isinstance(code, int) else type(error).__name__


@dataclass(frozen=True)
class AirflowEmail:
    """An Airflow connection to a mail server, through Airflow's SMTP provider.

    A separate process sends the mail: only the operators import Airflow, which takes seconds.
    """

    settings: Settings
    connection: str

    @property
    def limit_s(self) -> float:
        """Most of it is the start of Airflow."""
        return 60 + self.settings.alerts.timeout_s

    def tell(self, notice: Notice) -> None:
        """The token is the Message-ID, as with `Email`."""
        alerts = self.settings.alerts
        mail = [sys.executable, "-m", "mlops_tasks.operators.mail", self.connection]
        if (
            self.settings.run_dir / "stack.json"
        ).is_file():  # only in the stack does this process lack Airflow's environment
            mail = [sys.executable, "-m", "mlops_tasks.stack", "run", "--", *mail]
        try:
            done = subprocess.run(
                mail,
                input=mail_of(notice, "alphaops@localhost", alerts.airflow_to).as_bytes(),
                env={**os.environ, "MLOPS_HOME": str(self.settings.home)},
                capture_output=True,
                timeout=self.limit_s,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise SinkError(f"{type(error).__name__}; see alerts.airflow_connection") from None
        if done.returncode:
            raise SinkError(f"Airflow's provider failed, status {done.returncode}; see alerts.airflow_connection")
