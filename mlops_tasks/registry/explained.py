"""Registered versions explained on a vintage: the scores of a day, and what moves a model."""

import datetime
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import numpy as np
import pandas as pd

from mlops_tasks.columns import DATETIME, INSTRUMENT, LABEL
from mlops_tasks.config import Settings
from mlops_tasks.data.vintages import Vintage, current_vintage
from mlops_tasks.errors import ExplanationError, StoreError, first_few
from mlops_tasks.explain.day_list import Names
from mlops_tasks.explain.engine import ExplainOptions, explain, is_exact, needs_background
from mlops_tasks.explain.explanation import Explanation
from mlops_tasks.explain.feature_groups import groups_of, indicators_of
from mlops_tasks.explain.model_report import DRAWN_SAMPLE, EXACT_SAMPLE, Grouping, ModelReport, model_report
from mlops_tasks.explain.sample import sample_of_days
from mlops_tasks.features.sets import FeatureSet
from mlops_tasks.features.store import FeatureStore
from mlops_tasks.modeling.scoring import FeatureSource, ScoringRows
from mlops_tasks.registry.model_features import feature_set_of, features_of
from mlops_tasks.registry.models import LoadedModel, load_version
from mlops_tasks.training_folder import TrainingFolder


@dataclass(frozen=True)
class ExplainedVersion:
    """A registered version, and the vintage on which it is explained."""

    settings: Settings
    model: LoadedModel
    vintage: Vintage

    @classmethod
    def of(cls, settings: Settings, version: int, vintage: Vintage | None = None) -> Self:
        """By its number, on the vintage in use or another one.

        Raises
        ------
        RegistryError, StoreError
            As `load_version`.
        """
        return cls(settings, load_version(settings, version), vintage or current_vintage(settings))

    @cached_property
    def definition(self) -> FeatureSet:
        """The feature set that it was trained on."""
        return feature_set_of(self.settings, self.model)

    @cached_property
    def grouping(self) -> Grouping:
        """How its features are divided."""
        return Grouping(groups_of(self.definition), indicators_of(self.definition))

    @cached_property
    def source(self) -> FeatureSource:
        """Its features on the vintage; computed if they are missing."""
        version = features_of(self.settings, self.model, self.vintage)
        return FeatureSource(FeatureStore(self.settings), self.vintage, version, self.model.artefact.feature_names)

    def trading_day(self, day: datetime.date | None) -> pd.Timestamp:
        """A day of the vintage's calendar; without one, the newest.

        Raises
        ------
        ExplanationError
            The day is no trading day of the vintage.
        """
        calendar = self.vintage.calendar()
        found = calendar[-1] if day is None else pd.Timestamp(day)
        if found not in calendar:
            raise ExplanationError(
                f"{found.date()} is no trading day of {self.vintage.data_version}, which ends at "
                f"{calendar[-1].date()}; choose a day on which the market was open"
            )
        return found

    def explain_days(self, day: pd.Timestamp, names: Names | None) -> Explanation:
        """The scores of a trading day and, where the calendar has one, of the one before it.

        Parameters
        ----------
        names
            How many of the day's highest scores are asked for, or which instruments; None: all. Models that are
            explained exactly have all names explained, as that is quick; of others, whose rows take long, these alone.

        Raises
        ------
        ExplanationError
            The day has no member to score, or the model's family is not explained.
        """
        artefact, calendar = self.model.artefact, self.vintage.calendar()
        before = calendar[max(0, int(calendar.searchsorted(day)) - 1)]
        rows = self.source.rows(before, day, artefact.window)
        if names is None or is_exact(artefact):
            found = self._explain(rows)
        else:
            scores = artefact.score(rows)
            wanted = _instruments(scores, day, names)
            found = replace(self._explain(_only(rows, wanted)), ranked_among=scores)
            if day in scores.index.get_level_values(DATETIME) and day not in found.days:
                raise ExplanationError(
                    f"not among the names of {day.date()}: {first_few(wanted)}; name members of the universe"
                )
        found.on(day)  # raises where there is nothing to explain
        return found

    def report(self) -> ModelReport:
        """What moves its scores from its first validation day to its last test day.

        Raises
        ------
        ExplanationError
            As `explain`.
        """
        artefact = self.model.artefact
        segments = artefact.manifest["segments"]
        size = EXACT_SAMPLE if is_exact(artefact) else DRAWN_SAMPLE
        rows = self.source.rows(segments["valid"][0], segments["test"][1], artefact.window)
        sample = sample_of_days(rows, size)
        return model_report(artefact, sample, self._explain(sample), self._labels(), self.grouping, size)

    @cached_property
    def _background(self) -> ScoringRows | None:
        """The training segment's rows, as the vintage has them; None for a model that needs none."""
        artefact = self.model.artefact
        if not needs_background(artefact):
            return None
        first, last = artefact.manifest["segments"]["train"]
        calendar = self.vintage.calendar()
        place = int(calendar.searchsorted(pd.Timestamp(first))) + artefact.window - 1
        return self.source.rows(calendar[min(place, len(calendar) - 1)], last, artefact.window)

    def _explain(self, rows: ScoringRows) -> Explanation:
        options = ExplainOptions(threads=self.settings.training.threads)
        return explain(self.model.artefact, rows, self._background, options)

    def _labels(self) -> pd.Series:
        """Realised returns of validation and test, as its training kept them; none where it did not."""
        folder = TrainingFolder.of(self.settings, self.model.training_key)
        try:
            return pd.concat([folder.segment(name)[LABEL] for name in ("valid", "test")])
        except StoreError:
            empty = pd.MultiIndex.from_arrays([pd.DatetimeIndex([]), []], names=[DATETIME, INSTRUMENT])
            return pd.Series([], empty, dtype=np.float64)


