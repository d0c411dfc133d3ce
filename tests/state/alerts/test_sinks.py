"""Every sink tells what it is given to a real receiver, or says that it did not."""

import time
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError

from mlops_tasks.config import AlertSettings, EmailSettings, Settings
from mlops_tasks.errors import ConfigError
from mlops_tasks.state.alerts.sinks import Notice, SinkError, make_sink
from mlops_tasks.state.tables import AlertEvent
from tests.state.alerts.receivers import Channel, Mailbox, certificate, channel_open, mail_server

NOTICE = Notice(
    token="0123456789abcdef0123456789abcdef",
    kind="run_failed",
    subject="daily_retraining\nmanual__1",
    episode=2,
    step="opened",
    severity="critical",
    message="the gate failed: größer als 1",
    at=datetime(2024, 6, 3, 12, 30, tzinfo=UTC),
)


class Contract:
    """What holds for each sink; a subclass says how it is configured and what its receiver has."""

    name = ""

    @contextmanager
    @abstractmethod
    def receiver(self, home: Path) -> Iterator[Any]:
        """A running receiver."""
        yield

    @abstractmethod
    def settings(self, home: Path, receiver: Any) -> Settings:
        """That name it."""

    @abstractmethod
    def refuse(self, receiver: Any) -> None:
        """Let it take nothing, and say something that nobody should see."""

    @abstractmethod
    def heard(self, receiver: Any) -> list[tuple[str, str]]:
        """Token and text of what it has taken."""

    def test_it_tells(self, tmp_path: Path) -> None:
        """Token, severity and the whole message arrive, once for each telling."""
        with self.receiver(tmp_path) as receiver:
            sink = make_sink(self.settings(tmp_path, receiver), self.name)
            for _ in range(2):
                sink.tell(NOTICE)
            (first, again) = self.heard(receiver)
        assert first == again and NOTICE.token in first[0]
        assert NOTICE.message in first[1] and "critical" in first[1] and "run_failed" in first[1]

    def test_it_says_when_it_did_not(self, tmp_path: Path) -> None:
        """A receiver that refuses and one that is away are errors without address, password or the receiver's words."""
        with self.receiver(tmp_path) as receiver:
            settings = self.settings(tmp_path, receiver)
            self.refuse(receiver)
            with pytest.raises(SinkError) as refused:
                make_sink(settings, self.name).tell(NOTICE)
            assert self.heard(receiver) == []
        with pytest.raises(SinkError) as away:
            make_sink(settings, self.name).tell(NOTICE)
        for caught in (refused, away):
            assert not any(word in str(caught.value) for word in ("s3cret", "127.0.0.1", "t0ken"))

    def test_it_is_there_only_when_it_is_configured(self, tmp_path: Path) -> None:
        """The error says which are."""
        with pytest.raises(ConfigError, match="is not configured; configured: none"):
            make_sink(Settings(home=tmp_path), self.name)


class TestWebhook(Contract):
    name = "webhook"

    @contextmanager
    def receiver(self, home: Path) -> Iterator[Channel]:
        with channel_open() as channel:
            yield channel

    def settings(self, home: Path, receiver: Channel) -> Settings:
        return Settings(home=home, alerts=AlertSettings(webhook_url=SecretStr(receiver.url), timeout_s=2))

    def refuse(self, receiver: Channel) -> None:
        receiver.answers = [503]

    def heard(self, receiver: Channel) -> list[tuple[str, str]]:
        return [(key, str(body)) for key, body in zip(receiver.keys, receiver.received, strict=True)]

    def test_a_receiver_that_does_not_answer_is_given_up(self, tmp_path: Path, channel: Channel) -> None:
        """After `alerts.timeout_s`."""
        channel.before = lambda: time.sleep(1)
        alerts = AlertSettings(webhook_url=SecretStr(channel.url), timeout_s=0.2)
        began = time.monotonic()
        with pytest.raises(SinkError, match="ReadTimeout"):
            make_sink(Settings(home=tmp_path, alerts=alerts), "webhook").tell(NOTICE)
        assert time.monotonic() - began < 0.9


class _Email(Contract):
    name = "email"
    security = "none"
    login: tuple[str, str] | None = None

    @contextmanager
    def receiver(self, home: Path) -> Iterator[Mailbox]:
        tls = None if self.security == "none" else certificate(home)[1]
        with mail_server(Mailbox(tls=tls, tls_from_the_start=self.security == "tls", login=self.login)) as box:
            yield box

    def settings(self, home: Path, receiver: Mailbox) -> Settings:
        given: dict[str, Any] = {"host": "127.0.0.1", "port": receiver.port, "security": self.security}
        if self.security != "none":
            given["ca_file"] = home / "certificate.pem"
        if self.login is not None:
            given["user"] = self.login[0]
            (home / "secrets").mkdir(exist_ok=True, mode=0o700)
            secret = home / "secrets" / "smtp_password"
            secret.write_text(self.login[1])
            secret.chmod(0o600)
        email = EmailSettings(**given, sender="alphaops@desk.test", to=("ann@desk.test", "bob@desk.test"))
        return Settings(home=home, alerts=AlertSettings(email=email, timeout_s=2))

    def refuse(self, receiver: Mailbox) -> None:
        receiver.answers = ["554 s3cret at 127.0.0.1"]

    def heard(self, receiver: Mailbox) -> list[tuple[str, str]]:
        assert all(receiver.encrypted) or self.security == "none"
        return [(letter["Message-ID"], f"{letter['Subject']}\n{letter.get_content()}") for letter in receiver.letters]


