"""Which version the alias `champion` must name, and what to do about it: a pure function of record and findings.

A deployment records its intent before it changes anything (`started`), and its end after its proof (`serving`) or after
the rollback (`rolled_back`). Its lease shows whether it is still running. So at any time, whatever was killed or has
failed, the record says which version is proven:

    last step              lease   the alias must name                       what to do
    none                   -       nothing that is served                    leave it: nobody has deployed yet
    started                held    either version of the deployment          wait: the deployment decides
    started                free    the version proven before                 undo: move it back, record `rolled_back`
    serving                -       the step's version                        restore it if it differs, record
    rolled_back, restored  -       the version proven before                 `restored`

If the version that must be named is no longer registered or may no longer serve, the newest version that has served and
still may replaces it.
"""

from dataclasses import dataclass
from enum import StrEnum

from mlops_tasks.state.deployments import DeploymentStep
from mlops_tasks.states import DeploymentState


class Action(StrEnum):
    """What a check of the alias leads to."""

    LEAVE = "leave"
    WAIT = "wait"
    KEEP = "keep"
    UNDO = "undo"
    RESTORE = "restore"


@dataclass(frozen=True)
class Situation:
    """The record and the findings."""

    last: DeploymentStep | None
    alias: int | None
    running: bool
    """Whether a running deployment holds the lease."""
    ways_back: tuple[int, ...] = ()
    """Registered versions to which the alias may be moved back, best first; not needed if `is_settled`."""

    @property
    def is_settled(self) -> bool:
        """Whether there is obviously nothing to correct."""
        if self.last is None:
            return True
        return self.last.state != DeploymentState.STARTED and self.alias == self.last.champion


@dataclass(frozen=True)
class Decision:
    """What to do, and the resulting champion, which the service serves even if the alias cannot be moved."""

    action: Action
    champion: int | None


def decide(found: Situation) -> Decision:
    """Decide what a check of the alias leads to; deciding again after it was done gives KEEP."""
    last = found.last
    if last is None:
        return Decision(Action.LEAVE, None)
    if last.state == DeploymentState.STARTED and found.running:
        known = found.alias in (last.version, last.proven)
        return Decision(Action.WAIT, found.alias if known else last.proven)
    if last.state == DeploymentState.STARTED:
        return Decision(Action.UNDO, _way_back(found, last.champion))
    if found.is_settled:
        return Decision(Action.KEEP, found.alias)
    return Decision(Action.RESTORE, _way_back(found, last.champion))


def _way_back(found: Situation, wanted: int | None) -> int | None:
    if wanted is not None and (wanted == found.alias or wanted in found.ways_back):
        return wanted
    return next(iter(found.ways_back), None)
