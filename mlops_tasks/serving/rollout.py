"""The steps of candidates on their way to champion: pure functions of the record and the findings.

One rollout is in progress at a time, the others wait:

    waiting > holding (a step of the plan, for its time) > ... > promoting > promoted
                                                                           > completed (a shadow, at its end)
    any of them                                                            > rejected, aborted

The plan of `blue_green` has no step, that of `shadow` one with the share 0, that of `canary` one for each share. A
rollout changes nothing itself: to promote a candidate is to deploy it, by `deployment.py`, with its proof and rollback.

Every rollout that waits or is in progress has a deadline, so that it ends eventually.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from hashlib import blake2b

from mlops_tasks.state.rollouts import Rollout
from mlops_tasks.states import QueuePolicy, RolloutState, Strategy

MOST_FAILURES = 3
"""Failed deployments of a candidate, one per evaluation, after which it is rejected."""
_UNITS = float(2**64)


@dataclass(frozen=True)
class Situation:
    """The record and the findings."""

    now: datetime
    champion: int | None
    queue: tuple[Rollout, ...]
    """All undecided rollouts, in the order in which they were requested."""
    policy: QueuePolicy
    objections: Mapping[str, str]
    """Reasons against a candidate, by rollout: it may not serve, or it breaks a rule."""
    seen: bool = True
    """Whether the service has scored with the candidate of the rollout in progress at its current step."""

    @property
    def at_work(self) -> Rollout | None:
        """The rollout that has begun."""
        return next((each for each in self.queue if each.is_at_work), None)

    @property
    def waiting(self) -> tuple[Rollout, ...]:
        """The rollouts that have not begun."""
        return tuple(each for each in self.queue if not each.is_at_work)


@dataclass(frozen=True)
class Move:
    """A step that a rollout takes."""

    before: Rollout
    after: Rollout
    alarming: bool = False
    """Whether people are notified."""


@dataclass(frozen=True)
class Deploy:
    """The candidate is to be deployed now."""

    rollout: Rollout


def decide(found: Situation) -> Move | Deploy | None:
    """The next action; None: wait."""
    for each in found.queue:
        if (ended := _end(each, found)) is not None:
            return ended
    at_work = found.at_work
    if at_work is not None:
        return _go_on(at_work, found)
    return _begin(found.waiting[0], found) if found.waiting else None


def failed(rollout: Rollout, reason: str, now: datetime) -> Move:
    """The step after a failed deployment."""
    if rollout.failures + 1 >= MOST_FAILURES:
        return _against(rollout, RolloutState.REJECTED, now, f"{MOST_FAILURES} deployments have failed; {reason}")
    again = replace(rollout, state=RolloutState.PROMOTING, at=now, step=rollout.step + 1, reason=reason)
    return Move(rollout, again)


def rejected(rollout: Rollout, reason: str, now: datetime) -> Move:
    """The step for a candidate that cannot score."""
    return _against(rollout, RolloutState.REJECTED, now, reason)


def aborted(rollout: Rollout, reason: str, by: str, now: datetime) -> Move:
    """The step by which a person ends a rollout."""
    return Move(rollout, replace(rollout, state=RolloutState.ABORTED, at=now, reason=reason, asked_by=by))


def is_of_candidate(rollout: Rollout, unit: str) -> bool:
    """Whether the candidate answers a client: the same in every process, and also at every larger share."""
    drawn = blake2b(f"{rollout.rollout_id}\0{unit}".encode(), digest_size=8).digest()
    return int.from_bytes(drawn) < rollout.share * _UNITS


def _end(rollout: Rollout, found: Situation) -> Move | None:
    """The decision about a rollout, if one is due."""
    if rollout.version == found.champion:
        return _moved(rollout, RolloutState.PROMOTED, found.now)
    if (objection := found.objections.get(rollout.rollout_id)) is not None:
        return _against(rollout, RolloutState.REJECTED, found.now, objection)
    if rollout.is_at_work and rollout.champion != found.champion:
        reason = f"the champion was {_named(rollout.champion)} when it began, and is now {_named(found.champion)}"
        return _against(rollout, RolloutState.ABORTED, found.now, reason)
    if found.now >= rollout.due:
        said = "it has begun and was not decided" if rollout.began_at else "it has waited"
        reason = f"{said} until its deadline, {rollout.due:%F %R} UTC"
        return _against(rollout, RolloutState.ABORTED, found.now, reason)
    if not rollout.is_at_work and (against := _place(rollout, found)) is not None:
        return _moved(rollout, RolloutState.REJECTED, found.now, against)
    return None


def _place(rollout: Rollout, found: Situation) -> str | None:
    """Why a waiting rollout is rejected from the queue."""
    at_work, newest = found.at_work, found.waiting[-1]
    if found.policy == QueuePolicy.NEWEST_WINS and rollout != newest:
        return f"version {newest.version} is newer and takes its place in the queue"
    if found.policy == QueuePolicy.SKIP and at_work is not None:
        return f"the rollout of version {at_work.version} was under way"
    return None


def _begin(rollout: Rollout, found: Situation) -> Move:
    begun = replace(rollout, began_at=found.now, champion=found.champion)
    if found.champion is None and rollout.strategy == Strategy.SHADOW:
        reason = "there is no champion with which it could be compared"
        return _against(rollout, RolloutState.REJECTED, found.now, reason)
    straight = found.champion is None or not rollout.plan.shares
    after = _promoting(begun, found.now) if straight else _moved(begun, RolloutState.HOLDING, found.now).after
    return Move(rollout, after)


def _go_on(rollout: Rollout, found: Situation) -> Move | Deploy | None:
    if rollout.state == RolloutState.PROMOTING:
        return Deploy(rollout)
    if found.now < rollout.holds_until or not found.seen:
        return None
    if rollout.step + 1 < len(rollout.plan.shares):
        return Move(rollout, replace(rollout, step=rollout.step + 1, at=found.now))
    if rollout.strategy == Strategy.SHADOW:
        return _moved(rollout, RolloutState.COMPLETED, found.now, "it has stood its time as a shadow")
    return Move(rollout, _promoting(rollout, found.now))


def _promoting(rollout: Rollout, now: datetime) -> Rollout:
    return replace(rollout, state=RolloutState.PROMOTING, step=len(rollout.plan.shares), at=now)


def _moved(rollout: Rollout, state: RolloutState, now: datetime, reason: str = "") -> Move:
    return Move(rollout, replace(rollout, state=state, at=now, reason=reason))


def _against(rollout: Rollout, state: RolloutState, now: datetime, reason: str) -> Move:
    return replace(_moved(rollout, state, now, reason), alarming=True)


def _named(version: int | None) -> str:
    return "none" if version is None else f"version {version}"
