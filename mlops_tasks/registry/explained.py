"""A registered version's scores of a day, explained on the vintage in use."""

import datetime
from dataclasses import dataclass
from typing import Self

import pandas as pd

from mlops_tasks.config import Settings
from mlops_tasks.data.vintages import Vintage, current_vintage
from mlops_tasks.errors import ExplanationError
from mlops_tasks.explain.engine import ExplainOptions, explain, needs_background
from mlops_tasks.explain.explanation import Explanation
from mlops_tasks.features.store import FeatureStore
from mlops_tasks.modeling.artefact import ModelArtefact
from mlops_tasks.modeling.scoring import FeatureSource, ScoringRows
from mlops_tasks.registry.model_features import features_of
from mlops_tasks.registry.models import load_version


@dataclass(frozen=True)
class ExplainedDay:
    """Scores of the universe's members on a day and, where the calendar has one, on the trading day before it."""

    version: int
    data_version: str
    day: pd.Timestamp
    explanation: Explanation

    @classmethod
    def of(cls, settings: Settings, version: int, day: datetime.date | None = None) -> Self:
        """Explain a day; without one, the newest.

        Raises
        ------
        ExplanationError
            The day is no trading day of the vintage, has no member to score, or the model's family is not explained.
        RegistryError, StoreError
            As `load_version`, `features_of` and `FeatureStore.load`.
        """
        model, vintage = load_version(settings, version), current_vintage(settings)
        calendar = vintage.calendar()
        found = calendar[-1] if day is None else pd.Timestamp(day)
        place = int(calendar.searchsorted(found))
        if place == len(calendar) or calendar[place] != found:
            raise ExplanationError(
                f"{found.date()} is no trading day of {vintage.data_version}, which ends at {calendar[-1].date()}; "
                "choose a day on which the market was open"
            )
        source = FeatureSource(FeatureStore(settings), vintage, features_of(settings, model, vintage))
        artefact = model.artefact
        rows = source.rows(calendar[max(0, place - 1)], found, artefact.window)
        background = _learned_rows(artefact, source, vintage) if needs_background(artefact) else None
        options = ExplainOptions(threads=settings.training.threads)
        explanation = explain(artefact, rows, background, options)
        explanation.on(found)  # raises where there is nothing to explain
        return cls(version, vintage.data_version, found, explanation)


def _learned_rows(artefact: ModelArtefact, source: FeatureSource, vintage: Vintage) -> ScoringRows:
    """The training segment's rows, as the vintage has them."""
    first, last = artefact.manifest["segments"]["train"]
    calendar = vintage.calendar()
    place = int(calendar.searchsorted(pd.Timestamp(first))) + artefact.window - 1
    return source.rows(calendar[min(place, len(calendar) - 1)], last, artefact.window)
