"""Rollouts: which candidate is at which step, and which ones wait; each step is recorded once."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from mlops_tasks.config import Settings
from mlops_tasks.state.database import reading, session
from mlops_tasks.state.model_history import Model, challenge_again, move
from mlops_tasks.state.rows import content_digest, lock_table
from mlops_tasks.state.tables import RolloutStep
from mlops_tasks.states import UNDECIDED, Arm, ModelState, RolloutState, Strategy

AT_WORK = (RolloutState.HOLDING, RolloutState.PROMOTING)


@dataclass(frozen=True)
class RolloutPlan:
    """The plan of a rollout, fixed when it is requested."""

    shares: tuple[float, ...]
    """Share of the clients that the candidate answers, in [0, 1], one per step; 0: none, it scores as a shadow."""
    hold_s: float
    """How long each step lasts."""
    deadline_s: float
    """How long it may wait, and how long it may take once it has begun."""

    @classmethod
    def of(cls, content: dict[str, Any]) -> "RolloutPlan":
        """Read it from its recorded form."""
        return cls(tuple(content["shares"]), content["hold_s"], content["deadline_s"])

    def to_json(self) -> dict[str, Any]:
        """The form in which it is recorded."""
        return {"shares": list(self.shares), "hold_s": self.hold_s, "deadline_s": self.deadline_s}


@dataclass(frozen=True)
class Rollout:
    """A rollout as of its last step."""

    rollout_id: str
    version: int
    training_key: str
    digest: str
    strategy: Strategy
    plan: RolloutPlan
    state: RolloutState
    asked_at: datetime
    at: datetime
    """When its current step began."""
    step: int = 0
    champion: int | None = None
    """Version that it is compared with."""
    began_at: datetime | None = None
    reason: str = ""
    asked_by: str = ""
    sequence: int = 1

    @classmethod
    def of(cls, row: RolloutStep) -> "Rollout":
        """Build it from a row."""
        return cls(
            rollout_id=row.rollout_id,
            version=row.model_version,
            training_key=row.training_key,
            digest=row.artefact_digest,
            strategy=Strategy(row.strategy),
            plan=RolloutPlan.of(row.plan),
            state=RolloutState(row.state),
            asked_at=row.asked_at,
            at=row.at,
            step=row.step,
            champion=row.champion_version,
            began_at=row.began_at,
            reason=row.reason,
            asked_by=row.asked_by,
            sequence=row.sequence,
        )

    def row(self) -> RolloutStep:
        """The form in which it is recorded."""
        return RolloutStep(
            rollout_id=self.rollout_id,
            sequence=self.sequence,
            model_version=self.version,
            training_key=self.training_key,
            artefact_digest=self.digest,
            strategy=self.strategy.value,
            plan=self.plan.to_json(),
            state=self.state.value,
            step=self.step,
            champion_version=self.champion,
            reason=self.reason,
            asked_by=self.asked_by,
            asked_at=self.asked_at,
            began_at=self.began_at,
            at=self.at,
        )

    @property
    def is_at_work(self) -> bool:
        """Whether it has begun and is undecided."""
        return self.state in AT_WORK

    @property
    def is_decided(self) -> bool:
        """Whether its state is final."""
        return self.state not in UNDECIDED

    @property
    def failures(self) -> int:
        """Number of its deployments that have failed."""
        return self.step - len(self.plan.shares) if self.state == RolloutState.PROMOTING else 0

    @property
    def share(self) -> float:
        """Share of the clients that the candidate answers now; 0 once a deployment of it has failed."""
        if not self.is_at_work or not self.plan.shares or self.failures:
            return 0.0
        return self.plan.shares[min(self.step, len(self.plan.shares) - 1)]

    @property
    def step_id(self) -> str:
        """Request id under which the service logs that it has taken up the current step."""
        return f"{self.rollout_id}-{self.step}"

    @property
    def arm(self) -> Arm:
        """Arm of the candidate's answers."""
        return Arm.SHADOW if self.strategy == Strategy.SHADOW else Arm.CANARY

    @property
    def due(self) -> datetime:
        """Its deadline."""
        return (self.began_at or self.asked_at) + timedelta(seconds=self.plan.deadline_s)

    @property
    def holds_until(self) -> datetime:
        """The end of its current step."""
        return self.at + timedelta(seconds=self.plan.hold_s)


def undecided_rollouts(settings: Settings) -> list[Rollout]:
    """Rollouts in progress or waiting, in the order in which they were requested."""
    with reading(settings) as active:
        return _undecided(active)


def rollout_at_work(settings: Settings) -> Rollout | None:
    """The rollout that has begun and is undecided."""
    return next((each for each in undecided_rollouts(settings) if each.is_at_work), None)


