"""Stored features as Qlib's handlers and datasets take them, with the panel of features held in memory once.

The panel is row-major, so the values of one instrument's day are neighbours: a range of days is a view of it, and the
steps of a time series are gathered from it in place. Labels are in a block of their own, so a processor of labels never
copies features.
"""

from collections.abc import Collection, Iterator, Sequence
from itertools import groupby, pairwise
from typing import Any

import numpy as np
import pandas as pd
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray
from qlib.contrib.data.handler import check_transform_proc
from qlib.data.dataset import TSDataSampler, TSDatasetH
from qlib.data.dataset.handler import DataHandlerLP
from qlib.data.dataset.loader import DataLoader

from mlops_tasks.columns import DATETIME, LABEL
from mlops_tasks.config import Settings, load_settings
from mlops_tasks.data.vintages import load_vintage
from mlops_tasks.errors import ConfigError
from mlops_tasks.features.labels import forward_returns
from mlops_tasks.features.store import FeatureStore

FEATURE = "feature"
"""Qlib's name of the group of columns that models learn from."""

MEMBERS, ALL = "universe", "all"
"""Instruments by name of a market, as in the vintage's Qlib store: the members of each day, or every instrument."""

_ROWS_A_COPY = 4096
"""Rows that are copied into the new layout at once."""

Floats = NDArray[np.floating[Any]]


class StoreDataLoader(DataLoader):
    """Loads a stored feature version, and the returns realised after each day, as Qlib's frame of two groups.

    Columns (feature, <name>), float32, and (label, LABEL0), (label, LABEL1), ... for the horizons.

    Parameters
    ----------
    feature_version
        A version in the store below `<home>/features`.
    data_version
        The vintage that labels and membership are taken from; default: the one that the features were computed from.
    columns
        Which features; default: all.
    horizons
        Horizons of the labels, in trading days: close(t+1+h) / close(t+1) - 1. Segments do not purge them: a label
        reaches h+1 trading days ahead, so leave a gap as long between one segment and the next.
    settings
        Default: as `load_settings` finds them, by `MLOPS_HOME`.
    """

    def __init__(
        self,
        feature_version: str,
        data_version: str | None = None,
        columns: Sequence[str] | None = None,
        horizons: Sequence[int] = (1,),
        settings: Settings | None = None,
    ) -> None:
        self.feature_version = feature_version
        self.data_version = data_version
        self.columns = columns
        self.horizons = tuple(horizons)
        self.settings = settings or load_settings()

    def load(
        self, instruments: str | Collection[str] | None = None, start_time: Any = None, end_time: Any = None
    ) -> pd.DataFrame:
        """Rows of some instruments and days, both ends included.

        Parameters
        ----------
        instruments
            `universe`: the members of each day; `all` or None: every instrument; or their names.

        Raises
        ------
        ConfigError
            There is no market of that name.
        StoreError
            The feature version or its vintage does not exist.
        """
        if isinstance(instruments, str) and instruments not in {MEMBERS, ALL}:
            raise ConfigError(f"instruments: unknown market {instruments!r}; use {MEMBERS}, {ALL} or a list of names")
        store = FeatureStore(self.settings)
        data_version = self.data_version or store.get(self.feature_version).data_version
        members = load_vintage(self.settings, data_version) if instruments == MEMBERS else None
        names = None if isinstance(instruments, str) else instruments
        features = store.load(
            self.feature_version, start_time, end_time, members, self.columns, instruments=names, order="C"
        )
        features.columns = pd.MultiIndex.from_product([[FEATURE], features.columns])
        if not self.horizons:
            return features
        labels = forward_returns(load_vintage(self.settings, data_version), self.horizons).reindex(features.index)
        labels.columns = pd.MultiIndex.from_product([[LABEL], [f"LABEL{n}" for n in range(len(self.horizons))]])
        return pd.concat([features, labels], axis=1)


class PanelDataHandler(DataHandlerLP):
    """Qlib's handler, which copies no column that a processor leaves alone and no row that is fetched by its day.

    Whatever Qlib's handler gives, this one gives too. The frames share memory until one of them is written to (pandas'
    copy on write), and columns that a processor has written are made row-major again.
    """

    def process_data(self, with_fit: bool = False) -> None:
        """Run the processors, as Qlib's handler does: shared, then those for inference, then those for learning."""

        def run(frame: pd.DataFrame, processors: Sequence[Any], check_for_infer: bool) -> pd.DataFrame:
            lent = frame.copy(deep=False) if isinstance(frame, pd.DataFrame) else frame
            done = self._run_proc_l(lent, processors, with_fit=with_fit, check_for_infer=check_for_infer)
            return lay_out(done) if isinstance(done, pd.DataFrame) else done

        shared = run(self._data, self.shared_processors, True)
        self._infer = run(shared, self.infer_processors, True)
        if self.process_type not in {self.PTYPE_I, self.PTYPE_A}:
            raise NotImplementedError(f"process_type {self.process_type!r}; use {self.PTYPE_I} or {self.PTYPE_A}")
        self._learn = run(shared if self.process_type == self.PTYPE_I else self._infer, self.learn_processors, False)
        if self.drop_raw:
            del self._data

    def _fetch_data(self, data_storage: Any, selector: Any = slice(None), *args: Any, **kwargs: Any) -> Any:
        level = kwargs.get("level", DATETIME)
        if isinstance(selector, (tuple, list)) and level is not None and len(selector) <= 3:
            selector = slice(*selector)
        by_day = isinstance(selector, slice) and selector.step is None and level in {DATETIME, 0}
        if by_day and isinstance(data_storage, pd.DataFrame) and data_storage.index.is_monotonic_increasing:
            days, codes = data_storage.index.levels[0], data_storage.index.codes[0]
            begin, end = codes.searchsorted(days.slice_locs(selector.start, selector.stop))
            data_storage, selector = data_storage.iloc[begin:end], slice(None)
        return super()._fetch_data(data_storage, selector, *args, **kwargs)


