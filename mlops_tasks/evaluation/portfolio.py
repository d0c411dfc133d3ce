"""What a model's scores would have earned: Qlib's top-k dropout strategy and Qlib's backtest, after costs.

Scores of day t are traded at the close of t + 1, within the market's price limits, but not in an instrument that was
not traded then. A held instrument whose bars end is paid out on the next market day, at `portfolio.delisting_return`,
without costs. The benchmark is the equal-weight mean return of the universe's point-in-time members. Returns are
summed, not compounded, and a year has 252 days, as in Qlib's `risk_analysis(mode="sum", N=252)`; the drawdown is that
of this sum, measured from the start of the first day.
"""

import importlib
import logging
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from mlops_tasks.columns import CLOSE, DATETIME, INSTRUMENT
from mlops_tasks.config import PortfolioSettings, Settings
from mlops_tasks.data.exchanges.price_limits import Limits, calendars_of, price_limits
from mlops_tasks.data.qlib.store import init_qlib
from mlops_tasks.data.vintages import Vintage, load_vintage
from mlops_tasks.errors import StoreError
from mlops_tasks.files import finite_or_none
from mlops_tasks.lean_imports import import_late

log = logging.getLogger(__name__)

DAYS_A_YEAR = 252
LOOKBACK_DAYS = 30
"""Calendar days read before the first trading day, to know the close before it; no market closes for longer."""


@dataclass(frozen=True)
class PortfolioResult:
    """A backtest day by day, and its summary."""

    daily: pd.DataFrame
    """By datetime, as shares of the account: `return` (before costs), `cost`, `bench`, `turnover`,
    `excess_return_after_cost`."""
    metrics: dict[str, float | None]
    """`annual_return` (after costs), `annualised_excess_return_after_cost`, its `information_ratio` and `max_drawdown`,
    `turnover` (mean share of the account traded a day, buys and sells). Returns and drawdown are sums of daily returns,
    not compounded."""
    topk: int
    n_drop: int


@dataclass(frozen=True)
class _Market:
    """The market in which the scores are traded and against which they are measured."""

    limits: Limits
    last_days: Mapping[str, pd.Timestamp]
    """Of delisted instruments."""
    bench: pd.Series


def backtest(scores: pd.Series, settings: Settings, data_version: str, portfolio: PortfolioSettings) -> PortfolioResult:
    """Run Qlib's backtest on scores.

    Parameters
    ----------
    scores
        MultiIndex (datetime, instrument), finite or NaN. NaN and rows of instruments that are no members on that day
        are left out. Trading runs from the market day after the first score to the last score's own day.
    data_version
        The vintage whose Qlib store is traded; that store must be written.
    portfolio
        Costs, limits and sizes. `topk` is capped at a third of the median number of scored names a day; see
        `capped_sizes`.

    Raises
    ------
    ConfigError
        `calendar.name` is unknown.
    StoreError
        Fewer than two market days can be traded, or the vintage or its Qlib store is missing.
    """
    vintage = load_vintage(settings, data_version)
    scores = tradable_scores(scores, vintage)
    topk, n_drop = capped_sizes(scores, portfolio)
    daily = daily_account(scores, settings, vintage, portfolio.holding(topk, n_drop))
    return PortfolioResult(daily, portfolio_metrics(daily), topk, n_drop)


def daily_account(
    scores: pd.Series, settings: Settings, vintage: Vintage, portfolio: PortfolioSettings
) -> pd.DataFrame:
    """`PortfolioResult.daily` of `tradable_scores` for sizes that are not capped any more. Errors as for `backtest`."""
    init_qlib(settings, vintage.data_version)
    first, last = _trading_span(scores, vintage.calendar())
    bench = universe_returns(vintage, first, last)
    index = vintage.bars(fields=())
    market = _Market(limits_of(index, settings, portfolio), delisted(index), bench)
    report = _run_qlib(scores, (first, last), market, portfolio)
    daily = report[["return", "cost", "bench", "turnover"]].astype(float).rename_axis(DATETIME)
    daily["excess_return_after_cost"] = daily["return"] - daily["bench"] - daily["cost"]
    return daily


def limits_of(index: pd.DataFrame, settings: Settings, portfolio: PortfolioSettings) -> Limits:
    """The price limits that a portfolio's settings ask for, for a vintage's bars (columns datetime and instrument).

    Raises
    ------
    ConfigError
        They follow the market, and `calendar.name` is unknown.
    """
    threshold = portfolio.limit_threshold
    if threshold == "market":
        return partial(price_limits, calendars=calendars_of(index, settings.calendar.name))
    limit = math.inf if threshold is None else threshold
    return lambda index: np.full(len(index), limit)


def delisted(index: pd.DataFrame) -> dict[str, pd.Timestamp]:
    """Instruments without a bar on the last day of a vintage's bars, and the day of their last one.

    One whose bars merely pause on that day is among them: the vintage does not show the difference.
    """
    last = index.groupby(INSTRUMENT)[DATETIME].max()
    return last[last < last.max()].to_dict()


def universe_returns(vintage: Vintage, first: pd.Timestamp, last: pd.Timestamp) -> pd.Series:
    """Equal-weight daily return of the point-in-time members, `first` to `last`.

    Returns
    -------
    Series by market day: the mean over the day's members of adjusted close / the previous market day's - 1. Members
    that lack one of the two closes are left out; 0 on a day on which no member has both.
    """
    bars = vintage.adjusted_bars(start=first - pd.Timedelta(days=LOOKBACK_DAYS), end=last)
    returns = daily_returns(bars)
    inside = vintage.membership_mask(pd.MultiIndex.from_arrays([bars[DATETIME], bars[INSTRUMENT]]))
    members = pd.DataFrame({DATETIME: bars[DATETIME], "bench": returns.where(inside)})
    means = members.groupby(DATETIME)["bench"].mean().fillna(0.0)
    return means[means.index >= first]


