"""What a rollout is kept from: by other hands on its candidate, by two at work at once, and by a deployment at work."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

import pytest

from mlops_tasks.config import Settings
from mlops_tasks.errors import ConfigError, DeploymentError
from mlops_tasks.registry.client import CHAMPION
from mlops_tasks.registry.models import claim_of, set_alias, set_tags
from mlops_tasks.serving import rollouts, strategies
from mlops_tasks.serving.reconciliation import LEASE as DEPLOYMENT
from mlops_tasks.serving.reconciliation import Reconciled, reconcile
from mlops_tasks.serving.rollout import Situation, aborted, rejected
from mlops_tasks.serving.rollouts import LEASE, evaluate, record
from mlops_tasks.serving.strategies import Wanted, abort, advance, deploy
from mlops_tasks.serving.tasks import deploy_model_task
from mlops_tasks.state.alerts.episodes import Key
from mlops_tasks.state.alerts.handling import acknowledge
from mlops_tasks.state.alerts.journal import newest_events
from mlops_tasks.state.deployments import record_deployment
from mlops_tasks.state.lease import lease
from mlops_tasks.state.rollouts import (
    Rollout,
    RolloutPlan,
    latest_rollout,
    record_rollout,
    record_rollout_step,
    rollout_at_work,
    undecided_rollouts,
)
from mlops_tasks.state.tables import Deployment, now
from mlops_tasks.states import QueuePolicy, RolloutState, Strategy
from tests.operation import make_champion, register_model
from tests.registry.conftest import migrated_mlflow, new_home, new_operation, vintage_template
from tests.registry.trainings import Spec

__all__ = ["migrated_mlflow", "vintage_template"]

FIRST, CANDIDATE, OTHER, UNAPPROVED = 1, 2, 3, 4
"""The champion, two that may serve, and one that may not; no service runs, so nothing is deployed."""


@pytest.fixture(scope="module")
def template(
    tmp_path_factory: pytest.TempPathFactory, migrated_mlflow: Path, vintage_template: tuple[Path, str, str]
) -> Path:
    """A home with these versions, of which there will be copies."""
    home = tmp_path_factory.mktemp("template")
    with pytest.MonkeyPatch.context() as patch:
        made = new_operation(new_home(home, migrated_mlflow, patch), vintage_template)
        for number, letter in enumerate("abc", 1):
            assert made.register(Spec(key=letter * 16, seed=number)) == number
        register_model(made.settings, Spec(key="d" * 16), made.vintage, made.feature_version)
        make_champion(made.settings, FIRST)
    return home


@pytest.fixture
def settings(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Of a copy of its registry and of its record."""
    made = new_home(tmp_path, template / "mlflow" / "mlflow.db", monkeypatch)
    shutil.copytree(template / "state", tmp_path / "state")
    return made


def begin(settings: Settings, version: int) -> Rollout:
    """Let a canary begin."""
    deploy(settings, Wanted(version, Strategy.CANARY))
    begun = rollout_at_work(settings)
    assert begun is not None and begun.version == version
    return begun


def kinds(settings: Settings) -> list[str]:
    return [event.kind for event in newest_events(settings, 10)]


def test_a_deployment_at_work_decides_alone_who_is_champion(settings: Settings) -> None:
    """While it has its own candidate under proof, a canary is not ended for having lost its champion."""
    begun, claim = begin(settings, CANDIDATE), claim_of(settings, OTHER)
    about = {"training_key": claim.training_key, "artefact_digest": claim.digest, "data_version": "d"}
    row = Deployment(
        model_version=OTHER, state="started", strategy="direct", attempt="its", proven_version=FIRST, **about
    )
    with lease(settings, DEPLOYMENT):
        record_deployment(settings, row)
        set_alias(settings, CHAMPION, OTHER)
        assert advance(settings) == []
    assert rollout_at_work(settings) == begun


