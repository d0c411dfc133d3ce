"""A-shares through akshare: bars from Eastmoney, adjustment factors from Sina."""

import json
import re
from typing import Any

import pandas as pd

from mlops_tasks.columns import CLOSE, DATETIME, FACTOR, HIGH, LOW, OPEN, VOLUME
from mlops_tasks.data.sources.download import Pace, TransientError, UnavailableError, check_answer
from mlops_tasks.data.sources.vendor import VendorBars, a_share, factor_on

SHARES_PER_LOT = 100

_SHARE = re.compile(r"SH6\d{5}|SZ(?!399)[03]\d{5}|BJ\d{6}")
_FACTOR_FILE = "/hfq.js"
_FIELDS = {"开盘": OPEN, "最高": HIGH, "最低": LOW, "收盘": CLOSE}
_DAY, _LOTS, _TURNOVER = "日期", "成交量", "成交额"


class AkshareSource(VendorBars):
    """Daily bars of A-shares.

    Prices, and volume in lots of 100 shares, are Eastmoney's unadjusted ones (`stock_zh_a_hist`). Eastmoney's own
    back-adjusted prices are not used: they add dividends to the price, so their ratio to the raw price moves every day
    and can be negative. The factor is Sina's cumulative one (`stock_zh_a_daily`, `hfq-factor`): 1 at the listing, a
    step on each ex-day, and history does not change when a new dividend comes. Suspended days have no bar.
    """

    package = "akshare"

    def open(self, pace: Pace) -> None:
        from akshare.stock import stock_zh_a_sina
        from akshare.stock_feature import stock_hist_em

        self._prices, self._factors = stock_hist_em.stock_zh_a_hist, stock_zh_a_sina.stock_zh_a_daily
        session = _open_session(pace, self.limits.timeout_s)
        for module in (stock_hist_em, stock_zh_a_sina):
            module.requests = session  # both ask through `requests.get`, some without a time limit

    def fetch(self, instrument: str) -> pd.DataFrame:
        _, code = a_share(instrument)
        if not _SHARE.fullmatch(instrument):
            raise UnavailableError(f"{instrument}: akshare's daily bars are those of A-shares only, not of indices")
        days = {"start_date": f"{self.spec.start:%Y%m%d}", "end_date": f"{self.end:%Y%m%d}"}
        table = self._prices(symbol=code, period="daily", adjust="", **days)
        if table.empty:
            raise UnavailableError(f"Eastmoney has no bars of {instrument} from {self.spec.start} to {self.end}")
        steps = self._factors(symbol=instrument.lower(), adjust="hfq-factor")
        when = pd.to_datetime(table[_DAY])
        return pd.DataFrame(
            {
                DATETIME: when,
                **{ours: table[theirs] for theirs, ours in _FIELDS.items()},
                VOLUME: table[_LOTS] * _shares_per_unit(table),
                FACTOR: factor_on(when, steps["date"], steps["hfq_factor"].astype(float)),
            }
        )


def _shares_per_unit(table: pd.DataFrame) -> int:
    """Shares in a unit of volume: a lot, or 1 where the turnover says that volume is in shares already."""
    per_unit = (table[_TURNOVER] / (table[_LOTS] * table["收盘"])).where(table[_LOTS] > 0).median()
    return 1 if per_unit < SHARES_PER_LOT**0.5 else SHARES_PER_LOT


def _open_session(pace: Pace, timeout_s: float) -> Any:
    """A stand-in for the module `requests`: paced, with a time limit, and with errors that say whether a retry may
    help."""
    from requests import Session

    class PacedSession(Session):
        def request(self, method: str, url: str | bytes, *args: Any, **options: Any) -> Any:
            pace.wait()
            answer = super().request(method, url, *args, **{**options, "timeout": timeout_s})
            check_answer(answer.status_code, answer.reason, answer.headers.get("Retry-After"))
            if answer.url.endswith(_FACTOR_FILE):
                _check_literal(answer.text)
            return answer

    return PacedSession()


def _check_literal(script: str) -> None:
    """akshare evaluates what Sina assigns to a variable; here it must be JSON, so no code is ever run."""
    _, _, assigned = script.partition("=")
    try:
        json.loads(assigned.split("\n")[0])
    except ValueError:
        raise TransientError("Sina's factors are not JSON") from None
