"""Drift statistics against closed forms and SciPy."""

import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2_contingency, ks_2samp, wasserstein_distance

from mlops_tasks.errors import StoreError
from mlops_tasks.monitoring.drift import drift, population_stability_index
from mlops_tasks.monitoring.profile import POINTS, Profile, reference_profile


def one(reference: list[float] | np.ndarray, current: list[float] | np.ndarray) -> pd.Series:
    """Drift of one column."""
    return drift(reference_profile(pd.DataFrame({"x": reference})), pd.DataFrame({"x": current})).loc["x"]


def test_psi_closed_form() -> None:
    """Two bins 50/50 against 80/20 have PSI 0.3 ln 1.6 - 0.3 ln 0.4."""
    expected = 0.3 * np.log(0.8 / 0.5) - 0.3 * np.log(0.2 / 0.5)
    assert population_stability_index(np.array([0.5, 0.5]), np.array([0.8, 0.2])) == pytest.approx(expected)
    binary = one([0.0] * 50 + [1.0] * 50, [0.0] * 80 + [1.0] * 20)
    assert binary["psi"] == pytest.approx(expected) and binary["ks_statistic"] == pytest.approx(0.3)


def test_equal_samples_do_not_drift() -> None:
    """A frame against itself: PSI and KS are 0."""
    values = np.random.default_rng(0).normal(size=(5000, 3))
    frame = pd.DataFrame(values, columns=list("abc"))
    table = drift(reference_profile(frame), frame)
    assert (table["psi"] == 0).all() and (table["ks_statistic"] == 0).all()


def test_a_shift_of_one_sigma_is_found_where_it_is() -> None:
    """Only the shifted column passes 0.25, and it comes first."""
    rng = np.random.default_rng(1)
    reference = pd.DataFrame(rng.normal(size=(20_000, 4)), columns=list("abcd"))
    current = pd.DataFrame(rng.normal(size=(5_000, 4)), columns=list("abcd"))
    current["c"] += 1.0
    table = drift(reference_profile(reference), current)
    # The PSI of N(0,1) against N(1,1) is 1 in the limit of fine bins (the Jeffreys divergence); deciles lose some.
    assert table.index[0] == "c" and 0.8 < table["psi"].iloc[0] < 1.0
    assert table["ks_statistic"].iloc[0] == pytest.approx(0.3829, abs=0.02)
    assert (table["psi"].iloc[1:] < 0.01).all()


samples = st.lists(st.one_of(st.integers(-5, 5).map(float), st.floats(-1e6, 1e6, width=32)), min_size=1, max_size=80)


@settings(max_examples=200)
@given(samples, samples)
def test_ks_equals_scipy(reference: list[float], current: list[float]) -> None:
    """KS equals SciPy's for samples with and without ties; PSI is finite and not negative."""
    row = one(reference, current)
    assert row["ks_statistic"] == pytest.approx(ks_2samp(reference, current, method="asymp").statistic, abs=1e-12)
    assert np.isfinite(row["psi"]) and row["psi"] >= 0


@settings(max_examples=200)
@given(samples, samples)
def test_wasserstein_equals_scipy(reference: list[float], current: list[float]) -> None:
    """In standard deviations of the reference, for samples with and without ties; of a constant one 0 or infinite."""
    row, area = one(reference, current), wasserstein_distance(reference, current)
    if min(reference) == max(reference):
        assert row["wasserstein"] == (np.inf if area > 0 else 0)
    else:
        assert row["wasserstein"] == pytest.approx(area / np.std(reference), rel=1e-9, abs=1e-12)


def test_wasserstein_of_a_long_reference_is_within_its_stated_error() -> None:
    """Beyond the kept order statistics the error is at most the profile's own, some thousandths of a deviation; with
    all of them kept there is none."""
    rng = np.random.default_rng(12)
    for draw in (rng.standard_normal, lambda size: rng.standard_t(3, size)):
        reference = pd.DataFrame({"x": draw(60_000)})
        compact, full = reference_profile(reference), reference_profile(reference, points=len(reference))
        kept, deviation = compact.columns["x"], float(reference["x"].std(ddof=0))
        assert 0 < kept.moved < 0.005 * deviation and full.columns["x"].moved == 0
        for shift in (0.0, 0.02, 0.5):
            current = pd.DataFrame({"x": draw(9_000) + shift})
            exact = wasserstein_distance(reference["x"], current["x"]) / deviation
            assert abs(drift(compact, current).loc["x", "wasserstein"] - exact) <= kept.moved / deviation
            assert drift(full, current).loc["x", "wasserstein"] == pytest.approx(exact, rel=1e-9)


