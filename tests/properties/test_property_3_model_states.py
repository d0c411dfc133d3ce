"""Property 3, model state consistency: whatever acts, fails or is killed, every state is legal and at most one model is
champion at any time; the database is a real one."""

import itertools
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck
from hypothesis import settings as given_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from sqlalchemy.orm import Session

from mlops_tasks.config import Settings
from mlops_tasks.errors import TransitionError
from mlops_tasks.state import model_history
from mlops_tasks.state.approvals import record_model_approval, record_revocation
from mlops_tasks.state.database import reading, upgrade
from mlops_tasks.state.deployments import last_step, record_deployment, recorded_champion, settle_attempt
from mlops_tasks.state.history import record_gate_decision
from mlops_tasks.state.model_history import Model, live_at, live_on, record_transition, state_of, tenures
from mlops_tasks.state.rollouts import Rollout, RolloutPlan, record_rollout, record_rollout_step, undecided_rollouts
from mlops_tasks.state.tables import Deployment, GateDecision, ModelApproval, ModelRevocation, ModelTransition
from mlops_tasks.states import DeploymentState, ModelState, RolloutState, Strategy
from tests.state.replayed import Replayed

START = datetime(2024, 1, 1, tzinfo=UTC)
MODELS = 6
PICK = st.integers(0, MODELS - 1)
HOMES = itertools.count()


class KilledError(Exception):
    """The process ends here."""


def key_of(number: int) -> str:
    return f"{number:016d}"


class Actors(RuleBasedStateMachine):
    """Retraining, gate, persons, rollouts and deployments, in any order, each killed at any time.

    A deployment takes several steps, between which the others act, and a second one may begin, as after a lost lease.
    """

    empty: Settings
    taken = 0
    """Transitions recorded in all examples."""

    def __init__(self) -> None:
        super().__init__()
        self.settings = Settings(home=self.empty.home / str(next(HOMES)))
        shutil.copytree(self.empty.home / "state", self.settings.home / "state")
        self.clock = START
        model_history.now = lambda: self.clock  # type: ignore[attr-defined]
        self.read = Replayed()
        self.numbers = itertools.count()
        self.started: list[Deployment] = []
        self.kill = False

    def act(self, work: Callable[[], object]) -> None:
        """Do something, unless it is illegal; killed before its end is written, it leaves nothing."""
        before = self.read.rows
        with suppress(TransitionError), killed(self.kill):
            work()
        if self.kill:
            assert self._rows() == before
        self.kill = False

    @rule(hours=st.sampled_from([-30, 0, 0, 1, 1, 5, 24, 70]))
    def time_passes(self, hours: int) -> None:
        """Or the clock is set back."""
        self.clock += timedelta(hours=hours)

    @rule()
    def kill_the_next(self) -> None:
        """Whoever writes next ends before its transaction does."""
        self.kill = True

    @rule(number=PICK)
    def register(self, number: int) -> None:
        """As a retraining does."""
        for model, to in (
            (Model(key_of(number), None), ModelState.VALIDATED),
            (Model(key_of(number), number), ModelState.CHALLENGER),
        ):
            self.act(lambda: record_transition(self.settings, model, to, "a retraining", "dag"))  # noqa: B023

    @rule(number=PICK, to=st.sampled_from(ModelState))
    def move_anywhere(self, number: int, to: ModelState) -> None:
        """By somebody who knows no rule."""
        self.act(lambda: record_transition(self.settings, Model(key_of(number), number), to, "a mistake", "ann"))

    @rule(number=PICK)
    def reject(self, number: int) -> None:
        """By the gate."""
        decision = {"decision": "reject", "rule": "skill", "reasons": [str(next(self.numbers))]}
        row = GateDecision(training_key=key_of(number), decision=decision)
        self.act(lambda: record_gate_decision(self.settings, row, number))

    @rule(number=PICK)
    def approve(self, number: int) -> None:
        """By a person."""
        row = ModelApproval(
            training_key=key_of(number), artefact_digest="d", basis="person", approved_by="ann", reason="it is good"
        )
        self.act(lambda: record_model_approval(self.settings, row, number))

    @rule(number=PICK)
    def withdraw(self, number: int) -> None:
        """By a person."""
        self.act(lambda: record_revocation(self.settings, self._revocation(number), number))

    @rule(number=PICK, strategy=st.sampled_from([Strategy.CANARY, Strategy.SHADOW]))
    def ask_for_a_rollout(self, number: int, strategy: Strategy) -> None:
        """By a person or a DAG."""
        name = key_of(next(self.numbers))
        plan = RolloutPlan((0.5, 1.0), 3600.0, 86400.0)
        waiting = (plan, RolloutState.WAITING, self.clock, self.clock)
        self.act(lambda: record_rollout(self.settings, Rollout(name, number, key_of(number), "d", strategy, *waiting)))

    @rule(place=PICK, to=st.sampled_from(RolloutState))
    def move_a_rollout(self, place: int, to: RolloutState) -> None:
        """To any state but the first."""
        queue = undecided_rollouts(self.settings)
        if queue and to != RolloutState.WAITING:
            before = queue[place % len(queue)]
            after = replace(before, state=to, reason="a rule", began_at=self.clock)
            self.act(lambda: record_rollout_step(self.settings, before, after))

    @rule(number=PICK)
    def start_a_deployment(self, number: int) -> None:
        """Its intent."""
        row = self._step(number, DeploymentState.STARTED, f"a{next(self.numbers)}")
        row.proven_version = recorded_champion(self.settings)
        self.started.append(row)
        self.act(lambda: record_deployment(self.settings, row))

    @precondition(lambda self: self.started)
    @rule(place=PICK, proven=st.booleans(), withdraws=st.booleans())
    def end_a_deployment(self, place: int, proven: bool, withdraws: bool) -> None:
        """After its proof, or by an undoing; of somebody whose lease was lost, too."""
        start = self.started[-1 - place % min(len(self.started), 2)]
        state = DeploymentState.SERVING if proven else DeploymentState.ROLLED_BACK
        row = self._step(start.model_version, state, start.attempt)
        row.proven_version = start.proven_version
        withdrawn = start.proven_version if withdraws and proven else None
        revoked = None if withdrawn is None else self._revocation(withdrawn)
        self.act(lambda: settle_attempt(self.settings, row, revoked))

    @rule(number=PICK, withdraws=st.booleans())
    def deploy(self, number: int, withdraws: bool) -> None:
        """From the intent to the proof, without anybody in between."""
        self.start_a_deployment(number)
        self.end_a_deployment(0, True, withdraws)

    @rule(champion=st.one_of(st.none(), PICK))
    def restore(self, champion: int | None) -> None:
        """The alias went elsewhere; the record may have to name another champion, or none."""
        last = last_step(self.settings)
        if last is not None and last.state != DeploymentState.STARTED:
            row = self._step(champion or 0, DeploymentState.RESTORED, f"a{next(self.numbers)}")
            row.proven_version = champion
            self.act(lambda: record_deployment(self.settings, row))

    @invariant()
    def every_row_follows_from_those_before(self) -> None:
        """Only legal transitions, one champion, and the record of deployments tells the same."""
        with reading(self.settings) as active:
            query = sa.select(ModelTransition).where(ModelTransition.sequence > self.read.rows)
            new = active.scalars(query.order_by(ModelTransition.sequence)).all()
        self.read.read(new)
        type(self).taken += len(new)
        last = last_step(self.settings)
        if last is None or last.state != DeploymentState.STARTED:
            assert recorded_champion(self.settings) == self.read.champion

    def teardown(self) -> None:
        """What the questions answer is what the rows say, at every moment and on every day."""
        for number in range(MODELS):
            state = state_of(self.settings, Model(key_of(number), number))
            assert state == self.read.states.get(number, self.read.states.get(key_of(number), "challenger"))
        moments = [at for at, _ in self.read.champions] or [START]
        for at in moments:
            for moment in (at - timedelta(microseconds=1), at, at + timedelta(microseconds=1)):
                live = live_at(self.settings, moment)
                assert (None if live is None else live.version) == self.read.at(moment)
        first, last = min(moments).date(), max(moments).date()
        for days in range(-1, (last - first).days + 2):
            day = first + timedelta(days=days)
            assert [each.version for each in live_on(self.settings, day)] == self.read.on(day)
        assert all(a.until is not None and a.until <= b.since for a, b in itertools.pairwise(tenures(self.settings)))

    def _rows(self) -> int:
        with reading(self.settings) as active:
            return active.scalar(sa.select(sa.func.count()).select_from(ModelTransition)) or 0

    def _step(self, number: int, state: DeploymentState, attempt: str) -> Deployment:
        about = {"data_version": "d", "strategy": "blue_green", "attempt": attempt}
        return Deployment(model_version=number, training_key=key_of(number), state=state, **about)

    def _revocation(self, number: int) -> ModelRevocation:
        return ModelRevocation(
            training_key=key_of(number), artefact_digest="d", basis="person", revoked_by="bob", reason="it is bad"
        )


