"""One way to explain a model's scores, whatever its family."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from mlops_tasks.errors import ConfigError, ExplanationError
from mlops_tasks.explain.explanation import Explanation, Method
from mlops_tasks.explain.sampled import Floats, Sampled
from mlops_tasks.modeling.artefact import ModelArtefact
from mlops_tasks.modeling.scoring import ScoringRows
from mlops_tasks.modeling.windows import FloatArray

Contributions = Callable[[FloatArray], Sampled | Floats]
"""Of what the model sees of rows; plain numbers where nothing is drawn."""


@dataclass(frozen=True)
class ExplainOptions:
    """How scores are explained.

    Attributes
    ----------
    background_rows
        Rows drawn from the background where one is not used whole; at least 1.
    points
        Of each of a network's integrals; at least 1.
    seed
        Of that drawing, and of the orders of the features.
    threads
        That compute; they change nothing in the result but the last bits of a network's.
    """

    background_rows: int = 32
    points: int = 8
    seed: int = 0
    threads: int = 1

    def __post_init__(self) -> None:
        for name in ("background_rows", "points", "threads"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be 1 or more, got {getattr(self, name)}")


@dataclass(frozen=True)
class _Explainer:
    """What a family's way of explaining comes to."""

    method: Method
    base: float
    contributions: Contributions


@dataclass(frozen=True)
class _Way:
    """How models of a family are explained.

    Attributes
    ----------
    explainer
        From a model, the background and the options.
    needs_background
        It is explained against rows of the training segment.
    is_exact
        Its contributions are Shapley values but for rounding, and quickly computed.
    """

    explainer: Callable[[ModelArtefact, ScoringRows | None, ExplainOptions], _Explainer]
    needs_background: bool
    is_exact: bool


def needs_background(artefact: ModelArtefact) -> bool:
    """Whether a model is explained against rows of the training segment; False for a family that is not explained."""
    way = _FAMILIES.get(artefact.manifest["family"])
    return way is not None and way.needs_background


def is_exact(artefact: ModelArtefact) -> bool:
    """Whether a model's contributions are Shapley values but for rounding, and quickly computed."""
    way = _FAMILIES.get(artefact.manifest["family"])
    return way is not None and way.is_exact


def explain(
    artefact: ModelArtefact,
    rows: ScoringRows,
    background: ScoringRows | None = None,
    options: ExplainOptions | None = None,
) -> Explanation:
    """Explain the scores of the wanted rows.

    Trees (LightGBM, XGBoost) are explained exactly, along their paths, and need no background. A linear model is
    explained exactly against the mean of the background, a network by expected gradients (`gradients.py`) from rows
    that are drawn from it, a model of scikit-learn or Qlib by orders of the features from such rows
    (`permutations.py`): use the training segment. Contributions are those of processed features; those of a window
    model are summed over its days.

    Raises
    ------
    ExplanationError
        The family is not explained, its trees are of another kind, or the background is missing or empty.
    TrainingError
        As `ModelArtefact.score`.
    """
    chosen = options or ExplainOptions()
    family = str(artefact.manifest["family"])
    if family not in _FAMILIES:
        raise ExplanationError(f"models of family {family} are not explained; those of {', '.join(_FAMILIES)} are")
    explainer = _FAMILIES[family].explainer(artefact, background, chosen)
    found = [explainer.contributions(part) for part in artefact.inputs(rows)]
    names = artefact.feature_names
    values, error = _together(found, names)
    contributions = pd.DataFrame(values, rows.index, names)
    return Explanation(explainer.method, contributions, explainer.base, artefact.score(rows), error)


def _together(found: Sequence[Sampled | Floats], names: Sequence[str]) -> tuple[Floats, pd.Series | None]:
    """Contributions one below the other, and the sampling error of each feature."""
    drawn = [part for part in found if isinstance(part, Sampled)]
    if drawn:
        joined = Sampled.joined(drawn, len(names))
        return joined.values, pd.Series(joined.error(), list(names))
    plain = [part for part in found if not isinstance(part, Sampled)]
    return np.concatenate(plain) if plain else np.empty((0, len(names))), None


