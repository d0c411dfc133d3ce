"""The log of the scoring service's answers: written in batches, read by day, instrument and version."""

import dataclasses
import datetime
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from sqlalchemy import ColumnElement, Subquery, case, delete, func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from mlops_tasks.columns import DATETIME, INSTRUMENT, SCORE
from mlops_tasks.config import Settings
from mlops_tasks.state.database import reading, session
from mlops_tasks.state.rows import lock_table
from mlops_tasks.state.tables import LogBase, Prediction, PredictionScores, now
from mlops_tasks.states import Arm

REMOVED_AT_ONCE = 5000
"""Rows per transaction, so that no other writer waits long."""
_READ_AT_ONCE = 500
MOST_LATENCIES = 10_000
"""Most latencies of which a percentile is computed."""
_LOADS_NONE = {"synchronize_session": False}


@dataclass(frozen=True)
class PredictionFilter:
    """Selects answers; None: any."""

    date: datetime.date | None = None
    model_version: int | None = None
    instrument: str | None = None

    @property
    def conditions(self) -> list[ColumnElement[bool]]:
        """Conditions of a query; the instrument is not evaluated by the database."""
        found = []
        if self.date is not None:
            found.append(Prediction.date == self.date)
        if self.model_version is not None:
            found.append(Prediction.model_version == self.model_version)
        return found


@dataclass(frozen=True)
class Answered:
    """An answer, and the score of the selected instrument."""

    prediction: Prediction
    score: float | None = None


@dataclass(frozen=True)
class PredictionCount:
    """Number of answers and scores of a group."""

    date: datetime.date | None
    model_version: int
    slot: str
    arm: str
    key_name: str
    answers: int
    scores: int
    p50_ms: float
    p99_ms: float
    """Median and 99th percentile of the latency."""


def record_predictions(
    settings: Settings, predictions: Sequence[Prediction], scores: Sequence[PredictionScores]
) -> None:
    """Add answers and the scores they refer to, in one transaction; existing rows stay as they are.

    Raises
    ------
    StoreError
        The state database does not answer.
    """
    with session(settings) as active:
        _insert(active, PredictionScores, scores)
        _insert(active, Prediction, predictions)


def _insert(active: Session, table: type[LogBase], rows: Sequence[LogBase]) -> None:
    if not rows:
        return
    dialects: dict[str, Any] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}
    insert = dialects[active.get_bind().dialect.name](table.__table__).on_conflict_do_nothing()
    names = [each.name for each in dataclasses.fields(table) if each.name != "id"]
    active.connection().execute(insert, [{name: getattr(row, name) for name in names} for row in rows])


def predictions(settings: Settings, wanted: PredictionFilter, limit: int) -> list[Answered]:
    """The last answers, newest first; for an instrument, those that contain its score."""
    query = select(Prediction).where(*wanted.conditions).order_by(Prediction.id.desc())
    found: list[Answered] = []
    tables: dict[str, _Table] = {}
    with reading(settings) as active:
        rows = active.scalars(query.limit(limit) if wanted.instrument is None else query).yield_per(_READ_AT_ONCE)
        for row in rows:
            if wanted.instrument is None:
                found.append(Answered(row))
                continue
            if row.scores not in tables:
                tables |= _tables(active, [row.scores])
            score = tables[row.scores].score(wanted.instrument, row.chosen)
            if score is not None:
                found.append(Answered(row, score))
            if len(found) == limit:
                break
    return found


def prediction_counts(settings: Settings, wanted: PredictionFilter) -> list[PredictionCount]:
    """Numbers of answers and scores by day, version, slot, arm and key, newest day first."""
    by = (Prediction.date, Prediction.model_version, Prediction.slot, Prediction.arm, Prediction.key_name)
    place = func.row_number().over(partition_by=by, order_by=Prediction.latency_ms)
    columns = (*by, Prediction.instruments, Prediction.latency_ms, place.label("place"))
    ranked = select(*columns, func.count().over(partition_by=by).label("answers")).where(*wanted.conditions).subquery()
    kind = [ranked.c[column.name] for column in by]
    percentiles = [_latency_at(ranked, percent) for percent in (50, 99)]
    query = select(*kind, func.count(), func.sum(ranked.c.instruments), *percentiles).group_by(*kind)
    with reading(settings) as active:
        found = [
            PredictionCount(day, version, slot, arm, key, answers, int(scores), *latencies)
            for day, version, slot, arm, key, answers, scores, *latencies in active.execute(query)
        ]
    return sorted(found, key=lambda each: (each.date or datetime.date.min, each.model_version), reverse=True)


