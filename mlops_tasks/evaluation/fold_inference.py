"""Is a mean over cross-validation folds different from zero when the folds train each other's models?

If fold A trains the model that is tested on B, and B the one that is tested on A, both results rest on the same
agreement of A with B. It is counted twice, and a test that treats the days as separate observations understates the
variance of their mean, by a factor of up to two. No unbiased estimate from the results alone exists (Bengio and
Grandvalet, Journal of Machine Learning Research 5, 2004). Nadeau and Bengio (Machine Learning 52, 2003) correct by the
overlap of training sets; here the correction depends on which days train the models of which days.

To first order, the result of day t is a sum, over the days s that its model learned from, of terms k(s, t) that are
symmetric and, without skill, uncorrelated with mean zero: for a linear model k(s, t) is the product of both days'
moments of features and labels. A split that learns from n days weights them by 1 / sqrt(n); w(s, t) is the mean of that
over the splits that test t. The mean's variance is then a sum over pairs of (w(s, t) + w(t, s))^2, where a series of
separate observations has w(s, t)^2 + w(t, s)^2. The ratio of the two depends only on the splits: it is 1 for a
walk-forward, in which no two days train each other's models, and 2 when all pairs of days do.

With skill that a model has clearly learned, the terms of the training days fade. The interval is then too wide, by the
square root of the ratio at most.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mlops_tasks.evaluation.significance import MeanTest
from mlops_tasks.evaluation.splits import Split

Floats = NDArray[np.float64]


def variance_inflation(splits: Sequence[Split], n_days: int) -> float:
    """By how much the variance of the mean of all tested days exceeds that of separate observations, in [1, 2].

    Parameters
    ----------
    splits
        Positions of days in a calendar of `n_days`. A day that several splits test counts as the mean of its results.
    """
    learned, tested = (np.zeros((len(splits), n_days), dtype=bool) for _ in range(2))
    for row, split in enumerate(splits):
        learned[row, split.train], tested[row, split.test] = True, True
    # Days that all splits use alike form one class; there are few classes, whatever the calendar.
    classes, counts = np.unique(np.concatenate([learned, tested]), axis=1, return_counts=True)
    learns, tests = np.split(classes.astype(np.float64), 2)
    weight = (learns / np.sqrt(np.maximum(learned.sum(axis=1, keepdims=True), 1))).T @ tests
    weight /= np.maximum(tests.sum(axis=0), 1)
    pairs = np.outer(counts, counts)
    separate = float((pairs * weight**2).sum())
    return 1.0 + float((pairs * weight * weight.T).sum()) / separate if separate > 0 else 1.0


def inflated(test: MeanTest, inflation: float) -> MeanTest:
    """The same test if the variance of the mean is `inflation` times as large, with the same degrees of freedom."""
    return test.with_error(test.standard_error * float(np.sqrt(inflation)), test.degrees_of_freedom)
