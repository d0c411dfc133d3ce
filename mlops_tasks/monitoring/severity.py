"""What drift may cost: how far a column has drifted, weighed by its share of the score.

A column's share is that of its mean absolute Shapley value (Lundberg and Lee, A Unified Approach to Interpreting Model
Predictions, NeurIPS 2017) on rows of the training segment. Its cost is that share times 1 - 1 / exceedance: nothing at
the limit, half of the share at twice the limit, and never more than all of it.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from mlops_tasks.columns import SCORE


@dataclass(frozen=True)
class Importance:
    """What each feature counts for in a model's scores.

    Attributes
    ----------
    sizes
        By feature, not negative, in any unit; empty if nothing is known.
    measured_by
        In words.
    """

    sizes: dict[str, float]
    measured_by: str

    @property
    def shares(self) -> pd.Series:
        """Shares of all features' importance, by feature; empty if nothing is known, or all sizes are 0."""
        sizes = pd.Series(self.sizes, dtype=np.float64).clip(lower=0.0)
        return sizes / sizes.sum() if sizes.sum() > 0 else sizes.iloc[:0]


def with_cost(table: pd.DataFrame, importance: Importance) -> pd.DataFrame:
    """Add `importance_share` and `cost` to a table by column with `exceedance` and `psi`, and put it in order.

    The scores have no share. NaN in both means that the importance is not known.

    Returns
    -------
    Columns beyond the limit come first: the scores themselves, then by cost, then those of unknown importance. The
    others follow, those nearest to the limit first.
    """
    share = importance.shares.reindex(table.index)
    beyond = table["exceedance"] >= 1
    cost = share * (1 - 1 / table["exceedance"].where(beyond, 1.0))
    place = np.select([~beyond, table.index == SCORE, cost.isna()], [-2.0, np.inf, -1.0], cost)
    found = table.assign(importance_share=share, cost=cost, place=place)
    return found.sort_values(["place", "exceedance", "psi"], ascending=False, kind="stable").drop(columns="place")


@dataclass(frozen=True)
class Stake:
    """What the columns beyond the limit may cost in all.

    Attributes
    ----------
    scores
        Whether the scores themselves are beyond.
    importance
        Share of the importance that the features beyond the limit have; NaN if none of them has a known one.
    cost
        The same, weighed by how far they are beyond.
    unknown
        Features beyond the limit whose importance is not known.
    """

    scores: bool
    importance: float
    cost: float
    unknown: int

    @classmethod
    def of(cls, table: pd.DataFrame) -> "Stake":
        """From a table of `with_cost`."""
        beyond = table[table["exceedance"] >= 1]
        features = beyond.drop(index=SCORE, errors="ignore")
        none = len(features) == 0
        return cls(
            scores=SCORE in beyond.index,
            importance=0.0 if none else float(features["importance_share"].sum(min_count=1)),
            cost=0.0 if none else float(features["cost"].sum(min_count=1)),
            unknown=int(features["importance_share"].isna().sum()),
        )
