"""Indicators of bars: all at once, or day after day from a saved state, bit for bit the same."""

import io
import json
import os
import zipfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import DTypeLike, NDArray

from mlops_tasks.columns import DATETIME, INSTRUMENT
from mlops_tasks.errors import SourceError, StoreError
from mlops_tasks.features.indicators.kernels import run
from mlops_tasks.features.indicators.program import IndicatorProgram, make_program
from mlops_tasks.features.indicators.specs import IndicatorSpec, parse_indicators
from mlops_tasks.features.kernels import FloatArray, IntArray, scatter
from mlops_tasks.features.panel import Panel

STATE_VERSION = 1
"""Increase it with every change that can change a value or the layout of a state: older states are then refused."""

_BLOCK_BARS = 16_384
"""Bars per block of instruments: its results are written out while they are still in the processor's cache."""


def compute_indicators(
    bars: pd.DataFrame,
    specs: Sequence[IndicatorSpec],
    dtype: DTypeLike = np.float64,
    threads: int | None = None,
) -> pd.DataFrame:
    """Indicators of all bars, each instrument on its own bars: a day without a bar is not a row with missing values.

    Parameters
    ----------
    bars
        Columns datetime, instrument and the fields that the indicators read, of open, high, low, close (adjusted
        prices) and volume; any order of rows, one row per datetime and instrument. Infinite values count as NaN.
    specs
        What to compute.
    dtype
        Type of the results, float64 or float32; computed in float64.
    threads
        Default: one per processor. Results do not depend on it.

    Returns
    -------
    Columns datetime, instrument and those of `specs`; rows and index as in `bars`. Values are finite or NaN, and depend
    only on bars up to their own.

    Raises
    ------
    SourceError
        A column is missing, a datetime or instrument is missing, or a key occurs twice.
    """
    return IndicatorState.empty(specs).update(bars, dtype, threads)


def compute_on_panel(
    specs: Sequence[IndicatorSpec], panel: Panel, positions: IntArray, threads: int | None = None
) -> NDArray[np.float32]:
    """Indicators of a panel's bars; a calendar row without a bar does not count as a bar of the instrument.

    The panel has rounded its bars to float32: the values are those of `compute_indicators` on bars rounded so, and
    differ from those on the bars themselves by that rounding.

    Parameters
    ----------
    specs
        What to compute.
    panel
        Adjusted bars from each instrument's first one on, with the fields that the indicators read.
    positions, threads
        As in `engine.evaluate`.

    Returns
    -------
    float32 array (columns, largest position + 1); NaN where an indicator has no value.
    """
    program = make_program({column: node for spec in specs for column, node in spec.nodes.items()})
    order = np.flatnonzero(panel.has_bar)
    offsets = np.searchsorted(order, panel.offsets)
    states = np.tile(program.initial_state, (len(panel.instruments), 1))
    results = np.full((len(program.columns), int(positions.max(initial=-1)) + 1), np.nan, np.float32)
    series = [panel.fields[name] for name in program.fields]
    _run(program, _Bars(series, order, offsets, positions[order]), states, results, threads)
    return results


@dataclass(frozen=True)
class _Bars:
    """Bars in flat series.

    Attributes
    ----------
    series
        Values of each field, float64.
    order
        Places of the bars in the series, instrument after instrument and by datetime.
    offsets
        Instrument i is `order[offsets[i]:offsets[i + 1]]`.
    positions
        For each bar of `order`, its place in the results; negative: not wanted.
    """

    series: Sequence[FloatArray]
    order: IntArray
    offsets: IntArray
    positions: IntArray


@dataclass(frozen=True)
class _Layout:
    """The rows of a frame, instrument after instrument and by datetime.

    Attributes
    ----------
    instruments
        Distinct instruments, ascending.
    order
        Row numbers of the frame in that order.
    offsets
        Instrument i is `order[offsets[i]:offsets[i + 1]]`.
    days
        Datetimes in that order, nanoseconds since 1970.
    """

    instruments: NDArray[np.str_]
    order: IntArray
    offsets: IntArray
    days: IntArray


