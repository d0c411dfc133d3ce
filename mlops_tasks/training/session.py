"""What a model family reports to while it trains, and asks whether to go on.

A family's loop is, for every iteration (boosting round, epoch; from 1):

    verdict = session.iteration(done, {"train.loss": ..., "valid.loss": ..., "valid.ic": ..., "valid.rank_ic": ...})
    if verdict.is_best: keep this state
    session.checkpoint(done, write)     # writes when one is due; a pause waits here, a cancellation ends here
    if verdict.stop: break

and before it `restored = session.restore()`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from mlops_tasks.training.configuration import TrainingConfig
from mlops_tasks.training.stopping import StoppingMonitor, Verdict

Curves = dict[str, dict[str, list[float]]]
"""metric -> segment -> value of each iteration at which it was computed."""

Observer = Callable[[int, Mapping[str, float]], None]
"""Called with each iteration and its metrics; may raise to end the training (a pruned trial)."""


class EventSink(Protocol):
    """Where events go."""

    def __call__(self, kind: str, payload: Mapping[str, Any]) -> None:
        """Take one event; must not block."""
        ...


class Control(Protocol):
    """What a person has asked of the training."""

    def check(self) -> None:
        """Raise TrainingCancelledError when it was cancelled; costs next to nothing."""
        ...

    @property
    def pause_requested(self) -> bool:
        """Whether it is to pause at the next checkpoint."""
        ...

    def wait(self) -> None:
        """Return when it is resumed; raise TrainingCancelledError when it is cancelled."""
        ...


class CheckpointStore(Protocol):
    """Keeps the newest checkpoint of one training; an unfinished one is never seen."""

    def save(self, iteration: int, state: Mapping[str, Any], write: Callable[[Path], None]) -> None:
        """Let `write` fill a folder, and put it, with the session's own state, in the place of the one before."""
        ...

    def newest(self) -> tuple[int, Mapping[str, Any], Path] | None:
        """Iteration, the session's state and the folder of the newest checkpoint."""
        ...


@dataclass(frozen=True)
class Restored:
    """A checkpoint to go on from: `iteration` iterations are done, `folder` holds what the family wrote."""

    iteration: int
    folder: Path


def _no_events(kind: str, payload: Mapping[str, Any]) -> None:
    pass


@dataclass(frozen=True)
class Links:
    """What connects a training to the outside; by default nothing does."""

    events: EventSink = _no_events
    control: Control | None = None
    checkpoints: CheckpointStore | None = None
    observers: Sequence[Observer] = ()


class TrainingSession:
    """One training's seed, threads, metrics so far, and link to the outside."""

    def __init__(self, config: TrainingConfig, *, threads: int = 1, links: Links | None = None) -> None:
        self.config = config
        self.seed = config.seed
        self.threads = threads
        self.history: list[tuple[int, dict[str, float]]] = []
        """Iteration and metrics, from the first iteration on, whatever process it ran in."""
        self.monitor = StoppingMonitor(config.stopping)
        self._links = links or Links()
        self._total = 0

    def stage(self, name: str) -> None:
        """Say what is being done: load, process, fit, save, predict."""
        self._links.events("stage", {"stage": name})

    def expect(self, iterations: int) -> None:
        """Say how many iterations there are at most; percent and ETA follow from it."""
        self._total = iterations

    def note(self, kind: str, **payload: Any) -> None:
        """Record something else that happened."""
        self._links.events(kind, payload)

    def iteration(self, done: int, metrics: Mapping[str, float]) -> Verdict:
        """Report a finished iteration; names of metrics are `<segment>.<metric>`.

        Raises
        ------
        TrainingError
            The loss is not finite: the training diverged.
        TrainingCancelledError
            It was cancelled.
        """
        values = {name: float(value) for name, value in metrics.items()}
        self.history.append((done, values))
        verdict = self.monitor.update(done, values)
        self._links.events("iteration", {"iteration": done, "total": self._total, "metrics": values})
        for observer in self._links.observers:
            observer(done, values)
        return verdict

    def checkpoint(self, done: int, write: Callable[[Path], None]) -> None:
        """Write a checkpoint when one is due after `done` iterations; wait here while the training is paused."""

    def restore(self) -> Restored | None:
        """The checkpoint to go on from; None: begin at the beginning."""
        return None

    @property
    def best_iteration(self) -> int:
        """The iteration that is kept."""
        return self.monitor.best_iteration

    def curves(self) -> Curves:
        """The history by metric and segment."""
        curves: Curves = {}
        for _, metrics in self.history:
            for name, value in metrics.items():
                segment, _, metric = name.partition(".")
                curves.setdefault(metric, {}).setdefault(segment, []).append(value)
        return curves
