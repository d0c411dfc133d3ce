"""Property 6, timeliness of alerts.

Whatever breaks and mends, whoever looks or raises at the same time, whichever sink fails for a while, and wherever a
process dies while it tells: a breach is told within one interval, and so is its end, by each sink exactly once.
"""

import itertools
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from datetime import date, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from mlops_tasks.config import AlertSettings, EmailSettings, Settings
from mlops_tasks.state.alerts import delivery, raise_alert, raising
from mlops_tasks.state.alerts.episodes import Key, Observation, Standing
from mlops_tasks.state.alerts.journal import events_of
from mlops_tasks.state.alerts.watching import look
from mlops_tasks.state.database import upgrade
from mlops_tasks.state.tables import now
from tests.state.alerts.receivers import Channel, Mailbox, channel_open, mail_server

INTERVAL = timedelta(seconds=30)
WATCHED = [Key("champion_missing", "the scoring service"), Key("service_stale", "data of 2024-06-03")]
RAISED = Key("vintage_rejected", "s1")
KINDS = frozenset(key.kind for key in WATCHED)
PARALLEL = 3


class Killed(BaseException):
    """The process dies here."""


class Operation:
    """What is wrong, who looks, and what was heard of it."""

    def __init__(self, home: Path, channel: Channel, box: Mailbox, patch: pytest.MonkeyPatch) -> None:
        email = EmailSettings(
            host="127.0.0.1", port=box.port, security="none", sender="a@desk.test", to=("b@desk.test",)
        )
        address = SecretStr(channel.url)
        alerts = AlertSettings(webhook_url=address, email=email, interval_s=INTERVAL.total_seconds(), timeout_s=10)
        self.settings = Settings(home=home, alerts=alerts)
        self.channel, self.box, self.patch = channel, box, patch
        self.time = now()
        for module in (delivery, raising):
            patch.setattr(module, "now", lambda: self.time)
        self.wrong: set[Key] = set()
        self.expected: dict[Key, list[str]] = {key: [] for key in (*WATCHED, RAISED)}
        self.messages: set[str] = set()
        self.killed = 0
        channel.received.clear()
        for kept in (box.letters, box.recipients, box.encrypted):
            kept.clear()
        self.mend()

    def at_once(self, act: Callable[[], object]) -> None:
        """Several processes do the same at the same time."""
        failed: list[Exception] = []
        gate = threading.Barrier(PARALLEL)

        def run() -> None:
            gate.wait()
            try:
                act()
            except Exception as error:
                failed.append(error)

        threads = [threading.Thread(target=run) for _ in range(PARALLEL)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert delivery.finish(30)
        assert not failed

    def breaks(self, key: Key) -> None:
        self.wrong.add(key)

    def mends(self, key: Key) -> None:
        self.wrong.discard(key)

    def happens(self, message: str) -> None:
        """A stage and its retries raise the same."""
        self.at_once(lambda: raise_alert(self.settings, kind=RAISED.kind, subject=RAISED.subject, message=message))
        steps = self.expected[RAISED]
        if message not in self.messages:
            steps.append("updated" if steps else "opened")
            self.messages.add(message)

    def fail(self, sink: str) -> None:
        """From now on it takes nothing."""
        if sink == "webhook":
            self.channel.answers = [503] * 1000
        else:
            self.box.answers = ["451 try later"] * 1000

    def mend(self) -> None:
        self.channel.answers, self.box.answers = [], []

    def die(self, sink: str, where: str) -> None:
        """The next process that tells by a sink dies before, or after it has told and before it writes that down."""
        self.killed += 1
        with self.patch.context() as patch:
            if where == "after":
                write, dead = delivery._write, threading.Event()

                def die(settings: Settings, row: object) -> None:
                    if not dead.is_set() and getattr(row, "sink", "") == sink:
                        dead.set()
                        raise Killed
                    write(settings, row)  # type: ignore[arg-type]

                patch.setattr(delivery, "_write", die)
            else:
                claim = delivery._claim

                def claim_and_die(settings: Settings, name: str, by: delivery.Sink) -> object:
                    found = claim(settings, name, by)
                    if found is not None and name == sink:
                        raise Killed
                    return found

                patch.setattr(delivery, "_claim", claim_and_die)
            patch.setattr(threading, "excepthook", lambda _: None)
            self.look()
        delivery._sent.clear()

    def look(self) -> None:
        """An interval later, every process that is alive looks."""
        self.time += INTERVAL
        seen = [Observation(key, Standing.BREACHED, f"{key.kind} is so") for key in sorted(self.wrong)]
        moment = self.time
        self.at_once(lambda: look(self.settings, seen, KINDS, moment, never))
        for key in WATCHED:
            steps = self.expected[key]
            is_open = bool(steps) and steps[-1] == "opened"
            if is_open != (key in self.wrong):
                steps.append("opened" if key in self.wrong else "resolved")

    def check(self) -> None:
        """One interval after all is well again, each sink has told each step once, in order."""
        self.mend()
        self.look()
        heard = {
            "webhook": [(sent["id"], sent["kind"], sent["step"]) for sent in self.channel.received],
            "email": [(str(letter["Message-ID"]), str(letter["Subject"]), "") for letter in self.box.letters],
        }
        for name, told in heard.items():
            assert len(told) - len(set(told)) <= self.killed, name
        distinct = list(dict.fromkeys(heard["webhook"]))
        for key, steps in self.expected.items():
            assert [step for _, kind, step in distinct if kind == key.kind] == steps
            written = events_of(self.settings, key)
            assert [event.step for event in written] == steps
            mails = list(dict.fromkeys(each for each in heard["email"] if key.kind in each[1]))
            assert [mail[0] for mail in mails] == [f"<{event.token}@desk.test>" for event in written]


def never(at: datetime, delay: timedelta) -> date:
    raise AssertionError("no rule looks at sessions: there are no scores")


@pytest.fixture(scope="module")
def receivers() -> Iterator[tuple[Channel, Mailbox]]:
    with channel_open() as channel, mail_server(Mailbox()) as box:
        yield channel, box


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An upgraded database, to be copied."""
    made = Settings(home=tmp_path_factory.mktemp("template"))
    upgrade(made)
    return made.home / "state" / "state.db"


SINKS = st.sampled_from(["webhook", "email"])
ACTS = st.one_of(
    st.tuples(st.just("breaks"), st.sampled_from(WATCHED)),
    st.tuples(st.just("mends"), st.sampled_from(WATCHED)),
    st.tuples(st.just("happens"), st.sampled_from(["row 5", "row 6"])),
    st.tuples(st.just("fail"), SINKS),
    st.tuples(st.just("die"), SINKS, st.sampled_from(["before", "after"])),
    st.tuples(st.sampled_from(["look", "mend", "check"])),
)


@settings(max_examples=25)
@given(acts=st.lists(ACTS, min_size=3, max_size=9))
def test_a_breach_is_told_within_one_interval_and_once(
    receivers: tuple[Channel, Mailbox], template: Path, acts: list[tuple[object, ...]]
) -> None:
    """Also the end of a breach, and what a stage raises; a repetition after a death bears the token of the first."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        home = Path(folder)
        (home / "state").mkdir()
        shutil.copy(template, home / "state")
        operation = Operation(home, *receivers, patch)
        for name, *arguments in itertools.chain(acts, [("check",)]):
            getattr(operation, str(name))(*arguments)