def test_chi_square_of_categories_equals_scipy() -> None:
    """Pearson's statistic of the table of both samples; values that the reference lacks, and missing ones, are a
    category each; Cramer's V is its size. A column of many values has none."""
    rng = np.random.default_rng(13)
    reference, current = rng.choice([1.0, 2.0, 3.0, np.nan], 3000), rng.choice([1.0, 2.0, 4.0, 5.0, np.nan], 900)
    counts = [
        [np.sum(x == value) for value in (1, 2, 3)] + [np.sum(x > 3), np.isnan(x).sum()] for x in (reference, current)
    ]
    expected = chi2_contingency(counts, correction=False).statistic
    row = one(reference, current)
    assert row["chi_square"] == pytest.approx(expected)
    assert row["cramers_v"] == pytest.approx(np.sqrt(expected / 3900))
    assert one(reference, reference)["chi_square"] == pytest.approx(0.0)
    assert np.isnan(one(rng.normal(size=3000), current)["chi_square"])
    coded = pd.DataFrame({"x": pd.Categorical([1, 2, 2, 3])})
    assert drift(reference_profile(coded), coded).loc["x", "chi_square"] == 0


def test_ks_of_a_long_reference_is_within_its_stated_error() -> None:
    """Beyond the kept order statistics KS differs from SciPy's by at most 1 / 2048 and a bit for rounding of ranks."""
    rng = np.random.default_rng(2)
    for shift in (0.0, 0.02, 0.5):
        reference, current = rng.normal(size=60_000), rng.normal(size=9_000) + shift
        exact = ks_2samp(reference, current).statistic
        assert exact - 1.1 / POINTS <= one(reference, current)["ks_statistic"] <= exact + 1e-12


@pytest.mark.parametrize(
    ("reference", "current", "psi_above", "ks"),
    [
        ([1.0] * 30, [1.0] * 9, None, 0.0),
        ([1.0] * 30, [2.0] * 9, 5.0, 1.0),
        ([1.0] * 30, [0.5] * 9, 5.0, 1.0),
        ([np.nan] * 30, [np.nan] * 9, None, np.nan),
        ([np.nan] * 30, [1.0] * 9, 5.0, np.nan),
        (list(range(30)), [np.nan] * 9, 5.0, np.nan),
        ([1.0, np.inf, -np.inf, np.nan], [1.0, np.nan, np.nan, np.nan], None, 0.0),
    ],
)
def test_constant_and_empty_columns(
    reference: list[float], current: list[float], psi_above: float | None, ks: float
) -> None:
    """Constant and missing columns are defined: no change is 0, any change is large; infinite counts as missing."""
    row = one(reference, current)
    assert row["psi"] == 0 if psi_above is None else row["psi"] > psi_above
    assert row["ks_statistic"] == pytest.approx(ks, nan_ok=True)
    assert row["nan_share_current"] == np.mean(~np.isfinite(current))
    assert np.isnan(row["wasserstein"]) == np.isnan(ks)


def test_no_current_rows_give_nan() -> None:
    """Without current rows nothing can be said."""
    assert one([1.0, 2.0, 3.0], [])[["psi", "ks_statistic", "nan_share_current"]].isna().all()


def test_a_missing_column_is_an_error() -> None:
    """A column that the profile has and the frame lacks is named."""
    with pytest.raises(StoreError, match="1 profiled columns are missing in the current frame: x;"):
        drift(reference_profile(pd.DataFrame({"x": [1.0]})), pd.DataFrame({"y": [1.0]}))


def test_a_profile_survives_its_file(tmp_path: Path) -> None:
    """A profile that was written and read gives the same drift."""
    rng = np.random.default_rng(3)
    reference = pd.DataFrame(rng.normal(size=(3000, 2)), columns=["a", "b/c"]).astype({"a": np.float32})
    reference["empty"] = np.nan
    current = reference.iloc[:500] * 1.1
    profile = reference_profile(reference)
    profile.save(tmp_path / "profile.npz")
    loaded = Profile.load(tmp_path / "profile.npz")
    pd.testing.assert_frame_equal(drift(loaded, current), drift(profile, current))


def test_alpha158_size_takes_a_second() -> None:
    """158 columns, 100,000 rows against 50,000, take a second or two of processor time."""
    rng = np.random.default_rng(4)
    names = [f"F{i}" for i in range(158)]
    reference = pd.DataFrame(rng.standard_normal((100_000, 158), dtype=np.float32), columns=names)
    current = reference.iloc[:50_000] * np.float32(1.05)
    started = time.process_time()
    table = drift(reference_profile(reference), current)
    assert len(table) == 158 and time.process_time() - started < 3.0
