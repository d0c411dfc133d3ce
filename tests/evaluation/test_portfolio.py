"""The backtest against hand-made accounts."""

import numpy as np
import pandas as pd
import pytest

from mlops_tasks.config import PortfolioSettings, Settings
from mlops_tasks.data.vintages import Vintage
from mlops_tasks.errors import StoreError
from mlops_tasks.evaluation.portfolio import backtest, capped_sizes, portfolio_metrics, universe_returns
from tests.evaluation.market import DAYS, LEAVER, NAMES, SUSPENDED, closes

FREE = PortfolioSettings(topk=1, n_drop=1, open_cost_bps=0, close_cost_bps=0, min_cost=0)


def scores_of(table: pd.DataFrame) -> pd.Series:
    """Days x names as a Series with MultiIndex (datetime, instrument)."""
    return table.stack().rename_axis(["datetime", "instrument"])


def favourite(name: str, days: pd.DatetimeIndex = DAYS[45:]) -> pd.Series:
    """The same scores every day, one name on top."""
    table = pd.DataFrame(0.0, days, NAMES) - np.arange(len(NAMES)) / 100
    table[name] = 1.0
    return scores_of(table)


def test_universe_return_is_the_members_equal_weight_mean(vintage: Vintage) -> None:
    """Brute force over the panel: members of the day with closes on that and the previous market day."""
    bench = universe_returns(vintage, DAYS[30], DAYS[-1])
    close = closes()
    close.loc[DAYS[55:58], SUSPENDED] = np.nan
    returns = close.pct_change(fill_method=None)
    returns.loc[returns.index > DAYS[40], LEAVER] = np.nan
    expected = returns.mean(axis=1).loc[DAYS[30] :]
    pd.testing.assert_series_equal(
        bench, expected, check_names=False, check_freq=False, check_index_type=False, rtol=1e-12
    )


def test_one_name_without_costs_earns_its_return(settings: Settings, vintage: Vintage) -> None:
    """Bought at the close after the first score with 95% of the account (Qlib's risk degree), then held."""
    for name in (NAMES[7], NAMES[0]):
        result = backtest(favourite(name), settings, vintage.data_version, FREE)
        price = closes()[name].loc[DAYS[46] : DAYS[-2]]
        account = 0.05 + 0.95 * price / price.iloc[0]
        expected = account.pct_change().fillna(0.0)
        np.testing.assert_allclose(result.daily["return"], expected, atol=2e-6)
        assert list(result.daily.index) == list(DAYS[46:-1])
        assert (result.daily["cost"] == 0).all()
        assert (
            result.daily["turnover"].iloc[0] == pytest.approx(0.95, abs=1e-3)
            and (result.daily["turnover"][1:] == 0).all()
        )


def test_costs_are_those_of_the_settings(settings: Settings, vintage: Vintage) -> None:
    """Buying costs `open_cost_bps` of what is bought, selling `close_cost_bps` of what is sold."""
    days = DAYS[45:60]
    table = pd.concat([favourite(NAMES[7], days[:5]), favourite(NAMES[8], days[5:])])
    sizes = PortfolioSettings(topk=1, n_drop=1, open_cost_bps=10, close_cost_bps=30, min_cost=0)
    daily = backtest(table, settings, vintage.data_version, sizes).daily
    assert daily["cost"].iloc[0] == pytest.approx(0.95 * 10e-4, rel=1e-3)
    switch = DAYS[51]
    sold, bought = 0.95, 0.95
    assert daily.loc[switch, "cost"] == pytest.approx(sold * 30e-4 + bought * 10e-4, rel=0.06)
    assert (daily.drop([DAYS[46], switch])["cost"] == 0).all()


def test_a_name_outside_the_universe_is_never_held(settings: Settings, vintage: Vintage) -> None:
    """Scores of a name that left the universe are ignored: the result is that of scores without it."""
    with_leaver = backtest(favourite(LEAVER), settings, vintage.data_version, FREE).daily
    scores = favourite(LEAVER)
    without = scores[scores.index.get_level_values("instrument") != LEAVER]
    pd.testing.assert_frame_equal(with_leaver, backtest(without, settings, vintage.data_version, FREE).daily)


