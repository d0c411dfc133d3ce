"""The session to which a model family reports while it trains, and which tells it whether to continue.

For every iteration (boosting round or epoch, from 1), a family's loop is:

    verdict = session.iteration(done, {"train.loss": ..., "valid.loss": ..., "valid.ic": ..., "valid.rank_ic": ...})
    if verdict.is_best: keep this state
    session.checkpoint(done, write)     # writes one when due; waits here while paused; raises here if cancelled
    if verdict.stop: break

Before the loop: `restored = session.restore()`.
"""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypedDict

from mlops_tasks.errors import TrainingError
from mlops_tasks.files import finite_or_none
from mlops_tasks.modeling.configuration import TrainingConfig
from mlops_tasks.modeling.stopping import Conclusion, IterationVerdict, StoppingMonitor
from mlops_tasks.modeling.working_time import WorkingTime
from mlops_tasks.training_folder import Curves

log = logging.getLogger(__name__)

Observer = Callable[[int, Mapping[str, float]], None]
"""Called with each iteration and its metrics; may raise to end the training (a pruned trial)."""


DIVERGED = 1e6
"""A loss of more than this many times the first one counts as diverged."""


class EventSink(Protocol):
    """Where events go."""

    def __call__(self, kind: str, payload: Mapping[str, Any]) -> None:
        """Take one event; must not block."""
        ...


class Control(Protocol):
    """A person's requests to the training."""

    def check(self) -> None:
        """Raise TrainingCancelledError if it was cancelled; costs next to nothing."""
        ...

    @property
    def pause_requested(self) -> bool:
        """Whether it is to pause at the next checkpoint or stage."""
        ...

    def wait(self) -> None:
        """Return when it is resumed; raise TrainingCancelledError when it is cancelled."""
        ...


class SessionState(TypedDict):
    """The part of a session that a checkpoint keeps, besides the family's own files."""

    history: list[tuple[int, dict[str, float | None]]]
    """Iteration and metrics, None where undefined."""
    seconds: float
    """Time worked so far."""


class CheckpointStore(Protocol):
    """Keeps the newest checkpoint of one training; an unfinished one is never seen."""

    def save(self, iteration: int, state: SessionState, write: Callable[[Path], None]) -> None:
        """Let `write` fill a folder, and let it, with the session's own state, replace the previous checkpoint."""
        ...

    def newest(self) -> tuple[int, SessionState, Path] | None:
        """Iteration, the session's state and the folder of the newest checkpoint."""
        ...


@dataclass(frozen=True)
class Restored:
    """A checkpoint to resume from: `iteration` iterations are done, `folder` holds what the family wrote."""

    iteration: int
    folder: Path


def _no_events(kind: str, payload: Mapping[str, Any]) -> None:
    pass


@dataclass(frozen=True)
class Links:
    """The connections of a training to the outside; none by default."""

    events: EventSink = _no_events
    control: Control | None = None
    checkpoints: CheckpointStore | None = None
    observers: Sequence[Observer] = ()