@contextmanager
def killed(is_killed: bool) -> Iterator[None]:
    """Whether the process ends in the moment before its transaction is committed."""

    def end(active: Session) -> None:
        raise KilledError

    if not is_killed:
        yield
        return
    sa.event.listen(Session, "before_commit", end)
    try:
        yield
    except KilledError:
        pass
    finally:
        sa.event.remove(Session, "before_commit", end)


@pytest.fixture
def actors(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Actors]]:
    """The machine on copies of an empty database, in memory where there is a place for it."""
    memory = Path("/dev/shm")
    monkeypatch.setattr(model_history, "now", model_history.now)  # type: ignore[attr-defined]
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as home:
        Actors.empty, Actors.taken = Settings(home=Path(home)), 0
        upgrade(Actors.empty)
        yield Actors


def run(machine: type[Actors], **wanted: Any) -> None:
    health = (HealthCheck.too_slow, HealthCheck.filter_too_much)
    asked = given_settings(deadline=None, derandomize=True, database=None, suppress_health_check=health, **wanted)
    run_state_machine_as_test(machine, settings=asked)


def test_states_are_consistent(actors: type[Actors]) -> None:
    """Whoever acts in whatever order, killed or not."""
    run(actors, max_examples=10, stateful_step_count=30)
    assert actors.taken >= 30


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_states_are_consistent_over_ten_thousand_transitions(actors: type[Actors]) -> None:
    """As above, over a long time."""
    run(actors, max_examples=900, stateful_step_count=50)
    assert actors.taken >= 10_000
