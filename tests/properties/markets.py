"""Markets that hypothesis makes: listings, delistings, suspensions, splits, fields that come and go."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from hypothesis import strategies as st

from mlops_tasks.columns import BAR_FIELDS, DATETIME, FACTOR, INSTRUMENT, VOLUME, VWAP
from mlops_tasks.config import Settings
from mlops_tasks.data.vintages import Vintage, canonical_bars, write_vintage

DAYS = pd.bdate_range("2019-12-16", periods=25)
NAMES = ["AAA", "brk.b", "^GSPC#2", "SH600000", "NA", "NAN", "CON", "nul", "TRUE", "0005"]
"""Names that files, lists and Qlib are known to stumble over among them."""


@st.composite
def markets(draw: st.DrawFn, min_days: int = 1) -> pd.DataFrame:
    """Canonical bars of instruments with `min_days` bars at least: listed late, delisted early, suspended, never gone.

    There is a split, days without vwap before one with, and unknown volumes.
    """
    days = st.sets(st.integers(0, len(DAYS) - 1), min_size=min_days).map(sorted)
    present = draw(st.dictionaries(st.sampled_from(NAMES), days, min_size=1, max_size=6))
    split_day, vwap_day = draw(st.integers(0, 25)), draw(st.sampled_from([0, 0, 8, 20, 25, 25]))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    rows = [(name, day) for name, days in present.items() for day in days]
    frame = pd.DataFrame(rows, columns=[INSTRUMENT, "day"])
    price = rng.uniform(5, 500, len(frame))
    fields: dict[str, Any] = {
        name: price * scale for name, scale in {"open": 1.0, "high": 1.1, "low": 0.9, "close": 1.01}.items()
    }
    fields[VOLUME] = np.where(rng.random(len(frame)) < 0.1, np.nan, rng.integers(1, 10**9, len(frame)))
    fields[VWAP] = np.where(frame["day"] < vwap_day, np.nan, price * 1.005)
    fields[FACTOR] = np.where(frame["day"] < split_day, 1.0, 1 / 3)
    return canonical_bars(frame.assign(**{DATETIME: DAYS[frame["day"]]}, **fields))


def next_float(value: float) -> float:
    """The least change there is."""
    return float(np.nextafter(value, np.inf))


def restated(bars: pd.DataFrame, row: int, field: str, change: Callable[[float], float] = next_float) -> pd.DataFrame:
    """The same bars with one cell changed, or made known where it was not."""
    changed = bars.copy()
    old = bars.loc[row, field]
    changed.loc[row, field] = 1.0 if np.isnan(old) else change(old)
    return changed


def written(settings: Settings, bars: pd.DataFrame, universe: pd.DataFrame | None = None) -> Vintage:
    """The vintage of canonical bars."""
    return write_vintage(settings, bars, universe, {"source": "test", "received": len(bars), "quarantined": 0})


cells = st.tuples(st.integers(0, 10**6), st.sampled_from(BAR_FIELDS))
"""A row (modulo the number of rows) and a field."""