class StoreDataHandler(PanelDataHandler):
    """A stored feature version with labels, as a Qlib handler: for code and for Qlib's configuration files alike.

    Parameters
    ----------
    feature_version, data_version, columns, horizons, settings
        As `StoreDataLoader`.
    instruments
        `universe`: the members of each day (default); `all`: every instrument; or names.
    start_time, end_time
        First and last day; default: all.
    infer_processors, learn_processors
        As Qlib's `DataHandlerLP`, with `shared_processors`, `process_type` and `drop_raw` among `kwargs`.
    fit_start_time, fit_end_time
        What processors that learn from data are fitted on: the training segment.

    Raises
    ------
    ConfigError, StoreError
        As `StoreDataLoader.load`.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - Qlib's handlers take their configuration as one flat list
        self,
        feature_version: str,
        data_version: str | None = None,
        instruments: str | Collection[str] | None = MEMBERS,
        start_time: Any = None,
        end_time: Any = None,
        columns: Sequence[str] | None = None,
        horizons: Sequence[int] = (1,),
        infer_processors: Sequence[Any] = (),
        learn_processors: Sequence[Any] = (),
        fit_start_time: Any = None,
        fit_end_time: Any = None,
        settings: Settings | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            instruments=instruments,
            start_time=start_time,
            end_time=end_time,
            data_loader=StoreDataLoader(feature_version, data_version, columns, horizons, settings),
            infer_processors=check_transform_proc(infer_processors, fit_start_time, fit_end_time),
            learn_processors=check_transform_proc(learn_processors, fit_start_time, fit_end_time),
            **kwargs,
        )


class PanelTSDatasetH(TSDatasetH):
    """Qlib's `TSDatasetH`, whose samples are gathered from the handler's panel in place."""

    def _prepare_seg(self, slc: Any, **kwargs: Any) -> "PanelTSDataSampler":
        """The samples of a segment, whose first ones reach back to days before it."""
        dtype, flt_col = kwargs.pop("dtype", None), kwargs.pop("flt_col", None)
        flt_col = self.flt_col if flt_col is None else flt_col
        days = slc if isinstance(slc, slice) else slice(*slc)
        extended = self._extend_slice(days, self.cal, self.step_len)
        fetch = super(TSDatasetH, self)._prepare_seg
        return PanelTSDataSampler(
            data=fetch(extended, **kwargs),
            start=days.start,
            end=days.stop,
            step_len=self.step_len,
            dtype=dtype,
            flt_data=None if flt_col is None else fetch(extended, **{**kwargs, "col_set": flt_col}),
        )


class PanelTSDataSampler(TSDataSampler):
    """Qlib's `TSDataSampler`, sample for sample, without its copies of the data and of its index.

    Columns that are contiguous and row-major are read in place; others are copied into that layout once. The place of
    an instrument's day is one int32 per cell, and many samples are gathered in one step.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - Qlib's own signature
        self,
        data: pd.DataFrame,
        start: Any,
        end: Any,
        step_len: int,
        fillna_type: str = "none",
        dtype: Any = None,
        flt_data: pd.DataFrame | pd.Series | None = None,
    ) -> None:
        self.start, self.end, self.step_len, self.fillna_type = start, end, step_len, fillna_type
        (days, rows), (instruments, columns) = (_sorted_level(data.index, level) for level in (0, 1))
        self.blocks = [(columns, values) for columns, values, _ in _row_major(data)]
        self.width = data.shape[1]
        self.dtype = np.result_type(*(values.dtype for _, values in self.blocks)) if dtype is None else np.dtype(dtype)
        # The last row is for the steps before the first day.
        self.places = np.full((len(days) + 1, len(instruments)), -1, np.int32)
        self.places[rows, columns] = np.arange(len(data), dtype=np.int32)
        kept = self.places >= 0
        if flt_data is not None:
            wanted = flt_data.squeeze(axis=1) if isinstance(flt_data, pd.DataFrame) else flt_data
            chosen = wanted.reindex(data.index).fillna(False).to_numpy(bool)
            kept[rows[~chosen], columns[~chosen]] = False
        by_instrument, day = np.nonzero(kept.T)
        self.idx_df = pd.DataFrame(self.places[:-1], index=days, columns=instruments, copy=False)
        index = pd.MultiIndex(
            levels=[instruments, days],
            codes=[by_instrument, day],
            names=data.index.names[::-1],
            verify_integrity=False,
        )
        self.idx_map, self.data_index = self.slice_idx_map_and_data_index(
            np.column_stack([day, by_instrument]).astype(np.int32), self.idx_df, index, start, end
        )

    def __getitem__(self, idx: Any) -> Floats:
        """One sample, shape (step_len, columns), by number or by pair (day, instrument); a list gives one for each."""
        many = isinstance(idx, (list, np.ndarray))
        cells = np.array([self._get_row_col(each) for each in (idx if many else [idx])], np.int64).reshape(-1, 2)
        samples = self._gather(self._places_of(cells[:, 0], cells[:, 1]))
        return samples if many else samples[0]

    def _places_of(self, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> NDArray[np.int32]:
        """The row of the data for each step, shape (samples, step_len); -1: there is none."""
        steps = np.maximum(rows[:, None] + np.arange(1 - self.step_len, 1), -1)
        places = self.places[steps, columns[:, None]]
        if self.fillna_type not in {"none", "ffill", "ffill+bfill"}:
            raise ConfigError(f"fillna_type {self.fillna_type!r}; use none, ffill or ffill+bfill")
        if self.fillna_type == "none" or places.min(initial=0) >= 0:
            return places
        places = _fill_forward(places)
        return places if self.fillna_type == "ffill" else _fill_forward(places[:, ::-1])[:, ::-1]

    def _gather(self, places: NDArray[np.int32]) -> Floats:
        samples = np.empty((*places.shape, self.width), self.dtype)
        for columns, values in self.blocks:
            samples[..., columns] = values.take(places, axis=0, mode="clip")
        missing = places < 0
        if missing.any():
            samples[missing] = np.nan
        return samples


def lay_out(frame: pd.DataFrame) -> pd.DataFrame:
    """The same frame with columns that are scattered in memory made contiguous and row-major; the others stay."""
    blocks = list(_row_major(frame))
    if not any(is_copy for _, _, is_copy in blocks):
        return frame
    parts = [pd.DataFrame(values, frame.index, frame.columns[columns], copy=False) for columns, values, _ in blocks]
    return pd.concat(parts, axis=1)


def _row_major(frame: pd.DataFrame) -> Iterator[tuple[slice, Floats, bool]]:
    """Ranges of columns with their values in row-major order, and whether these are a copy.

    Columns that are side by side in memory are a view, and so is one that is alone in its group.
    """
    columns = [frame.iloc[:, number].to_numpy() for number in range(frame.shape[1])]
    groups = frame.columns.get_level_values(0) if frame.columns.nlevels > 1 else [None] * len(columns)
    begins = [n for n, column in enumerate(columns) if n == 0 or not _side_by_side(columns[n - 1], column)]
    runs = list(pairwise([*begins, len(columns)]))
    for (is_lone, _), some in groupby(runs, key=lambda run: (run[1] - run[0] == 1, groups[run[0]])):
        scattered = list(some)
        if is_lone and len(scattered) > 1:
            together = slice(scattered[0][0], scattered[-1][1])
            yield together, _copy(frame.iloc[:, together]), True
            continue
        for begin, end in scattered:
            first = columns[begin]
            shape, strides = (len(first), end - begin), (*first.strides, first.itemsize)
            yield slice(begin, end), as_strided(first, shape, strides, writeable=False), False


def _side_by_side(one: Floats, two: Floats) -> bool:
    """Whether each value of `two` lies right behind that of `one`."""
    behind = two.__array_interface__["data"][0] - one.__array_interface__["data"][0]
    return one.dtype == two.dtype and one.strides == two.strides and behind == one.itemsize


def _copy(frame: pd.DataFrame) -> Floats:
    """The values in row-major order, a few rows at a time: there is no second copy of all columns."""
    values = np.empty(frame.shape, np.result_type(*frame.dtypes))
    for begin in range(0, len(frame), _ROWS_A_COPY):
        values[begin : begin + _ROWS_A_COPY] = frame.iloc[begin : begin + _ROWS_A_COPY].to_numpy()
    return values


def _sorted_level(index: pd.MultiIndex, level: int) -> tuple[pd.Index, NDArray[np.int64]]:
    """The values that a level has, sorted, and the place of each row's value among them."""
    used = index.remove_unused_levels()
    order = used.levels[level].argsort()
    places = np.empty(len(order), np.int64)
    places[order] = np.arange(len(order))
    return used.levels[level][order], places[used.codes[level]]


def _fill_forward(places: NDArray[np.int32]) -> NDArray[np.int32]:
    """Each -1 replaced by the last other number before it in its row, where there is one."""
    newest = np.maximum.accumulate(np.where(places >= 0, np.arange(places.shape[1]), -1), axis=1)
    filled: NDArray[np.int32] = np.take_along_axis(places, np.maximum(newest, 0), axis=1)
    return filled
