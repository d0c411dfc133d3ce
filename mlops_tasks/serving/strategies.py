"""How a version is deployed: at once, or by a rollout, which is requested, evaluated and aborted here."""

import getpass
import logging
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from mlops_tasks.config import Settings
from mlops_tasks.errors import ConfigError, DeploymentError, NotApprovedError, RecordMismatchError
from mlops_tasks.registry.approvals import candidate_permit
from mlops_tasks.registry.lifecycle import try_to_show_history
from mlops_tasks.registry.models import Claim
from mlops_tasks.serving.champion import Action
from mlops_tasks.serving.compatible import require_candidate_compatible
from mlops_tasks.serving.deployment import Order, deploy_blue_green, said
from mlops_tasks.serving.reconciliation import named, reconcile
from mlops_tasks.serving.rollout import Situation, aborted
from mlops_tasks.serving.rollout_measures import measures_of
from mlops_tasks.serving.rollout_plan import describe, plan_of
from mlops_tasks.serving.rollout_rules import breach
from mlops_tasks.serving.rollouts import LEASE, WAIT_S, evaluate, record
from mlops_tasks.stage_results import Advanced, DeployedModel
from mlops_tasks.state.alerts import raise_daily_alert
from mlops_tasks.state.lease import awaited_lease
from mlops_tasks.state.predictions import has_scored
from mlops_tasks.state.quality_looks import found_worse
from mlops_tasks.state.rollouts import (
    Rollout,
    latest_rollout,
    record_rollout,
    rollout_steps,
    undecided_rollouts,
)
from mlops_tasks.state.tables import now
from mlops_tasks.states import RolloutState, Strategy

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Wanted:
    """A version to be deployed."""

    version: int
    strategy: Strategy = Strategy.BLUE_GREEN
    digest: str | None = None
    """Digest of the intended artefact; None: whatever the version is, if that may serve."""
    by: str = ""
    """Who asks for it; default: the system's user."""
    approved_by: str = ""
    """Who was asked and has approved it; empty: nobody was."""
    again: bool = True
    """Whether it may begin again after a rollout with the same strategy that did not end in its promotion."""

    @property
    def approval(self) -> str:
        """In words, for the record; empty: nobody was asked."""
        return f"approved by {self.approved_by}" if self.approved_by else ""

    @property
    def order(self) -> Order:
        """What its deployment belongs to."""
        return Order(self.strategy, self.approval, self.by)


@dataclass(frozen=True)
class Operation:
    """What an evaluation reads and does in this operation."""

    settings: Settings

    def look(self, queue: Sequence[Rollout]) -> Situation:
        """As `World.look`."""
        found = reconcile(self.settings)
        if found.action is Action.WAIT:
            raise DeploymentError("a deployment is at work; its end decides who is champion")
        at_work = next((each for each in queue if each.is_at_work), None)
        return Situation(
            champion=found.champion,
            queue=tuple(queue),
            policy=self.settings.deployment.queue,
            objections=self._objections(queue),
            seen=at_work is not None and has_taken_up(self.settings, at_work),
            now=now(),  # last: the next step's time begins when this one is decided
        )

    def _objections(self, queue: Sequence[Rollout]) -> Mapping[str, str]:
        found = {}
        for each in queue:
            try:
                _claim(self.settings, each.version, each.digest)
            except (NotApprovedError, RecordMismatchError) as error:
                found[each.rollout_id] = str(error)
                continue
            broken = self._broken_rule(each) if each.is_at_work else None
            if broken is not None:
                found[each.rollout_id] = broken
        return found

    def _broken_rule(self, rollout: Rollout) -> str | None:
        settings = self.settings
        worse = found_worse(settings, rollout.rollout_id)
        if worse is not None:
            return worse.said
        if rollout.state != RolloutState.HOLDING:
            return None
        return breach(measures_of(settings, rollout), settings.deployment.rules, settings.portfolio.topk)

    def deploy(self, rollout: Rollout) -> None:
        """As `World.deploy`."""
        deploy_blue_green(self.settings, rollout.version, rollout.digest, Order(rollout.strategy, by=rollout.asked_by))

    def now(self) -> datetime:
        """The current time."""
        return now()


def deploy(settings: Settings, wanted: Wanted) -> DeployedModel:
    """Deploy a version by a strategy; returns once it serves, or its rollout is recorded.

    May be repeated, also after a kill at any point: a rollout that is in progress is found again.

    Raises
    ------
    DeploymentError
        As `deploy_blue_green`; or the version may not serve.
    """
    at_once = wanted.strategy in (Strategy.BLUE_GREEN, Strategy.DIRECT)
    result = _deploy_at_once(settings, wanted) if at_once else None
    if result is not None:
        return result
    rollout = _ask(settings, wanted)
    advance(settings)
    return _result(rollout_steps(settings, rollout.rollout_id)[-1])


def advance(settings: Settings) -> list[Rollout]:
    """Evaluate the rollouts, unless another process does; returns them after each step taken.

    Raises
    ------
    MlopsError, and what the drivers of the state database raise
        The record, the registry or the log of predictions cannot be read. What was recorded by then stays.
    """
    with awaited_lease(settings, LEASE, WAIT_S) as taken:
        if not taken:
            log.info("another evaluation is at work")
            return []
        try:
            steps = evaluate(settings, Operation(settings))
        except DeploymentError as error:
            log.info("the rollouts wait: %s", error)
            return []
    if steps:
        try_to_show_history(settings)
    return steps


