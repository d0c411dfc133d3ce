"""The deployments and rollouts of the past in pages, the newest first."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from mlops_tasks.config import Settings
from mlops_tasks.state.database import reading
from mlops_tasks.state.rollouts import Rollout
from mlops_tasks.state.tables import Deployment, RolloutStep


@dataclass(frozen=True)
class DeploymentPage:
    """Steps of deployments, the newest first."""

    total: int
    """Number of steps on all pages."""
    steps: tuple[Deployment, ...]


@dataclass(frozen=True)
class RolloutPage:
    """Rollouts, each with all of its steps in order; the one with the newest step first."""

    total: int
    """Number of rollouts on all pages."""
    rollouts: tuple[tuple[Rollout, ...], ...]


def deployment_page(settings: Settings, first: int, size: int) -> DeploymentPage:
    """At most `size` steps of deployments, after the `first` newest ones."""
    query = select(Deployment).order_by(Deployment.id.desc()).offset(first).limit(size)
    with reading(settings) as active:
        total = active.scalar(select(func.count()).select_from(Deployment)) or 0
        return DeploymentPage(total, tuple(active.scalars(query)))


def rollout_page(settings: Settings, first: int, size: int) -> RolloutPage:
    """At most `size` rollouts, after the `first` newest ones."""
    newest = func.max(RolloutStep.id)
    query = select(RolloutStep.rollout_id).group_by(RolloutStep.rollout_id).order_by(newest.desc())
    with reading(settings) as active:
        total = active.scalar(select(func.count(RolloutStep.rollout_id.distinct()))) or 0
        return RolloutPage(total, _with_steps(active, active.scalars(query.offset(first).limit(size)).all()))


def _with_steps(active: Session, wanted: Sequence[str]) -> tuple[tuple[Rollout, ...], ...]:
    steps: dict[str, list[Rollout]] = {each: [] for each in wanted}
    query = select(RolloutStep).where(RolloutStep.rollout_id.in_(wanted)).order_by(RolloutStep.sequence)
    for row in active.scalars(query):
        steps[row.rollout_id].append(Rollout.of(row))
    return tuple(map(tuple, steps.values()))