def newest_predicted_day(settings: Settings) -> datetime.date | None:
    """The newest day that was scored for a client; None: none was."""
    with reading(settings) as active:
        return active.scalars(select(func.max(Prediction.date))).one()


def _latency_at(ranked: Subquery, percent: int) -> ColumnElement[float]:
    """A percentile of the latencies of a group's answers."""
    wanted = (percent * ranked.c.answers + 99) // 100
    return func.max(case((ranked.c.place == wanted, ranked.c.latency_ms)))


def lost_predictions(settings: Settings, moment: datetime.datetime | None = None) -> int:
    """Count the numbers that are missing between others of the same writer: answers that were sent but not logged.

    Covers the period up to `moment` (now) for which answers of every kind are kept: older ones are partly removed.
    """
    kept_days = min(settings.predictions.kept_rows_days, settings.predictions.kept_days)
    since = (moment or now()) - datetime.timedelta(days=kept_days)
    span = func.max(Prediction.sequence) - func.min(Prediction.sequence) + 1 - func.count()
    with reading(settings) as active:
        return sum(active.scalars(select(span).where(Prediction.at >= since).group_by(Prediction.writer)))


def latencies_of_arm(
    settings: Settings, model_version: int, arm: str, since: datetime.datetime
) -> npt.NDArray[np.float64]:
    """Latency in milliseconds of each answer of a version on an arm since a given time; the newest `MOST_LATENCIES`."""
    wanted = (Prediction.model_version == model_version, Prediction.arm == arm, Prediction.at >= since)
    query = select(Prediction.latency_ms).where(*wanted).order_by(Prediction.id.desc()).limit(MOST_LATENCIES)
    with reading(settings) as active:
        return np.array(list(active.scalars(query)), dtype=np.float64)


def count_of_arm(settings: Settings, model_version: int, arm: str, since: datetime.datetime) -> int:
    """Number of requests to a version that ended on an arm since a given time."""
    wanted = (Prediction.model_version == model_version, Prediction.arm == arm, Prediction.at >= since)
    with reading(settings) as active:
        return active.scalars(select(func.count()).select_from(Prediction).where(*wanted)).one()


def newest_scored(settings: Settings, model_version: int, since: datetime.datetime) -> tuple[datetime.date, str] | None:
    """Newest day that a version has scored since a given time, and its data version."""
    wanted = (*_scored(model_version), Prediction.at >= since, Prediction.date.is_not(None))
    query = select(Prediction.date, Prediction.data_version).where(*wanted)
    query = query.order_by(Prediction.date.desc(), Prediction.id.desc()).limit(1)
    with reading(settings) as active:
        row = active.execute(query).first()
    if row is None:
        return None
    day, data_version = row
    assert day is not None
    return day, data_version


def has_scored(settings: Settings, model_version: int, request_id: str) -> bool:
    """Whether a version's answer to a request was logged."""
    wanted = (Prediction.request_id == request_id, *_scored(model_version))
    with reading(settings) as active:
        return active.scalars(select(Prediction.id).where(*wanted).limit(1)).first() is not None


def _scored(model_version: int) -> tuple[ColumnElement[bool], ...]:
    return Prediction.model_version == model_version, Prediction.arm != Arm.FAILED


def served_scores(settings: Settings, wanted: PredictionFilter) -> pd.DataFrame:
    """Scores that were returned, each once, however often: datetime, model_version, arm, data_version, instrument,
    score.

    Answers to given features have no day and are left out.
    """
    columns = (Prediction.date, Prediction.model_version, Prediction.arm, Prediction.data_version)
    of_days = (Prediction.date.is_not(None), Prediction.arm != Arm.FAILED, *wanted.conditions)
    query = select(*columns, Prediction.scores, Prediction.chosen).where(*of_days).distinct()
    chosen: dict[tuple[Any, ...], list[bytes | None]] = {}
    with reading(settings) as active:
        for *key, bits in active.execute(query):
            chosen.setdefault(tuple(key), []).append(bits)
        tables = _tables(active, {key[-1] for key in chosen})
    parts = [tables[key[-1]].frame(key[:-1], bits, wanted.instrument) for key, bits in chosen.items()]
    order = [DATETIME, "model_version", "arm", "data_version", INSTRUMENT]
    if not parts:
        return pd.DataFrame(columns=[*order, SCORE])
    return pd.concat(parts, ignore_index=True).drop_duplicates().sort_values(order, ignore_index=True)


