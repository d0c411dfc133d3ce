"""Looks at a daily series that are planned beforehand, with a boundary that keeps the level over all of them.

At each look the mean is divided by a standard error that allows for dependence (`Spread`): by the cosine estimator with
`honest_terms`, whose t is turned into the z that a normal variable would have, or by the prewhitened one. The boundary
of O'Brien and Fleming (Biometrics 35, 1979) is crossed after n of N planned days where |z| (n / N)^(1/2) > c: strict at
first, and nearly the test of a single look in the end. That of Pocock (Biometrika 64, 1977) is crossed where |z| > c.

The constant c is the quantile of the largest such statistic of simulated series whose looks go through the same
computation, so nothing is assumed about how the looks depend on each other. With the cosine estimator, which hardly
errs more often under dependence, the simulated days are independent. The prewhitened one varies far less and errs more
often the longer the memory, so its days have an autocorrelation of 0.7: it is strict to days without memory, and finds
more than the cosine estimator all the same. docs/experiments.md has the measured levels and powers of both.
"""

from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from mlops_tasks.evaluation.long_run import cosine_errors, honest_terms, prewhitened_variances

Floats = NDArray[np.float64]

SERIES = 20_000
"""Simulated series of a calibration: the level of c has a standard error of 0.15 percentage points at 5%."""
_CHUNK = 2_000
_SEED = 20_220
_WARM_UP = 60


class Spread(StrEnum):
    """How the standard error of a mean is estimated."""

    COSINE = "cosine"
    PREWHITENED = "prewhitened"


HARDEST_AUTOCORRELATION = {Spread.COSINE: 0.0, Spread.PREWHITENED: 0.7}
"""First autocorrelation of the simulated days that a boundary is calibrated on."""


class Boundary(StrEnum):
    """How the level is spread over the looks."""

    OBRIEN_FLEMING = "obrien_fleming"
    POCOCK = "pocock"


@dataclass(frozen=True)
class LookDays:
    """The days after which is looked; they are set before the first of them."""

    days: tuple[int, ...]
    """Numbers of days with a value, ascending; the last one is the planned length."""

    def __post_init__(self) -> None:
        """Refuse what is no plan."""
        if not self.days or self.days[0] < 2 or any(a >= b for a, b in zip(self.days, self.days[1:], strict=False)):
            raise ValueError(f"a plan of looks has ascending numbers of days, two or more each, got {self.days}")

    @property
    def length(self) -> int:
        """Planned days."""
        return self.days[-1]

    @classmethod
    def every(cls, step: int, first: int, length: int) -> "LookDays":
        """A look every `step` days from day `first` on, and one at the end."""
        return cls((*range(first, length, step), length))


@dataclass(frozen=True)
class LookTest:
    """A plan of looks, and how each of them decides."""

    plan: LookDays
    spread: Spread = Spread.PREWHITENED
    boundary: Boundary = Boundary.OBRIEN_FLEMING

    @property
    def shares(self) -> Floats:
        """What z is multiplied by at each look."""
        if self.boundary is Boundary.POCOCK:
            return np.ones(len(self.plan.days))
        return np.sqrt(np.array(self.plan.days, dtype=np.float64) / self.plan.length)

    def statistics(self, means: Floats, errors: Floats) -> Floats:
        """What is compared with c, at the first looks of the plan; arrays of shape (..., looks)."""
        with np.errstate(divide="ignore", invalid="ignore"):
            z = np.abs(np.where(means == 0, 0.0, means / errors))
        looks = z.shape[-1]
        if self.spread is Spread.COSINE:
            for look, days in enumerate(self.plan.days[:looks]):
                z[..., look] = np.interp(z[..., look], *_z_of_t(honest_terms(days)))
        return z * self.shares[:looks]

    def critical(self, look: int, alpha: float) -> float:
        """How many standard errors the mean has to exceed at look number `look` (from 1), two-sided."""
        z = constant(self, alpha) / float(self.shares[look - 1])
        if self.spread is Spread.PREWHITENED:
            return z
        from scipy.special import ndtr, stdtrit

        return float(-stdtrit(honest_terms(self.plan.days[look - 1]), ndtr(-z)))

    def adjusted_p(self, largest: float) -> float:
        """The smallest level at which the looks so far have crossed, from their largest statistic.

        It is the share of simulated series whose largest statistic over all planned looks is as large, so it may be
        compared with a level at every look.
        """
        found = _null(self)
        return float((1 + np.sum(found >= largest)) / (1 + len(found)))

    def found(self, effect: float, alpha: float) -> float:
        """Probability that independent days with a mean of so many standard deviations cross at any look."""
        looks = simulated(self.plan, self.spread, 0.0)
        largest = self.statistics(looks.means + effect, looks.errors).max(axis=1)
        return float(np.mean(largest > constant(self, alpha)))


@dataclass(frozen=True)
class SimulatedLooks:
    """Means and standard errors of simulated days of mean 0 and variance 1 at each look, shape (series, looks)."""

    means: Floats
    errors: Floats


def look_moments(series: Floats, plan: LookDays, spread: Spread) -> tuple[Floats, Floats]:
    """Means and standard errors of series of shape (count, days) at each look; both of shape (count, looks)."""
    days = np.array(plan.days)
    means = np.cumsum(series, axis=1)[:, days - 1] / days
    if spread is Spread.PREWHITENED:
        return means, np.sqrt(prewhitened_variances(series)[:, days - 1] / days)
    return means, np.stack([cosine_errors(series[:, :each], honest_terms(each)) for each in plan.days], axis=1)


@lru_cache(maxsize=8)
def simulated(plan: LookDays, spread: Spread, autocorrelation: float) -> SimulatedLooks:
    """First-order autoregressions without effect, the same in each process."""
    from scipy.signal import lfilter

    generator, parts = np.random.default_rng(_SEED), []
    scale = [np.sqrt(1 - autocorrelation**2)]
    for _ in range(SERIES // _CHUNK):
        shocks = generator.normal(size=(_CHUNK, plan.length + _WARM_UP))
        series = lfilter(scale, [1.0, -autocorrelation], shocks, axis=1)[:, _WARM_UP:]
        parts.append(look_moments(series, plan, spread))
    means, errors = (np.concatenate(each) for each in zip(*parts, strict=True))
    return SimulatedLooks(means, errors)


@lru_cache(maxsize=64)
def constant(test: LookTest, alpha: float) -> float:
    """The boundary's c: two-sided, for the level alpha over all looks."""
    return float(np.quantile(_null(test), 1 - alpha))


@lru_cache(maxsize=16)
def _null(test: LookTest) -> Floats:
    """The largest statistic of each simulated series without effect."""
    looks = simulated(test.plan, test.spread, HARDEST_AUTOCORRELATION[test.spread])
    return test.statistics(looks.means, looks.errors).max(axis=1)


@lru_cache(maxsize=16)
def _z_of_t(terms: int) -> tuple[Floats, Floats]:
    """Values of Student's t, and of a normal variable that is as unlikely to be exceeded; z is cut at 8."""
    from scipy.special import ndtr, stdtrit

    z = np.linspace(0.0, 8.0, 8001)
    return -stdtrit(terms, ndtr(-z)), z
