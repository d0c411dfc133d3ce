"""How far today's columns are from those that a model learned from. Arguments are always (reference, current).

PSI, the population stability index, is the sum over bins of (current - reference) ln(current / reference), where both
are shares of rows (Siddiqi, Credit Risk Scorecards, 2006). KS is the two-sample Kolmogorov-Smirnov statistic, the
largest distance between both distribution functions.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlops_tasks.errors import StoreError, first_few

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

BINS = 10
KS_POINTS = 2048
"""Order statistics kept of each column: KS is exact for references up to this size, within 1 / 2048 beyond."""
PSI_FLOOR = 1e-4
"""Shares below this are raised to it, so that an empty bin counts much but not infinitely."""
HISTOGRAM_BINS = 50
_ARRAYS = ("edges", "bin_shares", "points", "points_left", "points_right", "histogram_edges", "histogram")


@dataclass(frozen=True)
class ColumnProfile:
    """What is kept of one reference column; values that are not finite count as missing."""

    edges: Floats
    """Inner bin edges, ascending: the distinct deciles. Bin i is (edge i-1, edge i]."""
    bin_shares: Floats
    """Share of all rows in each bin; the last entry is the share of missing values."""
    points: Floats
    """Order statistics for KS."""
    points_left: Floats
    """Share of the finite values below each point."""
    points_right: Floats
    """Share of the finite values at or below each point."""
    histogram_edges: Floats
    histogram: Floats
    """Share of the finite values by equal bins between the 0.5% and the 99.5% quantile, for drawing."""
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
        """Write as one npz file."""
        arrays: dict[str, Any] = {"names": np.array(list(self.columns), dtype=str)}
        for position, column in enumerate(self.columns.values()):
            for name in _ARRAYS:
                arrays[f"{position}.{name}"] = getattr(column, name)
            arrays[f"{position}.rows"] = np.int64(column.rows)
        with path.open("wb") as file:
            np.savez_compressed(file, **arrays)

    @classmethod
    def load(cls, path: Path) -> "Profile":
        """Read what `save` wrote."""
        with np.load(path, allow_pickle=False) as content:
            return cls(
                {
                    str(name): ColumnProfile(
                        **{array: content[f"{position}.{array}"] for array in _ARRAYS},
                        rows=int(content[f"{position}.rows"]),
                    )
                    for position, name in enumerate(content["names"])
                }
            )


def reference_profile(frame: pd.DataFrame) -> Profile:
    """Profile of a reference frame of shape (rows, columns), numeric; any index.

    A constant column gets the bins below, at and above its value. A column without a finite value gets one bin for
    finite values, empty, beside the missing ones.
    """
    return Profile({str(name): _profile_column(_sorted_finite(frame[name]), len(frame)) for name in frame.columns})


def drift(profile: Profile, current: pd.DataFrame) -> pd.DataFrame:
    """Distance of a current frame from the reference profile.

    Parameters
    ----------
    current
        Shape (rows, at least the profile's columns), numeric; other columns are ignored.

    Returns
    -------
    Frame by column name, largest PSI first:

    - `psi`: over the reference's deciles and, as a bin of its own, missing values, so that a column that vanishes
      shows. Shares are raised to at least 1e-4. NaN only where one side has no rows.
    - `ks_statistic`: of the finite values, in [0, 1]; NaN where one side has none.
    - `nan_share_reference`, `nan_share_current`: shares of rows.

    Raises
    ------
    StoreError
        A profiled column is missing in `current`.
    """
    missing = [name for name in profile.columns if name not in current.columns]
    if missing:
        raise StoreError(
            f"{len(missing)} profiled columns are missing in the current frame: {first_few(missing)}; "
            "compute the feature set that the model was trained on"
        )
    rows = {}
    for name, reference in profile.columns.items():
        values = _sorted_finite(current[name])
        shares = _bin_shares(values, reference.edges, len(current))
        rows[name] = {
            "psi": population_stability_index(reference.bin_shares, shares),
            "ks_statistic": _ks_statistic(reference, values),
            "nan_share_reference": reference.nan_share,
            "nan_share_current": float(shares[-1]),
        }
    columns = ["psi", "ks_statistic", "nan_share_reference", "nan_share_current"]
    table = pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("column")
    return table.sort_values(["psi", "ks_statistic"], ascending=False, kind="stable")


def population_stability_index(reference: Floats, current: Floats) -> float:
    """PSI of two arrays of shares over the same bins; shares below 1e-4 are raised to it. NaN propagates."""
    a, b = np.maximum(reference, PSI_FLOOR), np.maximum(current, PSI_FLOOR)
    return float(np.sum((b - a) * np.log(b / a)))


def shares_outside(profile: Profile, current: pd.DataFrame) -> pd.Series:
    """Share of a column's finite values outside the reference's 0.5% to 99.5% quantiles, by column: some 1% if nothing
    drifts; NaN where either side has none."""
    shares = {}
    for name, column in profile.columns.items():
        values = _sorted_finite(current[name]).astype(np.float64)
        low, high = column.histogram_edges[[0, -1]]
        inside = np.searchsorted(values, high, side="right") - np.searchsorted(values, low, side="left")
        known = len(values) > 0 and len(column.points) > 0
        shares[name] = float(1 - inside / len(values)) if known else float("nan")
    return pd.Series(shares, dtype=np.float64)


def histogram_shares(column: ColumnProfile, current: pd.Series) -> Floats:
    """The current values' shares in the reference's histogram bins; the outer bins hold what lies beyond."""
    return _histogram(_sorted_finite(current), column.histogram_edges)


def _sorted_finite(series: pd.Series) -> NDArray[Any]:
    """Finite values, ascending. float32 stays float32: sorting it takes half the time."""
    values = series.to_numpy()
    if values.dtype != np.float32:
        values = series.to_numpy(np.float64, na_value=np.nan)
    return np.sort(values[np.isfinite(values)])


def _profile_column(values: NDArray[Any], rows: int) -> ColumnProfile:
    edges = _decile_edges(values)
    points = _order_statistics(values)
    n = max(len(values), 1)
    histogram_edges = _histogram_edges(values)
    return ColumnProfile(
        edges=edges.astype(np.float64),
        bin_shares=_bin_shares(values, edges, rows),
        points=points.astype(np.float64),
        points_left=np.searchsorted(values, points, side="left") / n,
        points_right=np.searchsorted(values, points, side="right") / n,
        histogram_edges=histogram_edges,
        histogram=_histogram(values, histogram_edges),
        rows=rows,
    )


def _decile_edges(values: NDArray[Any]) -> NDArray[Any]:
    if len(values) == 0:
        return values
    ranks = np.arange(1, BINS) * len(values) // BINS
    edges = np.unique(values[ranks])
    if values[0] == values[-1]:
        return np.array([np.nextafter(values[0], values.dtype.type(-np.inf)), values[0]])
    # An edge at the maximum would leave nothing above it, and an empty reference bin looks like drift.
    return edges if edges[-1] < values[-1] or len(edges) == 1 else edges[:-1]


def _order_statistics(values: NDArray[Any]) -> NDArray[Any]:
    if len(values) <= KS_POINTS:
        return np.unique(values)
    ranks = np.round(np.linspace(0, len(values) - 1, KS_POINTS)).astype(np.int64)
    return np.unique(values[ranks])


def _bin_shares(values: NDArray[Any], edges: NDArray[Any], rows: int) -> Floats:
    """Shares of all rows by bin; the last entry is the share of rows without a finite value."""
    if rows == 0:
        return np.full(len(edges) + 2, np.nan)
    below = np.searchsorted(values, edges.astype(values.dtype), side="right")
    counts = np.diff(np.concatenate([[0], below, [len(values)], [rows]]))
    return counts / rows


def _ks_statistic(reference: ColumnProfile, values: NDArray[Any]) -> float:
    if len(reference.points) == 0 or len(values) == 0:
        return float("nan")
    points = reference.points.astype(values.dtype)
    left = np.searchsorted(values, points, side="left") / len(values)
    right = np.searchsorted(values, points, side="right") / len(values)
    return float(max(np.abs(left - reference.points_left).max(), np.abs(right - reference.points_right).max()))


def _histogram_edges(values: NDArray[Any]) -> Floats:
    if len(values) == 0:
        return np.linspace(0.0, 1.0, HISTOGRAM_BINS + 1)
    last = len(values) - 1
    low, high = float(values[int(last * 0.005)]), float(values[int(np.ceil(last * 0.995))])
    if low == high:
        low, high = low - 0.5, high + 0.5
    return np.linspace(low, high, HISTOGRAM_BINS + 1)


def _histogram(values: NDArray[Any], edges: Floats) -> Floats:
    inside = np.clip(values.astype(np.float64), edges[0], edges[-1])
    counts = np.diff(np.searchsorted(inside, edges[1:-1], side="right"), prepend=0, append=len(inside))
    return counts / max(len(inside), 1)
