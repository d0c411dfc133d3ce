"""Bars as flat series: one instrument after the other, one value per calendar row."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from mlops_tasks.columns import DATETIME, INSTRUMENT
from mlops_tasks.features.kernels import FloatArray, IntArray


@dataclass(frozen=True)
class Panel:
    """Series of all instruments, each over the calendar rows from its first to its last bar.

    Attributes
    ----------
    fields
        Field name to flat float64 values (sum of the series' lengths), NaN where a calendar row has no bar.
    offsets
        Instrument i is `[offsets[i], offsets[i + 1])`, int64.
    rows
        Calendar row of each value, int64.
    has_bar
        Whether the value's row has a bar.
    instruments, calendar
        What the instrument numbers and calendar rows stand for; instruments ascend.
    member
        Whether the value's instrument is a member of the universe on its row; None: not given.
    """

    fields: Mapping[str, FloatArray]
    offsets: IntArray
    rows: IntArray
    has_bar: np.ndarray
    instruments: pd.Index
    calendar: pd.DatetimeIndex
    member: np.ndarray | None = None

    @property
    def codes(self) -> IntArray:
        """Instrument number of each value, int64."""
        return np.repeat(np.arange(len(self.instruments)), np.diff(self.offsets))

    def bar_order(self, first_row: int = 0) -> IntArray:
        """Numbers of the values that have a bar, from calendar row `first_row` on, by datetime, then instrument."""
        kept = np.flatnonzero(self.has_bar & (self.rows >= first_row))
        return kept[np.argsort(self.rows[kept], kind="stable")]

    def index(self, order: IntArray) -> pd.MultiIndex:
        """Datetime and instrument of the values in `order`."""
        return pd.MultiIndex(
            levels=[self.calendar, self.instruments],
            codes=[self.rows[order], self.codes[order]],
            names=[DATETIME, INSTRUMENT],
            verify_integrity=False,
        )

    def positions(self, order: IntArray) -> IntArray:
        """For each value its place in `order`, -1 for those that are not in it."""
        places = np.full(int(self.offsets[-1]), -1, np.int64)
        places[order] = np.arange(len(order))
        return places


def build_panel(
    bars: pd.DataFrame, calendar: pd.DatetimeIndex, fields: Sequence[str], first_rows: pd.Series | None = None
) -> Panel:
    """Lay out adjusted bars as series.

    Parameters
    ----------
    bars
        Columns datetime, instrument and `fields`, sorted by instrument and datetime; every datetime is in `calendar`.
    calendar
        Trading days, ascending: each is a row, whether an instrument traded or not.
    fields
        Which to take. They are rounded to float32, as Qlib stores them, and computed with as float64.
    first_rows
        By instrument, the calendar row at which its series begins, for instruments whose first bar may lie before
        `calendar` (0); default: its first row in `bars`.
    """
    instruments, codes = _instrument_codes(bars[INSTRUMENT])
    bar_rows = calendar.as_unit("ns").searchsorted(pd.DatetimeIndex(bars[DATETIME]).as_unit("ns"))
    begins = np.flatnonzero(np.diff(codes, prepend=-1))
    ends = np.append(begins[1:], len(bars)) - 1
    first = bar_rows[begins] if len(bars) else np.empty(0, np.int64)
    if first_rows is not None:
        first = np.minimum(first, first_rows.reindex(instruments).to_numpy(np.int64))
    lengths = bar_rows[ends] - first + 1 if len(bars) else np.empty(0, np.int64)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    rows = np.arange(offsets[-1]) - np.repeat(offsets[:-1] - first, lengths)
    positions = offsets[codes] + bar_rows - first[codes]
    has_bar = np.zeros(offsets[-1], bool)
    has_bar[positions] = True
    values = {name: _spread(bars[name], positions, int(offsets[-1])) for name in fields}
    return Panel(values, offsets, rows.astype(np.int64), has_bar, instruments, calendar)


def _instrument_codes(column: pd.Series) -> tuple[pd.Index, IntArray]:
    codes, uniques = pd.factorize(column)
    return pd.Index(uniques, name=INSTRUMENT, dtype="str"), codes.astype(np.int64)


def _spread(column: pd.Series, positions: IntArray, length: int) -> FloatArray:
    values = np.full(length, np.nan)
    values[positions] = column.to_numpy(np.float32, na_value=np.nan)
    return values
