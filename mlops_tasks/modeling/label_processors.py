"""Qlib's label processors; the one for z-scores gives the same numbers in a hundredth of the time.

Imports Qlib, which makes them by name when a dataset is made.
"""

from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pandas as pd
from qlib.data.dataset.processor import CSRankNorm, get_group_columns
from qlib.data.dataset.processor import CSZScoreNorm as QlibZScoreNorm

from mlops_tasks.columns import DATETIME

__all__ = ["CSRankNorm", "CSZScoreNorm"]


class CSZScoreNorm(QlibZScoreNorm):
    """Each day's values minus their mean, divided by their standard deviation (ddof=1).

    Qlib has pandas make a frame of each day, which takes milliseconds. Here each day's part of the column is summed as
    pandas does, with the same types and in the same order, so that every bit is the same. Other cases (several columns,
    NaNs, days that do not ascend) are left to Qlib.
    """

    def __call__(self, df: pd.DataFrame) -> pd.DataFrame:
        """As Qlib's processor: returns the frame itself, with the group's columns processed."""
        columns = get_group_columns(df, self.fields_group)
        values = df[columns].to_numpy()
        days = df.index.get_level_values(DATETIME).asi8
        if values.shape[1] != 1 or values.dtype != np.float32 or np.isnan(values).any() or np.any(np.diff(days) < 0):
            processed: pd.DataFrame = super().__call__(df)
            return processed
        df[columns] = daily_zscores(values[:, 0], days)[:, None]
        return df


def daily_zscores(values: npt.NDArray[np.float32], days: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """`qlib.utils.data.zscore` of each day; NaN on a day with one value, or with the same value throughout.

    Parameters
    ----------
    values, days
        Shape (n,), no NaN; days ascend.
    """
    scores = np.empty_like(values)
    bounds = np.append(np.flatnonzero(np.append(True, days[1:] != days[:-1])[: len(days)]), len(days))
    with np.errstate(divide="ignore", invalid="ignore"):
        for begin, end in pairwise(bounds):
            part, count = values[begin:end], np.float32(end - begin)
            centred = part - part.sum(dtype=np.float32) / count
            squares = (part.sum(dtype=np.float64) / count - part) ** 2
            variance = np.float64(squares.sum(dtype=np.float64)) / (count - np.float32(1))
            scores[begin:end] = centred / np.sqrt(variance.astype(np.float32))
    return scores
