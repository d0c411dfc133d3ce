"""Rows to score, with what window models look back on: read in the same way wherever a model scores."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from mlops_tasks.columns import DATETIME, INSTRUMENT
from mlops_tasks.data.vintages import BoolArray, Vintage
from mlops_tasks.errors import TrainingError
from mlops_tasks.features.store import Day, FeatureStore
from mlops_tasks.modeling.windows import history_start


@dataclass(frozen=True)
class ScoringRows:
    """Features of rows to score and of the days before them.

    Attributes
    ----------
    features
        Shape (n, features), index (datetime, instrument), sorted by both.
    wanted
        Which rows are to be scored, shape (n,).
    calendar
        Trading days, ascending, including all days of the rows.
    since
        The day from which on the rows include every bar of the instruments to score.
    """

    features: pd.DataFrame
    wanted: BoolArray
    calendar: pd.DatetimeIndex
    since: pd.Timestamp

    @property
    def index(self) -> pd.MultiIndex:
        """Of the rows to score."""
        return self.features.index[self.wanted]

    def scored_features(self) -> pd.DataFrame:
        """Features of the rows to score."""
        places = np.flatnonzero(self.wanted)
        if len(places) and places[-1] - places[0] + 1 == len(places):  # neighbours: no copy
            return self.features.iloc[places[0] : places[-1] + 1]
        return self.features[self.wanted]

    def at_most(self, count: int) -> "ScoringRows":
        """The same with at most this many rows to score, evenly spaced; the rows that windows look back on stay."""
        places = np.flatnonzero(self.wanted)
        if len(places) <= count:
            return self
        wanted = np.zeros(len(self.wanted), dtype=np.bool_)
        wanted[places[np.linspace(0, len(places) - 1, count).round().astype(np.int64)]] = True
        return replace(self, wanted=wanted)

    def codes(self, window: int) -> tuple[np.ndarray, np.ndarray]:
        """Day and instrument code of each row, days counted on the calendar from the first row; int64, shape (n,).

        Raises
        ------
        TrainingError
            Windows of this length reach back before `since`, or a row's day is not in the calendar.
        """
        index = self.features.index
        days, instruments = (index.get_level_values(name) for name in (DATETIME, INSTRUMENT))
        places = self.calendar.get_indexer(days)
        if (places < 0).any():
            raise TrainingError(f"{days[places < 0][0].date()} is not in the calendar; give all trading days")
        if self.wanted.any():
            first = days[self.wanted].min()
            needed = history_start(self.calendar, first, window)
            if needed < self.since:
                raise TrainingError(
                    f"rows of {first.date()} need {window - 1} trading days before them, from {needed.date()} on, but "
                    f"features begin at {self.since.date()}; load the history too (modeling/scoring.py: FeatureSource)"
                )
        return places - places[:1], pd.factorize(instruments)[0]


@dataclass(frozen=True)
class FeatureSource:
    """The features of a vintage, and the columns to read."""

    store: FeatureStore
    vintage: Vintage
    feature_version: str
    columns: Sequence[str] | None = None

    def rows(self, start: Day, end: Day, window: int = 1, *, members: bool = True) -> ScoringRows:
        """The rows of a range of days to score by a model that sees `window` trading days.

        They are rows of the universe's members of each day, or of all instruments that have a bar. For a window of
        several days, the trading days before `start` are read too, for all instruments.

        Raises
        ------
        StoreError
            As `FeatureStore.load`.
        """
        first, calendar = pd.Timestamp(start), self.vintage.calendar()
        universe = self.vintage if members else None
        if window == 1:
            found = self.store.load(self.feature_version, first, end, universe, self.columns)
            return ScoringRows(found, np.ones(len(found), dtype=np.bool_), calendar, first)
        since = history_start(calendar, first, window)
        found = self.store.load(self.feature_version, since, end, columns=self.columns, order="C")
        wanted: BoolArray = np.asarray(found.index.get_level_values(DATETIME) >= first)
        if universe is not None:
            wanted &= universe.membership_mask(found.index)
        return ScoringRows(found, wanted, calendar, since)
