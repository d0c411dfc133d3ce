"""Which algorithm to train, from a measured profile of the data: a ranked list with reasons.

Rules, in order:

1. A model whose estimated memory is over the limit is refused, with the numbers.
2. Skill counts as found when the best landmark's mean rank IC is above zero at `alpha`, divided by the number of
   landmarks (Bonferroni). Otherwise no skill is promised and the simplest model comes first.
3. A model is expected to reach what the landmark of its kind reached out of fold: linear models `linear`, trees
   `trees`, models that see a window the better `history_*` landmark if history adds something at `alpha`. Networks of
   one day have no landmark: for them, and for windows where history adds nothing, the mean of `linear` and `trees` is
   assumed.
4. Of models that see a window, those that read each column by itself, in patches, go first where there are
   `FEW_FEATURES` columns or fewer: they learn the shape of a column's days best, at a cost that grows with the columns.
5. Models within one standard error of the best are taken as equal, and the simpler one goes first (the rule of Breiman,
   Friedman, Olshen and Stone, Classification and Regression Trees, 1984, section 3.4.3).

`docs/algorithm_selection.md` shows what the landmarks find in planted markets, and the limits of the rules.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from mlops_tasks.errors import ConfigError
from mlops_tasks.modeling.model_zoo.family import find_family
from mlops_tasks.modeling.model_zoo.zoo import ModelEntry
from mlops_tasks.tuning.data_profile import (
    HISTORY_LINEAR,
    HISTORY_TREES,
    LINEAR,
    TREES,
    DataProfile,
    Skill,
)

FamilyKind = Literal["linear", "trees", "network", "window_network", "other"]

COMPLEXITY: Mapping[FamilyKind, int] = {"linear": 0, "trees": 1, "network": 2, "window_network": 3, "other": 4}
"""The order of models that are expected to do equally well; `other` has no landmark and no estimate."""
FEW_FEATURES = 20


@dataclass(frozen=True)
class Constraints:
    """What a training may use."""

    memory_bytes: int | None = None
    """Estimated peak beyond the processed matrix; None: no limit."""
    alpha: float = 0.05
    """Level at which skill, and a gain from history, count as found."""


@dataclass(frozen=True)
class RankedModel:
    """One model in the ranking."""

    model: str
    kind: FamilyKind
    expected_rank_ic: float | None
    """None: no landmark is of its kind."""
    hyperparameters: Mapping[str, Any]
    """Overrides of the entry's defaults to begin with."""
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Recommendation:
    """The ranking, best first; plain JSON by `to_json`."""

    skill_found: bool
    summary: str
    ranking: tuple[RankedModel, ...]
    refused: Mapping[str, str]
    """Models that do not fit, with the numbers."""

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def select_algorithm(
    profile: DataProfile, zoo: Mapping[str, ModelEntry], constraints: Constraints | None = None
) -> Recommendation:
    """Rank the models of a zoo for data with this profile.

    Raises
    ------
    ConfigError
        The zoo is empty, or no model fits the constraints.
    """
    constraints = constraints or Constraints()
    choices, refused = [], {}
    for name, entry in sorted(zoo.items(), key=lambda item: not _reads_patches(item[1], profile)):
        choice = _choice(name, entry, profile, constraints)
        needed = _memory(entry, choice, profile)
        if constraints.memory_bytes is not None and needed > constraints.memory_bytes:
            refused[name] = (
                f"needs about {needed / 1e9:.2f} GB beyond the data, and "
                f"{constraints.memory_bytes / 1e9:.2f} GB are allowed"
            )
        else:
            choices.append(choice)
    if not choices:
        raise ConfigError(
            f"no model of the zoo fits: {refused}; raise the memory limit" if refused else "the zoo has no model"
        )
    best = max(profile.landmarks, key=lambda name: profile.landmarks[name].rank_ic)
    found = profile.landmarks[best].p_value * len(profile.landmarks) < constraints.alpha
    ranking = tuple(_ranked(choices, profile.landmarks[best].standard_error, found))
    return Recommendation(found, _summary(best, profile, found), ranking, refused)


def kind_of(entry: ModelEntry) -> FamilyKind:
    """What a model can see, from its entry."""
    if entry.family == "linear":
        return "linear"
    if entry.family in ("lightgbm", "xgboost"):
        return "trees"
    if entry.family == "network":
        window = entry.hyperparameters.get("window", {}).get("default", 1)
        return "window_network" if window > 1 else "network"
    return "other"


def _choice(name: str, entry: ModelEntry, profile: DataProfile, constraints: Constraints) -> RankedModel:
    kind = kind_of(entry)
    expected, reason = _expected(kind, profile, constraints)
    first = {key: value for key, value in _first(kind, profile).items() if _allowed(entry, key, value)}
    return RankedModel(name, kind, expected, first, (reason, *_advice(first, profile)))


