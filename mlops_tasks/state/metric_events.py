"""Metric events of experiments, and their sums, which every transaction brings up to date."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from fractions import Fraction
from typing import Any, NamedTuple

from sqlalchemy import func, insert, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from mlops_tasks.config import Settings
from mlops_tasks.state.database import reading, session
from mlops_tasks.state.rows import lock_table
from mlops_tasks.state.tables import MetricEvent, MetricSum, RefusedMetricEvent, now

BATCH = 5_000
"""Most events of one transaction; SQLite allows 32,766 variables in a statement."""

DAY, UNIT = "day", "unit"

DECIMALS = 9
"""Places of a value that are kept."""
ONE = 10**DECIMALS
"""The value 1, as it is stored."""

_SENT = ("unit", "metric", "value", "at")
"""What a second event of an id must have in common with the first."""
_KEY = ("experiment", "metric", "arm", "of", "name")


@dataclass
class Sum:
    """Number, sum and sum of squares of values; the last two in units of 1e-9 and 1e-18. Exact."""

    n: int = 0
    total: int = 0
    squares: int = 0

    def add(self, value: int) -> None:
        """Add a value, in units of 1e-9."""
        self.n += 1
        self.total += value
        self.squares += value * value

    @property
    def mean(self) -> float:
        """Of the values; NaN without any."""
        return float(Fraction(self.total, self.n * ONE)) if self.n else math.nan

    @property
    def variance(self) -> float:
        """Of the values, with n - 1 degrees of freedom; NaN with fewer than two."""
        if self.n < 2:
            return math.nan
        return float(Fraction(self.n * self.squares - self.total**2, self.n * (self.n - 1) * ONE**2))


class NewEvent(NamedTuple):
    """A row of `MetricEvent`, but for when it was received."""

    experiment: str
    event_id: str
    unit: str
    arm: str
    metric: str
    value: int
    day: date
    counted: bool
    at: datetime


@dataclass(frozen=True)
class Stored:
    """What became of a batch."""

    new: int
    repeated: int
    """Known already, with the same content."""
    conflicting: list[str] = field(default_factory=list)
    """Identifiers that are known with other content; the first one stays."""


def add_metric_events(
    settings: Settings, experiment: str, events: Sequence[NewEvent], refused: Sequence[RefusedMetricEvent] = ()
) -> Stored:
    """Add up to `BATCH` events of an experiment and bring its sums up to date, in one transaction.

    An event whose identifier is known counts once, however often it comes. Those that differ from the first one of
    their identifier are kept with the refused ones.
    """
    with session(settings) as active:
        lock_table(active, MetricEvent.__tablename__)
        known = _known(active, experiment, [event.event_id for event in events])
        new: dict[str, NewEvent] = {}
        conflicting = []
        repeated = 0
        for event in events:
            first = known.get(event.event_id) or new.get(event.event_id)
            if first is None:
                new[event.event_id] = event
            elif all(getattr(first, name) == getattr(event, name) for name in _SENT):
                repeated += 1
            else:
                conflicting.append(event)
        active.add_all(refused)
        active.add_all(map(_conflict, conflicting))
        active.flush()
        if new:
            _insert(active, new.values())
            _bring_up_to_date(active, experiment, new.values())
        return Stored(len(new), repeated, [event.event_id for event in conflicting])


def metric_sums(settings: Settings, experiment: str, metric: str, of: str) -> dict[tuple[str, str], Sum]:
    """The sums of a metric by arm and day, or by arm and unit (`of`: `DAY` or `UNIT`)."""
    query = select(MetricSum).where(MetricSum.experiment == experiment, MetricSum.metric == metric, MetricSum.of == of)
    with reading(settings) as active:
        return {(row.arm, row.name): Sum(row.n, int(row.total), int(row.squares)) for row in active.scalars(query)}


def new_units(settings: Settings, experiment: str, metric: str) -> dict[tuple[date, str], int]:
    """By day and arm, the number of units whose first counted event of a metric is of that day; it scans the events."""
    wanted = (MetricEvent.experiment == experiment, MetricEvent.metric == metric, MetricEvent.counted)
    first = select(MetricEvent.arm, func.min(MetricEvent.day).label("day")).where(*wanted)
    units = first.group_by(MetricEvent.arm, MetricEvent.unit).subquery()
    query = select(units.c.day, units.c.arm, func.count()).group_by(units.c.day, units.c.arm)
    with reading(settings) as active:
        return {(day, arm): count for day, arm, count in active.execute(query)}


def refused_events(settings: Settings, experiment: str, limit: int = 100) -> list[RefusedMetricEvent]:
    """The newest events that were refused, newest first."""
    query = select(RefusedMetricEvent).where(RefusedMetricEvent.experiment == experiment)
    with reading(settings) as active:
        return list(active.scalars(query.order_by(RefusedMetricEvent.id.desc()).limit(limit)))


def _known(active: Session, experiment: str, identifiers: Sequence[str]) -> dict[str, Any]:
    columns = (MetricEvent.event_id, *(getattr(MetricEvent, name) for name in _SENT))
    query = select(*columns).where(MetricEvent.experiment == experiment, MetricEvent.event_id.in_(identifiers))
    return {row.event_id: row for row in active.execute(query)}


def _conflict(event: NewEvent) -> RefusedMetricEvent:
    sent = {name: str(getattr(event, name)) for name in _SENT}
    reason = "another event with this identifier has other content; send a correction under an identifier of its own"
    return RefusedMetricEvent(experiment=event.experiment, event=f"{event.event_id}: {sent}", reason=reason)


def _insert(active: Session, events: Iterable[NewEvent]) -> None:
    received_at = now()
    rows = [{**event._asdict(), "received_at": received_at} for event in events]
    active.connection().execute(insert(MetricEvent), rows)


def _bring_up_to_date(active: Session, experiment: str, events: Iterable[NewEvent]) -> None:
    """Add counted events to the sums of their days and units."""
    sums: dict[tuple[str, ...], Sum] = {}
    for event in events:
        if event.counted:
            for of, name in ((DAY, event.day.isoformat()), (UNIT, event.unit)):
                sums.setdefault((experiment, event.metric, event.arm, of, name), Sum()).add(event.value)
    if not sums:
        return
    names = {key[-1] for key in sums}
    query = select(MetricSum.__table__).where(MetricSum.experiment == experiment, MetricSum.name.in_(names))
    for row in active.connection().execute(query).mappings():
        if (found := sums.get(tuple(row[name] for name in _KEY))) is not None:
            found.n += row["n"]
            found.total += int(row["total"])
            found.squares += int(row["squares"])
    dialects: dict[str, Any] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}
    added = dialects[active.get_bind().dialect.name](MetricSum)
    changed = {name: added.excluded[name] for name in ("n", "total", "squares")}
    statement = added.on_conflict_do_update(index_elements=list(_KEY), set_=changed)
    active.connection().execute(statement, list(_rows(sums)))


def _rows(sums: Mapping[tuple[str, ...], Sum]) -> Iterator[dict[str, Any]]:
    for key, each in sums.items():
        numbers = {"n": each.n, "total": str(each.total), "squares": str(each.squares)}
        yield {**dict(zip(_KEY, key, strict=True)), **numbers}
