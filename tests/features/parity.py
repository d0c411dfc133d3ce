"""Values by the engine, by Qlib and by the plain reference, and which of the first two the third sides with."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from mlops_tasks.columns import BAR_FIELDS, CLOSE, FACTOR, HIGH, INSTRUMENT, LOW, VWAP
from mlops_tasks.config import DataSettings, Settings
from mlops_tasks.data.qlib.store import init_qlib
from mlops_tasks.data.sources import read_source
from mlops_tasks.data.vintages import Vintage, canonical_bars
from mlops_tasks.features.engine import evaluate, plan_computation
from mlops_tasks.features.expressions import parse
from mlops_tasks.features.panel import Panel, build_panel
from tests.benchmarks.panels import PANELS
from tests.features.brute_force import Reference
from tests.features.market import awkward_bars, make_vintage

RELATIVE = 1e-4
FLOAT32 = float(np.finfo(np.float32).eps)
NOTHING = 1e-12
"""Below this a value is rounding of zero."""


@dataclass(frozen=True)
class Market:
    """Bars, in a vintage and in Qlib's store."""

    settings: Settings
    vintage: Vintage

    @cached_property
    def bars(self) -> pd.DataFrame:
        """Adjusted bars."""
        return self.vintage.adjusted_bars()

    @cached_property
    def calendar(self) -> pd.DatetimeIndex:
        """Its trading days."""
        return self.vintage.calendar()

    def panel(self, instruments: Sequence[str] | None = None) -> Panel:
        """All fields of these instruments, by default of all."""
        bars = self.bars if instruments is None else self.bars[self.bars[INSTRUMENT].isin(instruments)]
        return build_panel(bars, self.calendar, [name for name in BAR_FIELDS if name != FACTOR])

    def by_engine(self, expressions: Mapping[str, str], instruments: Sequence[str] | None = None) -> pd.DataFrame:
        """The engine's values on the rows that have a bar, by datetime, then instrument."""
        panel, plan = (
            self.panel(instruments),
            plan_computation({name: parse(text) for name, text in expressions.items()}),
        )
        order = panel.bar_order()
        return pd.DataFrame(evaluate(plan, panel, panel.positions(order)).T, _index(panel), list(expressions))

    def by_qlib(self, expressions: Mapping[str, str], instruments: Sequence[str] | None = None) -> pd.DataFrame:
        """Qlib's values on the same rows."""
        init_qlib(self.settings, self.vintage.data_version)
        from qlib.data import D

        names = D.instruments("all") if instruments is None else list(instruments)
        frame = D.features(names, list(expressions.values()), freq="day")
        frame.columns = list(expressions)
        return frame.swaplevel().reindex(_index(self.panel(instruments)))

    def judge(self, ours: pd.DataFrame, theirs: pd.DataFrame, expressions: Mapping[str, str]) -> pd.DataFrame:
        """The values that differ, beside the reference's: name, datetime, instrument, ours, theirs, true."""
        reference = Reference(self.panel())
        found = []
        for name, column in differs(ours, theirs).items():
            node = parse(expressions[name])
            for place in np.flatnonzero(column):
                day, instrument = ours.index[place]
                at = self.calendar.get_loc(day) - reference.first_row[instrument]
                true = reference.values(node, instrument, at, at + 1)[0]
                found.append((name, day, instrument, ours[name].iat[place], theirs[name].iat[place], true))
        columns = ["name", "datetime", "instrument", "ours", "theirs", "true"]
        return pd.DataFrame(found, columns=columns).astype({name: float for name in columns[3:]})


def _index(panel: Panel) -> pd.MultiIndex:
    order = panel.bar_order()
    return pd.MultiIndex.from_arrays(
        [panel.calendar[panel.rows[order]], panel.instruments[panel.codes[order]]], names=["datetime", "instrument"]
    )


def market_of(home: Path, bars: pd.DataFrame) -> Market:
    """Bars, in a vintage below `home`; Qlib's store is written when it is first read."""
    return Market(Settings(home=home), make_vintage(home, bars))


def real_bars(home: Path, panel: str, instruments: int) -> pd.DataFrame:
    """Evenly spread instruments of a real panel (0: all), or awkward bars where the panel is not at hand.

    The panels have no vwap; the typical price stands for it, so that the columns that read it have values.
    """
    path = PANELS / panel / "panel.parquet"
    if not is_at_hand(panel):
        return awkward_bars(seed=7, instruments=instruments or 60, days=900)
    bars = canonical_bars(read_source(Settings(home=home, data=DataSettings(source=str(path))), str(path), None).frame)
    names = bars[INSTRUMENT].unique()
    kept = names[:: len(names) // instruments][:instruments] if instruments else names
    bars[VWAP] = (bars[HIGH] + bars[LOW] + bars[CLOSE]) / 3
    return bars[bars[INSTRUMENT].isin(kept)].reset_index(drop=True)


def is_at_hand(panel: str) -> bool:
    """Whether `real_bars` of a panel are real."""
    return (PANELS / panel / "panel.parquet").is_file()


def differs(ours: pd.DataFrame, theirs: pd.DataFrame, floor: float = NOTHING) -> pd.DataFrame:
    """Where two frames are more than 1e-4 apart, relative to the second, and more than `floor`; or one only is NaN."""
    near = (ours - theirs).abs() <= np.maximum(RELATIVE * theirs.abs(), floor)
    return ~(near | (ours == theirs) | (ours.isna() & theirs.isna()))


def wrong(judged: pd.DataFrame) -> pd.DataFrame:
    """Of the values that differ those where the reference does not side with the engine.

    It does where both are NaN, or where the engine's is the reference's up to rounding and Qlib's is further away.
    """
    ours, true = judged["ours"], judged["true"]
    right = (ours == true) | ((ours - true).abs() <= 1e-5 * true.abs() + NOTHING)
    closer = ~((judged["theirs"] - true).abs() < (ours - true).abs())
    return judged[~((right & closer) | (ours.isna() & true.isna()))]
