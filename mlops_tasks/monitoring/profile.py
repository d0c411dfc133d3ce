"""Profiles of the columns from which a model learned, so that new days can be compared without reading them again.

Each column is sorted once, with one thread per core; float32 stays float32.
"""

import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Part = TypeVar("Part")
Result = TypeVar("Result")

BINS = 10
POINTS = 2048
"""Order statistics kept of each column: KS is exact for references up to this size, within 1 / 2048 beyond."""
CATEGORIES = 20
"""A column with at most this many distinct values is treated as categories."""
HISTOGRAM_BINS = 50
_ARRAYS = (
    "edges", "bin_shares", "points", "points_left", "points_right", "points_nearest", "categories", "category_counts",
    "histogram_edges", "histogram",
)  # fmt: skip


@dataclass(frozen=True)
class ColumnProfile:
    """Profile of one reference column; values that are not finite count as missing."""

    edges: Floats
    """Inner bin edges, ascending: the distinct deciles. Bin i is (edge i-1, edge i]."""
    bin_shares: Floats
    """Share of all rows in each bin; the last entry is the share of missing values."""
    points: Floats
    """Order statistics, including the smallest and the largest value; distinct and ascending."""
    points_left: Floats
    """Share of the finite values below each point."""
    points_right: Floats
    """Share of the finite values at or below each point."""
    points_nearest: Floats
    """Share of the finite values that are nearest to this point or one before it."""
    categories: Floats
    """The distinct finite values, ascending, of a column of categories; empty for other columns."""
    category_counts: Floats
    """Rows of each category; the last entry is the number of missing values."""
    histogram_edges: Floats
    histogram: Floats
    """Share of the finite values in equal bins between the 0.5% and the 99.5% quantile, for plots."""
    deviation: float
    """Population standard deviation of the finite values; NaN without one."""
    moved: float
    """Mean distance of the finite values from their nearest point: the largest error of a Wasserstein distance from
    this profile. 0 if every value is a point."""
    rows: int

    @property
    def nan_share(self) -> float:
        """Share of missing values; NaN without rows."""
        return float(self.bin_shares[-1])


@dataclass(frozen=True)
class Profile:
    """Reference profile of a frame, column by column."""

    columns: Mapping[str, ColumnProfile]

    def save(self, path: Path) -> None:
        """Write as one npz file: of each array the values of all columns, one after another, and where they begin."""
        profiles = list(self.columns.values())
        arrays: dict[str, Any] = {
            "names": np.array(list(self.columns), dtype=str),
            "numbers": np.array([[each.deviation, each.moved, each.rows] for each in profiles]).reshape(-1, 3),
        }
        for name in _ARRAYS:
            parts = [getattr(each, name) for each in profiles]
            arrays[name] = np.concatenate([np.empty(0), *parts])
            arrays[f"{name}.begins"] = np.cumsum([0, *map(len, parts)])
        with path.open("wb") as file:
            np.savez(file, **arrays)

    @classmethod
    def load(cls, path: Path) -> "Profile":
        """Read a file written by `save`."""
        with np.load(path, allow_pickle=False) as content:
            parts = {name: np.split(content[name], content[f"{name}.begins"][1:-1]) for name in _ARRAYS}
            columns = {}
            for position, (name, numbers) in enumerate(zip(content["names"], content["numbers"], strict=True)):
                arrays = {array: parts[array][position] for array in _ARRAYS}
                deviation, moved, rows = map(float, numbers)
                columns[str(name)] = ColumnProfile(**arrays, deviation=deviation, moved=moved, rows=int(rows))
            return cls(columns)


def reference_profile(frame: pd.DataFrame, points: int = POINTS) -> Profile:
    """Profile of a reference frame of shape (rows, columns), numeric; any index.

    A constant column gets bins below, at and above its value. A column without a finite value gets one empty bin for
    finite values, and one for missing values.

    Parameters
    ----------
    points
        Order statistics to keep. With as many as there are rows, every distance is exact.
    """

    def profile(name: str) -> ColumnProfile:
        return _profile_column(sorted_finite(frame[name]), len(frame), points)

    names = list(frame.columns)
    return Profile(dict(zip(map(str, names), in_threads(profile, names), strict=True)))


def in_threads(compute: Callable[[Part], Result], parts: Iterable[Part]) -> list[Result]:
    """Apply a function to each part of a frame, with one thread per core: sorting and kernels release the GIL."""
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        return list(pool.map(compute, parts))