class TestOpenEmail(_Email):
    def test_a_letter_can_be_answered_sorted_and_threaded(self, tmp_path: Path) -> None:
        """One line of subject, its own id, one thread an episode, and it goes to all."""
        with self.receiver(tmp_path) as box:
            make_sink(self.settings(tmp_path, box), "email").tell(NOTICE)
            (letter,) = box.letters
        assert letter["Subject"] == "[AlphaOps critical] run_failed daily_retraining manual__1"
        assert letter["Message-ID"] == f"<{NOTICE.token}@desk.test>" and NOTICE.thread in letter["References"]
        assert box.recipients == [["ann@desk.test", "bob@desk.test"]]
        assert letter["Date"] == "Mon, 03 Jun 2024 12:30:00 +0000"


class TestEmailWithStartTls(_Email):
    security = "starttls"
    login = ("desk", "s3cret")

    def test_a_wrong_password_is_not_repeated(self, tmp_path: Path) -> None:
        """The server quotes what it was sent; nobody sees it."""
        with self.receiver(tmp_path) as box:
            settings = self.settings(tmp_path, box)
            box.login = ("desk", "other")
            with pytest.raises(SinkError, match=r"SMTPAuthenticationError 535; correct alerts\.email$"):
                make_sink(settings, "email").tell(NOTICE)
            (tmp_path / "secrets" / "smtp_password").unlink()
            with pytest.raises(SinkError, match="set ALERTS_SMTP_PASSWORD"):
                make_sink(settings, "email").tell(NOTICE)
            assert box.letters == []

    def test_a_password_that_cannot_be_sent_is_not_repeated(self, tmp_path: Path) -> None:
        """Not even the character that is to blame."""
        with self.receiver(tmp_path) as box:
            settings = self.settings(tmp_path, box)
            (tmp_path / "secrets" / "smtp_password").write_text("s3crét")
            with pytest.raises(SinkError, match=r"UnicodeEncodeError; correct alerts\.email$"):
                make_sink(settings, "email").tell(NOTICE)

    def test_a_server_with_another_certificate_is_told_nothing(self, tmp_path: Path) -> None:
        """Neither letter nor password."""
        with self.receiver(tmp_path) as box:
            settings = self.settings(tmp_path, box)
            certificate(tmp_path)
            with pytest.raises(SinkError, match="SSLCertVerificationError"):
                make_sink(settings, "email").tell(NOTICE)
            assert box.letters == []


class TestEmailWithTls(_Email):
    security = "tls"
    login = ("desk", "s3cret")


def test_who_is_left_gets_the_letter_once(tmp_path: Path, mailbox: Mailbox, caplog: pytest.LogCaptureFixture) -> None:
    """A colleague who has left costs the others nothing, nor does a server that does not say goodbye."""
    given = {"host": "127.0.0.1", "port": mailbox.port, "security": "none", "sender": "a@b", "to": "c@d,gone@d"}
    settings = Settings(home=tmp_path, alerts=AlertSettings(email=EmailSettings.model_validate(given)))
    mailbox.strangers, mailbox.farewell = {"gone@d"}, "421 no"
    make_sink(settings, "email").tell(NOTICE)
    assert mailbox.recipients == [["c@d"]]
    assert "1 of 2 addresses were refused" in caplog.text
    mailbox.strangers, mailbox.farewell = {"c@d", "gone@d"}, "221 bye"
    with pytest.raises(SinkError, match="SMTPRecipientsRefused"):
        make_sink(settings, "email").tell(NOTICE)
    mailbox.strangers, mailbox.answers = set(), ["552 too long", "451 later"]
    for is_refusal in (True, False):
        with pytest.raises(SinkError) as caught:
            make_sink(settings, "email").tell(NOTICE)
        assert caught.value.is_refusal == is_refusal
    assert len(mailbox.letters) == 1


def test_a_long_message_is_cut_and_kept() -> None:
    """A receiver that takes so much and no more would refuse it."""
    event = AlertEvent(
        kind="k",
        subject="s",
        sequence=1,
        episode=1,
        step="opened",
        severity="info",
        message="x" * 9000,
        tell=True,
        token="t",
    )
    assert len(Notice.of(event).message) < 1600 and len(event.message) == 9000


def test_a_password_does_not_go_over_an_open_wire() -> None:
    """It is refused when the settings are read, as are addresses that are none."""
    given = {"host": "h", "sender": "a@b", "to": "c@d,e@f"}
    assert EmailSettings(**given).to == ("c@d", "e@f")  # type: ignore[arg-type]
    with pytest.raises(ValidationError, match="would be sent unencrypted"):
        EmailSettings(**given, security="none", user="x")  # type: ignore[arg-type]
    with pytest.raises(ValidationError, match=r"to\.0"):
        EmailSettings(**(given | {"to": "a@b>\r\nBcc: x"}))  # type: ignore[arg-type]
