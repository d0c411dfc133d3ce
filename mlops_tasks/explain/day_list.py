"""A day's list: why its names are at the top, and what has changed since the day before."""

from collections.abc import Sequence
from dataclasses import dataclass

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
    """Of all names of the day."""


@dataclass(frozen=True)
class NameChange:
    """What has changed a name's score: score - score_before = parts + rest + difference of the rows' gaps."""

    instrument: str
    rank: int
    rank_before: int | None
    """None, as `score_before`, where the name had no score on the day before."""
    score: float
    score_before: float | None
    parts: tuple[Part, ...]
    """Differences of contributions, the largest by size first; none without a score before."""
    rest: float
    """Sum of all other differences."""


@dataclass(frozen=True)
class DayChanges:
    """What has changed scores since the day before."""

    day: pd.Timestamp
    before: pd.Timestamp
    names: tuple[NameChange, ...]
    """At the top on `day` or asked for, the highest score first."""
    gaps: tuple[AdditivityGap, AdditivityGap]
    """Of all names of the day before, and of the day."""


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


def day_changes(explanation: Explanation, day: pd.Timestamp, names: Names = 10, parts: int = 5) -> DayChanges:
    """What has changed the day's highest scores, or those of some names, since the day explained before it.

    Both days are explained by the same model, so that differences of scores are differences of contributions.

    Raises
    ------
    ExplanationError
        The day, or none before it, was explained, or a name was not on the day.
    """
    earlier = explanation.days[explanation.days < day]
    if earlier.empty:
        raise ExplanationError(f"no day before {day.date()} was explained; explain the trading day before it, too")
    today, before = _Day.of(explanation, day), _Day.of(explanation, earlier[-1])
    changes = tuple(_change(instrument, today, before, parts) for instrument in today.chosen(names))
    return DayChanges(day, earlier[-1], changes, (before.gap, today.gap))


@dataclass(frozen=True)
class _Day:
    """One day by instrument."""

    contributions: pd.DataFrame
    scores: pd.Series
    ranks: pd.Series
    """Ascending."""
    gap: AdditivityGap

    @classmethod
    def of(cls, explanation: Explanation, day: pd.Timestamp) -> "_Day":
        found = explanation.on(day)
        instruments = found.scores.index.droplevel(DATETIME).rename(INSTRUMENT)
        scores = found.scores.set_axis(instruments)
        order = np.lexsort((np.asarray(instruments, dtype=str), -scores.to_numpy()))
        ranks = pd.Series(np.arange(1, len(order) + 1), instruments[order])
        return cls(found.contributions.set_axis(instruments), scores, ranks, found.gap)

    def chosen(self, names: Names) -> list[str]:
        """Instruments, the highest score first."""
        ranked = [str(instrument) for instrument in self.ranks.index]
        if isinstance(names, int):
            return ranked[:names]
        if missing := sorted(set(names) - set(ranked)):
            raise ExplanationError(
                f"not among the {len(ranked)} names of that day: {first_few(missing)}; name members of the universe"
            )
        return [instrument for instrument in ranked if instrument in set(names)]


def _change(instrument: str, today: _Day, before: _Day, parts: int) -> NameChange:
    rank, score = int(today.ranks[instrument]), float(today.scores[instrument])
    if instrument not in before.ranks.index:
        return NameChange(instrument, rank, None, score, None, (), 0.0)
    difference = today.contributions.loc[instrument] - before.contributions.loc[instrument]
    largest, rest = _largest(difference, parts)
    rank_before, score_before = int(before.ranks[instrument]), float(before.scores[instrument])
    return NameChange(instrument, rank, rank_before, score, score_before, largest, rest)


def _largest(contributions: pd.Series, count: int) -> tuple[tuple[Part, ...], float]:
    """The largest by size, ties in the order of the features, and the sum of the others."""
    values = contributions.to_numpy()
    order: Sequence[int] = np.argsort(-np.abs(values), kind="stable").tolist()
    parts = tuple(Part(str(contributions.index[place]), float(values[place])) for place in order[:count])
    return parts, float(values[order[count:]].sum())
