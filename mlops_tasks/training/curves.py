"""The curves of a training run from its events, while it runs and afterwards: thinned out, however long it is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from mlops_tasks.config import Settings
from mlops_tasks.state.tables import TrainingEvent
from mlops_tasks.state.training_runs import newest_training_event, sampled_training_events

USED = ("cpu_percent", "rss_mb", "gpu_percent", "gpu_memory_mb")
"""What is drawn of the resources that a training uses."""


@dataclass(frozen=True)
class Step:
    """An iteration."""

    iteration: int
    best: int | None
    """The iteration that would be kept by then; None: none yet."""
    metrics: Mapping[str, float | None]
    """`<segment>.<metric>` to value; None where it is undefined, and missing where it was not computed."""


@dataclass(frozen=True)
class Sample:
    """What the processes of a training use at one moment."""

    at: datetime
    used: Mapping[str, float]
    """Some of `USED`."""


@dataclass(frozen=True)
class RunCurves:
    """What a run's events up to a number say.

    Attributes
    ----------
    until
        That number. Later events go on from there.
    steps, samples
        In order, evenly spread over the run, the newest among them.
    """

    run_id: str
    until: int
    steps: Sequence[Step]
    samples: Sequence[Sample]


def run_curves(settings: Settings, run_id: str, points: int, until: int | None = None) -> RunCurves:
    """The curves of a run, at `points` iterations and samples at most, as of event `until`; None: the newest."""
    if until is None:
        newest = newest_training_event(settings, run_id)
        until = newest.sequence if newest else 0
    steps = [_step(event.payload) for event in sampled_training_events(settings, run_id, "iteration", until, points)]
    used = sampled_training_events(settings, run_id, "resources", until, points)
    samples = [_sample(event) for event in used]
    return RunCurves(run_id, until, _ascending(steps), [sample for sample in samples if sample.used])


def _sample(event: TrainingEvent) -> Sample:
    return Sample(event.at, {name: event.payload[name] for name in USED if name in event.payload})


def _step(payload: Mapping[str, Any]) -> Step:
    best = payload.get("best") or {}
    return Step(payload["iteration"], best.get("iteration"), payload.get("metrics", {}))


def _ascending(steps: Sequence[Step]) -> list[Step]:
    """Without iterations that were computed again after a checkpoint."""
    found: list[Step] = []
    for step in steps:
        if not found or step.iteration > found[-1].iteration:
            found.append(step)
    return found
