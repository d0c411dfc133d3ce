"""Days as units: designs in which one arm serves on a day, and the randomisation test that belongs to them.

When everything is switched between two arms, neighbouring days depend on each other and an arm's effect may last into
the other arm's days. The test here draws nothing from a model of the days: it compares the observed difference with
those under the other assignments that the design could have made, which is exact for any serial dependence (Fisher;
Bojinov, Simchi-Levi and Zhao, Management Science 69, 2023). Blocks of several days serve one arm, and the first days of
each block, on which the block before may still act, are left out; so it is exact also under carry-over that lasts no
longer than these.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlops_tasks.errors import ExperimentError
from mlops_tasks.experiments.inference.results import Horizon, Method, Result

Floats = NDArray[np.float64]

DRAWS = 4999
EXACT_PAIRS = 12
"""Up to so many pairs of blocks all assignments are counted, beyond it `DRAWS` are drawn."""
LEAST_PAIRS = 6
"""With fewer, no difference is significant at 5%: of five pairs the most extreme two of 32 assignments are 6%."""


@dataclass(frozen=True)
class Switchback:
    """Pairs of blocks of days; in each pair, a coin says whether control or treatment comes first."""

    days: int
    block: int
    """Days of a block."""
    washout: int
    """Days at the beginning of each block that are left out: as long as an arm may act after its last day."""

    def __post_init__(self) -> None:
        """Refuse a design that can prove nothing."""
        if not 0 <= self.washout < self.block:
            raise ExperimentError(
                f"a block of {self.block} days with {self.washout} left out has no day to count; make blocks longer"
            )
        if self.pairs < LEAST_PAIRS:
            raise ExperimentError(
                f"{self.days} days have {self.pairs} pairs of blocks of {self.block} days, but {LEAST_PAIRS} are "
                f"needed; take shorter blocks or {2 * self.block * LEAST_PAIRS} days"
            )

    @property
    def pairs(self) -> int:
        """Whole pairs of blocks; days after them are not counted."""
        return self.days // (2 * self.block)

    def assign(self, generator: np.random.Generator, draws: int = 1) -> NDArray[np.bool_]:
        """For each pair, whether treatment comes first; shape (draws, pairs)."""
        return generator.random((draws, self.pairs)) < 0.5

    def schedule(self, first: NDArray[np.bool_]) -> NDArray[np.int8]:
        """Of one assignment: the arm of each day (0 control, 1 treatment), -1 after the last whole pair."""
        arms = np.full(self.days, -1, dtype=np.int8)
        blocks = np.stack([first, ~first], axis=1).ravel()
        arms[: self.pairs * 2 * self.block] = np.repeat(blocks, self.block)
        return arms

    def contrasts(self, series: Floats) -> Floats:
        """Mean of the first block minus that of the second, in each pair, on the days that count.

        Shape (..., days) becomes (..., pairs).
        """
        used = series[..., : self.pairs * 2 * self.block]
        blocks = used.reshape(*used.shape[:-1], self.pairs, 2, self.block)[..., self.washout :].mean(axis=-1)
        return blocks[..., 0] - blocks[..., 1]


def switchback_test(
    series: Floats, first: NDArray[np.bool_], design: Switchback, confidence: float = 0.95, seed: int = 0
) -> Result:
    """Test the treatment's effect by the design's own randomness.

    The null hypothesis is that on the days that count no day's value depends on its block's arm. The interval holds the
    constant effects that the same test does not reject (it is exact for them).

    Parameters
    ----------
    series
        The metric of each day, shape (days,), without NaN: days left out could depend on the arm.
    first
        The assignment that was used, shape (pairs,).

    Raises
    ------
    ExperimentError
        Shapes do not fit, or a value is missing.
    """
    values = np.asarray(series, dtype=np.float64)
    if values.shape != (design.days,) or np.shape(first) != (design.pairs,):
        raise ExperimentError(
            f"the design has {design.days} days and {design.pairs} pairs of blocks, got values of shape {values.shape} "
            f"and an assignment of shape {np.shape(first)}"
        )
    if not np.isfinite(values).all():
        day = int(np.flatnonzero(~np.isfinite(values))[0]) + 1
        raise ExperimentError(
            f"day {day} of the design has no finite value; fill it, or begin the design anew after it"
        )
    signs = np.where(np.asarray(first, dtype=bool), 1.0, -1.0)
    gains = signs * design.contrasts(values)
    effect = float(gains.mean())
    flips = sign_flips(design.pairs, seed)
    low, high = _interval(gains, flips, 1 - confidence)
    return Result(
        method=Method.SWITCHBACK,
        effect=effect,
        lower=low,
        upper=high,
        confidence=confidence,
        p_value=_p_value(gains, flips),
        n=design.pairs,
        horizon=Horizon.FIXED,
        assumes=(
            f"the assignment was drawn by this design, and an arm acts no longer than {design.washout} days after its "
            "last one; any dependence between days is allowed"
        ),
        standard_error=float(gains.std(ddof=1) / np.sqrt(design.pairs)),
    )


def sign_flips(pairs: int, seed: int = 0) -> Floats:
    """Signs of the pairs under the assignments that are compared, the observed one first; shape (count, pairs)."""
    if pairs <= EXACT_PAIRS:
        numbers = np.arange(2**pairs)
        return np.where((numbers[:, None] >> np.arange(pairs)) & 1, -1.0, 1.0)
    drawn = np.random.default_rng(seed).integers(2, size=(DRAWS, pairs)) * 2.0 - 1.0
    return np.vstack([np.ones(pairs), drawn])


def _p_value(gains: Floats, flips: Floats) -> float:
    others = np.abs(flips @ gains)
    return float(np.mean(others >= np.abs(gains.sum()) * (1 - 1e-12)))


def _interval(gains: Floats, flips: Floats, alpha: float) -> tuple[float, float]:
    """The constant effects that are not rejected, by bisection outwards from the mean."""
    centre, reach = float(gains.mean()), float(np.ptp(gains)) + float(np.abs(gains).max())

    def edge(direction: float) -> float:
        inside, outside = 0.0, reach
        for _ in range(50):
            middle = (inside + outside) / 2
            if _p_value(gains - centre - direction * middle, flips) > alpha:
                inside = middle
            else:
                outside = middle
        return centre + direction * inside

    return edge(-1.0), edge(1.0)
