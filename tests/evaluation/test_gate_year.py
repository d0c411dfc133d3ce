"""The gate over a year of daily retrains, in small; `make bench NAME=gate_year` has it in full."""

import numpy as np
import pytest

from tests.evaluation.gate_years import (
    DEVIATION,
    EAGER,
    POLICY,
    SPREAD,
    Case,
    before,
    draw,
    experimented,
    gated,
    proofs,
    skilled,
    years,
)

YEARS = 12


def test_a_year_is_what_it_says() -> None:
    """The difference of two models a month apart has the standard deviation and the memory that are asked for."""
    drawn = draw(Case(0.7, better=0.005), seed=1)
    pairs = [drawn.rank_ic[d] - drawn.rank_ic[d + 60] for d in range(1, 190, 10)]
    difference = np.array(pairs)
    assert difference.std() == pytest.approx(DEVIATION, rel=0.1)
    assert np.corrcoef(difference[:, 1:].ravel(), difference[:, :-1].ravel())[0, 1] == pytest.approx(0.7, abs=0.05)
    assert np.corrcoef(drawn.rank_ic[5], drawn.rank_ic[6])[0, 1] == pytest.approx(0.9, abs=0.05)
    test = drawn.calendar.tests[0]
    assert test.stop - test.start == 252


def test_equal_models_are_promoted_in_few_years_and_better_ones_are_found() -> None:
    """Twelve years each: the budget holds where a daily look, and the earlier policy, promotes noise in most years."""
    equal = [years(Case(0.3), gate, YEARS) for gate in (gated, before, lambda year: gated(year, EAGER))]
    false = [sum(each.superior > 0 for each in outcomes) for outcomes in equal]
    assert false[0] <= 2 and false[1] >= 10 and false[2] >= 4
    assert sum(each.superior > 0 for each in years(Case(0.3, 0.005), gated, YEARS)) >= 8
    assert sum(each.serving > 0 for each in years(Case(0.3, -0.005), gated, YEARS)) <= 2


def test_noise_is_seldom_taken_for_skill_in_a_year_and_skill_is() -> None:
    """Twelve looks at the year's shared level, where each at the whole level proves noise in every third year."""
    drawn = [draw(skilled(0.3, 0.0), seed) for seed in range(2 * YEARS)]
    assert np.std(drawn[0].rank_ic[1]) == pytest.approx(SPREAD, rel=0.15)
    assert sum(bool(proofs(year)) for year in drawn) <= 4
    assert sum(bool(proofs(year, level=POLICY.alpha)) for year in drawn) >= 6
    assert all(proofs(draw(skilled(0.3, 0.04), seed)) for seed in range(YEARS))


def test_experiments_and_gate_together_keep_the_budget() -> None:
    """Six years among equals: experiments begin as far as the budget goes, and hardly a model is promoted."""
    found = [experimented(draw(Case(0.3), seed)) for seed in range(6)]
    assert sum(each.outcome.superior > 0 for each in found) <= 1
    assert all(each.begun >= 2 and each.begun + each.refused == 6 for each in found)
