"""Business metric events: read, checked, given their arm, and stored in batches.

An event belongs to the arm that its unit had at the event's time. Events may come late, out of order and more than
once. What is refused is kept, with the reason.
"""

import json
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal
from itertools import islice
from typing import Any, NamedTuple

from pydantic import AwareDatetime, Field, TypeAdapter, ValidationError

from mlops_tasks.config import Section, Settings
from mlops_tasks.errors import excerpt, hint
from mlops_tasks.experiments.assignment import Reason, TrafficPlan
from mlops_tasks.experiments.design import MetricSource
from mlops_tasks.experiments.lifecycle import history_of, layers, started_history
from mlops_tasks.state.metric_events import BATCH, DAY, DECIMALS, NewEvent, add_metric_events, metric_sums
from mlops_tasks.state.tables import RefusedMetricEvent, now
from mlops_tasks.states import ExperimentState

LARGEST = 1e9
CLOCK_SKEW = timedelta(minutes=5)
"""An event may be this far ahead of this machine's clock."""
LONGEST_REASON = 1000
"""Characters of a reason why an event is refused."""
_MOST_TOLD = 20


class SentEvent(Section):
    """An event as a client sends it."""

    event_id: str = Field(min_length=1, max_length=64)
    """Chosen by the client, unique within the experiment; sent again, it counts once."""
    unit: str = Field(min_length=1, max_length=128)
    metric: str = Field(min_length=1, max_length=64)
    value: float = Field(ge=-LARGEST, le=LARGEST, allow_inf_nan=False, strict=True)
    """Rounded to `DECIMALS` places."""
    at: AwareDatetime
    """When it happened."""


_ADAPTER = TypeAdapter(SentEvent)


@dataclass
class Ingested:
    """What became of a stream of events."""

    new: int = 0
    repeated: int = 0
    refused: int = 0
    """Kept in the state database with their reasons: `alphaops experiments refused NAME`."""
    faults: list[str] = field(default_factory=list)
    """The first `_MOST_TOLD` refusals, with their row from 1."""

    def fault(self, event: int | str, reason: str) -> None:
        """Note the refusal of an event, which its row or its identifier names."""
        self.refused += 1
        if len(self.faults) < _MOST_TOLD:
            self.faults.append(f"event {event}: {reason}")


def ingest_events(settings: Settings, experiment: str, sent: Iterable[Mapping[str, Any] | str | bytes]) -> Ingested:
    """Store events of an experiment, JSON texts or plain values, in batches of `BATCH`.

    A batch is stored whole or not at all, so after a kill the same stream may be sent again from its beginning. Memory
    does not grow with the number of events.

    Raises
    ------
    ExperimentError
        There is no such experiment, or it was never started.
    """
    assigned = _Assigned(settings, experiment)
    told, stream, first = Ingested(), iter(sent), 1
    while batch := list(islice(stream, BATCH)):
        events, refused = assigned.read(batch, first, told)
        stored = add_metric_events(settings, experiment, events, refused)
        told.new += stored.new
        told.repeated += stored.repeated
        for identifier in stored.conflicting:
            told.fault(excerpt(identifier), "another one with this identifier has other content")
        first += len(batch)
    return told


