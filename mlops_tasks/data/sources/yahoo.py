"""Yahoo Finance through yfinance: prices as traded, volume in shares, factors re-based to the newest bar."""

import re
from typing import Any

import numpy as np
import pandas as pd

from mlops_tasks.columns import DATETIME, FACTOR, PRICES, VOLUME
from mlops_tasks.data.exchanges.calendars import ALWAYS
from mlops_tasks.data.sources.download import Pace, TransientError, UnavailableError, check_answer
from mlops_tasks.data.sources.vendor import A_SHARE, VendorBars

CHART = "/v8/finance/chart/"

CALENDARS = {
    "AX": "XASX",
    "DE": "XFRA",
    "HK": "XHKG",
    "KS": "XKRX",
    "L": "XLON",
    "PA": "XPAR",
    "SS": "XSHG",
    "SZ": "XSHG",
    "T": "XTKS",
    "TO": "XTSE",
    "TW": "XTAI",
}
"""Yahoo's exchange suffixes to calendars; without a suffix it is XNYS, with any other `calendar.schedule`."""

_SUFFIXES = {"SH": "SS", "SZ": "SZ", "BJ": "BJ"}
_SHARE_CLASS = re.compile(r"([A-Z]+)\.([ABC])")
_CRYPTO = re.compile(r".+-[A-Z]{3,4}")
_DIGITS = 7
"""Significant decimal digits of the float32 prices that Yahoo sends."""
_LEAST_FACTOR_STEP = 2e-5
"""Smaller changes of adjusted / close are rounding: the smallest dividends are some 1e-4 of the price."""


def yahoo_symbol(instrument: str) -> str:
    """Yahoo's spelling: BRK.B is BRK-B, SH600000 is 600000.SS; names with one of Yahoo's own suffixes stay."""
    if match := A_SHARE.fullmatch(instrument):
        return f"{match[2]}.{_SUFFIXES[match[1]]}"
    if match := _SHARE_CLASS.fullmatch(instrument):
        return f"{match[1]}-{match[2]}"
    return instrument


class YahooSource(VendorBars):
    """Daily bars of Yahoo Finance.

    Yahoo divides prices by later splits (and multiplies volume), and also gives a close from which dividends are
    removed. Splits are undone with Yahoo's split events, so prices and volume are those of the day. The factor is
    Yahoo's adjusted close / raw close: 1 at the newest bar, lower before dividends and splits. Each new dividend or
    split re-bases the whole history of factors, which a vintage diff shows as re-adjusted factors.

    A split on a day without a bar counts for the previous bar, as yfinance reports it.
    """

    package = "yfinance"

    def open(self, pace: Pace) -> None:
        import yfinance

        # Its own stores of cookies and time zones: below our home, not in a home folder that may not be writable.
        yfinance.set_tz_cache_location(str(self.settings.data_dir / "downloads" / ".yfinance"))
        yfinance.config.debug.hide_exceptions = False
        self._session = _open_session(pace, self.limits.timeout_s)

    def calendar_of(self, instrument: str) -> str:
        symbol = yahoo_symbol(instrument)
        if "." in symbol:
            return CALENDARS.get(symbol.rsplit(".")[-1], self.settings.calendar.schedule)
        return ALWAYS if _CRYPTO.fullmatch(symbol) else "XNYS"

    def fetch(self, instrument: str) -> pd.DataFrame:
        import yfinance
        from yfinance.exceptions import YFRateLimitError, YFTickerMissingError

        symbol = yahoo_symbol(instrument)
        ticker = yfinance.Ticker(symbol, session=self._session)
        try:
            # Up to now, beyond the last bar kept: a later split is already in Yahoo's prices.
            table = ticker.history(
                start=self.spec.start.isoformat(), interval="1d", auto_adjust=False, timeout=self.limits.timeout_s
            )
        except YFTickerMissingError as error:
            raise UnavailableError(f"Yahoo has no prices of {symbol} from {self.spec.start} on") from error
        except YFRateLimitError as error:
            raise TransientError(str(error)) from error
        return as_traded(table)


def as_traded(table: pd.DataFrame) -> pd.DataFrame:
    """Bars from yfinance's table (exchange's local midnights; Open to Close, Adj Close, Volume, Stock Splits).

    Prices are rounded to the seven digits that Yahoo's float32 numbers carry, and the factor is made constant where
    only rounding moves it, so that the same history has the same bits whichever splits it was divided by.
    """
    splits = table["Stock Splits"].where(table["Stock Splits"] > 0, 1.0).to_numpy()
    later = np.cumprod(splits[::-1])[::-1] / splits
    return pd.DataFrame(
        {
            DATETIME: table.index.tz_localize(None).normalize(),
            **{name: _significant(table[name.title()].to_numpy() * later) for name in PRICES},
            VOLUME: np.rint(table["Volume"].to_numpy() / later),
            FACTOR: _levels(table["Adj Close"] / table["Close"]) / later,
        }
    )


def _levels(ratio: pd.Series) -> Any:
    """(n,) the ratio with its rounding removed: the median between one jump and the next; NaN takes its
    neighbours' value."""
    known = ratio.ffill().bfill().to_numpy()
    jumps = np.abs(np.diff(known) / known[:-1]) > _LEAST_FACTOR_STEP
    level = np.concatenate([[0], np.cumsum(jumps)])
    return pd.Series(known).groupby(level).transform("median").to_numpy()


def _significant(values: Any) -> Any:
    """(n,) values rounded to `_DIGITS` significant decimal digits; zero and NaN stay."""
    with np.errstate(divide="ignore", invalid="ignore"):
        scale = 10.0 ** (_DIGITS - 1 - np.floor(np.log10(np.abs(values))))
    return np.where(np.isfinite(scale), np.rint(values * scale) / scale, values)


def _open_session(pace: Pace, timeout_s: float) -> Any:
    """A session of yfinance's kind, paced, with errors that say whether a retry may help."""
    from curl_cffi.requests import Session

    class PacedSession(Session):
        def request(self, method: str, url: str, **options: Any) -> Any:
            pace.wait()
            answer = super().request(method, url, **{**options, "timeout": timeout_s})
            if CHART in url:
                check_answer(answer.status_code, _description(answer), answer.headers.get("Retry-After"))
            return answer

    return PacedSession(impersonate="chrome")


def _description(answer: Any) -> str:
    """What Yahoo says is wrong; empty when nothing is."""
    try:
        error = answer.json()["chart"]["error"]
    except ValueError:
        if answer.ok:
            raise TransientError("the answer is not JSON") from None
        return "no reason given"
    except (KeyError, TypeError):
        return "no reason given"
    return str(error["description"]) if error else ""
