"""Statistics of the columns of stored features: counts, mean, spread and range, exact over any set of partitions."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import reduce
from math import nan, sqrt
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from mlops_tasks.files import finite_or_none


@dataclass(frozen=True)
class ColumnStatistics:
    """One feature over a number of rows. Mean, spread and range are those of its finite values, NaN without any.

    Attributes
    ----------
    missing, infinite
        Rows whose value is NaN, and rows where it is infinite.
    m2
        Sum of the squared deviations from the mean.
    """

    rows: int
    missing: int
    infinite: int
    mean: float
    m2: float
    min: float
    max: float

    @property
    def finite(self) -> int:
        """Rows that have a finite value."""
        return self.rows - self.missing - self.infinite

    @property
    def std(self) -> float:
        """Standard deviation of the sample; NaN below two finite values."""
        return sqrt(self.m2 / (self.finite - 1)) if self.finite > 1 else nan

    def merge(self, other: "ColumnStatistics") -> "ColumnStatistics":
        """Statistics of the rows of both [Chan, Golub and LeVeque, 1979]; exact, not estimated."""
        mean, m2, low, high = self.mean, self.m2, min(self.min, other.min), max(self.max, other.max)
        finite = self.finite + other.finite
        if not self.finite or not other.finite:
            only = self if self.finite else other
            mean, m2, low, high = only.mean, only.m2, only.min, only.max
        else:
            apart = other.mean - self.mean
            mean = self.mean + apart * other.finite / finite
            m2 = self.m2 + other.m2 + apart * apart * self.finite * other.finite / finite
        return ColumnStatistics(
            self.rows + other.rows, self.missing + other.missing, self.infinite + other.infinite, mean, m2, low, high
        )

    def to_json(self) -> dict[str, Any]:
        """As a plain dict, `std` included; null for NaN."""
        values = asdict(self) | {"std": self.std}
        return {name: value if isinstance(value, int) else finite_or_none(value) for name, value in values.items()}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`."""
        mean, m2, low, high = (nan if content[name] is None else content[name] for name in ("mean", "m2", "min", "max"))
        return cls(content["rows"], content["missing"], content["infinite"], mean, m2, low, high)


def describe_columns(names: Sequence[str], values: NDArray[np.float32]) -> dict[str, ColumnStatistics]:
    """Statistics of named columns; `values` has shape (columns, rows)."""
    return dict(zip(names, map(_describe, values), strict=True))


def merge_columns(parts: Iterable[Mapping[str, ColumnStatistics]]) -> dict[str, ColumnStatistics]:
    """Statistics of all rows of several partitions that have the same columns."""
    return reduce(lambda one, two: {name: one[name].merge(two[name]) for name in one}, map(dict, parts))


def _describe(column: NDArray[np.float32]) -> ColumnStatistics:
    missing = int(np.isnan(column).sum())
    finite = column[np.isfinite(column)].astype(np.float64)
    infinite = len(column) - missing - len(finite)
    if not len(finite):
        return ColumnStatistics(len(column), missing, infinite, nan, nan, nan, nan)
    mean, low, high = float(finite.mean()), float(finite.min()), float(finite.max())
    finite -= mean
    return ColumnStatistics(len(column), missing, infinite, mean, float(np.square(finite, out=finite).sum()), low, high)
