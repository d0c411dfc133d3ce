"""Qlib's label processors, with the same numbers in a hundredth of the time.

Imports Qlib, which makes them by name when a dataset is made.
"""

from collections.abc import Callable, Iterator
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pandas as pd
from qlib.data.dataset.processor import CSRankNorm as QlibRankNorm
from qlib.data.dataset.processor import CSZScoreNorm as QlibZScoreNorm
from qlib.data.dataset.processor import get_group_columns

from mlops_tasks.columns import DATETIME

__all__ = ["CSRankNorm", "CSZScoreNorm"]

Values = npt.NDArray[np.float32]
Days = npt.NDArray[np.int64]
Scores = npt.NDArray[np.floating]


class CSRankNorm(QlibRankNorm):
    """Each day's ranks as shares of their number, minus 0.5, times 3.46; equal values get their mean rank.

    What pandas does column by column for Qlib is done day by day here, with the same bits. Other cases (as for
    `CSZScoreNorm`) are left to Qlib.
    """

    def __call__(self, df: pd.DataFrame) -> pd.DataFrame:
        """As Qlib's processor: returns the frame itself, with the group's columns processed."""
        return _processed(df, self.fields_group, daily_rank_scores, super().__call__)


class CSZScoreNorm(QlibZScoreNorm):
    """Each day's values minus their mean, divided by their standard deviation (ddof=1).

    Qlib has pandas make a frame of each day, which takes milliseconds. Here each day's part of the column is summed as
    pandas does, with the same types and in the same order, so that every bit is the same. Other cases (several columns,
    NaNs, days that do not ascend) are left to Qlib.
    """

    def __call__(self, df: pd.DataFrame) -> pd.DataFrame:
        """As Qlib's processor: returns the frame itself, with the group's columns processed."""
        return _processed(df, self.fields_group, daily_zscores, super().__call__)


def _processed(
    df: pd.DataFrame,
    group: str,
    score: Callable[[Values, Days], Scores],
    qlibs: Callable[[pd.DataFrame], pd.DataFrame],
) -> pd.DataFrame:
    """The frame with the scores of its only column, if that has no NaN and its days ascend; else what Qlib makes."""
    columns = get_group_columns(df, group)
    values = df[columns].to_numpy()
    days = df.index.get_level_values(DATETIME).asi8
    if values.shape[1] != 1 or values.dtype != np.float32 or np.isnan(values).any() or np.any(np.diff(days) < 0):
        return qlibs(df)
    df[columns] = score(values[:, 0], days)[:, None]
    return df


def daily_rank_scores(values: Values, days: Days) -> npt.NDArray[np.float64]:
    """Ranks within each day, divided by their number, minus 0.5, times 3.46.

    Parameters
    ----------
    values, days
        Shape (n,), no NaN; days ascend.
    """
    scores = np.empty(len(values))
    for begin, end in _bounds(days):
        order = values[begin:end].argsort()
        ordered = values[begin:end][order]
        first = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))
        after = np.append(first[1:], len(ordered))
        scores[begin + order] = np.repeat((first + 1 + after) / 2, after - first) / len(ordered)
    scores -= 0.5
    scores *= 3.46
    return scores


def daily_zscores(values: Values, days: Days) -> Values:
    """`qlib.utils.data.zscore` of each day; NaN on a day with one value, or with the same value throughout.

    Parameters
    ----------
    values, days
        Shape (n,), no NaN; days ascend.
    """
    scores = np.empty_like(values)
    with np.errstate(divide="ignore", invalid="ignore"):
        for begin, end in _bounds(days):
            part, count = values[begin:end], np.float32(end - begin)
            centred = part - part.sum(dtype=np.float32) / count
            squares = (part.sum(dtype=np.float64) / count - part) ** 2
            variance = np.float64(squares.sum(dtype=np.float64)) / (count - np.float32(1))
            scores[begin:end] = centred / np.sqrt(variance.astype(np.float32))
    return scores


def _bounds(days: Days) -> Iterator[tuple[int, int]]:
    """Where each day's rows begin and end."""
    begins = np.flatnonzero(np.append(True, days[1:] != days[:-1])[: len(days)])
    return pairwise(np.append(begins, len(days)).tolist())
