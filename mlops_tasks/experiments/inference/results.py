"""What an analysis of an experiment says, whatever its method."""

from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlops_tasks.errors import ExperimentError
from mlops_tasks.files import finite_or_none

Floats = NDArray[np.float64]


class Method(StrEnum):
    """Every method of analysis."""

    WELCH = "welch"
    PROPORTIONS = "proportions"
    MANN_WHITNEY = "mann_whitney"
    BOOTSTRAP = "bootstrap"
    CUPED = "cuped"
    RATIO = "ratio"
    STUDENT = "student"
    CIRCULAR_BOOTSTRAP = "circular_bootstrap"
    STATIONARY_BOOTSTRAP = "stationary_bootstrap"
    NEWEY_WEST = "newey_west"
    PAIRED = "paired"
    OBRIEN_FLEMING = "obrien_fleming"
    POCOCK = "pocock"
    PREWHITENED = "prewhitened"
    PREWHITENED_POCOCK = "prewhitened_pocock"
    OPEN_ENDED = "open_ended"
    BERNSTEIN = "bernstein"
    SWITCHBACK = "switchback"


class Horizon(StrEnum):
    """When the result may be looked at."""

    FIXED = "fixed"
    """Once, at a length that was set beforehand."""
    PLANNED = "planned"
    """At the looks of a plan."""
    OPEN = "open"
    """At any day, as often as one likes."""


@dataclass(frozen=True)
class Result:
    """An effect (treatment minus control, in the metric's unit) with its interval and its test against zero."""

    method: Method
    effect: float
    lower: float
    upper: float
    """Bounds of the two-sided interval; over all looks of the horizon, not of this one alone."""
    confidence: float
    p_value: float | None
    """Two-sided; over all looks of the horizon."""
    n: int
    """Days, blocks or units that the test counts."""
    horizon: Horizon
    assumes: str
    """In words: what must hold for the level to be kept."""
    look: int = 1
    looks: int | None = 1
    """Planned; None: as many as one likes."""
    e_value: float | None = None
    """Evidence for an effect in its direction, as the multiple of a stake in a fair bet; may be read at any day."""
    standard_error: float | None = None
    degrees_of_freedom: float | None = None
    relative_effect: float | None = None
    """Effect divided by the control's mean; None where there is none."""

    @property
    def significant(self) -> bool:
        """Whether no effect is excluded at the level 1 - confidence."""
        return self.lower > 0 or self.upper < 0

    @property
    def alpha(self) -> float:
        """Two-sided level."""
        return 1 - self.confidence

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; numbers that are not finite become None."""
        return {
            name: finite_or_none(value) if isinstance(value, float) else value for name, value in asdict(self).items()
        } | {"significant": self.significant}


@dataclass(frozen=True)
class Estimate:
    """A difference with its standard error, before any test."""

    effect: float
    standard_error: float
    degrees_of_freedom: float
    """Infinite: the normal distribution."""
    n: int


def tested(found: Estimate, method: Method, confidence: float, assumes: str) -> Result:
    """The result of one look at an estimate, by Student's t."""
    from scipy.special import stdtr, stdtrit

    if found.standard_error <= 0:
        raise ExperimentError(
            f"the metric has no variance in {found.n} observations, so nothing can be tested; see whether it is "
            "recorded at all, and whether both arms do the same"
        )
    t = found.effect / found.standard_error
    half = float(stdtrit(found.degrees_of_freedom, 0.5 + confidence / 2)) * found.standard_error
    return Result(
        method=method,
        effect=found.effect,
        lower=found.effect - half,
        upper=found.effect + half,
        confidence=confidence,
        p_value=float(2 * stdtr(found.degrees_of_freedom, -abs(t))),
        n=found.n,
        horizon=Horizon.FIXED,
        assumes=assumes,
        standard_error=found.standard_error,
        degrees_of_freedom=found.degrees_of_freedom,
    )


def relative(result: Result, control_mean: float) -> Result:
    """The same with the effect in units of the control's mean; unchanged where that is 0."""
    return result if control_mean == 0 else replace(result, relative_effect=result.effect / control_mean)


def finite_days(series: Floats) -> Floats:
    """The values of a daily series without its NaN.

    Raises
    ------
    ExperimentError
        Fewer than two values, an infinite one, or all of them equal.
    """
    values = np.asarray(series, dtype=np.float64)
    values = values[~np.isnan(values)]
    if len(values) < 2:
        raise ExperimentError(f"an analysis needs two or more days on which both arms have a value, got {len(values)}")
    if np.isinf(values).any():
        raise ExperimentError("the metric has infinite values; find out why before comparing arms")
    if np.ptp(values) == 0:
        raise ExperimentError(
            f"the difference is {values[0]:g} on all {len(values)} days: a metric without variance cannot be tested; "
            "see whether both arms serve the same model"
        )
    return values
