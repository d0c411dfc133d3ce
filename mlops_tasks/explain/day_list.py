"""A day's list: why its names are at the top, and what has changed since the day before."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from mlops_tasks.columns import DATETIME, INSTRUMENT
from mlops_tasks.errors import ExplanationError, first_few
from mlops_tasks.explain.explanation import AdditivityGap, Explanation


@dataclass(frozen=True)
class Part:
    """What a feature, or a group, adds to a score or to its change, in units of the score."""

    feature: str
    contribution: float


@dataclass(frozen=True)
class NameReasons:
    """Why a name has its score: base + parts + rest + the row's additivity gap."""

    instrument: str
    rank: int
    """From 1, the highest score; equal scores by instrument."""
    score: float
    parts: tuple[Part, ...]
    """The largest by size, that first."""
    rest: float
    """Sum of all other contributions."""


@dataclass(frozen=True)
class DayReasons:
    """Why names of a day have their scores."""

    day: pd.Timestamp
    base: float
    names: tuple[NameReasons, ...]
    """At the top or asked for, the highest score first."""
    gap: AdditivityGap
    """Of the names of the day that were explained."""


@dataclass(frozen=True)
class ModelPart:
    """What another model, in the place of the one before, does to a score: base + parts + rest."""

    base: float
    parts: tuple[Part, ...]
    """The largest by size first."""
    rest: float


@dataclass(frozen=True)
class NameChange:
    """What has changed a name's score: score - score_before = parts + rest + model + difference of the rows' gaps."""

    instrument: str
    rank: int
    rank_before: int | None
    """None, as `score_before`, where the name had no score on the day before."""
    score: float
    score_before: float | None
    parts: tuple[Part, ...]
    """By changes of features, the largest by size first; none without a score before."""
    rest: float
    """Sum of all other changes by features."""
    model: ModelPart | None = None
    """By another model; None where the same one scored both days, and without a score before."""


@dataclass(frozen=True)
class DayChanges:
    """What has changed scores since the day before."""

    day: pd.Timestamp
    before: pd.Timestamp
    names: tuple[NameChange, ...]
    """At the top on `day` or asked for, the highest score first."""
    gaps: tuple[AdditivityGap, AdditivityGap]
    """Of the names explained on the day before, and on the day."""


Names = int | Sequence[str]
"""How many of the highest scores, or which instruments."""


def day_reasons(explanation: Explanation, day: pd.Timestamp, names: Names = 10, parts: int = 5) -> DayReasons:
    """Why the highest scores of a day, or those of given names, are so: by the `parts` largest contributions.

    Raises
    ------
    ExplanationError
        The day was not explained, or a name was not on it.
    """
    today = _Day.of(explanation, day)
    reasons = []
    for instrument in today.chosen(names):
        largest, rest = _largest(today.contributions.loc[instrument], parts)
        score = float(today.scores[instrument])
        reasons.append(NameReasons(instrument, int(today.ranks[instrument]), score, largest, rest))
    return DayReasons(day, explanation.base, tuple(reasons), today.gap)


def day_changes(
    explanation: Explanation,
    day: pd.Timestamp,
    names: Names = 10,
    parts: int = 5,
    replaced: Explanation | None = None,
) -> DayChanges:
    """What has changed the day's highest scores, or those of some names, since the day explained before it.

    Where one model has scored both days, differences of scores are differences of contributions. Where another one has
    scored the day before, the change is divided between features and model as by Shapley: what the features' change is
    worth to both models, on average, and what the other model is worth on both days, on average. All parts sum up to
    the change. A feature that only one of the models has contributes nothing to the other.

    Parameters
    ----------
    explanation
        By the model that scored `day`; of both days.
    replaced
        By the model that scored the day before, of both days; None: the same one.

    Raises
    ------
    ExplanationError
        The day, or none before it, was explained, or a name was not on the day.
    """
    earlier = explanation.days[explanation.days < day]
    if earlier.empty:
        raise ExplanationError(f"no day before {day.date()} was explained; explain the trading day before it, too")
    found = _TwoDays.of(explanation, day, earlier[-1])
    other = None if replaced is None else _TwoDays.of(replaced, day, earlier[-1])
    changes = tuple(_change(instrument, found, other, parts) for instrument in found.today.chosen(names))
    before = (other or found).before
    return DayChanges(day, earlier[-1], changes, (before.gap, found.today.gap))


