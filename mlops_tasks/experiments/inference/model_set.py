"""Several models at once: which may be the best, at one look and at any day.

- `confidence_set` compares all pairs by the paired test, corrected by Holm: it keeps the level wherever that test does.
- `bootstrap_confidence_set` is the model confidence set of Hansen, Lunde and Nason (Econometrica 79, 2011) with the
  statistic of the largest deviation from the mean of all. It finds more among many models, as far as blocks keep the
  dependence of the days.
- `sequential_confidence_set` may be looked at on any day (Arnold, Gavrilopoulos, Schulz and Ziegel, arXiv 2404.18678):
  e-values of bounded losses, averaged over the rivals and adjusted for the number of models.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlops_tasks.errors import ExperimentError
from mlops_tasks.evaluation.confidence_sequences import Bernstein, bernstein_evidence
from mlops_tasks.evaluation.long_run import autocorrelation
from mlops_tasks.experiments.inference.dated import paired
from mlops_tasks.experiments.inference.multiplicity import holm
from mlops_tasks.experiments.inference.resampling import Blocks, block_length, resampling_weights

Floats = NDArray[np.float64]

RESAMPLES = 1999


@dataclass(frozen=True)
class ModelSet:
    """The models that may be the best."""

    kept: tuple[str, ...]
    p_values: dict[str, float]
    """By model: the level at which it would just be left out; 1 for the best of the last step."""
    confidence: float
    """Probability at least that the best model, and each that is as good, is kept."""

    def said(self) -> str:
        """One sentence for people."""
        out = [name for name in self.p_values if name not in self.kept]
        kept = f"with {self.confidence:.0%} confidence the best is among {', '.join(self.kept)}"
        return kept + (f"; {', '.join(out)} may be dropped" if out else "; none may be dropped yet")


def confidence_set(losses: pd.DataFrame, confidence: float = 0.95) -> ModelSet:
    """At one look, by all pairs.

    Parameters
    ----------
    losses
        By day (ascending) and model; smaller is better. Days on which a model has none are left out.

    Raises
    ------
    ExperimentError
        Fewer than two models, or two of them that never differ.
    """
    values, names = _losses(losses)
    pairs = [(i, j) for i in range(len(names)) for j in range(len(names)) if i != j]
    found = {}
    for i, j in pairs:
        if i < j:
            test = paired(values[:, i] - values[:, j])
            p_value = 1.0 if test.p_value is None else test.p_value
            found[i, j], found[j, i] = (
                (p_value / 2, 1 - p_value / 2) if test.effect > 0 else (1 - p_value / 2, p_value / 2)
            )
    adjusted = dict(zip(pairs, holm([found[pair] for pair in pairs]).tolist(), strict=True))
    worst = {name: min(adjusted[i, j] for j in range(len(names)) if j != i) for i, name in enumerate(names)}
    return _kept(worst, confidence)


def bootstrap_confidence_set(losses: pd.DataFrame, confidence: float = 0.95, seed: int = 0) -> ModelSet:
    """At one look, by leaving out the worst model until none is worse than the others.

    The blocks of days are as long as the most persistent model's loss, compared with the mean of all, asks for.

    Raises
    ------
    ExperimentError
        As for `confidence_set`.
    """
    values, names = _losses(losses)
    n = len(values)
    relative = values - values.mean(axis=1, keepdims=True)
    rho = float(np.max(autocorrelation(relative.T)))
    length = block_length(max(rho, 0.0), n, Blocks.CIRCULAR)
    weights = resampling_weights(n, length, Blocks.CIRCULAR, RESAMPLES, np.random.default_rng(seed))
    means = values.mean(axis=0)
    moved = weights @ values - means
    inside, p_values, so_far = list(range(len(names))), dict.fromkeys(names, 1.0), 0.0
    while len(inside) > 1:
        own = means[inside] - means[inside].mean()
        drawn = moved[:, inside] - moved[:, inside].mean(axis=1, keepdims=True)
        errors = drawn.std(axis=0)
        t = own / errors
        worst = int(np.argmax(t))
        p_value = float(np.mean((drawn / errors).max(axis=1) >= t[worst]))
        so_far = max(so_far, p_value)
        p_values[names[inside[worst]]] = so_far
        inside.pop(worst)
    return _kept(p_values, confidence)


def sequential_confidence_set(losses: pd.DataFrame, bound: Bernstein, confidence: float = 0.95) -> ModelSet:
    """At any day, for differences of losses in a known range.

    A model is out from the day on which its e-value against "it is as good as each rival, on average of what was to be
    expected" is large enough for the number of models (Bonferroni, with the e-value's largest so far). It stays out.

    Raises
    ------
    ExperimentError
        As for `confidence_set`, or a difference lies outside the range.
    """
    values, names = _losses(losses)
    p_values = {}
    for i, name in enumerate(names):
        rivals = [j for j in range(len(names)) if j != i]
        try:
            evidence = np.mean([bernstein_evidence(values[:, i] - values[:, j], bound) for j in rivals], axis=0)
        except ValueError as error:
            raise ExperimentError(str(error)) from error
        p_values[name] = min(1.0, len(names) / max(1.0, float(evidence.max())))
    return _kept(p_values, confidence)


def _losses(losses: pd.DataFrame) -> tuple[Floats, Sequence[str]]:
    known = losses.dropna()
    names = [str(name) for name in known.columns]
    if len(names) < 2 or len(set(names)) < len(names):
        raise ExperimentError(f"a set of models needs two models or more with names of their own, got {names}")
    values = known.to_numpy(np.float64)
    if len(values) < 2 or not np.isfinite(values).all():
        raise ExperimentError(f"{len(values)} days have a loss of every model, and all must be finite; two are needed")
    for i in range(len(names)):
        for j in range(i):
            if np.ptp(values[:, i] - values[:, j]) == 0:
                raise ExperimentError(
                    f"{names[j]} and {names[i]} differ by the same on all days; leave one of them out"
                )
    return values, names


def _kept(p_values: dict[str, float], confidence: float) -> ModelSet:
    kept = tuple(name for name, p_value in p_values.items() if p_value > 1 - confidence)
    return ModelSet(kept, p_values, confidence)