class IndicatorState:
    """What indicators must remember of each instrument to continue with its next bar.

    Updating with any split of the bars into calls gives the values of all at once, bit for bit.
    """

    def __init__(
        self, specs: Sequence[IndicatorSpec], instruments: NDArray[np.str_], last_days: IntArray, values: FloatArray
    ) -> None:
        self._specs = tuple(specs)
        self._program = make_program({column: node for spec in specs for column, node in spec.nodes.items()})
        self._instruments = instruments
        self._last_days = last_days
        self._values = values

    @classmethod
    def empty(cls, specs: Sequence[IndicatorSpec]) -> Self:
        """The state before any bar."""
        state = cls(specs, np.empty(0, np.str_), np.empty(0, np.int64), np.empty((0, 0)))
        state._values = np.empty((0, len(state._program.initial_state)))
        return state

    @property
    def specs(self) -> tuple[IndicatorSpec, ...]:
        """What is computed."""
        return self._specs

    @property
    def last_days(self) -> pd.Series:
        """Datetime of the last bar of each instrument, by instrument."""
        return pd.Series(pd.to_datetime(self._last_days), index=self._instruments)

    def update(self, bars: pd.DataFrame, dtype: DTypeLike = np.float64, threads: int | None = None) -> pd.DataFrame:
        """Indicators of further bars; takes, gives and raises what `compute_indicators` does.

        Instruments may be new, and may lack bars for as long as they like.

        Raises
        ------
        SourceError
            An instrument has a bar that is not after its last one; the state stays as it was.
        """
        layout = _lay_out(bars, self._program.fields)
        known, values = self._states_of(layout)
        series = [bars[name].to_numpy(np.float64, na_value=np.nan) for name in self._program.fields]
        results = np.empty((len(self._program.columns), len(bars)), dtype)
        _run(self._program, _Bars(series, layout.order, layout.offsets, layout.order), values, results, threads)
        self._remember(layout, known, values)
        frame = pd.DataFrame(results.T, bars.index, list(self._program.columns), copy=False)
        for place, name in enumerate((DATETIME, INSTRUMENT)):
            frame.insert(place, name, bars[name])
        return frame

    def to_bytes(self) -> bytes:
        """The state as an npz archive, for `from_bytes`."""
        buffer = io.BytesIO()
        np.savez(
            buffer,
            version=np.int64(STATE_VERSION),
            specs=np.array(json.dumps([spec.as_entry() for spec in self._specs])),
            instruments=self._instruments,
            last_days=self._last_days,
            values=self._values,
        )
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes) -> Self:
        """The state that `to_bytes` wrote.

        Raises
        ------
        StoreError
            The content is not such an archive, or another version of the indicators wrote it.
        """
        remedy = "compute the indicators again from the first bar"
        try:
            with np.load(io.BytesIO(content), allow_pickle=False) as archive:
                parts = {name: archive[name] for name in archive.files}
            version = int(parts["version"])
            if version != STATE_VERSION:
                raise StoreError(f"indicator state has version {version}, this code has {STATE_VERSION}: {remedy}")
            specs = parse_indicators(json.loads(str(parts["specs"])), "indicator state: specs")
            state = cls(specs, parts["instruments"], parts["last_days"], parts["values"])
        except (OSError, KeyError, EOFError, zipfile.BadZipFile, ValueError) as error:
            raise StoreError(f"indicator state cannot be read ({error}): {remedy}") from None
        expected = (len(state._instruments), len(state._program.initial_state))
        if state._values.shape != expected or len(state._last_days) != expected[0]:
            raise StoreError(f"indicator state has shape {state._values.shape}, expected {expected}: {remedy}")
        return state

    def _states_of(self, layout: _Layout) -> tuple[NDArray[np.bool_], FloatArray]:
        """Which of the instruments are known, and copies of their states, fresh ones for the others."""
        values = np.tile(self._program.initial_state, (len(layout.instruments), 1))
        known = np.isin(layout.instruments, self._instruments)
        places = np.searchsorted(self._instruments, layout.instruments[known])
        values[known] = self._values[places]
        first_days = layout.days[layout.offsets[:-1]][known]
        if (early := np.flatnonzero(first_days <= self._last_days[places])).size:
            instrument = layout.instruments[known][early[0]]
            day, last = (pd.Timestamp(days[early[0]]) for days in (first_days, self._last_days[places]))
            raise SourceError(
                f"bars: {early.size} instruments have bars that are not after their last one ({instrument} has {day}, "
                f"last is {last}); give new bars only, or compute from the first bar if history changed"
            )
        return known, values

    def _remember(self, layout: _Layout, known: NDArray[np.bool_], values: FloatArray) -> None:
        instruments = np.union1d(self._instruments, layout.instruments)
        last_days = np.empty(len(instruments), np.int64)
        merged = np.empty((len(instruments), len(self._program.initial_state)))
        for names, days, states in (
            (self._instruments, self._last_days, self._values),
            (layout.instruments, layout.days[layout.offsets[1:] - 1], values),
        ):
            places = np.searchsorted(instruments, names)
            last_days[places], merged[places] = days, states
        self._instruments, self._last_days, self._values = instruments, last_days, merged