class _Assigned:
    """Gives events the arms that their units had at their times."""

    def __init__(self, settings: Settings, experiment: str) -> None:
        self.history = started_history(settings, experiment)
        self.experiment = experiment
        self.times = [each.at for each in self.history]
        design = self.history[-1].design
        self.metrics = {metric.name for metric in design.metrics if metric.source is MetricSource.EVENTS}
        self.computed = {metric.name for metric in design.metrics} - self.metrics
        layer = layers(settings)[self.history[-1].design.layer]
        self.plans = [TrafficPlan((layer,), (each.enrolment,)) for each in self.history]

    def read(
        self, batch: Sequence[Mapping[str, Any] | str | bytes], first: int, told: Ingested
    ) -> tuple[list[NewEvent], list[RefusedMetricEvent]]:
        """The events of a batch whose first one has the row `first`, and those that are refused."""
        refused: list[RefusedMetricEvent] = []

        def refuse(row: int, event: Any, reason: str) -> None:
            reason = reason.replace("\0", "\\0")[:LONGEST_REASON]  # it quotes names of fields as they were sent
            told.fault(row, reason)
            text = event.decode(errors="replace") if isinstance(event, bytes) else event
            kept = text if isinstance(text, str) else json.dumps(text, default=str)
            kept = kept.replace("\0", "\\0")[:4000]
            refused.append(RefusedMetricEvent(experiment=self.experiment, event=kept, reason=reason))

        latest = now() + CLOCK_SKEW
        by_step: dict[int, list[tuple[int, SentEvent]]] = {}
        for row, raw in enumerate(batch, first):
            try:
                event = _ADAPTER.validate_json(raw) if isinstance(raw, str | bytes) else _ADAPTER.validate_python(raw)
            except ValidationError as error:
                refuse(row, raw, "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()))
                continue
            if (reason := self._objection(event, latest)) is not None:
                refuse(row, raw, reason)
            else:
                by_step.setdefault(self._step_at(event.at), []).append((row, event))
        events: list[NewEvent] = []
        for step, found in by_step.items():
            arms = self.plans[step].assign(self.experiment, [event.unit for _, event in found])
            for place, (row, event) in enumerate(found):
                if (arm := arms.arm_of(place)) is None:
                    reason = f"unit {excerpt(event.unit)} had no arm at that time ({arms.reason_of(place)})"
                    refuse(row, batch[row - first], reason)
                else:
                    events.append(self._event(event, arm, arms.reason_of(place) == Reason.ASSIGNED))
        return events, refused

    def _step_at(self, moment: datetime) -> int:
        """Place of the step that was in force; -1: before the first."""
        return bisect_right(self.times, moment) - 1

    def _objection(self, event: SentEvent, latest: datetime) -> str | None:
        if "\0" in event.event_id + event.unit:
            return "a NUL byte in a name; names are printable text"
        if event.metric in self.computed:
            return f"{event.metric} is computed from the log of predictions; its events are not needed"
        if event.metric not in self.metrics:
            return f"no metric {excerpt(event.metric)}; {hint(event.metric, self.metrics)}"
        if event.at > latest:
            return (
                f"it is of {_told(event.at)}, which is more than {CLOCK_SKEW.seconds // 60} minutes "
                "ahead of this machine's clock; set the sender's clock and send it again"
            )
        step = self._step_at(event.at)
        state = None if step < 0 else self.history[step].state
        if state != ExperimentState.RUNNING:
            said = "not registered" if state is None else state
            return f"it is of {_told(event.at)}, when the experiment was {said}, not running"
        return None

    def _event(self, event: SentEvent, arm: str, counted: bool) -> NewEvent:
        moment = event.at.astimezone(UTC)
        return NewEvent(
            experiment=self.experiment,
            event_id=event.event_id,
            unit=event.unit,
            arm=arm,
            metric=event.metric,
            value=scaled(event.value),
            day=moment.date(),
            counted=counted,
            at=moment,
        )


def _told(moment: datetime) -> str:
    """A time as messages name it; one at an end of the calendar has none in UTC."""
    try:
        return f"{moment.astimezone(UTC):%F %T} UTC"
    except OverflowError:
        return moment.isoformat()


def scaled(value: float) -> int:
    """A value in units of 1e-9, from its shortest decimal text, half to even."""
    return int(Decimal(repr(value)).scaleb(DECIMALS).to_integral_value(ROUND_HALF_EVEN))


class DailyMoments(NamedTuple):
    """A metric's counted events of an arm and a day; NaN where there are too few for a moment."""

    metric: str
    arm: str
    day: str
    n: int
    mean: float
    variance: float


def daily_moments(settings: Settings, experiment: str) -> list[DailyMoments]:
    """By metric, the primary one first, then by arm and day, up to the last event.

    Raises
    ------
    NoExperimentError
        There is none of this name.
    """
    design = history_of(settings, experiment)[-1].design
    return [
        DailyMoments(metric.name, arm, day, each.n, each.mean, each.variance)
        for metric in design.metrics
        for (arm, day), each in sorted(metric_sums(settings, experiment, metric.name, DAY).items())
    ]
