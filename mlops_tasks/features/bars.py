"""Bars of a vintage as dense arrays: instruments by trading days, adjusted and rounded as the engine takes them.

They are filled from the files in the order on disk: no row is sorted, and no row has a text.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlops_tasks.columns import DATETIME, FACTOR, INSTRUMENT
from mlops_tasks.data.bar_files import instrument_codes
from mlops_tasks.data.vintages import Vintage, adjusted, day_numbers
from mlops_tasks.features.kernels import IntArray
from mlops_tasks.features.panel import Panel

NEVER = np.iinfo(np.int64).max
"""Stands for the first day of an instrument that has no bar."""

BoolArray = NDArray[np.bool_]


@dataclass(frozen=True)
class BarGrid:
    """Bars of one stretch of trading days.

    Attributes
    ----------
    names
        Instruments, sorted; some may have no bar.
    days
        Trading days since 1970, ascending: each is a calendar row.
    values
        Field name to float32 (instruments, days), adjusted; NaN where there is no bar.
    has_bar
        Whether there is a bar, (instruments, days).
    begins
        Day of each instrument's first bar ever, which may lie before `days`.
    member
        Who is a member of the universe, (instruments, days); None: not asked for.
    """

    names: pd.Index
    days: IntArray
    values: Mapping[str, NDArray[np.float32]]
    has_bar: BoolArray
    begins: IntArray
    member: BoolArray | None = None

    def with_members(self, vintage: Vintage) -> "BarGrid":
        """The same, with the membership of a vintage."""
        index = pd.MultiIndex.from_product([timestamps(self.days), self.names], names=[DATETIME, INSTRUMENT])
        mask = vintage.membership_mask(index).reshape(len(self.days), len(self.names))
        return replace(self, member=np.ascontiguousarray(mask.T))

    @property
    def begin_rows(self) -> IntArray:
        """The row at which each instrument's series begins; 0 if it began before, the number of days if after."""
        return np.searchsorted(self.days, self.begins).astype(np.int64)

    def panel(self, first: IntArray, last: IntArray) -> tuple[Panel, BoolArray]:
        """Series of the instruments from row `first` to row `last` each, both included; none where last < first.

        Returns
        -------
        The panel, and which places of the grid its values are, (instruments, days).
        """
        rows = np.arange(len(self.days))
        inside = (rows >= first[:, None]) & (rows <= last[:, None])
        lengths = inside.sum(axis=1)
        panel = Panel(
            fields={name: values[inside].astype(np.float64) for name, values in self.values.items()},
            offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
            rows=np.nonzero(inside)[1],
            has_bar=self.has_bar[inside],
            instruments=self.names,
            calendar=timestamps(self.days),
            member=None if self.member is None else self.member[inside],
        )
        return panel, inside

    def at(self, instruments: Any, days: Any = slice(None)) -> "BarGrid":
        """Some instruments, and a stretch of their days."""
        return BarGrid(
            self.names[instruments],
            self.days[days],
            {name: values[instruments, days] for name, values in self.values.items()},
            self.has_bar[instruments, days],
            self.begins[instruments],
            None if self.member is None else self.member[instruments, days],
        )


class MarketBars:
    """The bars of one vintage.

    Attributes
    ----------
    names
        Instruments, sorted.
    days
        Trading days since 1970: those on which any instrument has a bar.
    begins
        Day of each instrument's first bar.
    """

    def __init__(self, vintage: Vintage) -> None:
        self.vintage = vintage
        self.names = pd.Index(vintage.instrument_names(), dtype="str")
        self.begins = np.full(len(self.names), NEVER)
        years = []
        for codes, days, counts, _ in self._years((), None, None):
            np.minimum.at(self.begins, codes, np.repeat(days, counts))
            years.append(days)
        self.days = np.concatenate(years)

    def grid(self, names: pd.Index, first: int, last: int, fields: Sequence[str]) -> BarGrid:
        """The bars from day `first` to day `last`; `names` holds all instruments of this vintage, and maybe others."""
        begin, end = np.searchsorted(self.days, [first, last + 1])
        days, places = self.days[begin:end], names.get_indexer(self.names)
        begins = np.full(len(names), NEVER)
        begins[places] = self.begins
        has_bar = np.zeros((len(names), len(days)), bool)
        values = {name: np.full(has_bar.shape, np.nan, np.float32) for name in fields}
        read = tuple(dict.fromkeys((*fields, FACTOR)))
        for codes, present, counts, raw in self._years(read, *timestamps(days[[0, -1]])) if len(days) else ():
            cells = places[codes] * len(days) + np.repeat(np.searchsorted(days, present), counts)
            has_bar.reshape(-1)[cells] = True
            for name in fields:
                with np.errstate(over="ignore"):
                    values[name].reshape(-1)[cells] = adjusted(name, raw[name], raw[FACTOR])
        return BarGrid(names, days, values, has_bar, begins)

    def _years(
        self, fields: Sequence[str], first: Any, last: Any
    ) -> Iterator[tuple[IntArray, IntArray, IntArray, dict[str, NDArray[np.float64]]]]:
        """By year, the rows as they are on disk: instruments (places in `names`), days and rows of each, raw values."""
        for table in self.vintage.tables(fields, first, last):
            codes, names = instrument_codes(table)
            row_days = day_numbers(table[DATETIME].to_numpy())
            begins = np.flatnonzero(np.diff(row_days, prepend=row_days[:1] - 1))
            yield (
                self.names.get_indexer(pd.Index(names, dtype="str"))[codes],
                row_days[begins],
                np.diff(begins, append=len(row_days)),
                {name: table[name].to_numpy() for name in fields},
            )


def timestamps(days: IntArray) -> pd.DatetimeIndex:
    """Days since 1970 as timestamps."""
    return pd.DatetimeIndex(days.astype("datetime64[D]").astype("datetime64[ns]"), name=DATETIME)