def test_while_somebody_evaluates_nobody_else_decides(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """A candidate is queued; none is deployed, aborted or led on beside the evaluation."""
    monkeypatch.setattr(strategies, "WAIT_S", 0.2)
    with lease(settings, LEASE):
        assert deploy(settings, Wanted(CANDIDATE))["rollout"] == "waiting"
        assert advance(settings) == []
        with pytest.raises(DeploymentError, match="a candidate is being deployed; wait for its end and try again"):
            deploy(settings, Wanted(OTHER, Strategy.DIRECT))
        with pytest.raises(DeploymentError, match="a candidate is being deployed; wait for its end, then"):
            abort(settings, "not today", CANDIDATE)
    assert [each.state for each in undecided_rollouts(settings)] == [RolloutState.WAITING]


def test_a_candidate_stays_the_bytes_that_were_asked_for(settings: Settings) -> None:
    """Its tags are changed to those of another model that may serve: it is rejected, and people are told."""
    begin(settings, CANDIDATE)
    claim = claim_of(settings, OTHER)
    set_tags(settings, CANDIDATE, {"training_key": claim.training_key, "digest": claim.digest})
    (step,) = advance(settings)
    assert step.state == RolloutState.REJECTED and "somebody has changed its tags" in step.reason
    assert kinds(settings) == ["rollout_rejected"]


def test_what_may_not_serve_begins_no_rollout(settings: Settings) -> None:
    """Not even one that waits; whoever has asked is told, and so are people."""
    with pytest.raises(DeploymentError, match=r"was not deployed: .* may not serve"):
        deploy(settings, Wanted(UNAPPROVED, Strategy.CANARY))
    assert latest_rollout(settings) is None
    assert kinds(settings) == ["deployment_failed"]


def test_an_abort_says_why_and_comes_in_time(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a reason, against a champion, or after somebody else's decision it is refused."""
    begun = begin(settings, CANDIDATE)
    with pytest.raises(ConfigError, match="the reason is empty"):
        abort(settings, "  ")

    def decided_meanwhile(settings: Settings) -> Reconciled:
        assert record(settings, aborted(begun, "the other was quicker", "ann", now()))
        return reconcile(settings)

    with monkeypatch.context() as patch, pytest.raises(DeploymentError, match="was decided a moment ago"):
        patch.setattr(strategies, "reconcile", decided_meanwhile)
        abort(settings, "not today")
    begin(settings, OTHER)
    make_champion(settings, OTHER)
    with pytest.raises(DeploymentError, match=f"version {OTHER} is already the champion; use `alphaops rollback`"):
        abort(settings, "not today")


def test_a_retraining_begins_what_was_decided_by_another_strategy_alone(settings: Settings) -> None:
    """A canary that was aborted is none once more; as a shadow the candidate has not been tried."""
    digest = claim_of(settings, CANDIDATE).digest
    gate = {"decision": "promote", "rule": "r", "version": CANDIDATE, "digest": digest}
    assert deploy_model_task(gate=gate, strategy="canary")["rollout"] == "holding"
    abort(settings, "not today")
    assert deploy_model_task(gate=gate, strategy="canary")["rollout"] == "aborted"
    assert deploy_model_task(gate=gate, strategy="shadow")["rollout"] == "holding"


def test_a_candidate_that_was_not_seen_to_score_is_not_promoted(settings: Settings) -> None:
    """Its time is over, and no service has logged a score of it."""
    begun = begin(settings, CANDIDATE)
    assert record_rollout_step(settings, begun, replace(begun, plan=replace(begun.plan, hold_s=0.0)))
    assert advance(settings) == []


@dataclass
class World:
    """In which no deployment succeeds."""

    settings: Settings
    policy: QueuePolicy = QueuePolicy.ALL
    objection: str = ""
    meanwhile: list[Rollout] = field(default_factory=list)
    """What a person aborts between a look and its step."""
    tried: int = 0

    def look(self, queue: Sequence[Rollout]) -> Situation:
        """As it was a moment ago."""
        for each in self.meanwhile:
            record(self.settings, aborted(each, "not today", "ann", now()))
        objections = {each.rollout_id: self.objection for each in queue if self.objection}
        return Situation(now(), 1, tuple(queue), self.policy, objections)

    def deploy(self, rollout: Rollout) -> None:
        """It has no proof."""
        self.tried += 1
        raise DeploymentError("no proof")

    def now(self) -> datetime:
        """The present."""
        return now()


AT_ONCE = RolloutPlan((), 0.0, 3600.0)


def ask(settings: Settings, version: int, plan: RolloutPlan = AT_ONCE, turn: int = 1) -> Rollout:
    """A candidate by blue-green."""
    text, moment = f"{version:016d}", now()
    name = f"{turn}{text[1:]}"
    asked = Rollout(name, version, text, text * 4, Strategy.BLUE_GREEN, plan, RolloutState.WAITING, moment, moment)
    return record_rollout(settings, asked)


def test_an_evaluation_tries_a_candidate_once(settings: Settings) -> None:
    """What has failed is tried again by the next one, and not at once."""
    asked, world = ask(settings, 2), World(settings)
    for number in (1, 2, 3):
        evaluate(settings, world)
        assert world.tried == number
    last = latest_rollout(settings)
    assert last is not None and (last.rollout_id, last.state) == (asked.rollout_id, RolloutState.REJECTED)


def test_what_ends_badly_is_told_before_it_is_recorded(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kill in between keeps it from nobody."""
    ask(settings, 2)

    def killed(*given: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(rollouts, "record_rollout_step", killed)
    with pytest.raises(KeyboardInterrupt):
        evaluate(settings, World(settings, objection="a rule"))
    assert kinds(settings) == ["rollout_rejected"]


def test_each_rollout_that_ends_badly_is_told_once(settings: Settings) -> None:
    """A version whose second rollout is rejected on the same day, too, though somebody has acknowledged the first."""
    for turn in (1, 2):
        asked = ask(settings, 2, turn=turn)
        move = rejected(asked, "a rule", now())
        assert record(settings, move) and not record(settings, move)
        told = newest_events(settings, 10)
        assert [(event.kind, event.tell) for event in told if event.step == "opened"] == [
            ("rollout_rejected", True)
        ] * turn
        acknowledge(settings, Key("rollout_rejected", f"version 2 (rollout {asked.rollout_id})"), "ann")


def test_a_step_that_somebody_has_forestalled_is_none(settings: Settings) -> None:
    """The person's abort stays, and the evaluation does not claim its own step; and one rollout is at work at a time,
    whoever has read an older state."""
    evaluated = evaluate(settings, World(settings, meanwhile=[ask(settings, 2)]))
    last = latest_rollout(settings)
    assert evaluated == [] and last is not None and last.state == RolloutState.ABORTED
    for version, begins in ((3, True), (4, False)):
        asked = ask(settings, version)
        assert record_rollout_step(settings, asked, replace(asked, state=RolloutState.HOLDING)) is begins
