"""What a model family learns from: matrices, before they become a library's own container."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from mlops_tasks.columns import DATETIME, INSTRUMENT
from mlops_tasks.modeling.dataset import LearningData, learned_labels, qlib_dataset
from mlops_tasks.modeling.processors import FittedProcessors
from mlops_tasks.modeling.windows import PanelWindows

FloatArray = npt.NDArray[np.floating[Any]]
IntArray = npt.NDArray[np.integer[Any]]


@dataclass(frozen=True)
class LearningProblem:
    """Rows of segments train and valid, sorted by day.

    For window models also the rows that their windows look back on: before `train`, and of instruments while they are
    not members; neither have a label.

    Attributes
    ----------
    features
        Processed, float32, shape (n, features), C order.
    label
        Processed per day, float32, shape (n,). NaN: the row is not learned from.
    realised
        The label as realised in the market, float64, shape (n,): ICs are measured on it.
    day, instrument
        Codes of each row, int32, shape (n,); days ascend and count trading days, so neighbours differ by one.
    train, valid
        Rows of each segment; rows before `train` are history.
    names
        Of the features.
    """

    features: FloatArray
    label: FloatArray
    realised: FloatArray
    day: IntArray
    instrument: IntArray
    train: slice
    valid: slice
    names: Sequence[str]
    source: tuple[LearningData, FittedProcessors, str] | None = field(default=None, repr=False)

    def learned(self, segment: slice) -> IntArray:
        """Positions of a segment's rows that have a label."""
        return np.flatnonzero(np.isfinite(self.label[segment])) + segment.start

    def windows(self, window: int) -> PanelWindows:
        """The windows of all rows, each of this many trading days."""
        return PanelWindows.of(self.features, self.day, self.instrument, window)

    @cached_property
    def dataset(self) -> Any:
        """The same as Qlib's `DatasetH`, for Qlib's own model classes."""
        assert self.source is not None, "a problem made of bare matrices has no Qlib dataset"
        return qlib_dataset(*self.source)


def learning_problem(data: LearningData, processors: FittedProcessors, label_processor: str) -> LearningProblem:
    """The learning problem of a plan's data, with features and labels processed."""
    rows = slice(data.rows("train").start if data.member is None else 0, data.rows("valid").stop)
    index = data.features.index[rows]
    learned = learned_labels(data, label_processor).iloc[:, 0]
    label = learned.reindex(index).to_numpy(dtype=np.float32)
    days = index.get_level_values(DATETIME)
    first = rows.start

    def shifted(segment: str) -> slice:
        found = data.rows(segment)
        return slice(found.start - first, found.stop - first)

    return LearningProblem(
        features=processors.transform(data.features.iloc[rows].to_numpy()),
        label=label,
        realised=data.label.iloc[rows].to_numpy(dtype=np.float64),
        day=_codes(days, data.calendar).astype(np.int32),
        instrument=pd.factorize(index.get_level_values(INSTRUMENT), sort=True)[0].astype(np.int32),
        train=shifted("train"),
        valid=shifted("valid"),
        names=list(data.features.columns),
        source=(data, processors, label_processor),
    )


def _codes(days: pd.DatetimeIndex, calendar: pd.DatetimeIndex | None) -> IntArray:
    """Trading days since the first of `days`; without a calendar, `days` themselves are counted."""
    if calendar is None:
        return pd.factorize(days)[0]
    places: IntArray = calendar.get_indexer(days)
    return places - places[:1]
