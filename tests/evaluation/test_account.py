"""Qlib's backtest with limits, suspensions, costs and delistings, against an account that is kept by hand."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mlops_tasks.config import PortfolioSettings, Settings
from mlops_tasks.data.vintages import canonical_bars, write_vintage
from mlops_tasks.evaluation.portfolio import backtest
from tests.evaluation.account import brute_force

DAYS = pd.bdate_range("2020-07-20", periods=50, name="datetime")
REFORM = pd.Timestamp("2020-08-24")
BOARDS = {"SH600": 0.095, "SZ300": 0.195, "SH688": 0.195, "SZ000": 0.095}
NAMES = [f"{board}{number:03d}" for number in range(6) for board in BOARDS]
FREE = {"open_cost_bps": 0, "close_cost_bps": 0, "min_cost": 0}
Frames = tuple[pd.DataFrame, pd.DataFrame]


def backtested(home: Path, market: Frames, scores: pd.DataFrame, sizes: PortfolioSettings) -> pd.DataFrame:
    """The product's backtest of a market in Shanghai and Shenzhen."""
    close, volume = market[0].stack().dropna(), market[1].stack()
    bars = close.rename("close").rename_axis(["datetime", "instrument"]).reset_index()
    same = {name: bars["close"] for name in ("open", "high", "low", "vwap")}
    bars = bars.assign(**same, volume=volume.reindex(close.index).to_numpy(), factor=1.0)
    settings = Settings(home=home, calendar={"name": "XSHG"})
    vintage = write_vintage(settings, canonical_bars(bars), members(market[0].columns), {})
    rows = scores.stack().dropna().rename_axis(["datetime", "instrument"])
    return backtest(rows, settings, vintage.data_version, sizes).daily


def members(names: pd.Index) -> pd.DataFrame:
    """All names on all days, whether they trade or not."""
    return pd.DataFrame({"instrument": names, "first_date": DAYS[0], "last_date": DAYS[-1]})


def wild_market(seed: int) -> tuple[Frames, pd.DataFrame]:
    """Closes that often reach a limit, bars without volume, days without bars, five delistings; and scores."""
    random = np.random.default_rng(seed)
    moves = random.choice([0.01, 0.07, 0.15], (len(DAYS), len(NAMES)), p=[0.6, 0.25, 0.15])
    close = 20 * np.exp(np.cumsum(moves * random.normal(size=moves.shape), axis=0))
    close = pd.DataFrame(close.astype("float32").astype(float), DAYS, NAMES)
    close = close.mask(random.random(close.shape) < 0.03)
    volume = pd.DataFrame(np.where(random.random(close.shape) < 0.03, 0.0, 1e6), DAYS, NAMES)
    for name, last in zip(NAMES[3:23:4], (12, 20, 20, 33, 46), strict=True):
        close.loc[DAYS[last + 1] :, name] = np.nan
    close.loc[DAYS[-1], NAMES[0]] = 20.0
    for name in NAMES:
        if close[name].notna().iloc[-4:].any():  # else its bars would merely end
            close.loc[DAYS[-1], name] = close[name].ffill().iloc[-1]
    scores = pd.DataFrame(random.normal(size=close.shape), DAYS, NAMES).rolling(5, min_periods=1).sum()
    return (close, volume), scores.where(close.notna() & (random.random(close.shape) > 0.05))


def market_limits() -> pd.DataFrame:
    """The rule, written down once more: the main boards' 9.5%, 19.5% for STAR and, since the reform, ChiNext."""
    limit = pd.DataFrame({name: [BOARDS[name[:5]]] * len(DAYS) for name in NAMES}, DAYS)
    return limit.mask(np.outer(DAYS < REFORM, [name.startswith("SZ300") for name in NAMES]), 0.095)


@pytest.mark.parametrize(
    ("seed", "changes"),
    [
        (1, {}),
        (2, {"limit_threshold": 0.095, "delisting_return": -1.0}),
        (3, {"limit_threshold": None, "delisting_return": 0.0}),
        (4, {"topk": 3, "n_drop": 3}),
    ],
)
def test_the_backtest_is_the_account_kept_by_hand(seed: int, changes: dict[str, Any], tmp_path: Path) -> None:
    """Returns, costs and turnover of every day, with limits, suspensions, costs and delistings, to 1e-12."""
    sizes = PortfolioSettings(**({"topk": 5, "n_drop": 2, "account": 1e5, "min_cost": 5.0} | changes))
    market, scores = wild_market(seed)
    threshold = sizes.limit_threshold
    limit = market_limits()
    if threshold != "market":
        limit = limit * 0 + (np.inf if threshold is None else threshold)
    found = backtested(tmp_path, market, scores, sizes)
    expected = brute_force(*market, scores, limit, sizes)
    np.testing.assert_allclose(found[expected.columns], expected, rtol=0, atol=1e-12)
    assert list(found.index) == list(expected.index)
    unlimited = brute_force(*market, scores, limit * np.inf, sizes)
    assert bool(np.abs(unlimited - expected).max().max() > 1e-3) is (threshold is not None)


