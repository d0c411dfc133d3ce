"""The rules that reject a candidate, against planted faults and known distributions."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

from mlops_tasks.config import RolloutRules
from mlops_tasks.serving.rollout_rules import Measures, breach, compare_scores, psi_beyond_chance

RULES = RolloutRules()
CALM = Measures(500, 2, 500, 12.0, 10.0)
GENERATOR = np.random.default_rng(3)


def scores(count: int = 200, correlation: float = 0.6) -> pd.DataFrame:
    first, second = GENERATOR.standard_normal((2, count))
    candidate = correlation * first + np.sqrt(1 - correlation**2) * second
    return pd.DataFrame({"champion": 0.02 * first, "candidate": 5 + 3 * candidate}, [f"S{n}" for n in range(count)])


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, None),
        ({"failures": 20}, "failed on 3.85% of 520 requests, limit 1.00%"),
        ({"answers": 20, "failures": 20, "p99_ms": 900.0}, None),
        ({"p99_ms": 31.0}, "31.0 ms, of the champion's 10.0 ms: 3.1 times as long, limit 3"),
        ({"champion_answers": 99, "p99_ms": 31.0}, None),
        ({"champion_p99_ms": float("nan")}, None),
    ],
)
def test_errors_and_latency_are_judged_where_there_are_enough_answers(
    changes: dict[str, float], expected: str | None
) -> None:
    """Each limit with its numbers in the reason."""
    found = breach(replace(CALM, **changes), RULES, 20)  # type: ignore[arg-type]
    assert found == expected if expected is None else expected in (found or "")


def test_planted_faults_of_scores_are_found_and_an_honest_candidate_passes() -> None:
    """Missing instruments, another sign, no order, another shape; another scale is none."""
    honest = scores()
    assert breach(replace(CALM, scores=honest, day="2024-06-03"), RULES, 20) is None
    faults = {
        "of the champion's instruments": honest.assign(candidate=honest["candidate"].where(np.arange(200) % 10 > 0)),
        "rank correlation": honest.assign(candidate=-honest["candidate"]),
        "is -1.000": honest.assign(candidate=0.1),
        "population stability": honest.assign(candidate=np.exp(4 * honest["champion"] / 0.02)),
    }
    for said, frame in faults.items():
        found = breach(replace(CALM, scores=frame, day="2024-06-03"), RULES, 20)
        assert found is not None and said in found and found.endswith("on 2024-06-03"), (said, found)
        off = RolloutRules(min_coverage=None, min_rank_correlation=None, max_psi=None)
        assert breach(replace(CALM, scores=frame), off, 20) is None


def test_a_turnover_is_limited_where_a_limit_is_set() -> None:
    """The highest fifth of the champion's names is the candidate's lowest."""
    frame = scores()
    frame["candidate"] = frame["champion"].where(frame["champion"].rank() < 161, -1.0)
    rules = RolloutRules(min_coverage=None, min_rank_correlation=None, max_psi=None, max_turnover=0.9)
    found = breach(replace(CALM, scores=frame, day="2024-06-03"), rules, 20)
    assert found == "a switch from the champion replaces 100% of the names held, limit 90%, on 2024-06-03"


def test_what_is_not_known_breaks_no_rule() -> None:
    """No day in common, hardly an instrument, or a champion without an order."""
    few = scores(3)
    for frame in (None, few, scores().assign(champion=1.0), scores().assign(champion=np.nan)):
        assert breach(replace(CALM, scores=frame), RULES, 20) is None


def test_comparison_is_that_of_scipy() -> None:
    """Over the instruments that both have."""
    frame = scores(50)
    frame.iloc[:5, 1] = np.nan
    found = compare_scores(frame, 5)
    both = frame.dropna()
    assert found.coverage == 45 / 50
    assert found.rank_correlation == pytest.approx(spearmanr(both["champion"], both["candidate"]).statistic)
    tops = [set(both[name].nlargest(5).index) for name in both]
    assert found.turnover == 1 - len(tops[0] & tops[1]) / 5


@pytest.mark.parametrize("count", [20, 60, 500])
def test_the_index_of_equal_distributions_is_zero_beyond_chance(count: int) -> None:
    """On average over 2,000 pairs of samples, or a little less; none of them is above the default limit."""
    generator = np.random.default_rng(11)
    found = [psi_beyond_chance(*generator.standard_normal((2, count))) for _ in range(2000)]
    assert -0.1 < np.mean(found) < 0.01
    assert max(found) < 1.0
