"""What is offered, by measured rates; `make bench NAME=experiments_rates` in small; one series decides as many do."""

from collections import Counter

import numpy as np
import pytest

from mlops_tasks.errors import ExperimentError
from mlops_tasks.experiments.inference.analysis import DAILY_METHODS, analyse, choose
from mlops_tasks.experiments.inference.dated import open_ended
from mlops_tasks.experiments.inference.offers import (
    MOST_FALSE,
    Case,
    Data,
    Looks,
    Observations,
    demand,
    observations_of,
    offered,
    rates,
    refusal,
)
from mlops_tasks.experiments.inference.resampling import METHOD, Blocks, bootstrap_mean
from mlops_tasks.experiments.inference.results import Method
from mlops_tasks.experiments.inference.switchback import Switchback, switchback_test
from mlops_tasks.experiments.inference.units import Arms, bootstrap
from tests.experiments.other_days import OTHER_DAYS, draw_other
from tests.experiments.rates_page import PAGE, page
from tests.experiments.simulated import BLOCK, BOUNDARIES, NEWEY_WEST, ONE_LOOK, WASHOUT, draw, found
from tests.experiments.simulated_units import UNIT_DATA, UNIT_METHODS, bootstrap_units, found_units

COUNT = 800
ROOM = 3 * np.sqrt(0.05 * 0.95 / COUNT)
"""Three standard errors of a rate of 5%."""


@pytest.mark.parametrize(
    ("method", "looks", "lower"),
    [
        (Method.PAIRED, Looks.ONE, 0.0),
        (Method.PREWHITENED, Looks.ONE, 0.0),
        (Method.PREWHITENED, Looks.WEEKLY, 0.0),
        (Method.OPEN_ENDED, Looks.DAILY, 0.0),
        (Method.STUDENT, Looks.ONE, 0.3),
        (Method.CIRCULAR_BOOTSTRAP, Looks.ONE, 0.06),
    ],
)
def test_rates_of_the_hardest_days_are_those_of_the_table(method: Method, looks: Looks, lower: float) -> None:
    """At an autocorrelation of 0.7, 120 days: what is offered errs in 5%, and what is not errs as the table says."""
    false = found(method, draw(Data.AR_07, COUNT, 120, 3), looks).mean()
    assert false >= lower
    row = [each for each in rates() if (each.method, each.data, each.n, each.looks) == (method, Data.AR_07, 120, looks)]
    expected = row[0].false
    assert false == pytest.approx(expected, abs=3 * np.sqrt(expected * (1 - expected) / COUNT))
    assert lower > 0 or false <= MOST_FALSE + ROOM


def test_an_effect_is_found_as_often_as_the_table_says() -> None:
    """Independent days, 120, a look a week: prewhitened errors find far more than cosine terms."""
    series = draw(Data.INDEPENDENT, COUNT, 120, 4)
    power = {
        method: found(method, series, Looks.WEEKLY, 0.25).mean()
        for method in (Method.PREWHITENED, Method.OBRIEN_FLEMING)
    }
    assert power[Method.PREWHITENED] > power[Method.OBRIEN_FLEMING] + 0.1


@pytest.mark.parametrize("method", [Method.PAIRED, Method.PREWHITENED, Method.OBRIEN_FLEMING, Method.OPEN_ENDED])
def test_the_function_for_one_series_decides_as_the_one_for_many(method: Method) -> None:
    """The rates are those of what people call."""
    looks = Looks.ONE if method is Method.PAIRED else Looks.WEEKLY
    case = Case(120, looks, Data.AR_03)
    series = draw(Data.AR_03, 40, 120, 5) + 0.3
    if method is Method.OPEN_ENDED:
        single = [open_ended(row).p_value <= 0.05 for row in series]
        assert np.mean(single == found(method, series, Looks.DAILY)) == 1.0
        return
    demand(method, case)
    single = [analyse(row, case, method).p_value <= 0.05 for row in series]
    assert np.mean(single == found(method, series, looks)) >= 0.95  # p-values count simulations, boundaries interpolate
    assert 0 < np.mean(single) < 1


@pytest.mark.parametrize("blocks", Blocks)
def test_resamples_of_one_series_are_those_of_many(blocks: Blocks) -> None:
    """The rates of the bootstraps are of the very resamples that the product draws."""
    series = draw(Data.AR_03, 40, 60, 6) + 0.25
    single = [bootstrap_mean(row, blocks).p_value <= 0.05 for row in series]
    assert list(found(METHOD[blocks], series, Looks.ONE)) == single
    assert 0 < np.mean(single) < 1


def test_designs_and_resampled_units_of_one_experiment_are_those_of_many() -> None:
    """The randomisation test of a design, and the bootstrap of two arms."""
    series, design = draw(Data.AR_03, 40, 120, 7), Switchback(120, BLOCK, WASHOUT)
    assigned = design.assign(np.random.default_rng(120), 40)
    single = [
        switchback_test(row + 0.5 * (design.schedule(first) == 1), first, design).p_value <= 0.05
        for row, first in zip(series, assigned, strict=True)
    ]
    assert list(found(Method.SWITCHBACK, series, Looks.ONE, 0.5)) == single
    arms = np.random.default_rng(8).normal(size=(40, 2, 30)) + np.array([[0.0], [0.5]])
    units = [bootstrap(Arms(*each)).p_value <= 0.05 for each in arms]
    assert list(bootstrap_units(arms)) == units
    assert 0 < np.mean(single) < 1 and 0 < np.mean(units) < 1


