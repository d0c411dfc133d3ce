"""Bootstrap tests of a daily mean: of independent days, of blocks of fixed and of random length.

Blocks keep the dependence of neighbouring days (circular: Politis and Romano, 1992; stationary, with geometric lengths:
Politis and Romano, Journal of the American Statistical Association 89, 1994). The block length is that of Politis and
White (Econometric Reviews 23, 2004; corrected by Patton, Politis and White, 28, 2009) for a first-order autoregression
with the series' coefficient.
"""

from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from mlops_tasks.evaluation.long_run import autocorrelation
from mlops_tasks.experiments.inference.results import Horizon, Method, Result, finite_days

Floats = NDArray[np.float64]

RESAMPLES = 1999


class Blocks(StrEnum):
    """How the length of a block is drawn."""

    CIRCULAR = "circular"
    STATIONARY = "stationary"


METHOD = {Blocks.CIRCULAR: Method.CIRCULAR_BOOTSTRAP, Blocks.STATIONARY: Method.STATIONARY_BOOTSTRAP}


def block_length(rho: float, n: int, blocks: Blocks) -> int:
    """Days of a block (their mean, if random) for a first autocorrelation of rho; from 1 to a third of n."""
    memory = 2 * rho / (1 - rho**2)
    factor = 1.5 if blocks is Blocks.CIRCULAR else 1.0
    return int(np.clip(np.ceil((factor * memory**2 * n) ** (1 / 3)), 1, max(1, n // 3)))


def resampling_weights(
    n: int, length: int, blocks: Blocks, resamples: int, generator: np.random.Generator
) -> NDArray[np.float64]:
    """How often each day is drawn in each resample, divided by n; shape (resamples, n). The series is a ring."""
    if length == 1:
        starts, lengths = generator.integers(n, size=(resamples, n)), np.ones((resamples, n), dtype=np.int64)
    elif blocks is Blocks.CIRCULAR:
        count = -(-n // length)
        starts = generator.integers(n, size=(resamples, count))
        lengths = np.full((resamples, count), length)
    else:
        count = max(8, int(np.ceil(3 * n / length)) + 12)
        starts = generator.integers(n, size=(resamples, count))
        lengths = generator.geometric(1 / length, size=(resamples, count))
    # The last block that is needed is cut, later ones are empty; where too few days were drawn, the last one is longer.
    ends = np.minimum(np.cumsum(lengths, axis=1), n)
    ends[:, -1] = n
    lengths = np.diff(ends, axis=1, prepend=0)
    rows = np.repeat(np.arange(resamples), starts.shape[1])
    turns, rest = np.divmod((starts + lengths).ravel(), n)
    steps = np.zeros((resamples, n + 1))
    np.add.at(steps, (rows, starts.ravel()), 1.0)
    np.add.at(steps, (rows, rest), -1.0)
    whole = np.bincount(
        rows, weights=turns, minlength=resamples
    )  # a block that passes the end goes on at the beginning
    return (np.cumsum(steps, axis=1)[:, :n] + whole[:, None]) / n


def bootstrap_mean(
    series: Floats,
    blocks: Blocks | None = None,
    length: int | None = None,
    *,
    confidence: float = 0.95,
    seed: int = 0,
) -> Result:
    """Test a daily mean against zero by resampling.

    Parameters
    ----------
    series
        n values in time order, any unit; NaN are dropped.
    blocks, length
        Kind of the blocks and their days; None: single days, and `block_length`.

    Returns
    -------
    A two-sided p-value from the distribution of the resampled means around the series' own, and the interval that their
    quantiles give, mirrored at the mean (the basic bootstrap interval).

    Raises
    ------
    ExperimentError
        Fewer than two values, or an infinite one.
    """
    values = finite_days(series)
    n, mean = len(values), float(values.mean())
    kind = Blocks.CIRCULAR if blocks is None else blocks
    if length is None:
        length = 1 if blocks is None else block_length(float(autocorrelation(values)), n, kind)
    weights = resampling_weights(n, length, kind, RESAMPLES, np.random.default_rng(seed))
    moved = weights @ values - mean
    low, high = np.quantile(moved, [0.5 - confidence / 2, 0.5 + confidence / 2])
    return Result(
        method=Method.BOOTSTRAP if blocks is None else METHOD[blocks],
        effect=mean,
        lower=float(mean - high),
        upper=float(mean - low),
        confidence=confidence,
        p_value=float(bootstrap_p(moved, np.array([mean]))[0]),
        n=n,
        horizon=Horizon.FIXED,
        standard_error=float(moved.std(ddof=1)),
        assumes="independent days"
        if blocks is None
        else f"dependence that blocks of {length} days keep, which in short series they do not",
    )


def bootstrap_p(moved: Floats, means: Floats) -> Floats:
    """Two-sided p-values: `moved` are resampled means minus their series' own, shape (..., resamples)."""
    return (1 + np.sum(np.abs(moved) >= np.abs(means)[..., None], axis=-1)) / (1 + moved.shape[-1])
