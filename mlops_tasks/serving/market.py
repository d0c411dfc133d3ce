"""The features that the service scores: of the vintage in use, one day at a time, kept in memory."""

import logging
import threading
from collections import OrderedDict
from dataclasses import dataclass
from datetime import date

import pandas as pd

from mlops_tasks.columns import DATETIME
from mlops_tasks.config import Settings
from mlops_tasks.data.vintages import current_vintage, load_vintage
from mlops_tasks.errors import StoreError
from mlops_tasks.features.sets import FeatureSet
from mlops_tasks.features.store import FeatureStore
from mlops_tasks.registry.model_features import feature_set_of
from mlops_tasks.registry.models import LoadedModel
from mlops_tasks.training.scoring import FeatureSource, ScoringRows

log = logging.getLogger(__name__)

DAYS_KEPT = 16
"""Of features in memory; one that a window model looks back on counts, too."""


class UnknownDateError(StoreError):
    """There are no features of that day."""


@dataclass(frozen=True)
class Market:
    """Which data are served."""

    data_version: str
    feature_version: str
    newest_date: date


@dataclass(frozen=True)
class Day:
    """Features of one day, and of the days before it that a model looks back on."""

    market: Market
    date: date
    rows: ScoringRows
    """To be scored: all instruments that have a bar on the day."""

    def score(self, model: LoadedModel) -> pd.Series:
        """Scores of the day, index instrument, sorted."""
        return model.artefact.score(self.rows).droplevel(DATETIME).sort_index()


class MarketView:
    """Follows the vintage in use, as soon as its features are there; until then the one before stays.

    Each feature set has its own market, so that a model is never given another model's features.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.store = FeatureStore(settings)
        self.error: str | None = None
        self._sets: dict[str, FeatureSet] = {}
        self._markets: dict[str, Market] = {}
        self._days: OrderedDict[tuple[str, date, int], Day] = OrderedDict()
        self._lock = threading.Lock()

    def market(self, model: LoadedModel) -> Market | None:
        """The data that a model is served on; None while there are none."""
        definition = self._sets.get(model.digest)
        return None if definition is None else self._markets.get(definition.digest)

    def follow(self, model: LoadedModel) -> None:
        """Adopt the vintage in use for a model; on any trouble the old one stays, and `error` says why."""
        try:
            self._adopt(self._set_of(model))
        except Exception as error:
            message = f"{type(error).__name__}: {error}"
            if message != self.error:
                log.warning("the vintage in use cannot be followed: %s", message)
            self.error = message
        else:
            self.error = None

    def _set_of(self, model: LoadedModel) -> FeatureSet:
        if model.digest not in self._sets:
            self._sets[model.digest] = feature_set_of(self.settings, model)
        return self._sets[model.digest]

    def _adopt(self, definition: FeatureSet) -> None:
        vintage = current_vintage(self.settings)
        present = self._markets.get(definition.digest)
        if present and present.data_version == vintage.data_version:
            return
        feature_version = self.store.find(vintage.data_version, definition.digest)
        if feature_version is None:
            raise StoreError(
                f"vintage {vintage.data_version} has no {definition.name} features yet; run features.compute"
            )
        newest = date.fromisoformat(vintage.last_date)
        self._markets[definition.digest] = Market(vintage.data_version, feature_version, newest)
        log.info(
            "serving vintage %s up to %s, features %s of %s",
            vintage.data_version,
            vintage.last_date,
            feature_version,
            definition.name,
        )

    def day(self, market: Market, wanted: date | None, window: int = 1) -> Day:
        """Features of all instruments that have a bar on a day (None: the newest one), for so many days of each.

        Raises
        ------
        UnknownDateError
            The day is not among the vintage's trading days.
        """
        key = (market.feature_version, wanted or market.newest_date, window)
        with self._lock:
            found = self._days.get(key) or self._load(market, key[1], window)
            self._days[key] = found
            self._days.move_to_end(key)
            while len(self._days) > 1 and sum(each for _, _, each in self._days) > DAYS_KEPT:
                self._days.popitem(last=False)
        return found

    def _load(self, market: Market, wanted: date, window: int) -> Day:
        source = FeatureSource(self.store, load_vintage(self.settings, market.data_version), market.feature_version)
        rows = source.rows(wanted, wanted, window, members=False)
        if not rows.wanted.any():
            raise UnknownDateError(
                f"no features on {wanted}: not a trading day of vintage {market.data_version}, "
                f"whose newest is {market.newest_date}; leave date out for that one"
            )
        return Day(market, wanted, rows)
