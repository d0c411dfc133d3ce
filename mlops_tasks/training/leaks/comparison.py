"""Compares two tables that must be equal to the last bit, part by part, and says what their differences look like."""

import hashlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlops_tasks.columns import DATETIME, INSTRUMENT
from mlops_tasks.files import digest_of, finite_or_none

NAMED_COLUMNS = 10
"""At most so many columns are named in a difference; all are counted."""

_PIECE = 1 << 18
"""Values that are compared at once, so that the result stays in the processor's cache."""
_TOGETHER = 16
"""Columns of a row-major table that are gathered together: as many float32 values as a cache line holds."""


class Leak(StrEnum):
    """What a difference looks like. Different mistakes can look alike, so this only says where to begin the search."""

    CENTRED_WINDOW = "centred window"
    FULL_SAMPLE = "full-sample statistic"
    FUTURE_JOIN = "future join"
    BACKFILL = "backfill"
    SURVIVORSHIP = "survivorship universe"
    LABEL_AT_INFERENCE = "label at inference"
    LABEL_REACH = "label beyond its horizon"
    UNPURGED = "labels of the next segment"
    LEVEL = "level of a price, a volume or a factor"
    MODEL = "model that sees later days"


REMEDIES = {
    Leak.CENTRED_WINDOW: "let its windows and shifts end on the row's own day",
    Leak.FULL_SAMPLE: "compute the statistic from rows up to the row's own day, or fit it on the training segment only",
    Leak.FUTURE_JOIN: "join what was published by the row's own day, and shift by 1 or more, never by less than 0",
    Leak.BACKFILL: "fill gaps forwards only, or leave them empty",
    Leak.SURVIVORSHIP: "choose instruments by the membership of the row's own day, never of a later one",
    Leak.LABEL_AT_INFERENCE: "apply what needs a label only to the rows that are learned from",
    Leak.LABEL_REACH: "use no close after that of t+1+horizon, and leave the label empty until that close is known",
    Leak.UNPURGED: "leave out the last horizon + 1 days of train and valid (modeling/dataset.py: purge)",
    Leak.LEVEL: "divide by a value of the same instrument and unit, as $close/Ref($close, 5) does: later splits and "
    "dividends change the level of earlier days",
    Leak.MODEL: "let its windows end on the row's own day, and its code read nothing but the rows that it is given",
}


@dataclass(frozen=True)
class Difference:
    """What differs between a table made from all data and the same table made from what was known.

    Attributes
    ----------
    values, columns
        How many values differ, and how many in each of the first columns.
    rows
        Rows that only one of the tables has.
    column, instrument, date
        The first difference: by date, then instrument, then column; no column where a row is missing. Fitted numbers
        have the cut's date, and their kind (centre, scale) in the instrument's place.
    with_future, without
        The two values there; None for NaN and for a missing row.
    largest
        Largest absolute difference of two finite values.
    """

    looks_like: Leak
    values: int
    columns: dict[str, int]
    n_columns: int
    rows: int
    column: str | None
    instrument: str
    date: str
    with_future: float | None
    without: float | None
    largest: float | None

    @property
    def remedy(self) -> str:
        """What to do about it."""
        return REMEDIES[self.looks_like]

    def to_json(self) -> dict[str, Any]:
        """As a plain dict."""
        return {**asdict(self), "looks_like": str(self.looks_like), "remedy": self.remedy}

    def __str__(self) -> str:
        where = f"{self.column or 'the row'} of {self.instrument} on {self.date}"
        if self.rows:
            found = f"{where} exists only with or only without later data ({self.rows} such rows)"
        else:
            a, b = ("missing" if each is None else f"{each:.9g}" for each in (self.with_future, self.without))
            found = f"{where} is {a} with later data and {b} without"
        size = "" if self.largest is None else f" by up to {self.largest:.3g}"
        if self.looks_like == Leak.LEVEL:
            found = f"{where} is {a} as it is and {b} when prices and factor are in another unit"
        extent = f"{self.values} values of {self.n_columns} columns differ{size}"
        return f"{found}; {extent}; it looks like a {self.looks_like}: {self.remedy}"


