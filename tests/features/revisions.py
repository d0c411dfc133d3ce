"""What may happen to the bars of a market from one vintage to the next."""

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd
from hypothesis import strategies as st

from mlops_tasks.columns import CLOSE, DATETIME, FACTOR, HIGH, INSTRUMENT, LOW, OPEN, VOLUME, VWAP
from mlops_tasks.data.vintages import canonical_bars
from tests.features.market import awkward_bars

Market = pd.DataFrame
Draw = Callable[[st.SearchStrategy], object]

HISTORY = awkward_bars(seed=11, instruments=5, days=130, start="2019-09-02")
"""All that will ever be known, over a turn of the year; I00 has a bar on each day but its gaps."""

DAYS = np.unique(HISTORY[DATETIME])


def young_market(draw: Draw) -> Market:
    """A first vintage: some instruments, up to some day."""
    names = ["I00", *draw(st.lists(st.sampled_from(["I01", "I02", "I03", "I04"]), min_size=1, max_size=3, unique=True))]
    last = DAYS[draw(st.integers(70, 105))]
    return canonical_bars(HISTORY[HISTORY[INSTRUMENT].isin(names) & (HISTORY[DATETIME] <= last)])


def append_days(bars: Market, draw: Draw) -> Market:
    """The next trading days of the instruments that are there."""
    later = HISTORY[(HISTORY[DATETIME] > bars[DATETIME].max()) & HISTORY[INSTRUMENT].isin(bars[INSTRUMENT].unique())]
    days = np.unique(later[DATETIME])[: draw(st.integers(1, 3))]
    return pd.concat([bars, later[later[DATETIME].isin(days)]])


def add_instrument(bars: Market, draw: Draw) -> Market:
    """An instrument that was not there, with its whole history or from a late first day on."""
    missing = sorted(set(HISTORY[INSTRUMENT]) - set(bars[INSTRUMENT]))
    if not missing:
        return bars
    first = DAYS[draw(st.sampled_from([0, 60]))]
    new = HISTORY[(HISTORY[INSTRUMENT] == draw(st.sampled_from(missing))) & (HISTORY[DATETIME] >= first)]
    return pd.concat([bars, new[new[DATETIME] <= bars[DATETIME].max()]])


def list_instruments(bars: Market, draw: Draw) -> Market:
    """The next trading day, on which all that are still missing have their first bar."""
    later = HISTORY[HISTORY[DATETIME] > bars[DATETIME].max()]
    return pd.concat([bars, later[later[DATETIME] == later[DATETIME].min()]])


def restate_field(bars: Market, draw: Draw) -> Market:
    """One value; the smallest restatement is less than float32 can tell."""
    row, field = draw(st.integers(0, len(bars) - 1)), draw(st.sampled_from([OPEN, HIGH, LOW, CLOSE, VOLUME, VWAP]))
    changed = bars.copy()
    changed.loc[row, field] *= draw(st.sampled_from([1.01, 1 + 1e-12]))
    return changed


def restate_bars(bars: Market, draw: Draw) -> Market:
    """All prices of a few bars of one instrument, and a volume that is not known any more."""
    row, count = draw(st.integers(0, len(bars) - 1)), draw(st.integers(1, 4))
    rows = bars.index[(bars[INSTRUMENT] == bars[INSTRUMENT][row]) & (bars.index >= row)][:count]
    changed = bars.copy()
    changed.loc[rows, [OPEN, HIGH, LOW, CLOSE, VWAP]] *= 0.97
    changed.loc[rows[0], VOLUME] = np.nan
    return changed


def change_factor(bars: Market, draw: Draw) -> Market:
    """An instrument's adjustment, from some day on or up to it."""
    row = draw(st.integers(0, len(bars) - 1))
    own = bars[INSTRUMENT] == bars[INSTRUMENT][row]
    concerned = own & (bars.index >= row if draw(st.booleans()) else bars.index <= row)
    return bars.assign(**{FACTOR: bars[FACTOR].where(~concerned, bars[FACTOR] * 2)})


def delist(bars: Market, draw: Draw) -> Market:
    """The newest rows of an instrument."""
    name, count = draw(st.sampled_from(sorted(bars[INSTRUMENT].unique())[1:])), draw(st.integers(1, 30))
    return bars.drop(index=bars.index[bars[INSTRUMENT] == name][-count:])


def remove_bar(bars: Market, draw: Draw) -> Market:
    """Any one bar, an instrument's first and last ones among them."""
    name = draw(st.sampled_from(sorted(bars[INSTRUMENT].unique())))
    own = bars.index[bars[INSTRUMENT] == name]
    return bars.drop(
        index=own[draw(st.sampled_from([0, 1, len(own) // 2, len(own) - 1]) | st.integers(0, len(own) - 1))]
    )


def remove_instrument(bars: Market, draw: Draw) -> Market:
    """An instrument, unless it is the last but one."""
    names = sorted(bars[INSTRUMENT].unique())
    return bars[bars[INSTRUMENT] != draw(st.sampled_from(names[1:]))] if len(names) > 2 else bars


def add_calendar_day(bars: Market, draw: Draw) -> Market:
    """A Saturday on which one instrument traded, inside the market's days or right after them."""
    fridays = bars[bars[DATETIME].dt.day_of_week == 4]
    row = fridays.iloc[[draw(st.integers(0, len(fridays) - 1))]]
    return pd.concat([bars, row.assign(**{DATETIME: row[DATETIME] + pd.Timedelta(1, "D")})]).drop_duplicates(
        [DATETIME, INSTRUMENT]
    )


def remove_calendar_day(bars: Market, draw: Draw) -> Market:
    """A day of the whole market."""
    days = np.unique(bars[DATETIME])
    return bars[bars[DATETIME] != days[draw(st.integers(0, len(days) - 1))]]


def backfill(bars: Market, draw: Draw) -> Market:
    """Older bars of an instrument, on trading days of the market or, for the first ones, before all of them."""
    name, gap = draw(st.sampled_from(sorted(bars[INSTRUMENT].unique()))), draw(st.integers(1, 12))
    first = bars[bars[INSTRUMENT] == name].iloc[[0]]
    day = pd.bdate_range(end=first[DATETIME].iloc[0], periods=gap + 1)[0]
    return pd.concat([first.assign(**{DATETIME: day}), bars])


REVISIONS: Mapping[str, Callable[[Market, Draw], Market]] = {
    each.__name__: each
    for each in (
        append_days,
        add_instrument,
        list_instruments,
        restate_field,
        restate_bars,
        change_factor,
        delist,
        remove_bar,
        remove_instrument,
        add_calendar_day,
        remove_calendar_day,
        backfill,
    )
}


def revise(bars: Market, name: str, draw: Draw) -> Market:
    """The market after one of the revisions."""
    return canonical_bars(REVISIONS[name](bars, draw))
