"""Property 7, split fairness: exact proportions, independence between experiments, and stickiness, tested statistically
at levels that are stated."""

from decimal import Decimal
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from mlops_tasks.errors import ExperimentError
from mlops_tasks.experiments.assignment import Allocation, Enrolment, Layer, Reason, TrafficPlan
from mlops_tasks.experiments.hashing import SPACE, positions
from mlops_tasks.states import UnitKind

UNITS = [f"account-{number}" for number in range(20_000)]
HALVES = {"a": Decimal("0.5"), "b": Decimal("0.5")}
SMALLEST_P = 1e-6
"""A sound splitter fails one of these tests in at most one of 10,000 runs, were they random; they are not: their salts
are fixed."""


def shares_of(weights: list[int]) -> dict[str, Decimal]:
    """Shares in proportion to the weights, exactly summing to 1."""
    total, widths = sum(weights), [SPACE * weight // sum(weights) for weight in weights]
    assert total > 0
    widths[0] += SPACE - sum(widths)
    return {f"arm{code}": Decimal(width) / SPACE for code, width in enumerate(widths)}


SHARES = st.lists(st.integers(1, 50), min_size=2, max_size=5).map(shares_of)


def plan(shares: dict[str, Decimal], salt: str, held_out: str = "0", exposure: str = "1") -> TrafficPlan:
    """Two layers, with one experiment in each: `one` has these shares and half of its layer, `other` all of its."""
    layers = (
        Layer("ranking", f"{salt}/ranking", UnitKind.ACCOUNT, Decimal(held_out)),
        Layer("execution", f"{salt}/execution", UnitKind.ACCOUNT),
    )
    one = Enrolment("one", f"{salt}/one", "ranking", 0, SPACE // 2, Allocation.of(shares), Decimal(exposure))
    rival = Enrolment("rival", f"{salt}/rival", "ranking", SPACE // 2, SPACE, Allocation.of(shares))
    other = Enrolment("other", f"{salt}/other", "execution", 0, SPACE, Allocation.of({"a": "0.5", "b": "0.5"}))
    return TrafficPlan(layers, (one, rival, other))


def p_of_proportions(counts: dict[str, int], shares: dict[str, Decimal]) -> float:
    """Of Pearson's test that the counts come from these shares."""
    n = sum(counts.values())
    return float(stats.chisquare(list(counts.values()), [n * float(shares[arm]) for arm in counts]).pvalue)


@settings(max_examples=30)
@given(shares=SHARES, salt=st.text(min_size=1, max_size=20))
def test_arms_have_their_shares(shares: dict[str, Decimal], salt: str) -> None:
    """Pearson's test of the counts, whatever the salt; and the shares of the positions are exact."""
    found = plan(shares, salt).assign("one", UNITS)
    assert p_of_proportions(found.counts(), shares) > SMALLEST_P
    assert Allocation.of(shares).shares == shares
    assert 0.47 < np.mean(found.codes >= 0) < 0.53


def test_p_values_of_the_shares_are_uniform() -> None:
    """Over 400 salts: neither too bad nor too good to be random, which a counter in place of a hash would be."""
    shares = shares_of([1, 2, 3])
    plans = [plan(shares, f"salt {number}") for number in range(400)]
    values = [p_of_proportions(each.assign("other", UNITS[:3000]).counts(), HALVES) for each in plans]
    assert stats.kstest(values, "uniform").pvalue > 1e-3


@settings(max_examples=30)
@given(shares=SHARES, salt=st.text(min_size=1, max_size=20))
def test_experiments_of_different_layers_are_independent(shares: dict[str, Decimal], salt: str) -> None:
    """The arm in one says nothing of the arm in the other, nor of taking part in it."""
    traffic = plan(shares, salt)
    one, other = traffic.assign("one", UNITS), traffic.assign("other", UNITS)
    table = np.zeros((len(shares) + 1, 2))
    np.add.at(table, (one.codes + 1, other.codes), 1)
    assert stats.chi2_contingency(table).pvalue > SMALLEST_P


@settings(max_examples=20)
@given(shares=SHARES, salt=st.text(min_size=1, max_size=20))
def test_experiments_of_one_layer_exclude_each_other(shares: dict[str, Decimal], salt: str) -> None:
    """And together take every unit that is not held out; the holdout takes the same share from both."""
    traffic = plan(shares, salt, held_out="0.2")
    one, rival = traffic.assign("one", UNITS), traffic.assign("rival", UNITS)
    held = np.array([one.reason_of(row) == Reason.HELD_OUT for row in range(len(UNITS))])
    assert ((one.codes >= 0) ^ (rival.codes >= 0) ^ held).all()
    assert not ((one.codes >= 0) & (rival.codes >= 0)).any()
    counts = [int(held.sum()), int((~held).sum())]
    assert stats.chisquare(counts, [0.2 * len(UNITS), 0.8 * len(UNITS)]).pvalue > SMALLEST_P


@settings(max_examples=20)
@given(shares=SHARES, exposures=st.lists(st.integers(0, 100), min_size=2, max_size=5).map(sorted))
def test_a_ramp_moves_nobody(shares: dict[str, Decimal], exposures: list[int]) -> None:
    """Who takes part at one exposure has the same arm at every larger one; nobody is taken out."""
    units = UNITS[:3000]
    steps = [plan(shares, "ramp", exposure=str(Decimal(each) / 100)).assign("one", units).codes for each in exposures]
    for before, after in pairwise(steps):
        inside = before >= 0
        np.testing.assert_array_equal(after[inside], before[inside])


def test_units_of_a_group_go_together() -> None:
    """The accounts of a client; and a unit alone has the arm of its own name."""
    traffic = plan(shares_of([1, 1]), "groups")
    clients = [f"client-{number // 7}" for number in range(700)]
    found = traffic.assign("other", UNITS[:700], clients)
    np.testing.assert_array_equal(found.codes, traffic.assign("other", clients).codes)
    for first in range(0, 700, 7):
        assert len(set(found.codes[first : first + 7])) == 1
    assert len(set(found.codes)) == 2


def test_positions_do_not_change_between_processes_and_releases() -> None:
    """Written down once; another value would move every unit of every running experiment."""
    assert positions("salt", ["account-1", "account-2", "株式", "x" * 100]).tolist() == [790429, 601892, 361242, 179148]


@pytest.mark.parametrize("names", [["a", ""], ["a", None], [1, 2]])
def test_units_without_a_name_are_refused(names: list[str]) -> None:
    """Whatever stands in place of a name."""
    with pytest.raises(ExperimentError, match=r"units: "):
        positions("salt", names)
