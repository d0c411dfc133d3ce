"""What a model makes of one feature: its mean score over a sample in which the feature has one value throughout."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mlops_tasks.errors import ConfigError, ExplanationError, first_few
from mlops_tasks.explain.sampled import Floats
from mlops_tasks.modeling.artefact import ModelArtefact
from mlops_tasks.modeling.scoring import ScoringRows

OUTER = 0.05
"""The grid reaches from this quantile of the feature to the opposite one."""


@dataclass(frozen=True)
class PartialDependence:
    """Friedman, "Greedy function approximation", Annals of Statistics 29, 2001, section 8.2.

    The sample keeps the other features as they are, also where the two never occur together: of strongly correlated
    features, it shows what the model does, not what the market does.

    Attributes
    ----------
    values
        The grid, ascending, in units of the feature before any processing; quantiles of the sample at equal distances,
        equal ones once. Empty where the sample has no finite value.
    scores
        Mean score of the sample at each, in units of the score.
    rows
        Of the sample.
    """

    feature: str
    values: Floats
    scores: Floats
    rows: int

    @property
    def range(self) -> float:
        """Largest less smallest mean score; 0 with fewer than two values."""
        return float(np.ptp(self.scores)) if len(self.scores) > 1 else 0.0

    @property
    def direction(self) -> float:
        """Net change over the whole way: 1 where the score only rises with the feature, -1 where it only falls, 0 where
        it comes back, or does not move."""
        way = float(np.abs(np.diff(self.scores)).sum())
        return float(self.scores[-1] - self.scores[0]) / way if way else 0.0


def partial_dependence(
    artefact: ModelArtefact, rows: ScoringRows, features: Sequence[str], points: int = 11
) -> list[PartialDependence]:
    """For some features, over the wanted rows; a window model has the value on every day of its window.

    Raises
    ------
    ConfigError
        There are fewer than two points.
    ExplanationError
        The model has no such feature, or there is no row.
    """
    if points < 2:
        raise ConfigError(f"points of a partial dependence must be 2 or more, got {points}")
    names = artefact.feature_names
    if missing := [name for name in features if name not in names]:
        raise ExplanationError(f"the model has no feature {first_few(missing)}; it has {first_few(names)}")
    parts = [part for part in artefact.inputs(rows) if len(part)]
    if not parts:
        raise ExplanationError("there is no row to vary a feature of; choose days on which the universe has members")
    given = rows.scored_features()
    count = sum(len(part) for part in parts)
    found = []
    for name in features:
        place, grid = names.index(name), _grid(given[name].to_numpy(np.float64), points)
        seen = np.zeros((len(grid), len(names)), np.float32)
        seen[:, place] = grid
        processed = artefact.processors.transform(seen)[:, place]
        scores = [sum(_sum_at(artefact, part, place, value) for part in parts) / count for value in processed]
        found.append(PartialDependence(name, grid, np.array(scores), count))
    return found


def _grid(values: Floats, points: int) -> Floats:
    finite = values[np.isfinite(values)]
    if not len(finite):
        return np.empty(0)
    grid: Floats = np.unique(np.quantile(finite, np.linspace(OUTER, 1 - OUTER, points)))
    return grid


def _sum_at(artefact: ModelArtefact, part: np.ndarray, place: int, value: np.floating) -> float:
    varied = part.copy()
    varied[..., place] = value
    return float(np.sum(artefact.predictor.predict(varied), dtype=np.float64))
