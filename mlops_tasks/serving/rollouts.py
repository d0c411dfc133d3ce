"""Evaluates rollouts and ends them: the record, the alerts and the deployment behind `rollout.py`.

An evaluation takes as many steps as are due and waits for nothing, so it may be made as often as one likes, by whoever,
and may be killed at any point: what it has not recorded, the next one does. One is at work at a time.
"""

import logging
from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from mlops_tasks.config import Settings
from mlops_tasks.errors import DeploymentError
from mlops_tasks.serving.rollout import Deploy, Move, Situation, decide, failed
from mlops_tasks.state.alerts import raise_daily_alert
from mlops_tasks.state.rollouts import Rollout, record_rollout_step, undecided_rollouts
from mlops_tasks.states import RolloutState

log = logging.getLogger(__name__)

LEASE = "rollout"
WAIT_S = 10.0
"""For an evaluation, which takes a moment; one that deploys takes longer, and is not waited for."""
_MOST_STEPS = 1000
"""Of one evaluation; more would be an error of ours, and the next evaluation goes on."""


class World(Protocol):
    """What an evaluation finds and does outside of the record of rollouts."""

    def look(self, queue: Sequence[Rollout]) -> Situation:
        """What there is to decide on.

        Raises
        ------
        DeploymentError
            A deployment that is no rollout's is at work: nobody knows who is champion.
        """

    def deploy(self, rollout: Rollout) -> None:
        """Deploy a candidate. DeploymentError: it was not, and the champion serves as before."""

    def now(self) -> datetime:
        """The present, aware."""


def evaluate(settings: Settings, world: World) -> list[Rollout]:
    """Take the steps that are due, for who holds the lease; returns the rollouts after each of them."""
    taken: list[Rollout] = []
    deployed: set[str] = set()
    for _ in range(_MOST_STEPS):
        queue = undecided_rollouts(settings)
        step = decide(world.look(queue)) if queue else None
        if isinstance(step, Deploy) and step.rollout.rollout_id not in deployed:
            deployed.add(step.rollout.rollout_id)
            step = _deploy(world, step.rollout)
            if step is None:
                continue  # it is the champion: the next look says so
        if not isinstance(step, Move):
            break
        if record(settings, step):
            taken.append(step.after)
    return taken


def _deploy(world: World, rollout: Rollout) -> Move | None:
    try:
        world.deploy(rollout)
    except DeploymentError as error:
        return failed(rollout, str(error), world.now())
    return None


def record(settings: Settings, move: Move) -> bool:
    """Tell people of a step, where it is for them, and record it; False where somebody else was quicker.

    In this order, so that nothing that ends badly is kept from them by a kill in between.
    """
    after = move.after
    told = f"{after.strategy} of version {after.version}: {after.state}" + (f", {after.reason}" if after.reason else "")
    if move.alarming:
        raise_daily_alert(settings, kind=f"rollout_{after.state}", cause=f"version {after.version}", message=told)
    done = record_rollout_step(settings, move.before, after)
    if done:
        log.log(logging.WARNING if after.state == RolloutState.REJECTED else logging.INFO, "%s", told)
    return done
