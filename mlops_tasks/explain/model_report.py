"""What a report says of a model: which features move its scores, how steadily, what they add to the IC, and how."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from mlops_tasks.explain.explanation import Explanation, Importance
from mlops_tasks.explain.over_time import OverTime, over_time
from mlops_tasks.explain.partial_dependence import PartialDependence, partial_dependence
from mlops_tasks.explain.sample import SampleSize
from mlops_tasks.modeling.artefact import ModelArtefact
from mlops_tasks.modeling.scoring import ScoringRows

DEPENDENCE_FEATURES = 6
"""So many features of the largest share have their partial dependence computed, and so many among the indicators."""
DEPENDENCE_ROWS = 500
EXACT_SAMPLE, DRAWN_SAMPLE = SampleSize(days=120, names=50), SampleSize(days=24, names=10)
"""Of models that are explained exactly, and of others, where a row takes some thousand times as long."""


@dataclass(frozen=True)
class Ranked:
    """Features, or groups of them, by what they move.

    Attributes
    ----------
    table
        By feature, the largest share first: `share` and `mean_abs`, `mean` (see `Importance`), `ic_part`, `ic_error`,
        `rank_median`, `rank_low`, `rank_high`, `rank_std` (see `OverTime`).
    periods
        The same by month or quarter.
    """

    table: pd.DataFrame
    periods: OverTime

    @classmethod
    def of(cls, explanation: Explanation, label: pd.Series, unranked: str | None = None) -> "Ranked":
        """From contributions and labels; one column may stand beside the ranking.

        Raises
        ------
        ExplanationError
            There is no row.
        """
        periods = over_time(explanation, label, unranked)
        importance: Importance = explanation.importance()
        table = importance.table.join(periods.mean_ic_parts()).join(periods.stability())
        return cls(table.rename_axis("feature"), periods)


@dataclass(frozen=True)
class ModelReport:
    """What moves a model's scores.

    Attributes
    ----------
    explanation
        Of the sample.
    size
        What the sample was asked to be.
    features
        Of all features.
    groups
        Of their groups, by `group_of`.
    indicators
        Of the technical indicators, each with all of its columns, and beside them all factors together (`FACTORS`),
        without a rank; None for a model without any.
    dependence
        Of the features that move the scores most, those first.
    """

    explanation: Explanation
    size: SampleSize
    group_of: Mapping[str, str]
    features: Ranked
    groups: Ranked
    indicators: Ranked | None
    dependence: tuple[PartialDependence, ...]

    @property
    def span(self) -> tuple[str, str]:
        """First and last day of the sample, ISO dates."""
        days = self.explanation.days
        return str(days[0].date()), str(days[-1].date())

    @property
    def rows(self) -> int:
        """Of the sample."""
        return len(self.explanation.scores)

    @property
    def ic(self) -> float:
        """Mean IC of the sample's days; NaN without labels."""
        return float(self.features.periods.daily.ic.mean())

    def table(self) -> pd.DataFrame:
        """By feature: `group`, what `Ranked.table` has, and the `range` and `direction` of its partial dependence (NaN
        where it was not computed)."""
        found = self.features.table
        group = pd.Series({name: self.group_of[name] for name in found.index}, dtype=object, name="group")
        shown = pd.DataFrame(
            {
                "range": {each.feature: each.range for each in self.dependence},
                "direction": {each.feature: each.direction for each in self.dependence},
            },
            dtype=np.float64,
        )
        return pd.concat([group, found], axis=1).join(shown).rename_axis("feature")

    def by_period(self) -> pd.DataFrame:
        """One row for each period and feature or group: `period`, `days`, `kind` (feature, group, indicator), `name`,
        `share`, `rank`, `ic_part`."""
        kinds = {"feature": self.features, "group": self.groups, "indicator": self.indicators}
        return pd.concat([_long(kind, each.periods) for kind, each in kinds.items() if each is not None])

    def dependence_table(self) -> pd.DataFrame:
        """One row for each point: `feature`, `value`, `score`."""
        return pd.DataFrame(
            [(each.feature, v, s) for each in self.dependence for v, s in zip(each.values, each.scores, strict=True)],
            columns=["feature", "value", "score"],
        )


FACTORS = "(all factors)"
"""Beside the indicators of a model: everything else."""


@dataclass(frozen=True)
class Grouping:
    """Column to its group, and to its technical indicator, for those that come from one."""

    group_of: Mapping[str, str]
    indicator_of: Mapping[str, str]


def model_report(  # noqa: PLR0913, PLR0917 - a model, what it saw, what came of it, and how to divide it
    artefact: ModelArtefact,
    rows: ScoringRows,
    explanation: Explanation,
    label: pd.Series,
    grouping: Grouping,
    size: SampleSize,
) -> ModelReport:
    """Put together what explains a sample of scores.

    Parameters
    ----------
    rows, explanation
        The sample, and its explanation.
    label
        Index (datetime, instrument), of as many rows of the sample as have one.

    Raises
    ------
    ExplanationError
        There is no row.
    """
    features = Ranked.of(explanation, label)
    indicators = None
    if grouping.indicator_of:
        own = {name: grouping.indicator_of.get(name, FACTORS) for name in artefact.feature_names}
        indicators = Ranked.of(explanation.grouped(own), label, unranked=FACTORS)
    first = list(features.table.index[:DEPENDENCE_FEATURES])
    of_indicators = [name for name in features.table.index if name in grouping.indicator_of][:DEPENDENCE_FEATURES]
    chosen = list(dict.fromkeys([*first, *of_indicators]))
    return ModelReport(
        explanation,
        size,
        grouping.group_of,
        features,
        Ranked.of(explanation.grouped(grouping.group_of), label),
        indicators,
        tuple(partial_dependence(artefact, rows.at_most(DEPENDENCE_ROWS), chosen)),
    )


def _long(kind: str, periods: OverTime) -> pd.DataFrame:
    columns = {"share": periods.shares, "rank": periods.ranks, "ic_part": periods.ic_parts}
    stacked = pd.DataFrame({name: frame.stack(future_stack=True) for name, frame in columns.items()})
    long = stacked.rename_axis(["period", "name"]).reset_index()
    long.insert(1, "days", long["period"].map(periods.days))
    long.insert(2, "kind", kind)
    return long
