"""Which version the alias `champion` has to name, and what to do about it: pure, over what is recorded and found.

A deployment writes its intent before it moves anything (`started`), and how it ended after its proof (`serving`), or
after the way back (`rolled_back`). Its lease says whether it is still at work. So at any moment, whatever was killed or
has failed, the record says which version is the proven one:

    last step              lease   the alias has to name                     what to do
    none                   -       nothing that is served                    leave it: nobody has deployed yet
    started                held    either version of the deployment          wait: the deployment decides
    started                free    the version proven before                 undo: put it back, record `rolled_back`
    serving                -       the step's version                        restore it where it differs, record
    rolled_back, restored  -       the version proven before                 `restored`

What has to be named and is not registered any more, or may not serve any more, is replaced by the newest version that
served and still may.
"""

from dataclasses import dataclass
from enum import StrEnum

from mlops_tasks.state.deployments import DeploymentStep
from mlops_tasks.states import DeploymentState


class Action(StrEnum):
    """What a look at the alias leads to."""

    LEAVE = "leave"
    WAIT = "wait"
    KEEP = "keep"
    UNDO = "undo"
    RESTORE = "restore"


@dataclass(frozen=True)
class Situation:
    """What is recorded and found."""

    last: DeploymentStep | None
    alias: int | None
    running: bool
    """Whether a deployment that lives holds the lease."""
    ways_back: tuple[int, ...] = ()
    """Registered versions that the alias may be put back to, the best first; not needed where `is_settled`."""

    @property
    def is_settled(self) -> bool:
        """Whether there is nothing to put right, at the first glance."""
        if self.last is None:
            return True
        return self.last.state != DeploymentState.STARTED and self.alias == self.last.champion


@dataclass(frozen=True)
class Decision:
    """What to do, and the champion once it is done: what the service serves, even if the alias cannot be moved."""

    action: Action
    champion: int | None


def decide(found: Situation) -> Decision:
    """What a look at the alias leads to; deciding again after it was done gives KEEP."""
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
