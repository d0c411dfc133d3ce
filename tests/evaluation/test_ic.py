"""Information coefficients against closed forms and against Qlib."""

import time

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlops_tasks.evaluation import ic


def panel(n_days: int, n_names: int, seed: int = 0) -> tuple[pd.Series, pd.Series]:
    """Scores with a planted correlation of about 0.2 with the labels; ties and NaN in both."""
    rng = np.random.default_rng(seed)
    days = pd.bdate_range("2020-01-01", periods=n_days, name="datetime")
    index = pd.MultiIndex.from_product([days, [f"S{i:04d}" for i in range(n_names)]], names=["datetime", "instrument"])
    label = rng.normal(size=len(index)) * 0.02
    score = np.round(10 * label + rng.normal(size=len(index)), 1)
    score[rng.random(len(index)) < 0.03] = np.nan
    label[rng.random(len(index)) < 0.03] = np.nan
    return pd.Series(score, index), pd.Series(label, index)


def day(scores: list[float], labels: list[float]) -> tuple[pd.Series, pd.Series]:
    """One day's scores and labels."""
    index = pd.MultiIndex.from_product(
        [[pd.Timestamp("2024-01-02")], range(len(scores))], names=["datetime", "instrument"]
    )
    return pd.Series(scores, index, dtype=float), pd.Series(labels, index, dtype=float)


def test_equals_qlib() -> None:
    """Daily IC and rank IC equal Qlib's `calc_ic` on a panel with ties and missing values."""
    from qlib.contrib.eva.alpha import calc_ic

    score, label = panel(60, 40)
    peer_ic, peer_rank_ic = calc_ic(score, label)
    pd.testing.assert_series_equal(ic.daily_ic(score, label), peer_ic, check_names=False, check_freq=False, rtol=1e-12)
    pd.testing.assert_series_equal(
        ic.daily_rank_ic(score, label), peer_rank_ic, check_names=False, check_freq=False, rtol=1e-12
    )


def test_row_order_and_level_order_do_not_matter() -> None:
    """Shuffled rows and swapped index levels give the same series."""
    score, label = panel(20, 15)
    shuffled = label.sample(frac=1, random_state=1)
    swapped = score.swaplevel().sort_index()
    expected = ic.daily_rank_ic(score, label)
    np.testing.assert_allclose(ic.daily_rank_ic(score.sample(frac=1, random_state=2), shuffled), expected, rtol=1e-12)
    np.testing.assert_allclose(ic.daily_rank_ic(swapped, label.swaplevel().sort_index()), expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("scores", "labels", "expected", "expected_rank"),
    [
        ([1, 2, 3], [2, 4, 6], 1.0, 1.0),
        ([1, 2, 3], [9, 4, 1], -8 / np.sqrt(2 * 98 / 3), -1.0),
        ([1, 1, 2, 2], [1, 2, 3, 4], 2 / np.sqrt(5), 2 / np.sqrt(5)),
        ([1, 2, np.nan, 3], [2, 4, 5, np.nan], np.nan, np.nan),
        ([5, 5, 5], [1, 2, 3], np.nan, np.nan),
        ([0.1, 0.1, 0.1], [1, 2, 3], np.nan, np.nan),
        ([1, 2, 3], [0.3, 0.3, 0.3], np.nan, np.nan),
        ([1, 2, 3, np.inf], [2, 4, 6, 1], 1.0, 1.0),
    ],
)
def test_known_days(scores: list[float], labels: list[float], expected: float, expected_rank: float) -> None:
    """Closed forms; too few pairs and constants are NaN, pairs that are not finite are left out."""
    score, label = day(scores, labels)
    assert ic.daily_ic(score, label).iloc[0] == pytest.approx(expected, nan_ok=True)
    assert ic.daily_rank_ic(score, label).iloc[0] == pytest.approx(expected_rank, nan_ok=True)


finite = st.floats(-1e6, 1e6, allow_subnormal=False)


@settings(max_examples=60)
@given(st.lists(st.tuples(finite, finite), min_size=3, max_size=30))
def test_bounds_and_symmetry(pairs: list[tuple[float, float]]) -> None:
    """Each correlation lies in [-1, 1], is symmetric, and turns its sign with the scores."""
    score, label = day([a for a, _ in pairs], [b for _, b in pairs])
    for correlation in (ic.daily_ic, ic.daily_rank_ic):
        value = correlation(score, label).iloc[0]
        assert np.isnan(value) or -1 <= value <= 1
        assert correlation(label, score).iloc[0] == pytest.approx(value, nan_ok=True, abs=1e-12)
        assert correlation(-score, label).iloc[0] == pytest.approx(-value, nan_ok=True, abs=1e-12)


def test_a_million_rows_take_less_than_a_second() -> None:
    """Both series of 1,000 days x 1,000 names are computed within a second each."""
    score, label = panel(1000, 1000)
    started = time.process_time()
    ic.daily_rank_ic(score, label)
    ic.daily_ic(score, label)
    assert time.process_time() - started < 2.0


def test_summary_is_mean_over_standard_deviation() -> None:
    """ICIR is mean / std with ddof=1 over days with a value; a single day has none."""
    series = pd.Series([0.1, 0.3, np.nan, 0.2])
    summary = ic.summarise(series, series)
    assert summary.ic_mean == pytest.approx(0.2) and summary.icir == pytest.approx(2.0) and summary.n_days == 3
    single = ic.summarise(pd.Series([0.1]), pd.Series([np.nan]))
    assert (single.icir, single.rank_ic_mean, single.rank_icir, single.n_days) == (None, None, None, 0)


def test_quantile_returns_follow_the_scores() -> None:
    """Where the label is the score, the quantile means are the means of the sorted tenths."""
    score, _ = day(list(range(20)), [0] * 20)
    table = ic.quantile_returns(score, score)
    np.testing.assert_array_equal(table.to_numpy()[0], np.arange(0.5, 20, 2))
    assert list(table.columns) == list(range(1, 11))
    few = ic.quantile_returns(*day([1, 2], [1, 2]))
    assert few.isna().all().all()
    with pytest.raises(ValueError, match="2 or more"):
        ic.quantile_returns(score, score, 1)


def test_share_of_constant_days() -> None:
    """A day on which all scores are equal counts, a day with one score does not."""
    index = pd.MultiIndex.from_tuples(
        [(pd.Timestamp(f"2024-01-0{d}"), i) for d, n in ((1, 3), (2, 3), (3, 1)) for i in range(n)],
        names=["datetime", "instrument"],
    )
    assert ic.constant_days_share(pd.Series([1, 1, 1, 1, 2, 3, 5], index, dtype=float)) == 0.5
    assert np.isnan(ic.constant_days_share(pd.Series([np.nan] * 7, index)))


def test_no_rows_give_an_empty_series() -> None:
    """Empty input has no days."""
    score, label = day([], [])
    assert len(ic.daily_ic(score, label)) == 0 and len(ic.daily_rank_ic(score, label)) == 0
