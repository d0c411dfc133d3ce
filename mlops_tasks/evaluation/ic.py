"""Information coefficients: how well scores order one day's returns.

`ic` is Pearson's correlation of score and label across the instruments of one day, `rank_ic` Spearman's (Grinold and
Kahn, Active Portfolio Management, 1999). Both agree with `qlib.contrib.eva.alpha.calc_ic`. All functions take Series
with a MultiIndex (datetime, instrument), align them by index and drop pairs in which either value is not finite.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlops_tasks.columns import DATETIME, INSTRUMENT
from mlops_tasks.files import finite_or_none

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

MIN_PAIRS = 3
"""A day with fewer pairs has no correlation worth the name."""


@dataclass(frozen=True)
class IcSummary:
    """Summary of daily ICs; None where there are too few days. Ratios are mean / std (ddof=1), not annualised."""

    ic_mean: float | None
    icir: float | None
    rank_ic_mean: float | None
    rank_icir: float | None
    n_days: int
    """Days with a rank IC."""


@dataclass(frozen=True)
class _Pairs:
    """n finite pairs, sorted by day: both values of each, the position of its day, and all days."""

    score: Floats
    label: Floats
    day: Ints
    days: pd.DatetimeIndex


def daily_ic(score: pd.Series, label: pd.Series) -> pd.Series:
    """Pearson's correlation of score and label on each day.

    Returns
    -------
    Series by datetime (every day of the common index), named `ic`, in [-1, 1]. NaN on days with fewer than three
    pairs or where all scores or all labels are the same.
    """
    pairs = _pairs(score, label)
    return _named(_correlation(pairs.score, pairs.label, pairs), pairs.days, "ic")


def daily_rank_ic(score: pd.Series, label: pd.Series) -> pd.Series:
    """Spearman's correlation (ties get their mean rank) on each day; otherwise as `daily_ic`, named `rank_ic`."""
    pairs = _pairs(score, label)
    score_ranks, label_ranks = _ranks(pairs.score, pairs), _ranks(pairs.label, pairs)
    return _named(_correlation(score_ranks, label_ranks, pairs), pairs.days, "rank_ic")


def summarise(ic: pd.Series, rank_ic: pd.Series) -> IcSummary:
    """Means and ratios of daily series; NaN days are left out."""
    return IcSummary(
        ic_mean=finite_or_none(ic.mean()),
        icir=information_ratio(ic),
        rank_ic_mean=finite_or_none(rank_ic.mean()),
        rank_icir=information_ratio(rank_ic),
        n_days=int(rank_ic.notna().sum()),
    )


def information_ratio(series: pd.Series) -> float | None:
    """Mean / standard deviation (ddof=1) of a daily series, not annualised; None where it is undefined."""
    spread = series.std(ddof=1)
    return finite_or_none(series.mean() / spread) if spread > 0 else None


def quantile_returns(score: pd.Series, label: pd.Series, quantiles: int = 10) -> pd.DataFrame:
    """Mean label of each score quantile on each day.

    Returns
    -------
    Frame by datetime with columns 1 (lowest scores) to `quantiles` (highest), in the label's unit. Equal scores share a
    quantile. A quantile without names on a day is NaN; on days with fewer pairs than quantiles, all are.

    Raises
    ------
    ValueError
        `quantiles` is less than two.
    """
    if quantiles < 2:
        raise ValueError(f"quantiles must be 2 or more, got {quantiles}")
    pairs = _pairs(score, label)
    counts = np.bincount(pairs.day, minlength=len(pairs.days))
    share = (_ranks(pairs.score, pairs) - 0.5) / counts[pairs.day]
    cell = pairs.day * quantiles + np.minimum((share * quantiles).astype(np.int64), quantiles - 1)
    size = len(pairs.days) * quantiles
    with np.errstate(invalid="ignore"):
        means = np.bincount(cell, pairs.label, size) / np.bincount(cell, minlength=size)
    table = means.reshape(len(pairs.days), quantiles)
    table[counts < quantiles] = np.nan
    return pd.DataFrame(table, index=pairs.days, columns=pd.RangeIndex(1, quantiles + 1, name="quantile"))


def ic_decay(score: pd.Series, label: pd.Series, lags: int) -> pd.DataFrame:
    """How long a score tells something: its daily rank IC with the labels of later days.

    Returns
    -------
    Frame by lag, from 0 (the score's own day) to `lags`, in trading days that occur in the labels: `mean`, its standard
    error `error` (days taken as independent) and `days`. NaN where fewer than two days have a rank IC.
    """
    table = label.unstack(label.index.names.index(INSTRUMENT)).sort_index()
    found = []
    for lag in range(lags + 1):
        ics = daily_rank_ic(score, table.shift(-lag).stack()).dropna()
        enough = len(ics) > 1
        error = float(ics.std(ddof=1) / np.sqrt(len(ics))) if enough else np.nan
        found.append((float(ics.mean()) if enough else np.nan, error, len(ics)))
    return pd.DataFrame(found, columns=["mean", "error", "days"], index=pd.RangeIndex(lags + 1, name="lag"))