def advance_rollouts(settings: Settings) -> Advanced:
    """Take the steps of rollouts that are due: a moment where there is none."""
    steps = advance(settings) if undecided_rollouts(settings) else []
    return {
        "steps": [describe(each) for each in steps],
        "under_way": [describe(each) for each in undecided_rollouts(settings)],
    }


def abort(
    settings: Settings, reason: str, version: int | None = None, by: str = "", asked_at: datetime | None = None
) -> Rollout:
    """End a rollout before its decision: within `serving.poll_s` the champion answers everybody.

    Parameters
    ----------
    version
        None: the one in progress.
    by
        Who; default: the system's user.
    asked_at
        No rollout is meant that was asked for, or, without a version, has begun, after this time. None: now.

    Raises
    ------
    ConfigError
        The reason is empty.
    DeploymentError
        There is none, it is being deployed now, or its candidate is already champion.
    """
    if not reason.strip():
        raise ConfigError("the reason is empty: say why the rollout is aborted; the history records it")
    with awaited_lease(settings, LEASE, WAIT_S) as taken:
        if not taken:
            raise DeploymentError("a candidate is being deployed; wait for its end, then use `alphaops rollback`")
        target = _under_way(settings, version, asked_at)
        if reconcile(settings).champion == target.version:
            raise DeploymentError(f"version {target.version} is already the champion; use `alphaops rollback`")
        move = aborted(target, reason.strip(), by or getpass.getuser(), now())
        if not record(settings, move):
            raise DeploymentError(f"the rollout of version {target.version} was decided a moment ago; see the status")
    try_to_show_history(settings)
    return move.after


def _under_way(settings: Settings, version: int | None, asked_at: datetime | None) -> Rollout:
    queue = undecided_rollouts(settings)
    for each in queue:
        if is_meant(each, version, asked_at):
            return each
    others = f"; {', '.join(named(each.version) for each in queue)} waits" if queue else ""
    whose = "" if version is None else f" of version {version}"
    raise DeploymentError(f"no rollout{whose} is under way{others}")


def is_meant(rollout: Rollout, version: int | None, asked_at: datetime | None) -> bool:
    """Whether somebody who asks, or has asked at a time, means this rollout: by its version, or (None) as the one that
    has begun."""
    since = rollout.began_at if version is None else rollout.asked_at
    return version in (None, rollout.version) and since is not None and (asked_at is None or since <= asked_at)


def _deploy_at_once(settings: Settings, wanted: Wanted) -> DeployedModel | None:
    """None: a rollout is in progress, and it waits for that."""
    direct = wanted.strategy == Strategy.DIRECT
    with awaited_lease(settings, LEASE, WAIT_S) as taken:
        if direct and not taken:
            raise DeploymentError("a candidate is being deployed; wait for its end and try again")
        if not taken or not (direct or not undecided_rollouts(settings)):
            return None
        result = deploy_blue_green(settings, wanted.version, wanted.digest, wanted.order)
    if direct:
        advance(settings)  # a rollout in progress has lost its champion
    return {**result, "strategy": wanted.strategy.value}


def _ask(settings: Settings, wanted: Wanted) -> Rollout:
    try:
        claim = _claim(settings, wanted.version, wanted.digest)
        require_candidate_compatible(settings, claim)
    except Exception as error:
        message = f"version {wanted.version} was not deployed: {said(error)}"
        raise_daily_alert(settings, kind="deployment_failed", cause=named(wanted.version), message=message)
        raise DeploymentError(message) from error
    last = latest_rollout(settings, claim.digest)
    if not wanted.again and last is not None and last.is_decided and last.strategy == wanted.strategy:
        log.info("version %d was %s before: %s", last.version, last.state, last.reason)
        return last
    moment = now()
    asked = Rollout(
        rollout_id=secrets.token_hex(8),
        version=claim.version,
        training_key=claim.training_key,
        digest=claim.digest,
        strategy=wanted.strategy,
        plan=plan_of(wanted.strategy, settings.deployment),
        state=RolloutState.WAITING,
        asked_at=moment,
        at=moment,
        asked_by=", ".join(filter(None, (wanted.by or getpass.getuser(), wanted.approval))),
    )
    return record_rollout(settings, asked)


def _claim(settings: Settings, version: int, digest: str | None) -> Claim:
    claim = candidate_permit(settings, version).claim
    if digest not in (None, claim.digest):
        raise RecordMismatchError(
            f"the artefact {digest} is intended, but in MLflow version {version} is now {claim.digest}: somebody has "
            "changed its tags; restore them, and check who may write to MLflow"
        )
    return claim


def has_taken_up(settings: Settings, rollout: Rollout) -> bool:
    """Whether the service has scored with the candidate at its current step, and not only at one before.

    No time is compared: the service's clock may be another one.
    """
    return has_scored(settings, rollout.version, rollout.step_id)


def _result(rollout: Rollout) -> DeployedModel:
    return {
        "deployed": rollout.state == RolloutState.PROMOTED,
        "version": rollout.version,
        "training_key": rollout.training_key,
        "strategy": rollout.strategy.value,
        "rollout": rollout.state.value,
        "reason": describe(rollout),
    }
