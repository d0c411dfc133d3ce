"""Which rows of a source are not bars to begin with: rows without a trade, exact repeats, dates far from all others.

They do not affect what is measured of other rows: they open no session, are nobody's neighbour, and do not extend an
instrument's life.
"""

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mlops_tasks.columns import BAR_FIELDS, DATETIME, INSTRUMENT, PRICES, VOLUME
from mlops_tasks.data.sources.parsed import PARSE_ERROR
from mlops_tasks.data.validation import measure_kernels as kernels

FAR_DAYS = 40
"""No exchange stays closed this long, wars aside."""
STRAY_SHARE = 0.001
"""Share of all rows: more than these, beyond such a gap, are part of the history."""

_LOOKED_AT = 10_000
"""Number of rows that are examined to see whether each instrument's rows are together."""

Integers = NDArray[np.int32]
Kinds = NDArray[np.int8]


def kinds_of(frame: pd.DataFrame) -> Kinds:
    """`BAR`, `NO_TRADE` or `BELOW_ZERO` of `measure_kernels` for each row."""
    kinds = np.zeros(len(frame), dtype=np.int8)
    kernels.classify_rows(tuple(field(frame, name) for name in (*PRICES, VOLUME)), kinds)
    return kinds


def number_instruments(names: pd.Series) -> tuple[Integers, list[str]]:
    """The number of each row's instrument in the order in which they appear, -1 where it is missing; and their names.

    A run of one name is compared with the others only once."""
    lengths = _run_lengths(names)
    if lengths is None:
        codes, found = pd.factorize(names)
        return codes.astype(np.int32), [str(name) for name in found]
    begins = np.cumsum(lengths) - lengths
    codes, found = pd.factorize(names.iloc[begins])
    return np.repeat(codes.astype(np.int32), lengths), [str(name) for name in found]


def _run_lengths(names: pd.Series) -> NDArray[np.int64] | None:
    """Rows of each run of one name; None where names are not text or change so often that it saves nothing."""
    if not isinstance(names.array, pd.arrays.ArrowStringArray) or not _is_in_runs(names):
        return None
    text = pa.array(names.array)
    chunks = text.chunks if isinstance(text, pa.ChunkedArray) else [text]
    ends = [pc.run_end_encode(chunk).run_ends.to_numpy() for chunk in chunks if len(chunk)]
    return np.concatenate([np.diff(each, prepend=0) for each in ends]).astype(np.int64)


def _is_in_runs(names: pd.Series) -> bool:
    """Whether most of the first rows have the name of the row before."""
    first = names.iloc[:_LOOKED_AT].array
    return len(first) > 1 and float(np.mean(first[1:] == first[:-1])) > 0.8


def field(frame: pd.DataFrame, name: str) -> NDArray[np.float64]:
    """A column, as the kernels take it."""
    return read_only(frame[name].to_numpy(dtype=np.float64))


def read_only(values: NDArray[Any]) -> NDArray[Any]:
    """Contiguous and read-only: the one form that the kernels are compiled for."""
    view = np.ascontiguousarray(values).view()
    view.flags.writeable = False
    return view


def repeats_and_rivals(frame: pd.DataFrame, rows: Integers) -> tuple[Integers, Integers]:
    """Among rows that share a key with others: those that repeat an earlier one in every cell, and of the rest those
    with a rival, a row of the same key with another value."""
    shared = frame.loc[np.sort(rows), [INSTRUMENT, DATETIME, *BAR_FIELDS, PARSE_ERROR]]
    repeated = shared.duplicated(keep="first")
    left = shared[~repeated]
    rivals = left[left.duplicated([INSTRUMENT, DATETIME], keep=False)]
    return shared.index[repeated].to_numpy().astype(np.int32), rivals.index.to_numpy().astype(np.int32)


def stray_days(days: Integers, codes: Integers, count: int) -> tuple[int, int]:
    """First and last day (numbers of 0..count-1) of what is not stray; all days where none is.

    A block of days at either end is stray where more than `FAR_DAYS` without any row lie between it and the rest, it
    has one row or at most `STRAY_SHARE` of them, and others than its own instruments are in the panel.
    """
    rows = kernels.count_keys(days, count)
    seen = np.flatnonzero(rows)
    if len(seen) < 2:
        return 0, count - 1
    most = max(1.0, STRAY_SHARE * float(rows.sum()))
    far = np.flatnonzero(np.diff(seen) > FAR_DAYS)
    before = [int(seen[at + 1]) for at in far if rows[: seen[at] + 1].sum() <= most]
    after = [int(seen[at]) for at in far if rows[seen[at + 1] :].sum() <= most]
    if not before and not after:
        return 0, count - 1
    first, last = max(before, default=0), min(after, default=count - 1)
    inside = (days >= first) & (days <= last) & (codes >= 0)
    alone = len(np.unique(codes[inside])) < 2
    return (0, count - 1) if alone else (first, last)
