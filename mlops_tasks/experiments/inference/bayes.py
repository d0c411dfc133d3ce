"""A Bayesian summary beside the test: how probable the treatment is better, and what a wrong choice costs."""

from dataclasses import dataclass

import numpy as np

from mlops_tasks.errors import ExperimentError
from mlops_tasks.experiments.inference.results import Horizon, Result

POINTS = 20_001
REACH = 60.0
"""Standard errors on both sides that the posterior is computed on, beyond which a Student's t of few degrees has
little; the rest is left out."""


@dataclass(frozen=True)
class Belief:
    """Posterior of an effect."""

    mean: float
    lower: float
    upper: float
    """Bounds of the central interval with the result's confidence as its probability."""
    p_better: float
    """Probability that the treatment's mean is above the control's."""
    loss_if_chosen: float
    """Expected loss, in the metric's unit, of choosing the treatment: what it costs where it is worse."""
    loss_if_refused: float


def belief(result: Result, prior_deviation: float | None = None) -> Belief:
    """What to believe of an effect, given its estimate and what was believed of effects before.

    The likelihood is the scaled t distribution of the estimate, the prior a normal one around zero: most changes do
    little, and the larger an effect looks, the more of it is luck. With repeated looks the posterior stays what it is;
    that is no protection against finding something by looking often, which the test's interval is.

    Parameters
    ----------
    prior_deviation
        Standard deviation of true effects, from past experiments; None: a flat prior.

    Raises
    ------
    ExperimentError
        The result has no standard error (ranks, confidence sequences), or the prior no width.
    """
    from scipy.special import gammaln

    if result.standard_error is None or result.horizon is Horizon.OPEN:
        raise ExperimentError(f"{result.method} gives no likelihood of the effect; summarise a test of its mean")
    if prior_deviation is not None and prior_deviation <= 0:
        raise ExperimentError(f"the standard deviation of true effects is above 0, got {prior_deviation}")
    degrees = result.degrees_of_freedom if result.degrees_of_freedom is not None else np.inf
    steps = np.sinh(np.linspace(-np.arcsinh(REACH), np.arcsinh(REACH), POINTS))  # close together in the middle
    effects = result.effect + steps * result.standard_error
    if np.isfinite(degrees):
        logs = -(degrees + 1) / 2 * np.log1p(steps**2 / degrees) + gammaln((degrees + 1) / 2) - gammaln(degrees / 2)
    else:
        logs = -(steps**2) / 2
    if prior_deviation is not None:
        logs = logs - (effects / prior_deviation) ** 2 / 2
    density = np.exp(logs - logs.max())
    masses = density * np.gradient(effects)
    masses /= masses.sum()
    total = np.cumsum(masses) - masses / 2
    low, high = np.interp([0.5 - result.confidence / 2, 0.5 + result.confidence / 2], total, effects)
    return Belief(
        mean=float(masses @ effects),
        lower=float(low),
        upper=float(high),
        p_better=float(1 - np.interp(0.0, effects, total, left=0.0, right=1.0)),
        loss_if_chosen=float(masses @ np.maximum(-effects, 0.0)),
        loss_if_refused=float(masses @ np.maximum(effects, 0.0)),
    )