def latest_rollout(settings: Settings, digest: str | None = None) -> Rollout | None:
    """The rollout with the newest step, of one artefact if its digest is given."""
    query = select(RolloutStep).order_by(RolloutStep.id.desc()).limit(1)
    if digest is not None:
        query = query.where(RolloutStep.artefact_digest == digest)
    with reading(settings) as active:
        row = active.scalars(query).first()
    return None if row is None else Rollout.of(row)


def rollouts_decided_since(settings: Settings, moment: datetime) -> list[Rollout]:
    """Rollouts that were decided at a time (aware) or later, the newest decision first."""
    decided = RolloutStep.state.not_in(UNDECIDED)
    query = select(RolloutStep).where(decided, RolloutStep.at >= moment).order_by(RolloutStep.id.desc())
    with reading(settings) as active:
        return [Rollout.of(row) for row in active.scalars(query)]


def rollout_steps(settings: Settings, rollout_id: str) -> list[Rollout]:
    """All steps of a rollout, in order."""
    query = select(RolloutStep).where(RolloutStep.rollout_id == rollout_id).order_by(RolloutStep.sequence)
    with reading(settings) as active:
        return [Rollout.of(row) for row in active.scalars(query)]


def newest_rollout_step_id(settings: Settings) -> int:
    """Row id of the newest step of all rollouts; 0 before the first."""
    with reading(settings) as active:
        return active.scalar(select(func.max(RolloutStep.id))) or 0


def rollout_steps_after(settings: Settings, after: int, limit: int) -> list[RolloutStep]:
    """Steps of rollouts with row ids above `after`, in the order in which they were recorded."""
    with reading(settings) as active:
        query = select(RolloutStep).where(RolloutStep.id > after).order_by(RolloutStep.id).limit(limit)
        return list(active.scalars(query))


def record_rollout(settings: Settings, asked: Rollout) -> Rollout:
    """Add a requested rollout, unless there is an undecided one of the same artefact with the same strategy.

    Returns
    -------
    The new rollout, or the existing one.
    """
    with session(settings) as active:
        lock_table(active, RolloutStep.__tablename__)
        same = (asked.version, asked.digest, asked.strategy)
        for each in _undecided(active):
            if (each.version, each.digest, each.strategy) == same:
                return each
        _add(active, asked)
    return asked


def record_rollout_step(settings: Settings, before: Rollout, after: Rollout) -> bool:
    """Add a step, if the one before is still the last of its rollout, and, if it begins, no other is in progress.

    Returns
    -------
    False if not, because another process was quicker; nothing is added then.
    """
    after = replace(after, sequence=before.sequence + 1)
    with session(settings) as active:
        lock_table(active, RolloutStep.__tablename__)
        queue = {each.rollout_id: each for each in _undecided(active)}
        present = queue.pop(before.rollout_id, None)
        if present is None or present.sequence != before.sequence:
            return False
        if after.is_at_work and any(each.is_at_work for each in queue.values()):
            return False
        _add(active, after)
        _follow(active, before, after)
    return True


def _follow(active: Session, before: Rollout, after: Rollout) -> None:
    """Record what a step means for the candidate in the history of models; a promotion is recorded by its deployment.

    A rollout that is decided against before it has begun says nothing about its candidate.
    """
    model = Model(after.training_key, after.version)
    by = after.asked_by if after.state == RolloutState.ABORTED and after.asked_by != before.asked_by else ""
    if after.state == RolloutState.HOLDING and before.state == RolloutState.WAITING:
        move(active, model, ModelState.CANARY, f"its {after.strategy} rollout {after.rollout_id} has begun", by)
    elif after.state == RolloutState.REJECTED and before.is_at_work:
        move(active, model, ModelState.REJECTED, after.reason, by)
    elif after.state in (RolloutState.COMPLETED, RolloutState.ABORTED):
        challenge_again(active, model, ModelState.CANARY, after.reason, by)


def _undecided(active: Session) -> list[Rollout]:
    """Rollouts in the order in which they were requested."""
    ends = (
        select(func.min(RolloutStep.id).label("first"), func.max(RolloutStep.id).label("last"))
        .group_by(RolloutStep.rollout_id)
        .subquery()
    )
    query = select(RolloutStep).join(ends, RolloutStep.id == ends.c.last).where(RolloutStep.state.in_(UNDECIDED))
    query = query.order_by(ends.c.first)
    return [Rollout.of(row) for row in active.scalars(query)]


def _add(active: Session, rollout: Rollout) -> None:
    row = rollout.row()
    row.content_digest = content_digest(row)
    active.add(row)
