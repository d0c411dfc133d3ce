"""Price limits: what the exchanges' rules say of a code on a day."""

import numpy as np
import pandas as pd
import pytest

from mlops_tasks.config import Settings
from mlops_tasks.data.exchanges.calendars import sessions
from mlops_tasks.data.exchanges.price_limits import calendars_of, price_limits
from mlops_tasks.data.vintages import canonical_bars, write_vintage


@pytest.mark.parametrize(
    ("name", "day", "calendar", "limit"),
    [
        ("SH600000", "2015-06-01", "XSHG", 0.095),
        ("SZ000001", "2024-06-03", "XSHG", 0.095),
        ("000300.SZ", "2024-06-03", "XSHG", 0.095),
        ("SH688981", "2020-07-16", "XSHG", 0.195),
        ("689009.SS", "2024-06-03", "XSHG", 0.195),
        ("SZ300750", "2020-08-21", "XSHG", 0.095),
        ("SZ300750", "2020-08-24", "XSHG", 0.195),
        ("sz.301269", "2024-06-03", "XSHG", 0.195),
        ("SZ302132", "2025-06-03", "XSHG", 0.195),
        ("BJ430047", "2024-06-03", "XSHG", 0.295),
        ("920002", "2024-06-03", "XSHG", 0.295),
        ("A NAME", "2024-06-03", "XSHG", 0.095),
        ("AAPL", "2024-06-03", "XNYS", np.inf),
        ("SH688981", "2024-06-03", "XNYS", np.inf),
        ("BTC-USD", "2024-06-03", "24/7", np.inf),
    ],
)
def test_limits_are_the_boards(name: str, day: str, calendar: str, limit: float) -> None:
    """Main boards, STAR, ChiNext before and since its reform, Beijing; none elsewhere."""
    index = pd.MultiIndex.from_tuples([(name, pd.Timestamp(day))], names=["instrument", "datetime"])
    assert price_limits(index, {name: calendar}).tolist() == [limit]


def test_limits_keep_the_order_of_rows() -> None:
    """Whatever the order of levels and rows, each row has its own limit."""
    names, days = ["SZ300001", "AAPL", "SH600000"], pd.to_datetime(["2020-08-24", "2020-08-21"])
    index = pd.MultiIndex.from_product([days, names], names=["datetime", "instrument"])
    found = price_limits(index, {"SZ300001": "XSHG", "AAPL": "XNYS", "SH600000": "XSHG"})
    assert found.tolist() == [0.195, np.inf, 0.095, 0.095, np.inf, 0.095]


def test_a_vintage_says_where_its_instruments_trade(tmp_path) -> None:
    """`auto` tells New York's days from Shanghai's, a named calendar is that of all."""
    settings = Settings(home=tmp_path)
    days = {name: pd.DatetimeIndex(sessions(at, "2019-01-01", "2019-12-31")) for name, at in MARKETS.items()}
    rows = pd.concat([pd.DataFrame({"datetime": own, "instrument": name}) for name, own in days.items()])
    prices = dict.fromkeys(("open", "high", "low", "close", "vwap", "factor", "volume"), 1.0)
    vintage = write_vintage(settings, canonical_bars(rows.assign(**prices)), None, {})
    assert calendars_of(vintage.bars(fields=()), "auto") == MARKETS
    assert calendars_of(vintage.bars(fields=()), "XNYS") == dict.fromkeys(MARKETS, "XNYS")


MARKETS = {"AAPL": "XNYS", "SH600000": "XSHG"}