def calm_market() -> Frames:
    """Nothing moves, everything trades."""
    return pd.DataFrame(20.0, DAYS, NAMES), pd.DataFrame(1e6, DAYS, NAMES)


def constant_scores(*best: str) -> pd.DataFrame:
    """The same order of names every day, `best` first."""
    order = [*best, *(name for name in NAMES if name not in best)]
    return pd.DataFrame({name: -float(order.index(name)) for name in NAMES}, DAYS)


@pytest.mark.parametrize(("limit", "bought"), [(0.095, 2), (0.13, 1), (None, 1), ("market", 2)])
def test_a_name_up_an_eighth_is_not_bought_at_its_limit(limit: Any, bought: int, tmp_path: Path) -> None:
    """Up 12.5% on the first day on which it could be bought: it is bought the day after, unless the limit is wider."""
    close, volume = calm_market()
    close.loc[DAYS[1] :, NAMES[0]] *= 1.125
    sizes = PortfolioSettings(topk=1, n_drop=1, limit_threshold=limit, **FREE)
    daily = backtested(tmp_path, (close, volume), constant_scores(NAMES[0]), sizes)
    assert daily["turnover"][daily["turnover"] > 0].index.tolist() == [DAYS[bought]]


@pytest.mark.parametrize(("move", "sold"), [(0.875, 11), (1.125, 10)])
def test_a_limit_stops_one_side_only(move: float, sold: int, tmp_path: Path) -> None:
    """Who holds a name can sell it at the upper limit, not at the lower one; then it is sold the day after."""
    close, volume = calm_market()
    close.loc[DAYS[10] :, NAMES[0]] *= move
    scores = constant_scores(NAMES[0])
    scores.loc[DAYS[9] :, NAMES[0]] = -100.0
    daily = backtested(tmp_path, (close, volume), scores, PortfolioSettings(topk=1, n_drop=1, **FREE))
    traded = daily["turnover"][daily["turnover"] > 0]
    assert traded.index[0] == DAYS[1] and traded.loc[DAYS[sold]] >= 0.95 * (1 + 0.95 * (move - 1))


def test_a_bar_without_volume_is_no_trade(tmp_path: Path) -> None:
    """A suspended name, a flat bar with volume 0, is bought when it trades again."""
    close, volume = calm_market()
    volume.loc[DAYS[:10], NAMES[0]] = 0.0
    daily = backtested(
        tmp_path, (close, volume), constant_scores(NAMES[0]), PortfolioSettings(topk=1, n_drop=1, **FREE)
    )
    assert daily["turnover"][daily["turnover"] > 0].index.tolist() == [DAYS[10]]


@pytest.mark.parametrize("paid", [-0.3, -1.0, 0.0, 0.25])
def test_a_delisted_name_is_paid_out_and_replaced_the_day_after(paid: float, tmp_path: Path) -> None:
    """Its last close changes by the delisting return, and its place is taken the same day, also when nothing is paid,
    and also while others without a score wait to be sold."""
    close, volume = calm_market()
    close.loc[DAYS[20] :, NAMES[0]] = np.nan
    scores = constant_scores(*NAMES[:3])
    scores.loc[DAYS[18] :, NAMES[:3]] = np.nan
    volume.loc[DAYS[18] :, NAMES[1:3]] = 0.0
    sizes = PortfolioSettings(topk=4, n_drop=1, delisting_return=paid, **FREE)
    daily = backtested(tmp_path, (close, volume), scores, sizes)
    held = 0.95 / 4
    assert daily.loc[DAYS[20], "return"] == pytest.approx(held * paid, abs=1e-12)
    # The day before, the place of a name that was named for sale, and could not be sold, took 95% of the cash.
    cash = 0.05 * 0.05 + held * (1 + paid)
    assert daily.loc[DAYS[20], "turnover"] == pytest.approx(0.95 * cash, abs=1e-12)
    assert (daily["return"].drop(DAYS[20]).abs() < 1e-12).all()
