"""One day as a model sees it: its features and its scores, wherever they are needed."""

import datetime
from dataclasses import dataclass
from typing import Self

import pandas as pd

from mlops_tasks.columns import DATETIME
from mlops_tasks.data.vintages import Vintage
from mlops_tasks.features.store import FeatureStore
from mlops_tasks.modeling.scoring import FeatureSource, ScoringRows
from mlops_tasks.registry.models import LoadedModel


@dataclass(frozen=True)
class ModelDay:
    """The rows of a day of a vintage that a model scores, with the earlier rows in its window."""

    model: LoadedModel
    date: datetime.date
    feature_version: str
    rows: ScoringRows

    @classmethod
    def read(
        cls,
        store: FeatureStore,
        data: tuple[Vintage, str],
        model: LoadedModel,
        day: datetime.date,
        *,
        members: bool = True,
    ) -> Self:
        """Read a day: the universe's members, or all instruments that have a bar.

        Parameters
        ----------
        data
            The vintage, and the version of its features in the store.

        Raises
        ------
        StoreError
            As `FeatureStore.load`.
        """
        vintage, feature_version = data
        source = FeatureSource(store, vintage, feature_version)
        return cls(model, day, feature_version, source.rows(day, day, model.artefact.window, members=members))

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to score."""
        return not self.rows.wanted.any()

    @property
    def features(self) -> pd.DataFrame:
        """Features of the day itself, index instrument, sorted."""
        return self.rows.scored_features().droplevel(DATETIME).sort_index()

    def scores(self) -> pd.Series:
        """Scores by the model's artefact, index instrument, sorted."""
        return self.model.artefact.score(self.rows).droplevel(DATETIME).sort_index()
