"""From stores to Qlib: one frame of features and label, purged between segments, as a `DatasetH`."""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from mlops_tasks.columns import DATETIME, LABEL
from mlops_tasks.config import Settings
from mlops_tasks.data.vintages import BoolArray, load_vintage
from mlops_tasks.errors import TrainingError
from mlops_tasks.features.labels import forward_return
from mlops_tasks.features.store import FeatureStore
from mlops_tasks.modeling.learning_spec import LearningSpec
from mlops_tasks.modeling.processors import FittedProcessors
from mlops_tasks.modeling.scoring import ScoringRows
from mlops_tasks.modeling.windows import history_start

log = logging.getLogger(__name__)

LEARNING_SEGMENTS = ("train", "valid")
LABEL_PROCESSORS = "mlops_tasks.modeling.label_processors"
"""The module in which Qlib finds them."""
FEW_DAYS, FEW_ROWS = 12, 20_000
HASHED_ROWS = 16_384
"""Rows that are copied at once to compute a digest."""


@dataclass(frozen=True)
class LearningData:
    """Features and label of the universe's members over all segments.

    Attributes
    ----------
    features
        Shape (n, features), float32, MultiIndex (datetime, instrument), sorted.
    label
        Shape (n,), float64, same index. NaN where the future is not known, and in the last `horizon + 1` trading
        days of train and valid, whose labels reach into the next segment (purging).
    segments
        First and last day of each segment.
    member
        Which rows may be learned from and scored, shape (n,). Windows only look back on the others, which have no
        label: rows of instruments while they are not members, and days before train. None: all rows.
    calendar
        Trading days, ascending; None: the days of the rows.
    """

    features: pd.DataFrame
    label: pd.Series
    segments: Mapping[str, tuple[date, date]]
    member: BoolArray | None = None
    calendar: pd.DatetimeIndex | None = None

    def rows(self, segment: str) -> slice:
        """Positions of a segment's rows (the index is sorted by day)."""
        days = self.features.index.get_level_values(DATETIME)
        first, last = self.segments[segment]
        return slice(days.searchsorted(pd.Timestamp(first), "left"), days.searchsorted(pd.Timestamp(last), "right"))

    def scored(self, segment: str) -> BoolArray:
        """Mask of the rows of a segment that are to be scored, shape (n,)."""
        mask = np.zeros(len(self.label), dtype=np.bool_)
        rows = self.rows(segment)
        mask[rows] = True if self.member is None else self.member[rows]
        return mask

    def scoring_rows(self, segment: str) -> ScoringRows:
        """A segment's rows to score, with all rows up to its end to look back on."""
        until = slice(0, self.rows(segment).stop)
        features = self.features.iloc[until]
        days = features.index.get_level_values(DATETIME)
        calendar = days.unique() if self.calendar is None else self.calendar
        return ScoringRows(features, self.scored(segment)[until], calendar, since=days[0])

    def until(self, stop: int, segments: Mapping[str, tuple[date, date]]) -> "LearningData":
        """The rows before position `stop`, divided into other segments."""
        member = None if self.member is None else self.member[:stop]
        cut = {"features": self.features.iloc[:stop], "label": self.label.iloc[:stop]}
        return replace(self, **cut, member=member, segments=segments)

    def learned_features(self) -> npt.NDArray[np.float32]:
        """Features of the training segment's members, shape (n, features)."""
        rows = self.rows("train")
        features = self.features.iloc[rows].to_numpy()
        return features if self.member is None else features[self.member[rows]]

    def few_days(self, window: int, horizon: int) -> "LearningData":
        """The end of train and the beginning of valid, `FEW_DAYS` labelled days of each or `FEW_ROWS` rows in all, and
        what windows of `window` trading days look back on."""
        days = self.features.index.get_level_values(DATETIME)
        train, valid = (days[self.rows(name)].unique() for name in LEARNING_SEGMENTS)
        count = max(2, min(FEW_DAYS, FEW_ROWS * len(train) // (2 * max(1, len(days[self.rows("train")])))))
        train, valid = train[-(count + horizon + 1) :], valid[:count]
        known = days[: self.rows("train").stop].unique()
        since = known[max(0, len(known) - len(train) - window + 1)]
        rows = slice(int(days.searchsorted(since, "left")), int(days.searchsorted(valid[-1], "right")))
        return replace(
            self,
            features=self.features.iloc[rows],
            label=self.label.iloc[rows],
            member=None if self.member is None else self.member[rows],
            segments={"train": (train[0].date(), train[-1].date()), "valid": (valid[0].date(), valid[-1].date())},
        )

    def watched(self, share: float) -> "LearningData":
        """The same data up to the last validation day that a training sees: `share` of these days, from the first."""
        if share == 1:
            return self
        last = self._valid_days()[self._watched_days(share) - 1]
        days = self.features.index.get_level_values(DATETIME)
        segments = {"train": self.segments["train"], "valid": (self.segments["valid"][0], last.date())}
        return self.until(int(days.searchsorted(last, "right")), segments)

    def unwatched_since(self, share: float, horizon: int) -> pd.Timestamp:
        """The first validation day whose labels overlap with none that a training sees.

        Raises
        ------
        TrainingError
            There is no such day.
        """
        days = self._valid_days()
        first = self._watched_days(share) + horizon + 1
        if first >= len(days):
            raise TrainingError(
                f"a training sees {share:.0%} of {len(days)} consecutive validation days, and with a gap of "
                f"{horizon + 1} days none is left to judge it by; give more days"
            )
        return days[first]

    def _valid_days(self) -> pd.DatetimeIndex:
        return self.features.index[self.rows("valid")].get_level_values(DATETIME).unique()

    def _watched_days(self, share: float) -> int:
        return max(1, round(share * len(self._valid_days())))

    def digest(self) -> str:
        """SHA-256 over keys, features and labels: equal digests mean the same learning problem."""
        content = hashlib.sha256()
        content.update(
            pd.util.hash_pandas_object(self.features.index.to_frame(index=False), index=False).to_numpy().tobytes()
        )
        values = self.features.to_numpy()
        for begin in range(0, len(values), HASHED_ROWS):  # row by row, whatever the layout in memory
            content.update(np.ascontiguousarray(values[begin : begin + HASHED_ROWS]).data)
        content.update(self.label.to_numpy().tobytes())
        content.update(repr((list(self.features.columns), sorted(self.segments.items()))).encode())
        if self.member is not None:
            content.update(self.member.tobytes())
        if self.calendar is not None:
            content.update(self.calendar.to_numpy().astype("datetime64[D]").tobytes())
        return content.hexdigest()


def load_learning_data(settings: Settings, spec: LearningSpec, window: int = 1) -> LearningData:
    """Read what models learn from, including the rows that windows of several days look back on."""
    vintage = load_vintage(settings, spec.data_version)
    first, last = spec.segments["train"][0], spec.segments["test"][1]
    calendar, store, member = vintage.calendar(), FeatureStore(settings), None
    if window == 1:
        features = store.load(spec.feature_version, start=first, end=last, members=vintage)
    else:
        since = history_start(calendar, pd.Timestamp(first), window)
        features = store.load(spec.feature_version, start=since, end=last, order="C")
        learned = features.index.get_level_values(DATETIME) >= pd.Timestamp(first)
        member = vintage.membership_mask(features.index) & learned
    data = learning_data(features, forward_return(vintage, spec.horizon), spec, calendar)
    if member is not None:
        data = replace(data, label=data.label.where(member), member=member, calendar=calendar)
    log.info("learning data: %d rows x %d features, %s to %s", *features.shape, first, last)
    return data


def learning_data(
    features: pd.DataFrame, label: pd.Series, spec: LearningSpec, calendar: pd.DatetimeIndex
) -> LearningData:
    """Features of the universe's members, each row with its label; purged."""
    aligned = label.reindex(features.index).rename(LABEL)
    return LearningData(features, purge(aligned, spec, calendar), dict(spec.segments))


def purge(label: pd.Series, spec: LearningSpec, calendar: pd.DatetimeIndex) -> pd.Series:
    """Blank the labels of train and valid that need a close after their segment's last day."""
    label = label.copy()
    days = label.index.get_level_values(DATETIME)
    for name in LEARNING_SEGMENTS:
        first, last = (pd.Timestamp(day) for day in spec.segments[name])
        inside = calendar[(calendar >= first) & (calendar <= last)]
        label[days.isin(inside[-(spec.horizon + 1) :])] = np.nan
    return label


def fit_processors(data: LearningData, names: Sequence[str]) -> FittedProcessors:
    """The named feature processors, fitted on the training segment's members."""
    return FittedProcessors.fit(names, data.learned_features())


def qlib_dataset(data: LearningData, processors: FittedProcessors, label_processor: str) -> Any:
    """A Qlib `DatasetH` over the processed features; rows without a label are not learned from.

    The label of the learning rows is normalised per day by the named Qlib processor.
    """
    from qlib.data.dataset import DatasetH
    from qlib.data.dataset.handler import DataHandlerLP
    from qlib.data.dataset.loader import StaticDataLoader

    rows = slice(data.rows("train").start, data.rows("valid").stop)
    matrix = processors.transform(data.features.iloc[rows].to_numpy())
    columns = pd.MultiIndex.from_tuples([("feature", name) for name in data.features.columns])
    frame = pd.DataFrame(matrix, index=data.features.index[rows], columns=columns, copy=False)
    frame[(LABEL, "LABEL0")] = data.label.iloc[rows].to_numpy(dtype=np.float32)
    handler = DataHandlerLP(
        data_loader=StaticDataLoader(frame),
        learn_processors=[
            {"class": "DropnaLabel"},
            {"class": label_processor, "module_path": LABEL_PROCESSORS, "kwargs": {"fields_group": LABEL}},
        ],
    )
    return DatasetH(handler, segments={n: tuple(map(pd.Timestamp, data.segments[n])) for n in LEARNING_SEGMENTS})


def learned_labels(data: LearningData, label_processor: str) -> pd.DataFrame:
    """The labels of the rows that Qlib gives a model to learn from."""
    from qlib.data.dataset.handler import DataHandlerLP

    narrow = replace(data, features=data.features.iloc[:, :1])
    dataset = qlib_dataset(narrow, FittedProcessors(), label_processor)
    learned: pd.DataFrame = dataset.handler.fetch(col_set=LABEL, data_key=DataHandlerLP.DK_L)
    return learned
