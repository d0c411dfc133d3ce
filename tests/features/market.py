"""Small markets with everything that is awkward about bars."""

from pathlib import Path

import numpy as np
import pandas as pd

from mlops_tasks.columns import CLOSE, DATETIME, FACTOR, HIGH, INSTRUMENT, LOW, OPEN, VOLUME, VWAP
from mlops_tasks.config import Settings
from mlops_tasks.data.vintages import Vintage, canonical_bars, write_vintage


def awkward_bars(seed: int = 0, instruments: int = 8, days: int = 320, start: str = "2019-06-03") -> pd.DataFrame:
    """Raw bars with gaps, late listings, an early end, flat stretches, zero volume, ties and a split."""
    rng = np.random.default_rng(seed)
    calendar = pd.bdate_range(start, periods=days)
    frames = [_one(rng, number, calendar) for number in range(instruments)]
    return canonical_bars(pd.concat(frames, ignore_index=True))


def _one(rng: np.random.Generator, number: int, calendar: pd.DatetimeIndex) -> pd.DataFrame:
    days = len(calendar)
    close = 20 * np.exp(np.cumsum(rng.normal(0, 0.02, days))) * 10.0 ** rng.integers(-1, 3)
    opened = close * np.exp(rng.normal(0, 0.005, days))
    volume = rng.lognormal(13, 1, days).round()
    if number % 3 == 1:  # a coarse tick makes ties
        close, opened = close.round(0) + 1, opened.round(0) + 1
    flat = rng.integers(0, days - 80)
    if number % 3 == 2:  # a suspension as flat rows without volume
        close[flat : flat + 75] = opened[flat : flat + 75] = close[flat]
        volume[flat : flat + 75] = 0
    bars = pd.DataFrame(
        {
            DATETIME: calendar,
            INSTRUMENT: f"I{number:02d}",
            OPEN: opened,
            HIGH: np.maximum(opened, close) * (1 + rng.exponential(0.004, days) * (number % 3 != 2)),
            LOW: np.minimum(opened, close) * (1 - rng.exponential(0.004, days) * (number % 3 != 2)),
            CLOSE: close,
            VOLUME: volume,
            FACTOR: np.where(np.arange(days) < days // 2, 1.0, 2.0) if number == 3 else 1.0,
        }
    )
    bars[VWAP] = (bars[HIGH] + bars[LOW] + bars[CLOSE]) / 3
    kept = rng.random(days) > 0.02 * (number % 2)
    gap = rng.integers(0, days - 10)
    kept[gap : gap + 8] &= number % 2 == 0
    first = int(rng.integers(1, days // 2)) if number % 4 == 1 else 0
    last = int(rng.integers(days // 2, days - 1)) if number % 4 == 2 else days - 1
    return bars[kept & (np.arange(days) >= first) & (np.arange(days) <= last)]


def make_vintage(home: Path, bars: pd.DataFrame, universe: pd.DataFrame | None = None) -> Vintage:
    """A vintage of these bars below `home`."""
    return write_vintage(Settings(home=home), bars, universe, {})
