"""From a vintage to the features of a year: all of them, or those that differ from another vintage's."""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from mlops_tasks.columns import DATETIME, INSTRUMENT
from mlops_tasks.data.sources.membership import FIRST_DATE, LAST_DATE
from mlops_tasks.data.vintages import Vintage, day_numbers
from mlops_tasks.errors import StoreError
from mlops_tasks.features.affected import affected_rows, rows_of_other_cross_sections
from mlops_tasks.features.bars import NEVER, BarGrid, BoolArray, MarketBars, timestamps
from mlops_tasks.features.kernels import IntArray
from mlops_tasks.features.partitions import OpenPartition, Partition, is_intact, row_groups
from mlops_tasks.features.sets import FeatureSet
from mlops_tasks.features.values import compute_values
from mlops_tasks.files import digest_of

log = logging.getLogger(__name__)

_PIECE_VALUES = 1 << 26
"""Values of a piece (1 GiB) where windows are finite: two are in memory, one being computed and one being written."""


@dataclass(frozen=True, eq=False)
class BaseFeatures:
    """Stored features of the same definition over another vintage.

    Attributes
    ----------
    files
        Year to the partition's file.
    """

    vintage: Vintage
    files: Mapping[int, Path]

    @cached_property
    def bars(self) -> MarketBars:
        """The bars that they were computed from."""
        return MarketBars(self.vintage)


class StoredRows:
    """The rows that a stored partition shares with a new one.

    Raises
    ------
    StoreError
        The partition does not belong to these bars.
    """

    def __init__(self, path: Path, old: BarGrid, new: BarGrid, year: int) -> None:
        self.file = OpenPartition(path, *timestamps(old.days[[0, -1]]))
        stored = old.has_bar & (old.days >= _new_year(year))
        self.rows = int(stored.sum())
        if self.file.file.metadata.num_rows != self.rows:
            raise StoreError(f"{path}: has {self.file.file.metadata.num_rows} rows, its vintage {self.rows}")
        _, old_rows, new_rows = np.intersect1d(old.days, new.days, assume_unique=True, return_indices=True)
        self.places = np.full(new.has_bar.shape, -1)
        self.places[:, new_rows] = (np.cumsum(stored.T).reshape(stored.T.shape).T - 1)[:, old_rows]

    def read(self, names: Sequence[str], codes: IntArray, days: IntArray) -> NDArray[np.float32]:
        """Values (columns, rows) of rows of the new partition that are stored; sorted as these are."""
        keep = np.zeros(self.rows, bool)
        keep[self.places[codes, days]] = True
        values = np.empty((len(names), len(codes)), np.float32)
        self.file.read(names, keep, values)
        return values


class YearFeatures:
    """The features of one year, computed as they are read.

    Attributes
    ----------
    index
        Its rows (datetime, instrument): those that have a bar, sorted by both in that order.
    computed
        Whether each is computed; the others are copied.
    """

    def __init__(
        self,
        definition: FeatureSet,
        grid: BarGrid,
        first_row: int,
        affected: BoolArray | None = None,
        stored: StoredRows | None = None,
    ) -> None:
        self.definition, self.grid, self.stored = definition, grid, stored
        days, self.codes = np.nonzero(grid.has_bar[:, first_row:].T)
        self.days = days + first_row
        present = grid.has_bar[:, first_row:].any(axis=1)
        self.index = pd.MultiIndex(
            levels=[timestamps(grid.days[first_row:]), grid.names[present]],
            codes=[days, (np.cumsum(present) - 1)[self.codes]],
            names=[DATETIME, INSTRUMENT],
            verify_integrity=False,
        )
        self.computed = np.ones(len(days), bool) if affected is None else affected[self.codes, self.days]

    def pieces(self) -> Iterator[NDArray[np.float32]]:
        """Values (columns, rows) of consecutive rows, each piece of whole row groups."""
        names = self.definition.names
        for begin, end in self._ranges():
            computed = self.computed[begin:end]
            codes, days = self.codes[begin:end], self.days[begin:end]
            if self.stored is None or computed.all():
                yield self._compute(codes, days)
                continue
            values = np.empty((len(names), end - begin), np.float32)
            values[:, ~computed] = self.stored.read(names, codes[~computed], days[~computed])
            if computed.any():
                values[:, computed] = self._compute(codes[computed], days[computed])
            yield values

    def _ranges(self) -> Iterator[tuple[int, int]]:
        # With infinite windows every piece would be computed from the first bar on: then a year is one piece.
        piece = np.inf if np.isinf(self.definition.lookback_rows) else _PIECE_VALUES / len(self.definition.names)
        begin = 0
        for _, end in row_groups(self.index):
            if end - begin >= piece or end == len(self.index):
                yield begin, end
                begin = end

    def _compute(self, codes: IntArray, days: IntArray) -> NDArray[np.float32]:
        """Values of some rows, over a panel of their instruments from where their windows begin."""
        lookback = int(min(self.definition.lookback_rows, len(self.grid.days)))
        begin, end = max(int(days[0]) - lookback, 0), int(days[-1]) + 1
        first, last = np.full(len(self.grid.names), end), np.full(len(self.grid.names), -1)
        first[codes[::-1]], last[codes] = days[::-1], days
        # Another instrument is read on days on which it has no bar itself: its series continues.
        read = self.grid.names.isin(self.definition.foreign) | self.definition.is_cross_sectional
        read &= self.grid.begins != NEVER
        first[read], last[read] = days[0], end - 1
        kept = np.flatnonzero(last >= 0)
        grid = self.grid.at(kept, slice(begin, end))
        panel, inside = grid.panel(np.maximum(first[kept] - lookback - begin, grid.begin_rows), last[kept] - begin)
        places = np.full(inside.shape, -1)
        places[np.searchsorted(kept, codes), days - begin] = np.arange(len(codes))
        return compute_values(self.definition, panel, places[inside])


