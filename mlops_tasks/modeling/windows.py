"""Windows of days by index: no window is copied before it is used.

The window of a row, instrument i on day t, is the `window` trading days that end at t, the newest last. A day on which
i has no bar, or that lies before the first day of the calendar, is a row of zeros: after the robust z-score, this is
the training median. So a window depends only on the row's own instrument and on those days, in training and serving.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

FloatArray = npt.NDArray[np.floating[Any]]
IntArray = npt.NDArray[np.integer[Any]]

NO_BAR = -1
CACHE_LINE = 64


def history_start(calendar: pd.DatetimeIndex, first: pd.Timestamp, window: int) -> pd.Timestamp:
    """The first day to which the windows of rows on and after `first` reach back."""
    place = int(calendar.searchsorted(first))
    return calendar[max(0, place - window + 1)] if place < len(calendar) else first


@dataclass(frozen=True)
class PanelWindows:
    """The windows of a panel's rows.

    Attributes
    ----------
    rows
        Processed features without NaN, float32, shape (n, features), C order.
    position
        Row of each instrument (axis 0) on each day (axis 1, after `window` - 1 empty days), or `NO_BAR`; int32.
    day, instrument
        Codes of each row, shape (n,); days count trading days.
    window
        Trading days.
    """

    rows: FloatArray
    position: IntArray
    day: IntArray
    instrument: IntArray
    window: int

    @classmethod
    def of(cls, rows: FloatArray, day: IntArray, instrument: IntArray, window: int) -> "PanelWindows":
        """Index the rows of a panel; `day` and `instrument` are codes from 0."""
        shape = (int(instrument.max(initial=-1)) + 1, window + int(day.max(initial=0)))
        position = np.full(shape, NO_BAR, dtype=np.int32)
        position[instrument, day + (window - 1)] = np.arange(len(rows), dtype=np.int32)
        return cls(np.ascontiguousarray(rows), position, day, instrument, window)

    def places(self, index: IntArray) -> IntArray:
        """The rows that the windows of rows `index` are made of, or `NO_BAR`; int32, shape (len(index), window)."""
        spans = np.lib.stride_tricks.sliding_window_view(self.position, self.window, axis=1)
        found: IntArray = spans[self.instrument[index], self.day[index]]
        return found

    def gather(self, index: IntArray) -> FloatArray:
        """The windows of rows `index`; float32, shape (len(index), window, features)."""
        places = self.places(index)
        windows = aligned((*places.shape, self.rows.shape[1]))
        self.rows.take(places, axis=0, mode="clip", out=windows)
        absent = places == NO_BAR
        if absent.any():
            windows[absent] = 0.0
        return windows


def aligned(shape: tuple[int, ...]) -> FloatArray:
    """A new uninitialised float32 array that begins at a cache line.

    The order of sums in a product may depend on where its numbers lie in memory, and NumPy's own arrays lie anywhere.
    """
    size = math.prod(shape) * 4
    memory = np.empty(size + CACHE_LINE, dtype=np.uint8)
    begin = -memory.ctypes.data % CACHE_LINE
    return memory[begin : begin + size].view(np.float32).reshape(shape)


def epoch_order(rows: IntArray, seed: int, epoch: int, samples: int = 0) -> IntArray:
    """The rows of one epoch in a random order that depends only on the seed and the epoch.

    There are `samples` of them, drawn without replacement; 0: all.
    """
    shuffled: IntArray = np.random.default_rng([seed, epoch]).permutation(rows)
    return shuffled[:samples] if samples else shuffled


def batches(order: IntArray, batch_size: int) -> Iterator[IntArray]:
    """Consecutive parts of nearly equal size, at most `batch_size`; a small remainder would have a noisy gradient."""
    yield from np.array_split(order, max(1, -(-len(order) // batch_size)))
