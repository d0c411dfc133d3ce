"""What drift may cost: order, weights, and what is said where nothing is known."""

import numpy as np
import pandas as pd
import pytest

from mlops_tasks.columns import SCORE
from mlops_tasks.monitoring.severity import Importance, Stake, with_cost

SIZES = {"A": 1.0, "B": 6.0, "C": 3.0}


def table(**exceedance: float) -> pd.DataFrame:
    """Columns with their exceedance."""
    return pd.DataFrame({"exceedance": exceedance, "psi": 0.1})


def test_columns_come_by_what_they_may_cost() -> None:
    """A heavy column a little beyond the limit comes before a light one far beyond it: 0.6 x 1/3 against 0.1 x 0.9."""
    found = with_cost(table(A=10.0, D=50.0, C=0.9, B=1.5, score=1.1), Importance(SIZES, "known"))
    assert list(found.index) == [SCORE, "B", "A", "D", "C"]
    assert found["cost"].to_dict() == pytest.approx(
        {SCORE: np.nan, "B": 0.2, "A": 0.09, "D": np.nan, "C": 0.0}, nan_ok=True
    )
    stake = Stake.of(found)
    assert (stake.scores, stake.unknown) == (True, 1)
    assert (stake.importance, stake.cost) == pytest.approx((0.7, 0.29))


def test_unknown_importance_is_not_nothing() -> None:
    """Where nothing is known, share and cost are not known either; where nothing drifts, nothing is at stake."""
    for sizes in ({}, {"A": 0.0}):
        stake = Stake.of(with_cost(table(A=2.0, B=3.0), Importance(sizes, "not known")))
        assert np.isnan([stake.importance, stake.cost]).all() and stake.unknown == 2
    quiet = Stake.of(with_cost(table(A=0.2, B=0.3), Importance({}, "not known")))
    assert quiet == Stake(scores=False, importance=0.0, cost=0.0, unknown=0)


def test_the_cost_never_exceeds_the_importance() -> None:
    """Each column's cost grows with its exceedance, from 0 at the limit towards its share."""
    costs = [with_cost(table(B=value), Importance(SIZES, "known")).loc["B", "cost"] for value in (1.0, 2.0, 1e9)]
    assert costs == pytest.approx([0.0, 0.3, 0.6])