class TrainingSession:
    """One training's seed, threads, metrics so far, and links to the outside."""

    def __init__(self, config: TrainingConfig, *, threads: int = 1, links: Links | None = None) -> None:
        self.config = config
        self.seed = config.seed
        self.threads = threads
        self.history: list[tuple[int, dict[str, float]]] = []
        """Iteration and metrics, from the first iteration on, whichever process ran it."""
        self.monitor = StoppingMonitor(config.stopping)
        self._links = links or Links()
        self._total = 0
        self._clock = WorkingTime()

    def stage(self, name: str) -> None:
        """Announce the next step (load, process, fit, save, predict); first wait while the training is paused.

        Raises TrainingCancelledError like `iteration`.
        """
        control = self._links.control
        if control is not None and control.pause_requested:
            self._pause(control, self.history[-1][0] if self.history else 0)
        self._links.events("stage", {"stage": name})
        if control is not None:
            control.check()

    def expect(self, iterations: int) -> None:
        """Announce the largest number of iterations, from which percent and ETA follow."""
        self._total = iterations

    def warn(self, explanation: str) -> None:
        """Warn of something that could go better, with the remedy; the training continues."""
        log.warning("%s: %s", self.config.model, explanation)
        self._links.events("warning", {"explanation": explanation})

    def iteration(self, done: int, metrics: Mapping[str, float]) -> IterationVerdict:
        """Report a finished iteration; names of metrics are `<segment>.<metric>`.

        Raises
        ------
        TrainingError
            A loss is not finite, or beyond `DIVERGED` times its first value: the training diverged.
        TrainingCancelledError
            It was cancelled.
        """
        values = {name: float(value) for name, value in metrics.items()}
        self.history.append((done, values))
        verdict = self.monitor.update(done, values)
        self._clock.lap()
        self._links.events("iteration", {**self._progress(done), "metrics": values})
        self._check_converges(done, values)
        self._decide(done, verdict)
        for observer in self._links.observers:
            observer(done, values)
        if self._links.control is not None:
            self._links.control.check()
        return verdict

    def checkpoint(self, done: int, write: Callable[[Path], None]) -> None:
        """Write a checkpoint when one is due after `done` iterations; wait here while the training is paused.

        `write` fills the folder that it is given with everything that the family needs to resume.

        Raises
        ------
        TrainingCancelledError
            It was cancelled.
        """
        control = self._links.control
        paused = control is not None and control.pause_requested
        if self._links.checkpoints is not None and (paused or done % self.config.checkpoint_every == 0):
            self._links.checkpoints.save(done, self._state(), write)
            self._links.events("checkpoint", {"iteration": done})
        if control is not None and paused:
            self._pause(control, done)

    def restore(self) -> Restored | None:
        """The checkpoint to resume from; None: start from scratch."""
        found = self._links.checkpoints.newest() if self._links.checkpoints is not None else None
        if found is None:
            return None
        iteration, state, folder = found
        for done, metrics in state["history"]:
            values = {name: math.nan if value is None else value for name, value in metrics.items()}
            self.history.append((done, values))
            self.monitor.update(done, values)
        self._clock.resume(state["seconds"])
        self._links.events("restored", {"iteration": iteration})
        if self.monitor.detector.state == "overfitting":  # decided by an earlier attempt
            self._note_overfitting()
        return Restored(iteration, folder)

    @property
    def seconds(self) -> float:
        """Time spent so far in all processes, without pauses."""
        return self._clock.seconds

    @property
    def best_iteration(self) -> int:
        """The iteration that is kept."""
        return self.monitor.best_iteration

    def conclude(self) -> Conclusion:
        """The verdict on a training that has ended; it is also recorded as a decision."""
        found = self.monitor.conclusion()
        self._links.events("decision", {"about": "fit", **found.to_json()})
        return found

    def curves(self) -> Curves:
        """The history by metric and segment."""
        curves: Curves = {}
        for name in dict.fromkeys(name for _, metrics in self.history for name in metrics):
            segment, _, metric = name.partition(".")
            values = [finite_or_none(metrics.get(name)) for _, metrics in self.history]
            curves.setdefault(metric, {})[segment] = values
        return curves

    def _pause(self, control: Control, done: int) -> None:
        self._links.events("paused", {"iteration": done})
        with self._clock.stopped():
            control.wait()
        self._links.events("resumed", {"iteration": done})

    def _state(self) -> SessionState:
        history = [
            (done, {name: finite_or_none(value) for name, value in metrics.items()}) for done, metrics in self.history
        ]
        return {"history": history, "seconds": self.seconds}

    def _progress(self, done: int) -> dict[str, Any]:
        percent = round(100 * done / self._total, 2) if self._total else 0.0
        return {
            "iteration": done,
            "total": self._total,
            "percent": percent,
            "eta_s": self._eta_s(self._total - done) if self._total else None,
            "eta_stop_s": self._eta_s(self._until_stop(done)),
            "best": self.monitor.best_json(),
        }

    def _until_stop(self, done: int) -> int | None:
        """Iterations until early stopping ends the training, if validation does not improve; None: unknown."""
        if not self.best_iteration:
            return None
        left = max(0, self.best_iteration + self.config.stopping.patience - done)
        return min(left, self._total - done) if self._total else left

    def _eta_s(self, iterations: int | None) -> float | None:
        lap = self._clock.lap_seconds
        return None if lap is None or iterations is None else round(lap * iterations, 1)

    def _decide(self, done: int, verdict: IterationVerdict) -> None:
        if verdict.changed:
            self._note_overfitting()
        if verdict.stop:
            payload = {"iteration": done, "explanation": verdict.reason, "best_iteration": self.best_iteration}
            self._links.events("decision", {"about": "stop", **payload})

    def _note_overfitting(self) -> None:
        detector = self.monitor.detector
        if detector.finding is not None:
            payload = {**detector.finding.to_json(), "explanation": self.monitor.explanation}
            self._links.events("decision", {"about": "overfitting", **payload})

    def _check_converges(self, done: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            if not name.endswith(".loss"):
                continue
            first = self.history[0][1].get(name, value)
            if not math.isfinite(value) or abs(value) > max(DIVERGED * abs(first), 1.0):
                raise TrainingError(
                    f"{self.config.model}: {name} is {value:.6g} at iteration {done} and was {first:.6g} at first: the "
                    f"training diverges; lower hyperparameters.{self.config.model}.learning_rate, or look for outliers "
                    "in the features"
                )
