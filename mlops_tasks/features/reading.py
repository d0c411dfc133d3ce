"""What comes back from the feature store: ranges of days, instruments and columns."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from mlops_tasks.columns import DATETIME, INSTRUMENT
from mlops_tasks.data.vintages import Vintage
from mlops_tasks.features.partitions import OpenPartition


def read_frame(
    paths: Iterable[tuple[int, Path]],
    names: Sequence[str],
    span: tuple[pd.Timestamp, pd.Timestamp],
    members: Vintage | None = None,
) -> pd.DataFrame:
    """Features of a span of days, both ends included, from the partitions (year, file) of one version."""
    first, last = span
    parts = [OpenPartition(path, first, last) for year, path in paths if first.year <= year <= last.year]
    index, keep = select_rows(parts, first, last, members)
    values = np.empty((len(names), len(index)), np.float32)
    begin = 0
    for part, kept in zip(parts, keep, strict=True):
        end = begin + int(kept.sum())
        part.read(names, kept, values[:, begin:end])
        begin = end
    return pd.DataFrame(values.T, index=index, columns=list(names), copy=False)


def select_rows(
    parts: Sequence[OpenPartition], first: pd.Timestamp, last: pd.Timestamp, members: Vintage | None
) -> tuple[pd.MultiIndex, list[NDArray[np.bool_]]]:
    """The index of the rows to read, and for each partition which of its rows they are."""
    tables = [part.keys() for part in parts]
    if not tables:
        return pd.MultiIndex.from_arrays(
            [pd.DatetimeIndex([]), pd.Index([], dtype="str")], names=[DATETIME, INSTRUMENT]
        ), []
    table = pa.concat_tables(tables).unify_dictionaries()
    index = _index_of(table)
    days = table[DATETIME].to_numpy()
    keep = (days >= first.to_datetime64()) & (days <= last.to_datetime64())
    if members is not None:
        keep &= members.membership_mask(index)
    ends = np.cumsum([len(each) for each in tables])
    return index[keep].remove_unused_levels(), np.split(keep, ends[:-1])


def _index_of(table: pa.Table) -> pd.MultiIndex:
    instrument = table[INSTRUMENT].combine_chunks()
    names = np.asarray(instrument.dictionary.to_pylist(), dtype=object)
    by_name = np.argsort(names)
    rank = np.empty(len(names), np.int64)
    rank[by_name] = np.arange(len(names))
    days, day_codes = np.unique(table[DATETIME].to_numpy(), return_inverse=True)
    return pd.MultiIndex(
        levels=[pd.DatetimeIndex(days), pd.Index(names[by_name], dtype="str")],
        codes=[day_codes, rank[instrument.indices.to_numpy()]],
        names=[DATETIME, INSTRUMENT],
        verify_integrity=False,
    )