def test_every_method_that_is_offered_keeps_its_level() -> None:
    """For every case of the table, and for days and units of which nothing is known."""
    for rate in rates():
        if rate.method in set(Method):
            own = observations_of(rate.method)
            methods = offered(Case(rate.n, rate.looks, rate.data, own))
            assert (rate.method in methods) == (rate.false <= MOST_FALSE)
            unknown = refusal(Method(rate.method), Case(rate.n, rate.looks, observations=own))
            assert rate.false <= MOST_FALSE or unknown is not None
    for n in range(60, 400):
        for looks in Looks:
            assert choose(Case(n, looks)) in DAILY_METHODS


def test_the_table_is_complete() -> None:
    """Every kind, length and number of looks for every method, from 5,000 experiments or more; no cell twice."""
    cells = Counter((rate.method, rate.data, rate.n, rate.looks) for rate in rates())
    assert max(cells.values()) == 1
    assert min(rate.count for rate in rates()) >= 5000
    dated = {NEWEY_WEST, *(method for method in Method if observations_of(method) is not Observations.UNITS)}
    expected = {
        (method, data, n, looks)
        for method in dated - {Method.BERNSTEIN}
        for data in Data
        for n in (60, 120, 252)
        for looks in Looks
        if not (method in ONE_LOOK and looks is not Looks.ONE) and not (method in BOUNDARIES and looks is Looks.ONE)
    } | {(method, data, n, Looks.ONE) for method in UNIT_METHODS for data in UNIT_DATA for n in (60, 120, 252)}
    assert set(cells) == expected


def test_methods_for_units_are_offered_for_units_alone() -> None:
    """Whatever is known of them; days are no units, and a look at units is one look."""
    for data in (None, Data.INDEPENDENT, Data.HEAVY_TAILS):
        for n in (60, 90, 5000):
            methods = offered(Case(n, data=data, observations=Observations.UNITS))
            assert Method.WELCH in methods and set(methods) <= set(UNIT_METHODS)
        assert Method.SWITCHBACK not in offered(Case(120, data=data))
    assert offered(Case(120, observations=Observations.SWITCHED_DAYS)) == (Method.SWITCHBACK,)
    assert "welch compares units, not paired days; use" in refusal(Method.WELCH, Case(120))
    assert "not measured" in refusal(Method.WELCH, Case(120, Looks.DAILY, observations=Observations.UNITS))
    assert "and 30 are planned" in refusal(Method.CUPED, Case(30, observations=Observations.UNITS))


def test_days_outside_the_kinds_measured_err_as_the_page_says() -> None:
    """A slow level below the noise is not seen by an autoregression, and seen in part by cosine terms."""
    series = draw_other("slow level, a fifth of the variance", COUNT, 120, 9)
    assert series.std() == pytest.approx(1, abs=0.03)
    assert found(Method.PREWHITENED, series, Looks.ONE).mean() > 0.15
    assert found(Method.PAIRED, series, Looks.ONE).mean() < 0.11
    weekdays = draw_other("weekdays that differ", COUNT, 120, 9)
    assert found(Method.PREWHITENED, weekdays, Looks.ONE).mean() <= MOST_FALSE + ROOM
    for kind in OTHER_DAYS:
        drawn = draw_other(kind, 400, 252, 9)
        assert drawn.mean() == pytest.approx(0, abs=0.08)
        assert drawn.std() == pytest.approx(1, abs=0.15)


def test_what_is_refused_says_why_and_what_to_use() -> None:
    """By its rate, for too few days, and for what was never measured."""
    assert "paired" in refusal(Method.STUDENT, Case(120)) and "not 5%" in refusal(Method.STUDENT, Case(120))
    assert refusal(Method.STUDENT, Case(120, data=Data.INDEPENDENT)) is None
    assert "measured from 60 observations on, and 40 are planned" in refusal(Method.PREWHITENED, Case(40))
    assert "was not measured" in refusal(Method.BERNSTEIN, Case(120))
    assert "its errors add up" in refusal(Method.OPEN_ENDED, Case(504, Looks.DAILY, Data.AR_03))
    with pytest.raises(ExperimentError, match="instead"):
        analyse(np.arange(120.0), Case(120, Looks.DAILY), Method.PAIRED)
    with pytest.raises(ExperimentError, match="welch is no method for daily differences"):
        analyse(np.arange(120.0), Case(120), Method.WELCH)
    with pytest.raises(ExperimentError, match="one look was planned after 120 days, and 100"):
        analyse(draw(Data.INDEPENDENT, 1, 100, 1)[0], Case(120))


def test_units_keep_their_level() -> None:
    """Welch and a covariate on heavy tails, 60 units an arm; the covariate finds more."""
    cell = (Data.HEAVY_TAILS, 60)
    false = found_units((Method.WELCH, Method.CUPED), cell, 400, 0.0, 2)
    assert max(flags.mean() for flags in false.values()) <= MOST_FALSE + 3 * np.sqrt(0.05 * 0.95 / 400)
    power = found_units((Method.WELCH, Method.CUPED), cell, 200, 0.4, 3)
    assert power[Method.CUPED].mean() > power[Method.WELCH].mean() + 0.05


def test_the_page_has_the_tables_of_now() -> None:
    """`python -m tests.experiments.rates_page` writes them."""
    assert PAGE.read_text() == page(PAGE.read_text())
