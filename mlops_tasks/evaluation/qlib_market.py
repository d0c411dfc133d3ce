"""The market that Qlib's backtest trades in: price limits by instrument and day, suspensions, delistings.

It imports Qlib, so it is imported only where a backtest runs.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from qlib.backtest.exchange import Exchange
from qlib.contrib.strategy import TopkDropoutStrategy

from mlops_tasks.columns import CLOSE
from mlops_tasks.config import PortfolioSettings
from mlops_tasks.data.exchanges.price_limits import Limits


class LimitedExchange(Exchange):
    """Qlib's exchange at the close, with a price limit for each instrument and day.

    Nothing is bought that has risen by its limit or more, and nothing sold that has fallen by its limit or more.
    Nothing is traded on a day without a bar or with a bar of volume 0. An unknown move or volume (NaN) prevents no
    trade.
    """

    def __init__(
        self, codes: list[str], span: tuple[pd.Timestamp, pd.Timestamp], portfolio: PortfolioSettings, limits: Limits
    ) -> None:
        self._limits = limits
        super().__init__(
            start_time=span[0],
            end_time=span[1],
            codes=codes,
            deal_price=CLOSE,
            open_cost=portfolio.open_cost_bps / 1e4,
            close_cost=portfolio.close_cost_bps / 1e4,
            min_cost=portfolio.min_cost,
            # None would mean Qlib's default for the region. The limits are set by `_update_limit` below.
            limit_threshold=math.inf,
            trade_unit=None,
        )

    def _update_limit(self, limit_threshold: Any) -> None:
        quote = self.quote_df
        idle = (quote["$close"].isna() | (quote["$volume"] == 0)).to_numpy()
        change, limit = quote["$change"].to_numpy(np.float64), self._limits(quote.index)
        quote["limit_buy"] = idle | (change >= limit)
        quote["limit_sell"] = idle | (change <= -limit)


class SettlingStrategy(TopkDropoutStrategy):
    """Qlib's top-k dropout. What it holds of a delisted instrument is paid out before it trades.

    Parameters
    ----------
    portfolio
        Its `delisting_return` is the return from the last close to the payment; -1: nothing is paid.
    last_days
        The day of each delisted instrument's last bar.
    """

    def __init__(self, signal: pd.Series, portfolio: PortfolioSettings, last_days: Mapping[str, pd.Timestamp]) -> None:
        super().__init__(signal=signal, topk=portfolio.topk, n_drop=portfolio.n_drop, forbid_all_trade_at_limit=False)
        self._last_days = last_days
        self._paid = 1.0 + portfolio.delisting_return

    def generate_trade_decision(self, execute_result: Any = None) -> Any:
        """Settle, then decide as Qlib does."""
        today = self.trade_calendar.get_step_time()[0]
        # Qlib's position has no method for a payment without a trade, so its dictionary is changed directly.
        held = self.trade_position.position
        for name in sorted(self.trade_position.get_stock_list()):
            if name in self._last_days and self._last_days[name] < today:
                gone = held.pop(name)
                held["cash"] += gone["amount"] * gone["price"] * self._paid
        return super().generate_trade_decision(execute_result)
