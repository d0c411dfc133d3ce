"""The synthetic market: it grows without changing, and its planted signal is as strong as documented."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import rankdata

from mlops_tasks.columns import CLOSE, DATETIME, FACTOR, HIGH, INSTRUMENT, LOW, OPEN, PRICES, VOLUME, VWAP
from mlops_tasks.config import Settings, SyntheticSettings
from mlops_tasks.data.sources import BarSource, open_source
from mlops_tasks.data.sources.synthetic import SIGNAL_LAG, simulate, synthetic_bars, trading_sessions
from mlops_tasks.data.validation.expectations import load_suites
from mlops_tasks.data.validation.rules import Rules, validate
from tests.data.sources.contract import BarSourceContract


class TestSyntheticSource(BarSourceContract):
    """The synthetic market as a source; other settings are other content."""

    @pytest.fixture
    def source(self, tmp_path: Path) -> BarSource:
        """A short market."""
        return open_source(Settings(home=tmp_path, synthetic=SyntheticSettings(days=40)), "synthetic")

    @pytest.fixture
    def changed(self, tmp_path: Path) -> BarSource:
        """The same market from another seed."""
        return open_source(Settings(home=tmp_path, synthetic=SyntheticSettings(days=40, seed=8)), "synthetic")


@pytest.mark.parametrize("days", [30, 101, 250])
def test_a_longer_run_extends_a_shorter_one_bit_for_bit(days: int) -> None:
    """Adding days leaves every earlier row as it was."""
    short = synthetic_bars(SyntheticSettings(days=days))
    longer = synthetic_bars(SyntheticSettings(days=days + 37))
    pd.testing.assert_frame_equal(longer.iloc[: len(short)], short, check_exact=True, check_categorical=False)
    assert longer[DATETIME].nunique() == days + 37


def test_the_planted_signal_has_the_documented_rank_ic() -> None:
    """The mean daily rank IC of the signal with the next tradable return is 0.075, as the docstring says."""
    market = simulate(SyntheticSettings(days=2000))
    fields, signal = market.fields, market.signal
    adjusted = fields[CLOSE] * fields[FACTOR]
    returns = adjusted[SIGNAL_LAG:] / adjusted[SIGNAL_LAG - 1 : -1] - 1
    daily = []
    for known, earned in zip(signal[10:-SIGNAL_LAG], returns[10:], strict=True):
        both = np.isfinite(earned)
        daily.append(np.corrcoef(rankdata(known[both]), rankdata(earned[both]))[0, 1])
    error = np.std(daily) / np.sqrt(len(daily))
    assert abs(np.mean(daily) - 0.075) < 3 * error
    assert np.mean(daily) > 10 * error


def test_without_strength_there_is_no_signal() -> None:
    """With strength 0 the rank IC is zero within its error."""
    market = simulate(SyntheticSettings(days=800, signal_strength=0))
    fields, signal = market.fields, market.signal
    adjusted = fields[CLOSE] * fields[FACTOR]
    returns = adjusted[SIGNAL_LAG:] / adjusted[SIGNAL_LAG - 1 : -1] - 1
    pairs = zip(signal[10:-SIGNAL_LAG], returns[10:], strict=True)
    daily = [np.corrcoef(s[np.isfinite(r)], r[np.isfinite(r)])[0, 1] for s, r in pairs]
    assert abs(np.mean(daily)) < 4 * np.std(daily) / np.sqrt(len(daily))


def test_the_common_factor_has_a_trend() -> None:
    """The market's mean return follows the planted drift one to one, and its legs are as long as documented."""
    market = simulate(SyntheticSettings(days=4000))
    adjusted = np.log(market.fields[CLOSE] * market.fields[FACTOR])
    earned, trend = np.nanmean(np.diff(adjusted, axis=0), axis=1), market.trend[1:]
    slope, intercept = np.polyfit(trend, earned, 1)
    error = np.std(earned - intercept - slope * trend) / (np.std(trend) * np.sqrt(len(trend)))
    assert abs(slope - 1) < 3 * error and slope > 5 * error
    turns = np.diff(trend) != 0
    assert 40 <= turns.sum() <= 70
    assert 0.55 < (trend > 0).mean() < 0.78


def test_every_row_is_a_bar_of_a_session() -> None:
    """The suite finds nothing to reject, vwap lies within the day's range, and days are XNYS sessions."""
    parameters = SyntheticSettings(days=300)
    frame = synthetic_bars(parameters)
    assert validate(frame, Rules(load_suites())).quarantined == 0
    assert ((frame[VWAP] <= frame[HIGH]) & (frame[VWAP] >= frame[LOW])).all()
    assert frame[DATETIME].isin(trading_sessions(parameters)).all()
    assert frame[[OPEN, VOLUME]].gt(0).all(axis=None)


def test_it_has_listings_delistings_suspensions_splits_and_regimes() -> None:
    """What the docstring promises happens within 700 days."""
    frame = synthetic_bars(SyntheticSettings())
    spans = frame.groupby(INSTRUMENT)[DATETIME].agg(["min", "max", "size"])
    sessions = trading_sessions(SyntheticSettings())
    whole = pd.Series(np.arange(len(sessions)), index=sessions)
    expected = spans["max"].map(whole) - spans["min"].map(whole) + 1
    assert (spans["min"] > sessions[0]).any() and (spans["max"] < sessions[-1]).any()
    assert (spans["size"] < expected).any()
    assert frame[FACTOR].max() >= 2


def test_a_split_moves_the_raw_price_only() -> None:
    """On a split day the raw price about halves while the adjusted one moves as on any day."""
    frame = synthetic_bars(SyntheticSettings()).sort_values([INSTRUMENT, DATETIME])
    by = frame.groupby(INSTRUMENT)
    split = (by[FACTOR].diff() > 0).to_numpy()
    raw = (frame[CLOSE] / by[CLOSE].shift()).to_numpy()[split]
    adjusted = frame.assign(a=frame[CLOSE] * frame[FACTOR])
    moved = (adjusted["a"] / adjusted.groupby(INSTRUMENT)["a"].shift()).to_numpy()[split]
    assert split.sum() >= 5
    assert (raw < 0.7).all() and (np.abs(moved - 1) < 0.2).all()
    assert set(PRICES) <= set(frame.columns)
