"""Published numbers: the comparison of forecasters of Choe and Ramdas (Operations Research 72, 2024), with its data.

`forecasts/` has the Brier scores' differences that their repository's data give (yjchoe/ComparingForecasters, MIT):
probabilities of wins in 25,165 games of baseball, and of rain in Brussels on 1,703 days. Differences are those of the
second forecaster's score and the first's, so that above zero the first is better.
"""

from pathlib import Path

import numpy as np
import pytest

from mlops_tasks.evaluation.confidence_sequences import (
    Bernstein,
    bernstein_at_end,
    bernstein_evidence,
    bernstein_sequence,
    lagged_comparison,
)

DATA = np.load(Path(__file__).parent / "forecasts.npz")


def test_fivethirtyeight_against_vegas() -> None:
    """Interval -0.00265 to -0.00061, and e-value 2979.04 that the betting odds are better."""
    found = lagged_comparison(DATA["baseball"], 1, 0.05, Bernstein(2.0))
    assert found.n == 25_165
    assert (round(found.lower, 5), round(found.upper, 5)) == (-0.00265, -0.00061)
    assert found.e_worse == pytest.approx(2979.04, abs=0.005)
    assert found.p_worse <= 1 / 2979 and found.p_better > 0.5


def test_rain_in_brussels() -> None:
    """IDR against HCLR without scale, 90%: 0.00389 to 0.01815; within 2e-5, the rounding of the stored forecasts."""
    mean, lower, upper = bernstein_at_end(DATA["rain"], 0.2, Bernstein(1.0, alpha_opt=0.1))
    assert (len(DATA["rain"]), round(mean, 5)) == (1703, 0.01102)
    assert (lower, upper) == pytest.approx((0.00389, 0.01815), abs=2e-5)


def test_the_sequence_ends_where_its_last_day_does_and_evidence_grows_with_the_truth() -> None:
    """Each day of the sequence is that day's bound; for negated values both sides change places."""
    values, bound = DATA["rain"][:300], Bernstein(2.0)
    sequence = bernstein_sequence(values, 0.05, bound)
    assert (sequence.mean[-1], sequence.lower[-1], sequence.upper[-1]) == pytest.approx(
        bernstein_at_end(values, 0.05, bound)
    )
    negated = bernstein_sequence(-values, 0.05, bound)
    np.testing.assert_allclose(negated.lower, -sequence.upper)
    assert bernstein_evidence(np.full(400, 0.3), bound)[-1] > 1e6
    assert bernstein_evidence(np.full(400, -0.3), bound)[-1] < 1


def test_a_lag_above_one_joins_its_series_without_an_e_value() -> None:
    """The mean stays, the interval is wider, and no e-value of the whole is claimed (the erratum of 2022)."""
    one, five = (lagged_comparison(DATA["rain"], lag, 0.05, Bernstein(2.0)) for lag in (1, 5))
    assert five.mean == pytest.approx(one.mean)
    assert five.upper - five.lower > 1.5 * (one.upper - one.lower)
    assert five.e_better is None and one.e_better is not None
    with pytest.raises(ValueError, match="a lag is 1 to"):
        lagged_comparison(DATA["rain"], 0, 0.05, Bernstein(2.0))