def daily_returns(bars: pd.DataFrame) -> pd.Series:
    """Close / close of the previous market day - 1, index of `bars`.

    `bars` has columns datetime, instrument and close, sorted by instrument and datetime. NaN where the instrument has
    no close on that or on the previous market day.
    """
    days = bars[DATETIME].to_numpy()
    position = np.searchsorted(np.unique(days), days)
    codes, _ = pd.factorize(bars[INSTRUMENT])
    close = bars[CLOSE].to_numpy(dtype=np.float64)
    returns = np.full(len(bars), np.nan)
    follows = (codes[1:] == codes[:-1]) & (position[1:] == position[:-1] + 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        returns[1:][follows] = (close[1:] / close[:-1] - 1)[follows]
    return pd.Series(returns, bars.index).where(np.isfinite(returns))


def names_held(scores: pd.Series, topk: int) -> int:
    """How many names a portfolio of `topk` holds: at most a third of the median number of names a day, at least one."""
    return min(topk, max(1, int(names_a_day(scores) / 3)))


def names_a_day(scores: pd.Series) -> float:
    """Median number of names a day; 0 without any."""
    return float(scores.groupby(level=DATETIME).size().median()) if len(scores) else 0.0


def capped_sizes(scores: pd.Series, portfolio: PortfolioSettings) -> tuple[int, int]:
    """`topk` and `n_drop` that fit the universe, as `names_held` caps them.

    `n_drop` is at least one, because Qlib's strategy takes 0 to mean "sell all".
    """
    topk = names_held(scores, portfolio.topk)
    n_drop = max(1, min(portfolio.n_drop, topk))
    if topk < portfolio.topk:
        names = names_a_day(scores)
        log.warning(
            "topk %d is too large for %.0f names a day: %d, a third of them, are held and %d replaced a day, which is "
            "%.0f%% of the holdings, at their costs (%.0f%% as configured); set topk and n_drop to suit so few names",
            *(portfolio.topk, names, topk, n_drop, 100 * n_drop / topk, 100 * portfolio.n_drop / portfolio.topk),
        )
    return topk, n_drop


def portfolio_metrics(daily: pd.DataFrame) -> dict[str, float | None]:
    """Summary of daily returns, as in `PortfolioResult.metrics`; None where a number is undefined.

    `daily` has columns return, cost, bench and turnover.
    """
    net, excess = daily["return"] - daily["cost"], daily["return"] - daily["bench"] - daily["cost"]
    spread = excess.std(ddof=1)
    values = {
        "annual_return": net.mean() * DAYS_A_YEAR,
        "annualised_excess_return_after_cost": excess.mean() * DAYS_A_YEAR,
        "information_ratio": excess.mean() / spread * math.sqrt(DAYS_A_YEAR) if spread > 0 else np.nan,
        "max_drawdown": drawdown(excess).min(),
        "turnover": daily["turnover"].mean(),
    }
    return {name: finite_or_none(value) for name, value in values.items()}


def drawdown(returns: pd.Series) -> pd.Series:
    """The sum of daily returns below its highest value so far, 0 before the first day included; 0 or negative."""
    total = returns.cumsum()
    return total - total.cummax().clip(lower=0.0)


def tradable_scores(scores: pd.Series, vintage: Vintage) -> pd.Series:
    """The finite scores of the day's members, sorted by datetime and instrument."""
    scores = scores[np.isfinite(scores.to_numpy(np.float64, na_value=np.nan))]
    return scores[vintage.membership_mask(scores.index)].sort_index()


def _trading_span(scores: pd.Series, calendar: pd.DatetimeIndex) -> tuple[pd.Timestamp, pd.Timestamp]:
    """The market day after the first score, and the last score's day.

    Qlib needs to know the market day after each traded one, so a vintage's newest day cannot be traded.
    """
    scored = scores.index.get_level_values(DATETIME)
    days = calendar[(calendar > scored.min()) & (calendar <= scored.max())] if len(scores) else calendar[:0]
    days = days[days < calendar[-1]]
    if len(days) < 2:
        raise StoreError(f"scores can be traded on {len(days)} market days, but two are needed; score a longer segment")
    return days[0], days[-1]


def _run_qlib(
    scores: pd.Series, span: tuple[pd.Timestamp, pd.Timestamp], market: _Market, portfolio: PortfolioSettings
) -> pd.DataFrame:
    import_late("cvxpy")  # only another strategy of that module needs it
    from qlib.contrib.evaluate import backtest_daily

    from mlops_tasks.evaluation.qlib_market import LimitedExchange, SettlingStrategy

    codes = sorted(scores.index.get_level_values(INSTRUMENT).unique())
    with _quiet_progress():
        report, _ = backtest_daily(
            start_time=span[0],
            end_time=span[1],
            strategy=SettlingStrategy(scores, portfolio, market.last_days),
            account=portfolio.account,
            benchmark=market.bench,
            exchange_kwargs={"exchange": LimitedExchange(codes, span, portfolio, market.limits)},
        )
    return report


@contextmanager
def _quiet_progress() -> Iterator[None]:
    """Without Qlib's progress bar, which fills a log with carriage returns."""
    # The package's function of the same name hides the module from a plain import.
    module: Any = importlib.import_module("qlib.backtest.backtest")
    original = module.tqdm
    module.tqdm = lambda *args, **kwargs: original(*args, **{**kwargs, "disable": True})
    try:
        yield
    finally:
        module.tqdm = original