def sorted_finite(series: pd.Series) -> NDArray[Any]:
    """Finite values, ascending. float32 stays float32: sorting it takes half the time."""
    values = series.to_numpy()
    if values.dtype != np.float32:
        values = series.to_numpy(np.float64, na_value=np.nan)
    values = values[np.isfinite(values)]
    values.sort()
    return values


def bin_shares(values: NDArray[Any], edges: NDArray[Any], rows: int) -> Floats:
    """Shares of all rows by bin of ascending values; the last entry is the share of rows without a finite value."""
    if rows == 0:
        return np.full(len(edges) + 2, np.nan)
    below = np.searchsorted(values, edges.astype(values.dtype), side="right")
    counts = np.diff(np.concatenate([[0], below, [len(values)], [rows]]))
    return counts / rows


def histogram_of(values: NDArray[Any], edges: Floats) -> Floats:
    """Shares of ascending values by bin; the outer bins include the values beyond."""
    places = np.searchsorted(values, edges[1:-1].astype(values.dtype), side="right")
    return np.diff(places, prepend=0, append=len(values)) / max(len(values), 1)


@dataclass(frozen=True)
class _Points:
    """Order statistics, and the number of values below each, at or below it, and nearest to it or one before it."""

    values: NDArray[Any]
    left: NDArray[np.int64]
    right: NDArray[np.int64]
    nearest: NDArray[np.int64]
    moved: float


def _profile_column(values: NDArray[Any], rows: int, count: int) -> ColumnProfile:
    edges, points, histogram_edges = _decile_edges(values), _order_statistics(values, count), _histogram_edges(values)
    categories = _categories(values)
    counts = np.diff(np.searchsorted(values, categories, side="right"), prepend=0)
    n = max(len(values), 1)
    return ColumnProfile(
        edges=edges.astype(np.float64),
        bin_shares=bin_shares(values, edges, rows),
        points=points.values.astype(np.float64),
        points_left=points.left / n,
        points_right=points.right / n,
        points_nearest=points.nearest / n,
        categories=categories.astype(np.float64),
        category_counts=np.append(counts, rows - len(values)).astype(np.float64),
        histogram_edges=histogram_edges,
        histogram=histogram_of(values, histogram_edges),
        deviation=float(values.std(dtype=np.float64)) if len(values) else float("nan"),
        moved=points.moved,
        rows=rows,
    )


def _order_statistics(values: NDArray[Any], count: int) -> _Points:
    if len(values) <= count:
        begins = np.flatnonzero(_is_new(values))
        ends = np.append(begins[1:], len(values))[: len(begins)]
        return _Points(values[begins], begins, ends, ends, 0.0)
    points = _distinct(values[np.round(np.linspace(0, len(values) - 1, count)).astype(np.int64)])
    left, right = (np.searchsorted(values, points, side=side) for side in ("left", "right"))
    middles = points[:-1] + (points[1:] - points[:-1]) / 2
    nearest = np.searchsorted(values, np.append(middles, points[-1:]), side="right")
    moved_to = np.repeat(points, np.diff(nearest, prepend=0))
    return _Points(points, left, right, nearest, float(np.abs(values - moved_to).mean(dtype=np.float64)))


def _decile_edges(values: NDArray[Any]) -> NDArray[Any]:
    if len(values) == 0:
        return values
    ranks = np.arange(1, BINS) * len(values) // BINS
    edges = _distinct(values[ranks])
    if values[0] == values[-1]:
        return np.array([np.nextafter(values[0], values.dtype.type(-np.inf)), values[0]])
    # An edge at the maximum would leave nothing above it, and an empty reference bin looks like drift.
    return edges if edges[-1] < values[-1] or len(edges) == 1 else edges[:-1]


def _is_new(values: NDArray[Any]) -> NDArray[np.bool_]:
    """Which of ascending values differ from the one before."""
    return np.append(True, values[1:] != values[:-1])[: len(values)]


def _distinct(values: NDArray[Any]) -> NDArray[Any]:
    return values[_is_new(values)]


def _categories(values: NDArray[Any]) -> NDArray[Any]:
    """The distinct values if there are few, else none."""
    if np.count_nonzero(values[1:] != values[:-1]) >= CATEGORIES:
        return values[:0]
    return _distinct(values)


def _histogram_edges(values: NDArray[Any]) -> Floats:
    if len(values) == 0:
        return np.linspace(0.0, 1.0, HISTOGRAM_BINS + 1)
    last = len(values) - 1
    low, high = float(values[int(last * 0.005)]), float(values[int(np.ceil(last * 0.995))])
    if low == high:
        low, high = low - 0.5, high + 0.5
    return np.linspace(low, high, HISTOGRAM_BINS + 1)