def _lightgbm(artefact: ModelArtefact, background: ScoringRows | None, options: ExplainOptions) -> _Explainer:
    from mlops_tasks.explain.trees import TreeExplainer
    from mlops_tasks.modeling.model_zoo.lightgbm import MODEL_FILE

    trees = TreeExplainer.of_lightgbm((artefact.folder / MODEL_FILE).read_text())
    return _Explainer(Method.TREES, trees.base, lambda part: trees.contributions(part, options.threads))


def _xgboost(artefact: ModelArtefact, background: ScoringRows | None, options: ExplainOptions) -> _Explainer:
    from mlops_tasks.explain.trees import TreeExplainer
    from mlops_tasks.modeling.model_zoo.xgboost import XGBoostPredictor

    assert isinstance(artefact.predictor, XGBoostPredictor)
    trees = TreeExplainer.of_xgboost(bytes(artefact.predictor.booster.save_raw("json")))
    return _Explainer(Method.TREES, trees.base, lambda part: trees.contributions(part, options.threads))


def _linear(artefact: ModelArtefact, background: ScoringRows | None, options: ExplainOptions) -> _Explainer:
    from mlops_tasks.modeling.model_zoo.linear import LinearPredictor

    assert isinstance(artefact.predictor, LinearPredictor)
    coefficients, intercept = artefact.predictor.weights
    given = _joined(artefact, background)
    mean = given.mean(axis=0, dtype=np.float64)
    base = float(mean @ coefficients + intercept)
    return _Explainer(Method.LINEAR, base, lambda part: (part.astype(np.float64) - mean) * coefficients)


def _network(artefact: ModelArtefact, background: ScoringRows | None, options: ExplainOptions) -> _Explainer:
    from mlops_tasks.explain.gradients import ExpectedGradients
    from mlops_tasks.modeling.model_zoo.network import NetworkPredictor

    assert isinstance(artefact.predictor, NetworkPredictor)
    drawn = None if background is None else _drawn(background, options)
    gradients = ExpectedGradients(artefact.predictor.network, _joined(artefact, drawn), options.points, options.threads)
    return _Explainer(Method.EXPECTED_GRADIENTS, gradients.base(), gradients.contributions)


def _scores_only(artefact: ModelArtefact, background: ScoringRows | None, options: ExplainOptions) -> _Explainer:
    from mlops_tasks.explain.permutations import PermutationExplainer

    drawn = None if background is None else _drawn(background, options)
    orders = PermutationExplainer(artefact.predictor.predict, _joined(artefact, drawn), options.seed)
    return _Explainer(Method.PERMUTATIONS, orders.base(), orders.contributions)


_FAMILIES: Mapping[str, _Way] = {
    "lightgbm": _Way(_lightgbm, needs_background=False, is_exact=True),
    "xgboost": _Way(_xgboost, needs_background=False, is_exact=True),
    "linear": _Way(_linear, needs_background=True, is_exact=True),
    "network": _Way(_network, needs_background=True, is_exact=False),
    "sklearn": _Way(_scores_only, needs_background=True, is_exact=False),
    "qlib": _Way(_scores_only, needs_background=True, is_exact=False),
}


def _drawn(rows: ScoringRows, options: ExplainOptions) -> ScoringRows:
    """A seeded sample of the wanted rows."""
    places = np.flatnonzero(rows.wanted)
    count = min(len(places), options.background_rows)
    chosen = np.random.default_rng(options.seed).choice(places, count, replace=False)
    wanted = np.zeros(len(rows.wanted), np.bool_)
    wanted[chosen] = True
    return replace(rows, wanted=wanted)


def _joined(artefact: ModelArtefact, background: ScoringRows | None) -> FloatArray:
    """What the model sees of the background."""
    parts: Iterable[FloatArray] = () if background is None else artefact.inputs(background)
    found = [part for part in parts if len(part)]
    if not found:
        raise ExplanationError(
            f"a {artefact.manifest['family']} model is explained against a background, and none is given or it has no "
            "rows; give rows of the training segment"
        )
    return np.concatenate(found)