def _expected(kind: FamilyKind, profile: DataProfile, constraints: Constraints) -> tuple[float | None, str]:
    linear, trees = profile.landmarks[LINEAR], profile.landmarks[TREES]
    gain = profile.nonlinearity_gain
    if kind == "linear":
        return linear.rank_ic, f"a ridge regression reached rank IC {_said(linear)} out of fold"
    if kind == "trees":
        return trees.rank_ic, (
            f"boosted trees reached rank IC {_said(trees)} out of fold, {_said(gain)} more than a ridge regression"
        )
    between = (linear.rank_ic + trees.rank_ic) / 2
    if kind == "network":
        return between, "no quick learner is like it; the mean of ridge and trees is assumed"
    if kind == "window_network":
        history = profile.history_gain
        if history.rank_ic > 0 and history.p_value < constraints.alpha:
            best = max((profile.landmarks[HISTORY_LINEAR], profile.landmarks[HISTORY_TREES]), key=lambda s: s.rank_ic)
            return best.rank_ic, (
                f"the days before add {_said(history)} to what a row's own day says: rank IC {_said(best)} out of fold"
            )
        return between, f"the days before add nothing that can be distinguished from noise ({_said(history)})"
    return None, "no quick learner is like it: its skill shows in training only"


def _first(kind: FamilyKind, profile: DataProfile) -> dict[str, Any]:
    """Hyper-parameters to begin with, by name in the zoo."""
    if kind == "linear":
        # Qlib's ridge is scikit-learn's: its penalty belongs to the sum over rows, not to the mean.
        return {"estimator": "ridge", "alpha": profile.settings[LINEAR] * profile.rows}
    if kind == "trees":
        penalty = profile.settings[TREES]
        return {
            "learning_rate": 0.05,
            "num_leaves": 31,
            "max_depth": 6,
            "lambda_l1": 0.0,
            "lambda_l2": penalty,
            "reg_alpha": 0.0,
            "reg_lambda": penalty,
        }
    if kind == "window_network":
        return {"window": max(5, profile.history_days), "patch_length": 4, "stride": 2}
    return {}


def _reads_patches(entry: ModelEntry, profile: DataProfile) -> bool:
    """Whether a model reads each column by itself, and there are few enough columns for that."""
    return "patch_length" in entry.hyperparameters and profile.features <= FEW_FEATURES


def _advice(first: Mapping[str, Any], profile: DataProfile) -> tuple[str, ...]:
    said = []
    if "lambda_l2" in first:
        said.append(f"lambda_l2 {first['lambda_l2']:g} did best of the leaf penalties that were tried")
    if "alpha" in first:
        said.append(f"alpha {first['alpha']:g}: {profile.settings[LINEAR]:g} a row did best of the ridge penalties")
    if "window" in first:
        said.append(f"a window of {profile.history_days} days is within one standard error of the best")
    return tuple(said)


def _allowed(entry: ModelEntry, key: str, value: Any) -> bool:
    """Whether the entry has this hyper-parameter and its bounds allow the value."""
    schema = entry.hyperparameters.get(key)
    if schema is None:
        return False
    if "enum" in schema:
        return value in schema["enum"]
    return bool(schema.get("minimum", value) <= value <= schema.get("maximum", value))


def _memory(entry: ModelEntry, choice: RankedModel, profile: DataProfile) -> int:
    hyperparameters = {**entry.defaults(), **choice.hyperparameters}
    return find_family(entry.family).memory_bytes(hyperparameters, profile.rows, profile.features)


def _ranked(choices: list[RankedModel], standard_error: float, found: bool) -> list[RankedModel]:
    def simplicity(choice: RankedModel) -> int:
        return COMPLEXITY[choice.kind]

    if not found:
        return sorted(choices, key=simplicity)
    known = [choice for choice in choices if choice.expected_rank_ic is not None]
    remaining, ranking = known, []
    while remaining:
        best = max(float(choice.expected_rank_ic or 0.0) for choice in remaining)
        equal = [choice for choice in remaining if float(choice.expected_rank_ic or 0.0) >= best - standard_error]
        ranking += sorted(equal, key=simplicity)
        remaining = [choice for choice in remaining if choice not in equal]
    return ranking + [choice for choice in choices if choice.expected_rank_ic is None]


def _summary(best: str, profile: DataProfile, found: bool) -> str:
    skill = profile.landmarks[best]
    measured = (
        f"the best of {len(profile.landmarks)} quick learners ({best}) reached rank IC {_said(skill)} out of fold"
    )
    if found:
        return f"{measured}: there is something to learn"
    return (
        f"{measured}, p = {skill.p_value:.2f}: the signal cannot be distinguished from noise, so no skill is promised; "
        "the simplest model comes first"
    )


def _said(skill: Skill) -> str:
    return f"{skill.rank_ic:+.4f} +- {skill.standard_error:.4f}"