def forget_predictions(
    settings: Settings, before: datetime.datetime, rows_before: datetime.datetime | None = None
) -> int:
    """Remove older answers, and the scores that no answer refers to any more; returns the number of answers removed.

    Answers to given features are removed if they are older than `rows_before`, if that is later.
    """
    count = _remove(settings, Prediction.at < before)
    if rows_before is not None and rows_before > before:
        count += _remove(settings, Prediction.at < rows_before, Prediction.date.is_(None))
        before = rows_before
    with session(settings) as active:
        # The lock keeps others from adding an answer that refers to scores being removed.
        lock_table(active, PredictionScores.__tablename__)
        used = select(Prediction.id).where(Prediction.scores == PredictionScores.digest)
        unused = (PredictionScores.recorded_at < before, ~used.exists())
        active.execute(delete(PredictionScores).where(*unused), execution_options=_LOADS_NONE)
    return count


def _remove(settings: Settings, *conditions: ColumnElement[bool]) -> int:
    count = 0
    while True:
        with session(settings) as active:
            old = select(Prediction.id).where(*conditions).limit(REMOVED_AT_ONCE)
            removed: Any = active.execute(
                delete(Prediction).where(Prediction.id.in_(old)), execution_options=_LOADS_NONE
            )
        count += removed.rowcount
        if removed.rowcount < REMOVED_AT_ONCE:
            return count


@dataclass(frozen=True)
class _Table:
    """The decoded content of a row of `PredictionScores`."""

    positions: Mapping[str, int]
    scores: npt.NDArray[np.float64]

    @classmethod
    def of(cls, row: PredictionScores) -> "_Table":
        names = json.loads(row.instruments)
        return cls({name: position for position, name in enumerate(names)}, np.frombuffer(row.scores, "<f8"))

    def score(self, instrument: str, chosen: bytes | None) -> float | None:
        """The score of an instrument; None: it was not among those returned."""
        position = self.positions.get(instrument)
        if position is None or not (chosen is None or chosen[position // 8] & (128 >> position % 8)):
            return None
        return float(self.scores[position])

    def frame(self, key: Sequence[Any], chosen: Iterable[bytes | None], instrument: str | None) -> pd.DataFrame:
        """The scores that any of several choices contains, or those of one instrument."""
        mask = np.zeros(len(self.scores), bool)
        for bits in chosen:
            mask |= True if bits is None else _mask(bits, len(mask))
        names = np.array(list(self.positions), dtype=object)
        if instrument is not None:
            mask &= names == instrument
        date, version, arm, data_version = key
        values = {INSTRUMENT: names[mask], SCORE: self.scores[mask]}
        constant = {"model_version": version, "arm": arm, "data_version": data_version}
        return pd.DataFrame({DATETIME: pd.Timestamp(date), **constant, **values}, index=range(int(mask.sum())))


def _mask(bits: bytes, length: int) -> npt.NDArray[np.bool_]:
    return np.unpackbits(np.frombuffer(bits, np.uint8), count=length).astype(bool)


def chosen_bits(positions: Sequence[int], length: int) -> bytes:
    """Encode chosen positions out of a total for `Prediction.chosen`."""
    mask = np.zeros(length, bool)
    mask[list(positions)] = True
    return np.packbits(mask).tobytes()


def _tables(active: Session, digests: Iterable[str]) -> dict[str, _Table]:
    return {row.digest: _Table.of(row) for part in _parts(list(digests)) for row in _rows(active, part)}


def _rows(active: Session, digests: Sequence[str]) -> Iterator[PredictionScores]:
    yield from active.scalars(select(PredictionScores).where(PredictionScores.digest.in_(digests)))


def _parts(items: Sequence[str]) -> Iterator[Sequence[str]]:
    for first in range(0, len(items), _READ_AT_ONCE):
        yield items[first : first + _READ_AT_ONCE]