@dataclass(frozen=True)
class ExplainedDay:
    """Scores of the universe's members on a day and, where the calendar has one, on the trading day before it."""

    version: int
    data_version: str
    day: pd.Timestamp
    explanation: Explanation
    grouping: Grouping
    replaced: Explanation | None = None
    """By the version that scored the day before, of the same two days; None: it is the same one."""

    @classmethod
    def of(
        cls,
        settings: Settings,
        version: int,
        day: datetime.date | None = None,
        names: Names | None = None,
        replaced: int | None = None,
    ) -> Self:
        """Explain a day; without one, the newest.

        Parameters
        ----------
        names
            As for `ExplainedVersion.explain_days`.
        replaced
            The version that scored the day before; None: the same one.

        Raises
        ------
        ExplanationError
            The day is no trading day of the vintage, has no member to score, or the model's family is not explained.
        RegistryError, StoreError
            As `load_version`, `features_of` and `FeatureStore.load`.
        """
        return cls.by(ExplainedVersion.of(settings, version), day, names, replaced)

    @classmethod
    def by(
        cls,
        explained: ExplainedVersion,
        day: datetime.date | None = None,
        names: Names | None = None,
        replaced: int | None = None,
    ) -> Self:
        """The same for a version that is loaded."""
        found = explained.trading_day(day)
        explanation = explained.explain_days(found, names)
        other = None
        if replaced is not None and replaced != explained.model.version:
            before = ExplainedVersion.of(explained.settings, replaced, explained.vintage)
            wanted = None if names is None else _instruments(explanation.scores, found, names)
            other = before.explain_days(found, wanted)
        version, data_version = explained.model.version, explained.vintage.data_version
        return cls(version, data_version, found, explanation, explained.grouping, other)


def _instruments(scores: pd.Series, day: pd.Timestamp, names: Names) -> list[str]:
    """The highest scores of the day, or the names themselves."""
    if not isinstance(names, int):
        return list(names)
    of_day = scores[np.asarray(scores.index.get_level_values(DATETIME) == day)]
    highest = of_day.sort_values(ascending=False, kind="stable").head(names)
    return [str(name) for name in highest.index.get_level_values(INSTRUMENT)]


def _only(rows: ScoringRows, instruments: Sequence[str]) -> ScoringRows:
    """With these instruments alone to score."""
    mine = np.asarray(rows.features.index.get_level_values(INSTRUMENT).isin(list(instruments)))
    return replace(rows, wanted=rows.wanted & mine)
