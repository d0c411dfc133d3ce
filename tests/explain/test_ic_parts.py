"""The parts of an IC sum up to it."""

import numpy as np
import pandas as pd

from mlops_tasks.evaluation.ic import daily_ic
from mlops_tasks.explain.explanation import Explanation, Method
from mlops_tasks.explain.ic_parts import daily_ic_parts
from tests.explain.panels import index_of


def test_parts_are_the_ic() -> None:
    """On every day that has one, with gaps in the labels; the feature that knows the label has nearly all of it."""
    rng = np.random.default_rng(0)
    index = index_of(400)
    label = pd.Series(rng.standard_normal(400), index)
    values = np.column_stack([0.5 * label, 0.1 * rng.standard_normal(400), np.zeros(400)])
    scores = pd.Series(values.sum(axis=1), index)
    label[::7] = np.nan
    label[:10] = 1.0
    explanation = Explanation(Method.TREES, pd.DataFrame(values, index, ["knows", "noise", "nothing"]), 0.0, scores)
    found = daily_ic_parts(explanation, label)
    pd.testing.assert_series_equal(found.ic, daily_ic(scores, label))
    np.testing.assert_allclose(found.parts.sum(axis=1, skipna=False), found.ic, rtol=0, atol=1e-12)
    assert found.parts.iloc[0].isna().all()
    assert found.parts["knows"].mean() > 0.9 * found.ic.mean()
    assert (found.parts["nothing"].iloc[1:] == 0).all()


def test_groups_share_the_ic_too() -> None:
    """What is grouped first is the sum of its features' parts."""
    rng = np.random.default_rng(1)
    index, values = index_of(100), rng.standard_normal((100, 3))
    explanation = Explanation(
        Method.TREES, pd.DataFrame(values, index, list("abc")), 0.0, pd.Series(values.sum(axis=1), index)
    )
    label = pd.Series(rng.standard_normal(100), index)
    grouped = daily_ic_parts(explanation.grouped({"a": "x", "b": "y", "c": "x"}), label).parts
    single = daily_ic_parts(explanation, label).parts
    np.testing.assert_allclose(grouped["x"], single["a"] + single["c"], rtol=0, atol=1e-12)
