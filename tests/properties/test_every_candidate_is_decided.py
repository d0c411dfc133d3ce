"""Every candidate reaches a decision, whatever fails, is killed, or comes meanwhile; the database is a real one."""

import itertools
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as given_settings
from hypothesis import strategies as st

from mlops_tasks.config import Settings
from mlops_tasks.errors import DeploymentError
from mlops_tasks.serving.rollout import Situation, aborted
from mlops_tasks.serving.rollouts import evaluate, record
from mlops_tasks.state.database import upgrade
from mlops_tasks.state.rollouts import (
    AT_WORK,
    Rollout,
    RolloutPlan,
    record_rollout,
    record_rollout_step,
    rollout_steps,
    undecided_rollouts,
)
from mlops_tasks.states import QueuePolicy, RolloutState, Strategy

START = datetime(2024, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
PLANS = {
    Strategy.CANARY: RolloutPlan((0.05, 0.5, 1.0), 3600.0, 8 * 3600.0),
    Strategy.SHADOW: RolloutPlan((0.0,), 3 * 3600.0, 8 * 3600.0),
    Strategy.BLUE_GREEN: RolloutPlan((), 0.0, 8 * 3600.0),
}


class KilledError(Exception):
    """The evaluation's process ends here."""


@dataclass
class Operation:
    """Service, registry and clock, and what goes wrong with them."""

    settings: Settings
    policy: QueuePolicy
    clock: datetime = START
    champion: int | None = None
    objections: set[int] = field(default_factory=set)
    bad: set[int] = field(default_factory=set)
    """Versions whose deployment fails."""
    seen: bool = True
    killed_at: int = -1
    """How many calls until a kill; negative: none."""

    def _may_be_killed(self) -> None:
        self.killed_at -= 1
        if self.killed_at == 0:
            raise KilledError

    def now(self) -> datetime:
        """The present."""
        return self.clock

    def look(self, queue: Sequence[Rollout]) -> Situation:
        """As it is."""
        self._may_be_killed()
        against = {each.rollout_id: "a rule" for each in queue if each.version in self.objections}
        return Situation(self.clock, self.champion, tuple(queue), self.policy, against, self.seen)

    def deploy(self, rollout: Rollout) -> None:
        """With a kill before, in the middle, or after it."""
        self._may_be_killed()
        if rollout.version in self.bad:
            raise DeploymentError("its proof failed")
        self.champion = rollout.version
        self._may_be_killed()

    def ask(self, version: int, strategy: Strategy) -> Rollout:
        """As a retraining does."""
        text = f"{version:016d}"
        asked = Rollout(
            text, version, text, text * 4, strategy, PLANS[strategy], RolloutState.WAITING, self.clock, self.clock
        )
        return record_rollout(self.settings, asked)

    def evaluate(self) -> None:
        """Once; it may be killed."""
        try:
            evaluate(self.settings, self)
        except KilledError:
            pass
        finally:
            self.killed_at = -1


EVENTS = "ask ask tick tick tick object bad unseen kill abort replace back jump race"
WORD = st.sampled_from(EVENTS.split())


@pytest.fixture(scope="module")
def empty() -> Iterator[Settings]:
    """A database, to be copied; in memory where there is a place for it, since thousands of steps are written."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as home:
        settings = Settings(home=Path(home))
        upgrade(settings)
        yield settings


HOMES = itertools.count()


def copied(empty: Settings) -> Settings:
    settings = Settings(home=empty.home / str(next(HOMES)))
    shutil.copytree(empty.home / "state", settings.home / "state")
    return settings


@given_settings(max_examples=25, deadline=None)
@given(
    words=st.lists(st.tuples(WORD, st.integers(0, 5)), min_size=5, max_size=25),
    policy=st.sampled_from(QueuePolicy),
    champion=st.sampled_from([None, 99]),
)
def test_every_candidate_is_decided_in_its_time(
    empty: Settings, words: list[tuple[str, int]], policy: QueuePolicy, champion: int | None
) -> None:
    """Each that began is promoted, completed, rejected or aborted by its deadline, one is at work at a time, what is
    decided stays, and every candidate that a retraining brings is taken."""
    at = Operation(copied(empty), policy, champion=champion)
    asked: list[Rollout] = []
    for word, number in words:
        act(at, asked, word, number)
        at.evaluate()
        assert sum(each.is_at_work for each in undecided_rollouts(at.settings)) <= 1
    # The clock is right again, and evaluations come as they are planned; retraining goes on, and things still fail.
    for hour in range(20):
        at.clock = max(at.clock, START) + HOUR
        if hour % 5 == 0:
            asked.append(at.ask(len(asked) + 1, list(PLANS)[hour % 3]))
        at.evaluate()
    for each in asked:
        check_history(at.settings, each)
    overdue = [each for each in undecided_rollouts(at.settings) if each.due + HOUR < at.clock]
    assert overdue == []


def act(at: Operation, asked: list[Rollout], word: str, number: int) -> None:
    """One event."""
    version = len(asked) - number
    queue = undecided_rollouts(at.settings)
    if word == "ask":
        version = len(asked) + 1
        asked.append(at.ask(version, list(PLANS)[number % 3]))
        assert asked[-1].version == version
    elif word in ("object", "bad"):
        (at.objections if word == "object" else at.bad).add(version)
    elif word == "unseen":
        at.seen = not at.seen
    elif word == "kill":
        at.killed_at = number + 1
    elif word == "abort" and queue:
        record(at.settings, aborted(queue[number % len(queue)], "a person", "ann", at.clock))
    elif word == "replace":
        at.champion = 100 + number
    elif word == "race" and queue:  # somebody who has read an older state
        stale = replace(queue[0], sequence=queue[0].sequence - 1)
        assert not record_rollout_step(at.settings, stale, replace(stale, state=RolloutState.HOLDING))
    at.clock += {"back": -3 * HOUR, "jump": 5 * HOUR}.get(word, HOUR)


def check_history(settings: Settings, asked: Rollout) -> None:
    """That its steps make sense."""
    steps = rollout_steps(settings, asked.rollout_id)
    states = [each.state for each in steps]
    assert [each.sequence for each in steps] == list(range(1, len(steps) + 1))
    assert states[0] == RolloutState.WAITING and RolloutState.WAITING not in states[1:]
    assert not any(each.is_decided for each in steps[:-1])
    held = [each.step for each in steps if each.state == RolloutState.HOLDING]
    assert held == list(range(len(held)))
    if states[-1] == RolloutState.COMPLETED:
        assert asked.strategy == Strategy.SHADOW
    if any(state in AT_WORK for state in states):
        assert all(each.began_at is not None for each in steps[1:])
