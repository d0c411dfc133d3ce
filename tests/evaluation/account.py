"""A backtest that can be read at one go: top-k dropout at the close, one dictionary of shares, one number of cash."""

from itertools import pairwise

import pandas as pd

from mlops_tasks.config import PortfolioSettings

RISK_DEGREE = 0.95
"""Qlib's share of the cash that buys."""


def brute_force(
    close: pd.DataFrame,
    volume: pd.DataFrame,
    scores: pd.DataFrame,
    limit: pd.DataFrame,
    sizes: PortfolioSettings,
) -> pd.DataFrame:
    """By day: return (before costs), cost and turnover, as shares of the account at the day's start.

    All frames are days x names. `close` is NaN where there is no bar; a name whose column ends in NaN is delisted.
    `scores` of a day are traded on the next one, NaN where a name has none; the first and last row are not traded.
    """
    days = close.index
    change = (close.ffill() / close.ffill().shift() - 1).astype("float32").astype(float)
    buy_rate, sell_rate = sizes.open_cost_bps / 1e4, sizes.close_cost_bps / 1e4
    cash, shares, price = sizes.account, {}, {}
    before, rows = sizes.account, []
    for yesterday, day in pairwise(days[:-1]):
        for name in list(shares):
            if close.loc[day:, name].isna().all():
                cash += shares.pop(name) * price[name] * (1 + sizes.delisting_return)
        cost = traded = 0.0
        score = scores.loc[yesterday].dropna()
        if len(score):
            # The highest score first; who has none comes last, in the order of names.
            def rank(name: str, score: pd.Series = score) -> tuple[float, str]:
                return (-score.get(name, -float("inf")), name)

            outside = sorted((name for name in score.index if name not in shares), key=rank)
            today = outside[: sizes.n_drop + sizes.topk - len(shares)]
            bottom = sorted([*shares, *today], key=rank)[-sizes.n_drop :]
            sell = [name for name in shares if name in bottom]
            buy = today[: len(sell) + sizes.topk - len(shares)]
            open_ = [name for name in close if close.loc[day, name] > 0 and volume.loc[day, name] > 0]
            for name in sell:
                if name in open_ and not change.loc[day, name] <= -limit.loc[day, name]:
                    value = shares.pop(name) * close.loc[day, name]
                    paid = max(value * sell_rate, sizes.min_cost)
                    cash, cost, traded = cash + value - paid, cost + paid, traded + value
            each = cash * RISK_DEGREE / len(buy) if buy else 0.0
            for name in buy:
                if name in open_ and not change.loc[day, name] >= limit.loc[day, name]:
                    shares[name] = each / close.loc[day, name]
                    paid = max(each * buy_rate, sizes.min_cost)
                    cash, cost, traded = cash - each - paid, cost + paid, traded + each
        price |= {name: close.loc[day, name] for name in shares if close.loc[day, name] > 0}
        account = cash + sum(amount * price[name] for name, amount in shares.items())
        rows.append(((account - before + cost) / before, cost / before, traded / before))
        before = account
    return pd.DataFrame(rows, days[1:-1], ["return", "cost", "turnover"])
