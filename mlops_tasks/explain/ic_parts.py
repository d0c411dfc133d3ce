"""Which features, or groups of them, the information coefficient comes from."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from mlops_tasks.columns import DATETIME
from mlops_tasks.evaluation.ic import daily_ic
from mlops_tasks.explain.explanation import AdditivityGap, Explanation


@dataclass(frozen=True)
class IcParts:
    """Daily ICs (Pearson's) as sums over features.

    Attributes
    ----------
    parts
        Shape (days, features): covariance of a feature's contributions and the label on the day, divided by the
        standard deviations of score and label. NaN on days without an IC.
    ic
        Of the scores; shape (days,). It is the sum of the parts, but for what the additivity gap of the scores does.
    gap
        Of the scores.
    """

    parts: pd.DataFrame
    ic: pd.Series
    gap: AdditivityGap


def daily_ic_parts(explanation: Explanation, label: pd.Series) -> IcParts:
    """Divide the IC of each day: a covariance with a sum is the sum of the covariances.

    Parameters
    ----------
    label
        Index (datetime, instrument); rows whose label is missing or not finite are left out.

    Raises
    ------
    ExplanationError
        There is no row.
    """
    gap, scores = explanation.gap, explanation.scores
    ic = daily_ic(scores, label)
    known = label.reindex(scores.index).to_numpy(np.float64)
    used = np.isfinite(known)
    index = scores.index[used]
    centred = [_centred(pd.Series(values[used], index)) for values in (scores.to_numpy(), known)]
    products = explanation.contributions[used].mul(centred[1], axis=0).groupby(level=DATETIME).sum()
    squares = [(each**2).groupby(level=DATETIME).sum() for each in centred]
    sizes = np.sqrt(squares[0] * squares[1])
    parts = products.div(sizes.where(sizes > 0), axis=0).reindex(ic.index)
    return IcParts(parts.where(ic.notna(), axis=0), ic, gap)


def _centred(values: pd.Series) -> pd.Series:
    """Less the day's mean."""
    return values - values.groupby(level=DATETIME).transform("mean")