class Computation:
    """One feature set over one vintage."""

    def __init__(self, definition: FeatureSet, vintage: Vintage) -> None:
        self.definition = definition
        self.vintage = vintage
        self.bars = MarketBars(vintage)
        self.years = sorted(int(year) for year in vintage.manifest["years"])

    def partition(self, year: int) -> Partition:
        """The partition of a year, named by everything that its values depend on."""
        days = self._window(self.bars, year)
        years, first_year = self.vintage.manifest["years"], int(timestamps(days).year[0])
        begins = np.flatnonzero((self.bars.begins > days[0]) & (self.bars.begins <= days[-1]))
        identity = {
            "definition": self.definition.digest,
            "bars": [years[str(each)]["digest"] for each in self.years if first_year <= each <= year],
            "days": days.tolist(),
            "begins": list(zip(self.bars.names[begins], self.bars.begins[begins].tolist(), strict=True)),
        }
        if self.definition.is_cross_sectional:
            identity["members"] = self._members(days)
        return Partition(year, digest_of(identity), int(years[str(year)]["rows"]))

    def features(self, year: int, bases: Iterable[BaseFeatures] = ()) -> YearFeatures:
        """The features of a year; those that the first usable base has are not computed."""
        for base in bases:
            if year in base.files:
                try:
                    return self._from_base(year, base)
                except (StoreError, OSError, pa.ArrowInvalid) as error:
                    log.warning("features %s: cannot reuse those of %s: %s", year, base.vintage.data_version, error)
        days = self._window(self.bars, year)
        grid = self._grid(self.bars, self.bars.names, int(days[0]), int(days[-1]))
        return YearFeatures(self.definition, grid, self._first_row(grid, year))

    def pieces(
        self, years: Iterable[int], bases: Sequence[BaseFeatures] = ()
    ) -> Iterator[tuple[YearFeatures, NDArray[np.float32]]]:
        """The values of some years, piece by piece; the next one is computed while the caller works on one."""
        upcoming = (
            (each, values) for each in (self.features(year, bases) for year in years) for values in each.pieces()
        )
        with ThreadPoolExecutor(1) as pool:
            future = pool.submit(next, upcoming, None)
            while (piece := future.result()) is not None:
                future = pool.submit(next, upcoming, None)
                yield piece

    def _from_base(self, year: int, base: BaseFeatures) -> YearFeatures:
        windows = [self._window(bars, year) for bars in (base.bars, self.bars)]
        first, last = int(min(days[0] for days in windows)), int(max(days[-1] for days in windows))
        names = self.bars.names
        if not names.equals(base.bars.names):
            names = pd.Index(sorted({*names, *base.bars.names}), dtype="str")
        old, new = (self._grid(bars, names, first, last) for bars in (base.bars, self.bars))
        own: dict[str, float] = {}
        for reach in self.definition.dependencies.values():
            own |= {field: max(rows, own.get(field, 0.0)) for field, rows in reach.items()}
        affected = affected_rows(old, new, own, self.definition.foreign)
        if self.definition.is_cross_sectional:
            affected |= rows_of_other_cross_sections(old, new, self.definition.market)
        if not is_intact(base.files[year], base.vintage.files.memory):
            raise StoreError(f"{base.files[year]}: the partition is gone or damaged")
        stored = StoredRows(base.files[year], old, new, year)
        return YearFeatures(self.definition, new, self._first_row(new, year), affected, stored)

    def _grid(self, bars: MarketBars, names: pd.Index, first: int, last: int) -> BarGrid:
        """Bars with all that the definition reads."""
        grid = bars.grid(names, first, last, self.definition.fields)
        return grid.with_members(bars.vintage) if self.definition.is_cross_sectional else grid

    def _members(self, days: IntArray) -> list[tuple[str, str, str]]:
        """Spells of membership within some days: instrument, first and last day."""
        first, last = timestamps(days[[0, -1]])
        spells = self.vintage.members()
        known = spells[(spells[FIRST_DATE] <= last) & (spells[LAST_DATE] >= first)]
        begins, ends = (known[name].clip(first, last).dt.strftime("%Y-%m-%d") for name in (FIRST_DATE, LAST_DATE))
        return sorted(zip(known[INSTRUMENT], begins, ends, strict=True))

    def _window(self, bars: MarketBars, year: int) -> IntArray:
        """The trading days that a year's values depend on."""
        begin, end = np.searchsorted(bars.days, [_new_year(year), _new_year(year + 1)])
        return bars.days[int(max(begin - self.definition.lookback_rows, 0)) : end]

    @staticmethod
    def _first_row(grid: BarGrid, year: int) -> int:
        return int(np.searchsorted(grid.days, _new_year(year)))


def _new_year(year: int) -> int:
    return int(day_numbers(f"{year}-01-01"))