def _lay_out(bars: pd.DataFrame, fields: Sequence[str]) -> _Layout:
    wanted = (DATETIME, INSTRUMENT, *fields)
    if missing := [name for name in wanted if name not in bars.columns]:
        raise SourceError(f"bars: no column {', '.join(missing)}; the indicators read {', '.join(wanted)}")
    for name in (DATETIME, INSTRUMENT):
        if bars[name].isna().any():
            raise SourceError(f"bars: {int(bars[name].isna().sum())} rows have no {name}; drop or repair them")
    days = pd.DatetimeIndex(bars[DATETIME]).as_unit("ns").asi8
    codes, names = pd.factorize(bars[INSTRUMENT], sort=True)
    order = np.lexsort((days, codes))
    codes, days = codes[order], days[order]
    twice = np.flatnonzero((codes[1:] == codes[:-1]) & (days[1:] == days[:-1]))
    if twice.size:
        raise SourceError(
            f"bars: {twice.size} rows repeat a datetime and instrument (the first: {names[codes[twice[0]]]} "
            f"{pd.Timestamp(days[twice[0]])}); keep one of each"
        )
    offsets = np.searchsorted(codes, np.arange(len(names) + 1))
    return _Layout(np.asarray(names, np.str_), order.astype(np.int64), offsets.astype(np.int64), days)


def _run(
    program: IndicatorProgram, bars: _Bars, states: FloatArray, results: NDArray[np.floating[Any]], threads: int | None
) -> None:
    """Fill `results` (columns, places), and advance the states (instruments, places of a state) to the last bars."""
    workers = threads or len(os.sched_getaffinity(0))

    def compute(block: tuple[int, int]) -> None:
        offsets = bars.offsets[block[0] : block[1] + 1]
        begin, end = int(offsets[0]), int(offsets[-1])
        fields = np.empty((len(bars.series), end - begin))
        for row, values in zip(fields, bars.series, strict=True):
            values.take(bars.order[begin:end], out=row)
            row[~np.isfinite(row)] = np.nan
        out = np.empty((len(results), end - begin))
        run(program.tape, fields, offsets - begin, states[block[0] : block[1]], out)
        for row, computed in zip(results, out, strict=True):
            scatter(computed, bars.positions[begin:end], row)

    with ThreadPoolExecutor(workers) as pool:
        for _ in pool.map(compute, _blocks(bars.offsets, workers)):
            pass


def _blocks(offsets: IntArray, threads: int) -> list[tuple[int, int]]:
    """Ranges of instruments of about `_BLOCK_BARS` bars each, or fewer, so that each thread has one."""
    bars = min(_BLOCK_BARS, max(int(offsets[-1]) // threads, 1))
    block_of = offsets[:-1] // bars
    begins = np.flatnonzero(np.diff(block_of, prepend=-1))
    return list(pairwise([*begins.tolist(), len(block_of)]))
