"""How steady explanations are: shares, ranks and parts of the IC by month or quarter, against closed forms."""

import numpy as np
import pandas as pd
import pytest

from mlops_tasks.columns import DATETIME, INSTRUMENT
from mlops_tasks.evaluation.ic import daily_ic
from mlops_tasks.explain.explanation import Explanation, Method
from mlops_tasks.explain.feature_groups import alpha158_groups
from mlops_tasks.explain.over_time import over_time
from mlops_tasks.features.alpha158 import alpha158


def index(first: str, days: int, names: int = 8) -> pd.MultiIndex:
    """Of a panel of business days."""
    instruments = [f"S{number}" for number in range(names)]
    return pd.MultiIndex.from_product([pd.bdate_range(first, periods=days), instruments], names=[DATETIME, INSTRUMENT])


def explanation(values: np.ndarray, rows: pd.MultiIndex, names: list[str]) -> Explanation:
    """Without a gap."""
    contributions = pd.DataFrame(values, rows, names)
    return Explanation(Method.TREES, contributions, 0.0, contributions.sum(axis=1))


def test_shares_and_parts_add_up() -> None:
    """All of Alpha158, and its six groups: shares of each period to 1, parts of the IC to the period's mean IC."""
    rng = np.random.default_rng(0)
    rows = index("2024-01-02", 60)
    found = explanation(rng.standard_normal((len(rows), 158)), rows, list(alpha158()))
    label = pd.Series(rng.standard_normal(len(rows)), rows)
    label[::11] = np.nan
    for each in (found, found.grouped(alpha158_groups())):
        periods = over_time(each, label)
        assert list(periods.shares.index) == ["2024-01", "2024-02", "2024-03"]
        assert periods.days.sum() == 60
        np.testing.assert_allclose(periods.shares.sum(axis=1), 1, rtol=0, atol=1e-12)
        np.testing.assert_allclose(periods.ic_parts.sum(axis=1), periods.ic, rtol=0, atol=1e-12)
        ic = daily_ic(found.scores, label)
        np.testing.assert_allclose(periods.ic, ic.groupby(ic.index.to_period("M")).mean(), rtol=0, atol=1e-12)
        assert periods.mean_ic_parts()["ic_part"].sum() == pytest.approx(ic.mean(), abs=1e-12)
    np.testing.assert_allclose(
        periods.ic_parts["k_bar"],
        over_time(found, label)
        .ic_parts[[name for name, group in alpha158_groups().items() if group == "k_bar"]]
        .sum(axis=1),
        rtol=0,
        atol=1e-12,
    )


def test_ranks_say_how_steady_features_are() -> None:
    """a leads in the first month, b in the second, c never: known shares, ranks, spread and rank correlation."""
    rows = index("2024-01-01", 46)  # 23 days in January, then February and one day of March
    month = rows.get_level_values(DATETIME).month
    sign = np.tile([1.0, -1.0], len(rows) // 2)
    values = np.column_stack([np.where(month == 2, 1.0, 3.0) * sign, np.where(month == 2, 3.0, 1.0) * sign, sign * 0])
    found = over_time(explanation(values, rows, list("abc")), pd.Series(np.nan, rows))
    assert found.shares.loc["2024-01"].tolist() == [0.75, 0.25, 0.0]
    assert found.ranks.loc["2024-02"].tolist() == [2.0, 1.0, 3.0]
    stability = found.stability()
    assert stability.loc["a"].tolist()[:3] == [1.0, 1.0, 2.0]
    assert stability.loc["c", "rank_std"] == 0.0
    assert found.rank_correlation() == pytest.approx(-1.0)  # of a and b: c never contributes
    assert found.ic.isna().all() and found.ic_parts.isna().all(axis=None)
    steady = over_time(explanation(np.tile([[3.0, 1.0, 2.0]], (len(rows), 1)), rows, list("abc")), pd.Series(1.0, rows))
    assert steady.rank_correlation() == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("days", "first", "last", "count"), [(260, "2024-01", "2024-12", 12), (280, "2024Q1", "2025Q1", 5)]
)
def test_spans_of_more_than_a_year_are_divided_into_quarters(days: int, first: str, last: str, count: int) -> None:
    """Twelve months are months; thirteen are quarters. A single period has no correlation."""
    rows = index("2024-01-01", days, names=3)
    found = over_time(explanation(np.ones((len(rows), 1)), rows, ["a"]), pd.Series(np.nan, rows))
    assert (found.shares.index[0], found.shares.index[-1], len(found.shares)) == (first, last, count)
    short = index("2024-01-01", 5, names=3)
    assert np.isnan(over_time(explanation(np.ones((15, 1)), short, ["a"]), pd.Series(1.0, short)).rank_correlation())


def test_a_feature_that_knows_the_label_has_the_ic() -> None:
    """Its part is the whole, its error small; what is random has about none."""
    rng = np.random.default_rng(1)
    rows = index("2024-01-02", 100, names=20)
    label = pd.Series(rng.standard_normal(len(rows)), rows)
    values = np.column_stack([label, 0.1 * rng.standard_normal(len(rows))])
    found = over_time(explanation(values, rows, ["knows", "noise"]), label).mean_ic_parts()
    assert found.loc["knows", "ic_part"] > 0.98
    assert abs(found.loc["noise", "ic_part"]) < 4 * found.loc["noise", "ic_error"] + 0.002
