"""The features that the service scores, from the vintage in use, one day at a time."""

import logging
from dataclasses import dataclass, field
from datetime import date
from functools import partial

import pandas as pd

from mlops_tasks.config import Settings
from mlops_tasks.data.vintages import Vintage, current_vintage
from mlops_tasks.errors import ErrorKind, MlopsError, StoreError
from mlops_tasks.features.sets import FeatureSet
from mlops_tasks.features.store import FeatureStore
from mlops_tasks.modeling.scoring import FeatureSource
from mlops_tasks.registry.model_features import feature_set_of
from mlops_tasks.registry.models import LoadedModel
from mlops_tasks.serving.model_day import ModelDay
from mlops_tasks.serving.shared_days import DayOfFeatures, SharedDays

log = logging.getLogger(__name__)


class UnknownDateError(StoreError):
    """There are no features of that day."""

    kind = ErrorKind.CONFIGURATION


class ModelError(MlopsError, RuntimeError):
    """A model raised an error, its cause, where it should have scored."""

    kind = ErrorKind.BUG

    def __init__(self, model: LoadedModel, cause: Exception) -> None:
        super().__init__(f"version {model.version} cannot score: {type(cause).__name__}: {cause}")
        self.cause = cause


@dataclass(frozen=True)
class Market:
    """The data being served."""

    vintage: Vintage
    feature_version: str
    newest_date: date
    days: frozenset[date] = field(repr=False)
    """The vintage's trading days."""

    @property
    def data_version(self) -> str:
        """Of the vintage."""
        return self.vintage.data_version

    def check(self, wanted: date) -> None:
        """Raise UnknownDateError if a date is not a trading day of the vintage; nothing is read for this."""
        if wanted not in self.days:
            raise UnknownDateError(
                f"no features on {wanted}: not a trading day of vintage {self.data_version}, "
                f"whose newest is {self.newest_date}; leave date out for that one"
            )


class MarketView:
    """Follows the vintage in use, as soon as its features are available; until then the previous one stays.

    Each feature set has its own market, so that a model is never given another model's features. Features of the newest
    day are in memory that all workers share, where there are several.
    """

    def __init__(self, settings: Settings, shared: SharedDays | None = None) -> None:
        self.settings = settings
        self.shared = shared
        self.store = FeatureStore(settings)
        self.error: str | None = None
        self._sets: dict[str, FeatureSet] = {}
        self._markets: dict[str, Market] = {}

    def market(self, model: LoadedModel) -> Market | None:
        """The data on which a model is served; None if there are none."""
        definition = self._sets.get(model.digest)
        return None if definition is None else self._markets.get(definition.digest)

    def follow(self, model: LoadedModel) -> None:
        """Adopt the vintage in use for a model; on any error the old one stays, and `error` says why."""
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
        days = frozenset(vintage.calendar().date)
        self._markets[definition.digest] = Market(vintage, feature_version, newest, days)
        log.info(
            "serving vintage %s up to %s, features %s of %s",
            vintage.data_version,
            vintage.last_date,
            feature_version,
            definition.name,
        )

    def score(self, model: LoadedModel, market: Market, wanted: date) -> pd.Series:
        """Scores of all instruments that have a bar on a day, index instrument, sorted.

        Raises
        ------
        UnknownDateError
            There are no features of the day.
        ModelError
            The model fails on them.
        """
        window, version = model.artefact.window, market.feature_version
        source = FeatureSource(self.store, market.vintage, version)
        read = partial(source.rows, wanted, wanted, window, members=False)
        if self.shared is not None and wanted == market.newest_date:
            rows = self.shared.rows(DayOfFeatures(version, wanted, window), market.vintage.calendar(), read)
        else:
            rows = read()
        day = ModelDay(model, wanted, version, rows)
        if day.is_empty:
            raise UnknownDateError(f"no features on {wanted} in vintage {market.data_version}; ask for a later day")
        try:
            return day.scores()
        except Exception as error:
            raise ModelError(model, error) from error
