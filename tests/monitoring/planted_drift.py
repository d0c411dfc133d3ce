"""Quiet days and planted unit errors: how often the day's verdict is right."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from mlops_tasks.columns import DATETIME, INSTRUMENT
from mlops_tasks.config import DriftSettings, Settings
from mlops_tasks.data.vintages import canonical_bars, write_vintage
from mlops_tasks.features.store import FeatureStore
from mlops_tasks.monitoring.bands import Bands, reference_bands
from mlops_tasks.monitoring.summaries import MARGINAL, DailySummaries, daily_summaries

UNIT_ERROR = 100.0
SHARE = 0.2
HISTORY = 90
"""Days of bars that the longest window of the features and a window of the report need."""
PRICES = ("open", "high", "low", "close", "vwap")


@dataclass(frozen=True)
class Watch:
    """A market's features, and the bands of its first days.

    Attributes
    ----------
    frame
        Features, index (datetime, instrument), sorted.
    later
        Summaries of all days, by the norms of the training segment.
    first
        Place of the first day after the training segment.
    """

    frame: pd.DataFrame
    bands: Bands
    later: DailySummaries
    first: int
    span: int

    @classmethod
    def of(cls, frame: pd.DataFrame, train_days: int, limits: DriftSettings) -> "Watch":
        """Bands of the first days, of all rows."""
        days = pd.DatetimeIndex(frame.index.get_level_values(DATETIME).unique())
        reference = daily_summaries(frame.loc[: days[train_days - 1]])
        bands = reference_bands(reference, (1, limits.current_days), limits.error_rate)
        return cls(frame, bands, daily_summaries(frame, bands.norms), train_days, limits.current_days)

    def days(self, count: int) -> list[int]:
        """Places of so many days after the training segment, at equal distances, whose windows lie behind it."""
        places = np.arange(self.first + self.span - 1, len(self.later.days))
        return list(places[np.unique(np.linspace(0, len(places) - 1, count).round().astype(int))])

    def window(self, place: int) -> DailySummaries:
        """Summaries of the window that ends on a day."""
        part = slice(place - self.span + 1, place + 1)
        return replace(self.later, days=self.later.days[part], values=self.later.values[part])

    def farthest(self, places: list[int]) -> np.ndarray:
        """The day's largest exceedance; below 1 is quiet."""
        return self.farthest_columns(places)["exceedance"].to_numpy()

    def farthest_columns(self, places: list[int]) -> pd.DataFrame:
        """Of each day the farthest column's exceedance, statistic and days."""
        tables = [self.bands.exceedance(self.window(place)) for place in places]
        return pd.DataFrame([table.loc[table["exceedance"].idxmax()] for table in tables], index=places)

    def rows(self, place: int) -> pd.DataFrame:
        """Rows of the window that ends on a day."""
        days = self.later.days
        return self.frame.loc[days[place - self.span + 1] : days[place]]


def column_errors(watch: Watch, place: int, days: int, rng: np.random.Generator) -> pd.Series:
    """Each column alone in a unit error, in a fifth of the rows of the last days: its own exceedance, by column.

    By the column's own statistics: those of how it goes with the others are left as they were, since the errors of all
    columns are in the same rows here."""
    rows = watch.rows(place)
    hit = rng.random(len(rows)) < SHARE
    hit &= np.asarray(rows.index.get_level_values(DATETIME) > watch.later.days[place - days])
    changed = daily_summaries(rows.mul(np.where(hit, UNIT_ERROR, 1.0), axis=0), watch.bands.norms)
    changed.values[:, :, MARGINAL:] = watch.window(place).values[:, :, MARGINAL:]
    return watch.bands.exceedance(changed)["exceedance"]


def wrong_bars(
    watch: Watch, place: int, bars: pd.DataFrame, fields: tuple[str, ...], rng: np.random.Generator
) -> pd.DataFrame:
    """The last bars of a fifth of the instruments of a day, in a unit error on that day."""
    day, since = watch.later.days[place], watch.later.days[max(0, place - HISTORY)]
    names = pd.Index(watch.frame.loc[day].index.astype(str))
    chosen = names[np.sort(rng.permutation(len(names))[: round(SHARE * len(names))])]
    found = bars[bars[INSTRUMENT].isin(chosen) & bars[DATETIME].between(since, day)].copy()
    found[list(fields)] = found[list(fields)].astype(np.float64)
    found.loc[found[DATETIME] == day, list(fields)] *= UNIT_ERROR
    return found


def bar_errors(watch: Watch, place: int, wrong: pd.DataFrame, home: Path) -> pd.DataFrame:
    """What the day's verdict is made of when its features come from wrong bars."""
    changed, day = watch.rows(place).copy(), watch.later.days[place]
    features = features_of_bars(wrong, home).loc[day, list(watch.bands.columns)]
    names = changed.loc[day].index
    rows = np.flatnonzero(changed.index.get_level_values(DATETIME) == day)
    hit = names.astype(str).isin(features.index.astype(str))
    features.index = features.index.astype(str)
    changed.iloc[rows[hit]] = features.loc[names[hit].astype(str)].to_numpy()
    return watch.bands.exceedance(daily_summaries(changed, watch.bands.norms))


def features_of_bars(bars: pd.DataFrame, home: Path) -> pd.DataFrame:
    """Alpha158 of bars, all instruments."""
    settings = Settings(home=home)
    vintage = write_vintage(settings, canonical_bars(bars), None, {"source": "planted", "quarantined": 0})
    store = FeatureStore(settings)
    return store.load(store.compute(vintage).feature_version)


def stationary_columns(seed: int, days: int, instruments: int) -> pd.DataFrame:
    """A market without news: twelve columns with common moves and volatility that come and go, one of them lognormal,
    one with ties, one with gaps."""
    rng = np.random.default_rng(seed)
    common, volatility = np.zeros((days, 12)), np.zeros(days)
    for day in range(1, days):
        common[day] = 0.9 * common[day - 1] + 0.3 * rng.standard_normal(12)
        volatility[day] = 0.9 * volatility[day - 1] + 0.15 * rng.standard_normal()
    noise = rng.standard_normal((days, instruments, 12))
    values = common[:, None, :] + np.exp(volatility)[:, None, None] * noise
    values[..., 1] = np.exp(values[..., 1])
    values[..., 2] = np.round(values[..., 2])
    values[..., 3][rng.random((days, instruments)) < 0.05] = np.nan
    index = pd.MultiIndex.from_product(
        [pd.bdate_range("2015-01-01", periods=days), [f"S{i:03d}" for i in range(instruments)]],
        names=[DATETIME, INSTRUMENT],
    )
    return pd.DataFrame(values.reshape(-1, 12), index, [f"F{i}" for i in range(12)])


def stationary_watches(count: int, limits: DriftSettings) -> Iterator[Watch]:
    """Independent draws of 500 days of training and a year."""
    for seed in range(count):
        yield Watch.of(stationary_columns(seed, 500 + 252 + limits.current_days, 60), 500, limits)
