"""Arms of independent units (clients, accounts): differences of means, shares, ranks and ratios, at one look.

A unit must be assigned on its own and count once, with one value for the whole experiment. Days are no such units: they
depend on each other, and both arms see the same ones (`dated`).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlops_tasks.errors import ExperimentError
from mlops_tasks.experiments.inference.results import Estimate, Horizon, Method, Result, relative, tested

Floats = NDArray[np.float64]

INDEPENDENT = "units that are independent of each other, one value each"
RESAMPLES = 1999


@dataclass(frozen=True)
class Arms:
    """The values of both arms, one for each unit."""

    control: Floats
    treatment: Floats

    def __post_init__(self) -> None:
        """Refuse an arm without data."""
        for name in ("control", "treatment"):
            values = np.asarray(getattr(self, name), dtype=np.float64)
            if values.ndim != 1 or len(values) < 2:
                raise ExperimentError(
                    f"the {name} arm has {values.size} units with a value, but two are needed at least; see whether it "
                    "was assigned any, and whether its events arrive"
                )
            if not np.isfinite(values).all():
                unit = int(np.flatnonzero(~np.isfinite(values))[0]) + 1
                raise ExperimentError(f"unit {unit} of the {name} arm has no finite value; leave it out in both arms")
            object.__setattr__(self, name, values)

    @property
    def smaller(self) -> int:
        """Units of the smaller arm."""
        return min(len(self.control), len(self.treatment))


def welch(arms: Arms, confidence: float = 0.95) -> Result:
    """Difference of means with unequal variances (Welch, Biometrika 34, 1947)."""
    found = _difference(arms.control, arms.treatment)
    return relative(tested(found, Method.WELCH, confidence, INDEPENDENT), float(arms.control.mean()))


def cuped(arms: Arms, control_before: Floats, treatment_before: Floats, confidence: float = 0.95) -> Result:
    """Welch's test after what a covariate from before the experiment explains is taken away.

    The coefficient is that of both arms together (Deng, Xu, Kohavi and Walker, WSDM 2013). The covariate must not be
    touched by the treatment; take the same metric of the same units before the first day.

    Raises
    ------
    ExperimentError
        The covariate has other units, a value that is not finite, or no variance.
    """
    before = Arms(control_before, treatment_before)
    if (len(before.control), len(before.treatment)) != (len(arms.control), len(arms.treatment)):
        raise ExperimentError(
            f"the covariate has {len(before.control)} and {len(before.treatment)} units, the metric "
            f"{len(arms.control)} and {len(arms.treatment)}; give one value for each unit, in the same order"
        )
    pooled = np.concatenate([before.control, before.treatment])
    if np.ptp(pooled) == 0:
        raise ExperimentError("the covariate has no variance and explains nothing; use Welch's test")
    theta = np.cov(np.concatenate([arms.control, arms.treatment]), pooled)[0, 1] / pooled.var(ddof=1)
    control, treatment = (
        own - theta * (covariate - pooled.mean())
        for own, covariate in ((arms.control, before.control), (arms.treatment, before.treatment))
    )
    found = _difference(control, treatment)
    assumes = f"{INDEPENDENT}, and a covariate from before the experiment"
    return relative(tested(found, Method.CUPED, confidence, assumes), float(control.mean()))


@dataclass(frozen=True)
class RatioArm:
    """Of each unit of an arm, what is above and below the line: profit and turnover, say."""

    numerator: Floats
    denominator: Floats

    def linearised(self) -> tuple[float, Floats]:
        """The ratio of the means, and of each unit the value whose mean has its variance (the delta method)."""
        below = float(np.mean(self.denominator))
        if below == 0:
            raise ExperimentError(
                "the mean below the line is 0 in one arm, so it has no ratio; see whether it is recorded"
            )
        ratio = float(np.mean(self.numerator)) / below
        return ratio, ratio + (np.asarray(self.numerator) - ratio * np.asarray(self.denominator)) / below


def ratio(control: RatioArm, treatment: RatioArm, confidence: float = 0.95) -> Result:
    """Difference of two ratios of means, by the delta method (Deng, Knoblich and Lu, KDD 2018).

    For a metric whose unit of analysis is finer than the unit of assignment: cost per trade of accounts, say.
    """
    ratios, values = zip(*(arm.linearised() for arm in (control, treatment)), strict=True)
    arms = Arms(*values)
    found = _difference(arms.control, arms.treatment)
    assumes = f"{INDEPENDENT}, and enough of them that the mean below the line hardly varies"
    return relative(tested(found, Method.RATIO, confidence, assumes), ratios[0])


def proportions(successes: tuple[int, int], units: tuple[int, int], confidence: float = 0.95) -> Result:
    """Difference of two shares (control, treatment): the p-value of the pooled z-test, Newcombe's interval.

    The interval is built from those of Wilson (Newcombe, Statistics in Medicine 17, 1998, method 10).

    Raises
    ------
    ExperimentError
        Counts that are none, or no unit with and no unit without a success.
    """
    from scipy.special import ndtr, ndtri

    for count, total in zip(successes, units, strict=True):
        if total < 1 or not 0 <= count <= total:
            raise ExperimentError(
                f"{count} successes of {total} units are no share; see whether an arm is without data"
            )
    share = [count / total for count, total in zip(successes, units, strict=True)]
    pooled = sum(successes) / sum(units)
    if pooled in (0.0, 1.0):
        raise ExperimentError("all units are alike in both arms: a metric without variance cannot be tested")
    error = float(np.sqrt(pooled * (1 - pooled) * (1 / units[0] + 1 / units[1])))
    z = float(ndtri(0.5 + confidence / 2))
    bounds = [_wilson(each, total, z) for each, total in zip(share, units, strict=True)]
    effect = share[1] - share[0]
    down = np.hypot(share[1] - bounds[1][0], bounds[0][1] - share[0])
    up = np.hypot(bounds[1][1] - share[1], share[0] - bounds[0][0])
    result = Result(
        method=Method.PROPORTIONS,
        effect=effect,
        lower=float(effect - down),
        upper=float(effect + up),
        confidence=confidence,
        p_value=float(2 * ndtr(-abs(effect) / error)),
        n=sum(units),
        horizon=Horizon.FIXED,
        assumes=INDEPENDENT,
        standard_error=error,
    )
    return relative(result, share[0])


def mann_whitney(arms: Arms, confidence: float = 0.95) -> Result:
    """Are values of one arm larger than those of the other? By ranks, with the normal distribution and ties.

    The effect is the median of all differences between a treated and a control unit, and the interval that of Hodges
    and Lehmann: they speak of a shift of the whole distribution, not of a difference of means.

    Raises
    ------
    ExperimentError
        All values are equal.
    """
    from scipy.special import ndtr, ndtri
    from scipy.stats import rankdata, tiecorrect

    n, m = len(arms.treatment), len(arms.control)
    ranks = rankdata(np.concatenate([arms.treatment, arms.control]))
    spread = float(np.sqrt(tiecorrect(ranks) * n * m * (n + m + 1) / 12))
    if spread == 0:
        raise ExperimentError("all values are equal in both arms: a metric without variance cannot be tested")
    above = float(ranks[:n].sum() - n * (n + 1) / 2)
    distance = abs(above - n * m / 2)
    p_value = float(min(1.0, 2 * ndtr(-(distance - 0.5) / spread)))
    differences = np.sort(np.subtract.outer(arms.treatment, arms.control), axis=None)
    reach = int(np.clip(np.floor(n * m / 2 - float(ndtri(0.5 + confidence / 2)) * spread), 0, n * m // 2))
    return Result(
        method=Method.MANN_WHITNEY,
        effect=float(np.median(differences)),
        lower=float(differences[reach]),
        upper=float(differences[-1 - reach]),
        confidence=confidence,
        p_value=p_value,
        n=n + m,
        horizon=Horizon.FIXED,
        assumes=f"{INDEPENDENT}, and distributions of the same shape",
    )


def bootstrap(arms: Arms, confidence: float = 0.95, seed: int = 0) -> Result:
    """Difference of means by resampling the units of each arm, studentised (bootstrap-t; Efron, 1979; Hall, 1988).

    For few units of a skewed metric it keeps the level better than plain quantiles of resampled means.
    """
    generator = np.random.default_rng(seed)
    found = _difference(arms.control, arms.treatment)
    if found.standard_error <= 0:
        return tested(found, Method.BOOTSTRAP, confidence, INDEPENDENT)
    t = studentised((arms.control, arms.treatment), RESAMPLES, generator)
    low, high = np.quantile(t, [0.5 - confidence / 2, 0.5 + confidence / 2])
    own = found.effect / found.standard_error
    tail = min(float(np.sum(t >= own)), float(np.sum(t <= own)))
    result = Result(
        method=Method.BOOTSTRAP,
        effect=found.effect,
        lower=found.effect - float(high) * found.standard_error,
        upper=found.effect - float(low) * found.standard_error,
        confidence=confidence,
        p_value=min(1.0, 2 * (1 + tail) / (1 + RESAMPLES)),
        n=found.n,
        horizon=Horizon.FIXED,
        assumes=INDEPENDENT,
        standard_error=found.standard_error,
    )
    return relative(result, float(arms.control.mean()))


def studentised(arms: tuple[Floats, Floats], resamples: int, generator: np.random.Generator) -> Floats:
    """t of the resampled differences around the arms' own; shape (resamples,)."""
    means, variances = [], []
    for values in arms:
        drawn = values[generator.integers(len(values), size=(resamples, len(values)))]
        means.append(drawn.mean(axis=1) - values.mean())
        variances.append(drawn.var(axis=1, ddof=1) / len(values))
    error = np.sqrt(variances[0] + variances[1])
    return np.divide(means[1] - means[0], error, out=np.zeros(resamples), where=error > 0)


def _difference(control: Floats, treatment: Floats) -> Estimate:
    """Treatment minus control, with Welch's degrees of freedom."""
    parts = [float(np.var(each, ddof=1)) / len(each) for each in (control, treatment)]
    total = sum(parts)
    terms = sum(part**2 / (len(each) - 1) for part, each in zip(parts, (control, treatment), strict=True))
    return Estimate(
        effect=float(np.mean(treatment) - np.mean(control)),
        standard_error=float(np.sqrt(total)),
        degrees_of_freedom=total**2 / terms if terms > 0 else 1.0,
        n=len(control) + len(treatment),
    )


def _wilson(share: float, n: int, z: float) -> tuple[float, float]:
    """Interval of a share (Wilson, Journal of the American Statistical Association 22, 1927)."""
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * float(np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2)))
    return centre - half, centre + half
