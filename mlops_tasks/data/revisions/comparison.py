"""Two sets of canonical bars, aligned: shared rows, cells that differ, rows added and rows removed.

Parts (years) are compared one after the other, so that only what differs is held in memory. Instruments are numbers
(places in a sorted list of names), days are days since 1970. NaN equals NaN and -0.0 equals 0.0. Nothing else is equal.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlops_tasks.columns import BAR_FIELDS, CLOSE, DATETIME, FACTOR, INSTRUMENT
from mlops_tasks.data.vintages import day_numbers, row_keys

JUMP = 0.4
"""A move of the adjusted close from one row to the next beyond this is a jump."""

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]
Booleans = NDArray[np.bool_]


@dataclass(frozen=True)
class Rows:
    """Canonical bars, instruments as numbers: arrays of one length, sorted by instrument and day, keys unique."""

    codes: Integers
    days: Integers
    fields: dict[str, Floats]

    @classmethod
    def of(cls, bars: pd.DataFrame, names: pd.Index) -> "Rows":
        """The rows of canonical bars; `names` holds every instrument, sorted."""
        codes, present = pd.factorize(bars[INSTRUMENT])
        numbers = np.asarray(names.get_indexer(pd.Index(present, dtype="str")), dtype=np.int64)[codes]
        fields = {name: bars[name].to_numpy() for name in BAR_FIELDS}
        return cls(numbers, day_numbers(bars[DATETIME].to_numpy()), fields)

    @property
    def keys(self) -> Integers:
        """One ascending integer per row."""
        return row_keys(self.codes, self.days)

    def at(self, rows: Any) -> "Rows":
        """Some of the rows."""
        fields = {name: values[rows] for name, values in self.fields.items()}
        return Rows(self.codes[rows], self.days[rows], fields)


@dataclass(frozen=True)
class Part:
    """What one part holds.

    `cells` has the columns code, day, field (place in `BAR_FIELDS`), place (number of the row among the instrument's
    common rows of the part), old, new; `jumps` has code, day, old, new: returns that became jumps.
    """

    cells: pd.DataFrame
    common: Integers
    """Common rows of each instrument."""
    added: Rows
    removed: Rows
    appended: Rows
    last: Rows
    """The old rows of the old last day; none where it lies in another part."""
    jumps: pd.DataFrame
    old_days: Integers
    new_days: Integers
    """Days on which any instrument has a row."""
    counts: tuple[int, int]
    """Rows of the old and of the new part."""


def compare_part(old: Rows, new: Rows, instruments: int, last_old_day: int) -> Part:
    """Compare the old and the new rows of one stretch of days.

    Rows of `new` after `last_old_day` are appended, other rows that only `new` has are added.
    """
    old_at, new_at = common_places(old.keys, new.keys)
    only_new = np.ones(len(new.codes), dtype=bool)
    only_new[new_at] = False
    later = new.days > last_old_day
    common_codes = old.codes[old_at]
    common = np.bincount(common_codes, minlength=instruments)
    return Part(
        cells=_changed_cells(old, new, (old_at, new_at)),
        common=common,
        added=new.at(np.flatnonzero(only_new & ~later)),
        removed=old.at(_without(len(old.codes), old_at)),
        appended=new.at(np.flatnonzero(only_new & later)),
        last=old.at(np.flatnonzero(old.days == last_old_day)),
        jumps=_new_jumps(old, new, (old_at, new_at)),
        old_days=np.unique(old.days),
        new_days=np.unique(new.days),
        counts=(len(old.codes), len(new.codes)),
    )


def cells_of(rows: Rows, side: str) -> pd.DataFrame:
    """All values of rows that only one side (`old` or `new`) has, as cells; missing values are left out, except closes.

    So every row has at least one cell.
    """
    parts = []
    for number, name in enumerate(BAR_FIELDS):
        values = rows.fields[name]
        kept = np.flatnonzero(~np.isnan(values) | (name == CLOSE))
        nothing = np.full(len(kept), np.nan)
        ends = (values[kept], nothing) if side == "old" else (nothing, values[kept])
        parts.append(_cells(rows.codes[kept], rows.days[kept], number, np.full(len(kept), -1), ends))
    return pd.concat(parts, ignore_index=True)


def no_cells() -> pd.DataFrame:
    """No cells, typed."""
    nothing = np.empty(0)
    return _cells(nothing, nothing, 0, nothing, (nothing, nothing))


def no_jumps() -> pd.DataFrame:
    """No jumps, typed."""
    nothing = np.empty(0, dtype=np.int64)
    return pd.DataFrame({"code": nothing, "day": nothing, "old": np.empty(0), "new": np.empty(0)})


def common_places(old_keys: Integers, new_keys: Integers) -> tuple[Integers, Integers]:
    """Places of the common rows on both sides."""
    if np.array_equal(old_keys, new_keys):
        everything = np.arange(len(old_keys))
        return everything, everything
    places = np.searchsorted(new_keys, old_keys)
    found = np.append(new_keys, -1)[places] == old_keys
    return np.flatnonzero(found), places[found]


def _without(length: int, places: Integers) -> Integers:
    others = np.ones(length, dtype=bool)
    others[places] = False
    return np.flatnonzero(others)


def _changed_cells(old: Rows, new: Rows, common: tuple[Integers, Integers]) -> pd.DataFrame:
    old_at, new_at = common
    codes = old.codes[old_at]
    parts = []
    for number, name in enumerate(BAR_FIELDS):
        before, after = old.fields[name][old_at], new.fields[name][new_at]
        differs = np.flatnonzero(before != after)
        differs = differs[~(np.isnan(before[differs]) & np.isnan(after[differs]))]
        place = differs - np.searchsorted(codes, codes[differs])
        at = old_at[differs]
        parts.append(_cells(old.codes[at], old.days[at], number, place, (before[differs], after[differs])))
    return pd.concat(parts, ignore_index=True)


def _cells(codes: Any, days: Any, field: int, place: Any, ends: tuple[Floats, Floats]) -> pd.DataFrame:
    columns = {
        "code": np.asarray(codes, dtype=np.int32),
        "day": np.asarray(days, dtype=np.int32),
        "field": np.full(len(codes), field, dtype=np.int8),
        "place": np.asarray(place, dtype=np.int32),
    }
    return pd.DataFrame(columns | dict(zip(("old", "new"), ends, strict=True)))


def _new_jumps(old: Rows, new: Rows, common: tuple[Integers, Integers]) -> pd.DataFrame:
    """Moves between neighbouring common rows of one instrument (and part) that are jumps in `new` but not in `old`."""
    old_at, new_at = common
    codes = old.codes[old_at]
    with np.errstate(all="ignore"):
        before, after = (
            (closes := rows.fields[CLOSE][at] * rows.fields[FACTOR][at])[1:] / closes[:-1] - 1
            for rows, at in ((old, old_at), (new, new_at))
        )
    jumped = (np.abs(after) > JUMP) & (np.abs(before) <= JUMP) & (codes[1:] == codes[:-1])
    rows = np.flatnonzero(jumped)
    columns = {"code": codes[1:][rows], "day": old.days[old_at][1:][rows], "old": before[rows], "new": after[rows]}
    return pd.DataFrame(columns)