def test_foresight_earns_and_its_opposite_loses(settings: Settings, vintage: Vintage) -> None:
    """Scores that know the tradable return beat the universe after costs; their negative loses to it."""
    close = closes().loc[DAYS[44] :]
    foresight = scores_of((close.shift(-2) / close.shift(-1) - 1).iloc[:-2])
    sizes = PortfolioSettings(topk=5, n_drop=5)
    good = backtest(foresight, settings, vintage.data_version, sizes).metrics
    bad = backtest(-foresight, settings, vintage.data_version, sizes).metrics
    assert good["annualised_excess_return_after_cost"] > 2 and bad["annualised_excess_return_after_cost"] < 0
    assert good["information_ratio"] > 5 and bad["max_drawdown"] < good["max_drawdown"] <= 0


def test_metrics_equal_qlibs_risk_analysis() -> None:
    """Annualised return, information ratio and drawdown are those of `risk_analysis(mode="sum", N=252)`, the drawdown
    with a day before the first one."""
    from qlib.contrib.evaluate import risk_analysis

    rng = np.random.default_rng(0)
    daily = pd.DataFrame(
        rng.normal(0.001, 0.01, (100, 4)), DAYS[:1].repeat(100), ["return", "cost", "bench", "turnover"]
    )
    excess = daily["return"] - daily["bench"] - daily["cost"]
    peer = risk_analysis(excess, N=252, freq=None)["risk"]
    since_start = risk_analysis(pd.Series([0.0, *excess]), N=252, freq=None)["risk"]
    ours = portfolio_metrics(daily)
    assert since_start["max_drawdown"] <= peer["max_drawdown"]
    assert ours["annualised_excess_return_after_cost"] == pytest.approx(peer["annualized_return"])
    assert ours["information_ratio"] == pytest.approx(peer["information_ratio"])
    assert ours["max_drawdown"] == pytest.approx(since_start["max_drawdown"])


def test_a_loss_on_the_first_day_is_a_drawdown() -> None:
    """The account is worth 1 before the first day."""
    daily = pd.DataFrame(0.0, DAYS[:3], ["return", "cost", "bench", "turnover"])
    daily["return"] = [-0.5, 0.1, 0.1]
    assert portfolio_metrics(daily)["max_drawdown"] == -0.5


def test_metrics_without_spread_are_none() -> None:
    """A portfolio that never differs from the universe has no information ratio."""
    daily = pd.DataFrame(0.0, DAYS[:5], ["return", "cost", "bench", "turnover"])
    assert portfolio_metrics(daily)["information_ratio"] is None


@pytest.mark.parametrize(("names", "expected"), [(24, (8, 5)), (300, (50, 5)), (9, (3, 3)), (1, (1, 1))])
def test_sizes_fit_the_universe(names: int, expected: tuple[int, int], caplog: pytest.LogCaptureFixture) -> None:
    """At most a third of the names is held, and one name at least may change a day; what that does is a warning."""
    scores = scores_of(pd.DataFrame(0.0, DAYS[:3], range(names)))
    assert capped_sizes(scores, PortfolioSettings(topk=50, n_drop=5)) == expected
    assert capped_sizes(scores, PortfolioSettings(topk=1, n_drop=0)) == (1, 1)
    said = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(said) == (expected[0] < 50)
    if names == 24:
        assert "8, a third of them, are held and 5 replaced a day, which is 62% of the holdings" in said[0]
        assert "(10% as configured)" in said[0]


def test_scores_that_cannot_be_traded_are_an_error(settings: Settings, vintage: Vintage) -> None:
    """No scores, or one day only, is an error with a remedy."""
    for scores in (favourite(NAMES[7])[:0], favourite(NAMES[7], DAYS[50:51]), favourite(NAMES[7], DAYS[-2:])):
        with pytest.raises(StoreError, match="longer segment"):
            backtest(scores, settings, vintage.data_version, FREE)