def day_json(reasons: DayReasons, changes: DayChanges | None) -> dict[str, Any]:
    """Both as plain JSON: `date`, `base`, `gap`, `names`, and `changes` with `since`, `gap_before`, `names`."""
    told: dict[str, Any] = {
        "date": str(reasons.day.date()),
        "base": reasons.base,
        "gap": {**asdict(reasons.gap), "share": reasons.gap.share},
        "names": [asdict(each) for each in reasons.names],
        "changes": None,
    }
    if changes is not None:
        told["changes"] = {
            "since": str(changes.before.date()),
            "gap_before": asdict(changes.gaps[0]),
            "names": [asdict(each) for each in changes.names],
        }
    return told


@dataclass(frozen=True)
class _Day:
    """One day by instrument."""

    base: float
    contributions: pd.DataFrame
    scores: pd.Series
    ranks: pd.Series
    """Ascending."""
    gap: AdditivityGap

    @classmethod
    def of(cls, explanation: Explanation, day: pd.Timestamp) -> "_Day":
        found = explanation.on(day)
        scores = _of_day(found.scores, day)
        ranks = _ranks(scores if found.ranked_among is None else _of_day(found.ranked_among, day))
        return cls(found.base, found.contributions.set_axis(scores.index), scores, ranks, found.gap)

    def chosen(self, names: Names) -> list[str]:
        """Instruments, the highest score first."""
        explained = set(map(str, self.scores.index))
        ranked = [str(instrument) for instrument in self.ranks.index if str(instrument) in explained]
        if isinstance(names, int):
            return ranked[:names]
        if missing := sorted(set(names) - explained):
            raise ExplanationError(
                f"not among the {len(ranked)} explained names of that day: {first_few(missing)}; name members of the "
                "universe"
            )
        return [instrument for instrument in ranked if instrument in set(names)]


def _of_day(scores: pd.Series, day: pd.Timestamp) -> pd.Series:
    """The scores of a day by instrument."""
    found = scores[np.asarray(scores.index.get_level_values(DATETIME) == day)]
    return found.set_axis(found.index.droplevel(DATETIME).rename(INSTRUMENT))


def _ranks(scores: pd.Series) -> pd.Series:
    """By instrument, from 1; equal scores in the order of the instruments."""
    order = np.lexsort((np.asarray(scores.index, dtype=str), -scores.to_numpy()))
    return pd.Series(np.arange(1, len(order) + 1), scores.index[order])


@dataclass(frozen=True)
class _TwoDays:
    """A day and the one before it, by one model."""

    today: _Day
    before: _Day

    @classmethod
    def of(cls, explanation: Explanation, day: pd.Timestamp, before: pd.Timestamp) -> "_TwoDays":
        return cls(_Day.of(explanation, day), _Day.of(explanation, before))

    def has(self, instrument: str) -> bool:
        """Whether it was explained on both days."""
        return instrument in self.today.scores.index and instrument in self.before.scores.index

    def contributions(self, instrument: str) -> tuple[pd.Series, pd.Series]:
        """Of a name, on the day before and today."""
        return self.before.contributions.loc[instrument], self.today.contributions.loc[instrument]


def _change(instrument: str, found: _TwoDays, other: _TwoDays | None, parts: int) -> NameChange:
    rank, score = int(found.today.ranks[instrument]), float(found.today.scores[instrument])
    if not found.has(instrument) or (other is not None and not other.has(instrument)):
        return NameChange(instrument, rank, None, score, None, (), 0.0)
    scored = (other or found).before
    rank_before, score_before = int(scored.ranks[instrument]), float(scored.scores[instrument])
    before, now = found.contributions(instrument)
    moved, model = now - before, None
    if other is not None:
        moved, model = _shared(found, other, instrument, parts)
    largest, rest = _largest(moved, parts)
    return NameChange(instrument, rank, rank_before, score, score_before, largest, rest, model)


def _shared(found: _TwoDays, other: _TwoDays, instrument: str, parts: int) -> tuple[pd.Series, ModelPart]:
    """What the features' change is worth, and what the model's."""
    new, old = found.contributions(instrument), other.contributions(instrument)
    features = new[0].index.union(old[0].index, sort=False)
    new_before, new_now, old_before, old_now = (each.reindex(features, fill_value=0.0) for each in (*new, *old))
    moved = ((new_now - new_before) + (old_now - old_before)) / 2
    by_model = ((new_now - old_now) + (new_before - old_before)) / 2
    return moved, ModelPart(found.today.base - other.today.base, *_largest(by_model, parts))


def _largest(contributions: pd.Series, count: int) -> tuple[tuple[Part, ...], float]:
    """The largest by size, ties in the order of the features, and the sum of the others."""
    values = contributions.to_numpy()
    order: Sequence[int] = np.argsort(-np.abs(values), kind="stable").tolist()
    parts = tuple(Part(str(contributions.index[place]), float(values[place])) for place in order[:count])
    return parts, float(values[order[count:]].sum())
