"""How far today's columns are from those from which a model learned. Arguments are always (reference, current).

PSI, the population stability index, is the sum over bins of (current - reference) ln(current / reference), where both
are shares of rows (Siddiqi, Credit Risk Scorecards, 2006). KS is the two-sample Kolmogorov-Smirnov statistic, the
largest distance between both distribution functions. The Wasserstein distance of first order is the area between them,
here in standard deviations of the reference. Chi-square is Pearson's statistic of homogeneity of two samples of
categories, and Cramer's V = sqrt(chi-square / rows of both) is its effect size, independent of the number of rows
(Mathematical Methods of Statistics, 1946). All of them count rows; the verdict of a day counts days (`bands.py`).
"""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlops_tasks.errors import StoreError, first_few
from mlops_tasks.monitoring.kernels import sorted_distances
from mlops_tasks.monitoring.profile import ColumnProfile, Floats, Profile, bin_shares, in_threads, sorted_finite

PSI_FLOOR = 1e-4
"""Shares below this are raised to it, so that an empty bin counts much, but not infinitely."""
NAN = float("nan")


def drift(profile: Profile, current: pd.DataFrame) -> pd.DataFrame:
    """Distance of a current frame from the reference profile.

    Parameters
    ----------
    current
        Shape (rows, at least the profile's columns), numeric; other columns are ignored.

    Returns
    -------
    Frame by column name, largest PSI first:

    - `psi`: over the reference's deciles, with missing values as a separate bin, so that a column that vanishes
      shows. Shares are raised to at least 1e-4. NaN only if one side has no rows.
    - `ks_statistic`: of the finite values, in [0, 1]; NaN where one side has none.
    - `wasserstein`: of the finite values, in standard deviations of the reference; NaN where one side has none.
      Infinite where the reference is constant and the current values are others. Exact up to the profile's `moved`.
    - `chi_square`, `cramers_v`: for a column of categories, with at most 20 distinct values in the reference: each
      value, all others, and missing ones are a category. NaN for other columns, and if one side has no rows.
    - `nan_share_reference`, `nan_share_current`: shares of rows.
    - `rows_outside`: share of the finite values outside the reference's 0.5% to 99.5% quantiles, about 1% if nothing
      drifts; NaN if either side has none.

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

    def distances(name: str) -> dict[str, float]:
        return _distances(profile.columns[name], sorted_finite(current[name]), len(current))

    names = list(profile.columns)
    table = pd.DataFrame(in_threads(distances, names), pd.Index(names, name="column"), dtype=np.float64)
    return table.sort_values(["psi", "ks_statistic"], ascending=False, kind="stable")


def population_stability_index(reference: Floats, current: Floats, floor: float = PSI_FLOOR) -> float:
    """PSI of two arrays of shares over the same bins; shares below `floor` are raised to it. NaN propagates."""
    a, b = np.maximum(reference, floor), np.maximum(current, floor)
    return float(np.sum((b - a) * np.log(b / a)))


def chi_square(reference: Floats, current: Floats) -> float:
    """Pearson's statistic of homogeneity of two arrays of counts over the same categories, without a correction.

    Categories that neither has are left out. NaN if one has no rows.
    """
    counts = np.stack([reference, current])[:, reference + current > 0]
    rows = counts.sum(axis=1, keepdims=True)
    if not rows.all():
        return NAN
    expected = rows * counts.sum(axis=0) / rows.sum()
    return float(np.sum((counts - expected) ** 2 / expected))


def _distances(reference: ColumnProfile, values: NDArray[np.floating], rows: int) -> dict[str, float]:
    """A row of the table of `drift`; `values` are the column's finite values, ascending."""
    shares = bin_shares(values, reference.edges, rows)
    ks, area = _numeric_distances(reference, values)
    statistic, association = _category_distances(reference, values, rows)
    return {
        "psi": population_stability_index(reference.bin_shares, shares),
        "ks_statistic": ks,
        "wasserstein": area,
        "chi_square": statistic,
        "cramers_v": association,
        "nan_share_reference": reference.nan_share,
        "nan_share_current": float(shares[-1]),
        "rows_outside": _share_outside(reference, values),
    }


def _numeric_distances(reference: ColumnProfile, values: NDArray[np.floating]) -> tuple[float, float]:
    if len(reference.points) == 0 or len(values) == 0:
        return NAN, NAN
    points = reference.points.astype(values.dtype).astype(np.float64)
    ks, area = sorted_distances(points, reference.points_left, reference.points_right, reference.points_nearest, values)
    if reference.deviation == 0:
        return ks, float("inf") if area > 0 else 0.0
    return ks, area / reference.deviation


def _category_distances(reference: ColumnProfile, values: NDArray[np.floating], rows: int) -> tuple[float, float]:
    if len(reference.categories) == 0 or rows == 0:
        return NAN, NAN
    categories = reference.categories.astype(values.dtype)
    left, right = (np.searchsorted(values, categories, side=side) for side in ("left", "right"))
    known = right - left
    current = np.concatenate([known, [rows - len(values), len(values) - known.sum()]]).astype(np.float64)
    statistic = chi_square(np.append(reference.category_counts, 0.0), current)
    return statistic, float(np.sqrt(statistic / (reference.rows + rows)))


def _share_outside(reference: ColumnProfile, values: NDArray[np.floating]) -> float:
    if len(values) == 0 or len(reference.points) == 0:
        return NAN
    low, high = reference.histogram_edges[[0, -1]].astype(values.dtype)
    inside = np.searchsorted(values, high, side="right") - np.searchsorted(values, low, side="left")
    return float(1 - inside / len(values))