def constant_days_share(score: pd.Series) -> float:
    """Of the days with two or more finite scores, the share on which these are all equal; NaN without such days.

    A model that gives every name the same score ranks nothing, however good its other numbers look.
    """
    pairs = _pairs(score, score)
    counts = np.bincount(pairs.day, minlength=len(pairs.days))
    usable = counts > 1
    return float(_is_constant(pairs.score, pairs)[usable].mean()) if usable.any() else float("nan")


def _pairs(score: pd.Series, label: pd.Series) -> _Pairs:
    if score is not label and not score.index.equals(label.index):
        common = score.index.intersection(label.index)
        score, label = score.reindex(common), label.reindex(common)
    x = score.to_numpy(np.float64, na_value=np.nan)
    y = label.to_numpy(np.float64, na_value=np.nan)
    level = score.index.names.index(DATETIME) if DATETIME in score.index.names else 0
    codes, days = _day_codes(score.index, level)
    keep = np.isfinite(x) & np.isfinite(y)
    x, y, codes = x[keep], y[keep], codes[keep]
    if np.any(codes[1:] < codes[:-1]):
        order = _stable_by_day(codes, len(days))
        x, y, codes = x[order], y[order], codes[order]
    return _Pairs(x, y, codes, days)


def _day_codes(index: pd.MultiIndex, level: int) -> tuple[Ints, pd.DatetimeIndex]:
    """Position of each row's day among the sorted days that occur in the index."""
    raw = np.asarray(index.codes[level], dtype=np.int64)
    used, codes = np.unique(raw, return_inverse=True) if len(raw) == 0 else _compact(raw)
    days = pd.DatetimeIndex(index.levels[level][used], name=DATETIME)
    if days.is_monotonic_increasing:
        return codes, days
    order = np.argsort(days.to_numpy(), kind="stable")
    position = np.empty(len(order), dtype=np.int64)
    position[order] = np.arange(len(order))
    return position[codes], days[order]


def _compact(raw: Ints) -> tuple[Ints, Ints]:
    """`np.unique(raw, return_inverse=True)` of small non-negative integers, without a sort."""
    present = np.bincount(raw) > 0
    return np.flatnonzero(present), (np.cumsum(present) - 1)[raw]


def _stable_by_day(codes: Ints, n_days: int) -> Ints:
    # NumPy sorts 16-bit integers by radix, many times faster than wider ones.
    narrow = codes.astype(np.uint16) if n_days < 2**16 else codes
    return np.argsort(narrow, kind="stable")


def _ranks(values: Floats, pairs: _Pairs) -> Floats:
    """Rank within the day, from 1, ties at their mean rank."""
    order = np.argsort(values, kind="stable")
    order = order[_stable_by_day(pairs.day[order], len(pairs.days))]
    sorted_values, sorted_days = values[order], pairs.day[order]
    n = len(values)
    starts_day = np.ones(n, dtype=bool)
    starts_day[1:] = sorted_days[1:] != sorted_days[:-1]
    starts_tie = starts_day.copy()
    starts_tie[1:] |= sorted_values[1:] != sorted_values[:-1]
    first = np.flatnonzero(starts_tie)
    last = np.append(first[1:], n) - 1
    mean_position = (first + last) / 2.0
    day_start = np.maximum.accumulate(np.where(starts_day, np.arange(n), 0))
    ranks = np.empty(n)
    ranks[order] = mean_position[np.cumsum(starts_tie) - 1] - day_start + 1.0
    return ranks


def _correlation(x: Floats, y: Floats, pairs: _Pairs) -> Floats:
    day, size = pairs.day, len(pairs.days)
    counts = np.bincount(day, minlength=size)
    with np.errstate(invalid="ignore", divide="ignore"):
        dx = x - (np.bincount(day, x, size) / counts)[day]
        dy = y - (np.bincount(day, y, size) / counts)[day]
        # Scaled first, so that labels of 1e-200 do not vanish when they are squared.
        dx, dy = _scaled(dx, day, size), _scaled(dy, day, size)
        moments = np.bincount(day, dx * dx, size) * np.bincount(day, dy * dy, size)
        result = np.clip(np.bincount(day, dx * dy, size) / np.sqrt(moments), -1.0, 1.0)
    result[(counts < MIN_PAIRS) | _is_constant(x, pairs) | _is_constant(y, pairs)] = np.nan
    return result


def _scaled(values: Floats, day: Ints, size: int) -> Floats:
    """Each day's values divided by their mean absolute value."""
    return values / (np.bincount(day, np.abs(values), size) / np.bincount(day, minlength=size))[day]


def _is_constant(values: Floats, pairs: _Pairs) -> NDArray[np.bool_]:
    """Whether all values of a day are the same; days without values count as constant."""
    changes = np.zeros(len(values))
    changes[1:] = (values[1:] != values[:-1]) & (pairs.day[1:] == pairs.day[:-1])
    return np.bincount(pairs.day, changes, len(pairs.days)) == 0


def _named(values: Floats, days: pd.DatetimeIndex, name: str) -> pd.Series:
    return pd.Series(values, index=days, name=name)