@dataclass(frozen=True)
class First:
    """The first difference found."""

    column: str | None
    instrument: str
    date: pd.Timestamp
    with_future: float
    without: float


@dataclass
class Comparison:
    """Gathers what was compared. Parts come in the order of their days.

    Attributes
    ----------
    rows_since
        Rows on and after the first day that differs.
    rows_differing
        Rows in which a value differs.
    digest
        Of the parts made with later data.
    only_missing
        Whether every value that differs is missing without later data.
    """

    rows: int = 0
    columns: int = 0
    values: int = 0
    differing: dict[str, int] = field(default_factory=dict)
    lone_rows: int = 0
    first: First | None = None
    largest: float = 0.0
    only_missing: bool = True
    present: set[str] = field(default_factory=set)
    affected: set[str] = field(default_factory=set)
    digest: str = ""

    @property
    def equal(self) -> bool:
        """Whether there was something to compare, and all of it is equal."""
        return self.values > 0 and self.first is None

    def add(self, whole: pd.DataFrame, known: pd.DataFrame, content: str | None = None) -> None:
        """Compare a part, columns by name and rows by (datetime, instrument).

        Parameters
        ----------
        whole, known
            Made from all data, and from what was known; sorted by (datetime, instrument).
        content
            `fingerprint(whole)`, where it is known.
        """
        self.digest = digest_of([self.digest, content or fingerprint(whole)])
        if not whole.index.equals(known.index):
            whole, known = self._common_rows(whole, known)
        if not whole.columns.equals(known.columns):
            columns = whole.columns.union(known.columns, sort=False)
            whole, known = whole.reindex(columns=columns), known.reindex(columns=columns)
        self.rows += len(whole)
        self.columns = whole.shape[1]
        self.values += whole.size
        rows = np.zeros(len(whole), bool)
        if not identical(whole.to_numpy(), known.to_numpy()):
            self._compare_columns(whole, known, rows)
        if self.first is not None:
            since = whole.index.get_level_values(DATETIME) >= self.first.date
            names = whole.index.get_level_values(INSTRUMENT)
            self.present.update(names[since].unique())
            self.affected.update(names[rows].unique())

    def difference(self, leak: Leak) -> Difference | None:
        """What differs, described as that leak."""
        if self.first is None:
            return None
        return Difference(
            looks_like=leak,
            values=sum(self.differing.values()),
            columns=dict(list(self.differing.items())[:NAMED_COLUMNS]),
            n_columns=len(self.differing),
            rows=self.lone_rows,
            column=self.first.column,
            instrument=self.first.instrument,
            date=str(self.first.date.date()),
            with_future=finite_or_none(self.first.with_future),
            without=finite_or_none(self.first.without),
            largest=self.largest or None,
        )

    def guess(self, days: pd.DatetimeIndex) -> Leak:
        """The leak that the pattern suggests; `days` are those that were known, up to the cut."""
        if self.lone_rows:
            return Leak.SURVIVORSHIP
        if self.first is None or days.searchsorted(self.first.date) < len(days) // 2:
            return Leak.FULL_SAMPLE
        if not self.only_missing:
            return Leak.CENTRED_WINDOW
        return Leak.FUTURE_JOIN if len(self.affected) > len(self.present) / 2 else Leak.BACKFILL

    def _compare_columns(self, whole: pd.DataFrame, known: pd.DataFrame, rows: NDArray[np.bool_]) -> None:
        """Note what differs, column by column, and mark its rows."""
        places: dict[str, NDArray[np.bool_]] = {}
        for name, x, y in zip(whole.columns, whole.to_numpy().T, known.to_numpy().T, strict=True):
            mask = unequal(x, y)
            if mask is not None:
                rows |= mask
                places[str(name)] = mask
                self._note(str(name), x[mask], y[mask])
        if places:
            self._note_first(whole, known, rows, places)

    def _common_rows(self, whole: pd.DataFrame, known: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
        lone = whole.index.symmetric_difference(known.index).sort_values()
        common = whole.index.intersection(known.index)
        self.lone_rows += len(lone)
        if len(lone) and (self.first is None or lone[0][0] < self.first.date):
            day, instrument = lone[0]
            self.first = First(None, str(instrument), day, np.nan, np.nan)
        return whole.loc[common], known.loc[common]

    def _note(self, column: str, a: NDArray[Any], b: NDArray[Any]) -> None:
        self.differing[column] = self.differing.get(column, 0) + len(a)
        self.only_missing &= bool(np.isnan(b).all())
        sizes = np.abs(a.astype(np.float64) - b.astype(np.float64))
        self.largest = max(self.largest, float(np.max(sizes, initial=0.0, where=np.isfinite(sizes))))

    def _note_first(
        self, whole: pd.DataFrame, known: pd.DataFrame, rows: NDArray[np.bool_], places: dict[str, NDArray[np.bool_]]
    ) -> None:
        row = int(rows.argmax())
        day, instrument = whole.index[row]
        if self.first is None or day < self.first.date:
            column = next(name for name, mask in places.items() if mask[row])
            values = (float(frame[column].iloc[row]) for frame in (whole, known))
            self.first = First(column, str(instrument), day, *values)


def identical(a: NDArray[Any], b: NDArray[Any]) -> bool:
    """Whether two matrices can be seen to have the same bits without gathering their columns.

    False proves no difference: their layout or type, or the bits of their NaNs, may differ.
    """
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    if a.__array_interface__["data"] == b.__array_interface__["data"] and a.strides == b.strides:
        return True  # the same memory, as for a model that takes features as they are
    if a.strides[1] != a.itemsize:
        a, b = a.T, b.T
    if not a.strides[1] == b.strides[1] == a.itemsize:
        return False
    a, b = (each.view(f"u{each.itemsize}") for each in (a, b))
    lines = max(1, _PIECE // max(1, a.shape[1]))
    return all(np.array_equal(a[i : i + lines], b[i : i + lines]) for i in range(0, len(a), lines))


def unequal(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.bool_] | None:
    """Where two arrays of floats differ in any bit, all NaNs being equal; None where they do not."""
    a, b = np.ascontiguousarray(a), np.ascontiguousarray(b)
    if a.dtype != b.dtype:
        a, b = a.astype(np.float64), b.astype(np.float64)
    bits = np.dtype(f"u{a.dtype.itemsize}")
    if np.array_equal(a.view(bits), b.view(bits)):
        return None
    mask: NDArray[np.bool_] = (a.view(bits) != b.view(bits)) & ~(np.isnan(a) & np.isnan(b))
    return mask if mask.any() else None


def fingerprint(part: pd.DataFrame) -> str:
    """SHA-256 over the columns, keys and values of a table with index (datetime, instrument)."""
    place = part.index.names.index(INSTRUMENT)
    used, codes = np.unique(part.index.codes[place], return_inverse=True)
    days = part.index.get_level_values(DATETIME).to_numpy().astype("datetime64[D]")
    content = hashlib.sha256("\n".join([*part.columns, *part.index.levels[place][used]]).encode())
    for numbers in (codes.astype("<i8"), days.astype("<i8"), *_columns(part.to_numpy())):
        content.update(np.ascontiguousarray(numbers).data)
    return content.hexdigest()


def _columns(values: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """The columns of a matrix; those of a row-major one are gathered some at a time."""
    for begin in range(0, values.shape[1], _TOGETHER):
        some = values[:, begin : begin + _TOGETHER].T
        yield from some if values.strides[0] == values.itemsize else np.ascontiguousarray(some)
