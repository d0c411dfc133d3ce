"""What kind of change each differing cell is.

A class is a judgement with tolerances; the comparison before it has none.
"""

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlops_tasks.columns import BAR_FIELDS, FACTOR, INSTRUMENT, PRICES, VOLUME

RESTATED, ROUNDED, SCALED = "restated", "rounded", "scaled"
READJUSTED, REFACTORED = "readjusted", "refactored"
FILLED, EMPTIED, ADDED, REMOVED = "filled", "emptied", "added", "removed"
CLASSES = {
    RESTATED: "a raw price or volume has another value",
    ROUNDED: "the same value up to the last digits (1e-6 of it)",
    SCALED: "a field of a whole instrument times a power of ten: other units",
    READJUSTED: "one constant ratio from an instrument's first row on, or up to its last: a dividend or split",
    REFACTORED: "factors changed, and not by one constant ratio",
    FILLED: "a value where there was none",
    EMPTIED: "no value where there was one",
    ADDED: "a row of the past that was not there",
    REMOVED: "a row of the past that is gone",
}
"""Class of a cell to what it means; rows after the old last day are `appended` and not listed."""

HISTORY = (RESTATED, FILLED, EMPTIED)
"""Classes that neither units nor a re-adjustment explain: history itself changed."""

ROUNDING = 1e-6
"""Relative. Dividing an adjusted float32 price by its factor gives back the raw one to about 1e-7."""
SPREAD = 5e-3
"""Largest spread of a constant ratio, relative: prices are rounded to cents, before and after a re-adjustment."""
SCATTER_SHARE = 0.5
"""It is also at most this share of the move itself, or noise would pass for a ratio."""
MIN_ROWS = 20
"""Fewer rows than this are not a stretch of prices, unless there are no others."""

_NUMBER = {name: number for number, name in enumerate(BAR_FIELDS)}
_PRICES = [_NUMBER[name] for name in PRICES]
_WIDTH = len(BAR_FIELDS)

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Booleans = NDArray[np.bool_]


def classify(cells: pd.DataFrame, common: NDArray[np.int64]) -> pd.Categorical:
    """The class of each changed cell of a common row.

    Parameters
    ----------
    cells
        Columns code, field, place (number of the row among all common rows of the instrument), old, new.
    common
        (instruments,) common rows of each instrument.
    """
    field, old, new = (cells[name].to_numpy() for name in ("field", "old", "new"))
    relative = relative_change(old, new)
    codes, own = np.unique(cells["code"].to_numpy(), return_inverse=True)
    scaled, readjusted = _one_ratio(own * _WIDTH + field, relative + 1, cells["place"].to_numpy(), common[codes])
    of_cell = own, field
    kinds = np.select(
        [
            np.isnan(old),
            np.isnan(new),
            np.abs(relative) <= ROUNDING,
            scaled[of_cell],
            readjusted[of_cell],
            field == _NUMBER[FACTOR],
        ],
        [FILLED, EMPTIED, ROUNDED, SCALED, READJUSTED, REFACTORED],
        RESTATED,
    )
    return pd.Categorical(kinds, categories=list(CLASSES))


def changes_frame(cells: pd.DataFrame, kinds: pd.Categorical, names: pd.Index) -> pd.DataFrame:
    """Cells with names in place of numbers, sorted by instrument, date and field. `VintageDiff` lists the columns."""
    order = np.lexsort((cells["field"], cells["day"], cells["code"]))
    code, day, field, old, new = (cells[name].to_numpy()[order] for name in ("code", "day", "field", "old", "new"))
    return pd.DataFrame(
        {
            INSTRUMENT: pd.Categorical.from_codes(code, categories=names),
            "field": pd.Categorical.from_codes(field, categories=list(BAR_FIELDS)),
            "date": day.astype("datetime64[D]").astype("datetime64[s]"),
            "old": old,
            "new": new,
            "relative_change": relative_change(old, new),
            "class": kinds.take(order),
        }
    )


def relative_change(old: Floats, new: Floats) -> Floats:
    """new / old - 1; NaN where a value is missing or the old one is zero."""
    with np.errstate(all="ignore"):
        change: Floats = np.where(old != 0, new / old - 1, np.nan)
    return change


def _one_ratio(group: Integers, ratio: Floats, place: Integers, rows: Integers) -> tuple[Booleans, Booleans]:
    """Whether each field of each instrument is scaled, and whether it is re-adjusted; shape (instruments, fields).

    `group` is `instrument * fields + field` of each cell, `rows` the common rows of each instrument.
    """
    shape = len(rows), _WIDTH
    lowest, highest = _extremes(group, np.nan_to_num(ratio, nan=-1.0), shape)
    first, last = _extremes(group, place, shape)
    count = np.bincount(group, minlength=shape[0] * _WIDTH).reshape(shape)
    with np.errstate(all="ignore"):  # a field without a changed cell has infinite extremes
        middle = (lowest + highest) / 2
        tolerance = np.minimum(SPREAD, SCATTER_SHARE * np.abs(middle - 1))
        steady = (lowest > 0) & (highest - lowest <= lowest * tolerance)
        exponent = np.round(np.log10(middle))
        tenfold = steady & (exponent != 0) & (np.abs(middle / 10**exponent - 1) <= SPREAD)
        stretch = (last - first + 1 == count) & ((first == 0) | (last == rows[:, None] - 1))
        apart = np.ptp(middle[:, _PRICES], axis=1) / middle[:, _PRICES].min(axis=1)
    everywhere = count == rows[:, None]
    long = everywhere | (count >= MIN_ROWS)

    scaled = tenfold & everywhere
    scaled[:, _NUMBER[VOLUME]] = (tenfold & long)[:, _NUMBER[VOLUME]]  # a volume of zero has no scale
    scaled[:, _NUMBER[FACTOR]] = False

    together = (steady & stretch & long)[:, _PRICES].all(axis=1) & (np.ptp(count[:, _PRICES], axis=1) == 0)
    readjusted = steady & (together & (apart <= SPREAD))[:, None]
    readjusted[:, _NUMBER[FACTOR]] = (steady & stretch)[:, _NUMBER[FACTOR]]
    return scaled, readjusted


def _extremes(group: Integers, values: NDArray[Any], shape: tuple[int, int]) -> tuple[Floats, Floats]:
    """Least and largest value of each group; infinities for an empty one."""
    lowest, highest = np.full(shape[0] * shape[1], np.inf), np.full(shape[0] * shape[1], -np.inf)
    np.minimum.at(lowest, group, values)
    np.maximum.at(highest, group, values)
    return lowest.reshape(shape), highest.reshape(shape)
