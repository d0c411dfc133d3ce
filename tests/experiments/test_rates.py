"""What is offered, by measured rates; `make bench NAME=experiments_rates` in small; one series decides as many do."""

import numpy as np
import pytest

from mlops_tasks.errors import ExperimentError
from mlops_tasks.experiments.inference.analysis import DAILY_METHODS, analyse, choose
from mlops_tasks.experiments.inference.dated import open_ended
from mlops_tasks.experiments.inference.offers import MOST_FALSE, Case, Data, Looks, demand, offered, rates, refusal
from mlops_tasks.experiments.inference.results import Method
from tests.experiments.rates_page import PAGE, page
from tests.experiments.simulated import draw, found
from tests.experiments.simulated_units import found_units

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
    if row:
        assert false == pytest.approx(row[0].false, abs=max(ROOM, 0.06 if row[0].false > 0.2 else 0.0))
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


def test_every_method_that_is_offered_keeps_its_level() -> None:
    """For every case of the table, and for days of which nothing is known."""
    for rate in rates():
        if rate.method in set(Method):
            methods = offered(Case(rate.n, rate.looks, rate.data))
            assert (rate.method in methods) == (rate.false <= MOST_FALSE)
            unknown = refusal(Method(rate.method), Case(rate.n, rate.looks))
            assert rate.false <= MOST_FALSE or unknown is not None
    for n in (60, 120, 180, 252, 400):
        for looks in Looks:
            assert choose(Case(n, looks)) in DAILY_METHODS


def test_what_is_refused_says_why_and_what_to_use() -> None:
    """By its rate, for too few days, and for what was never measured."""
    assert "paired" in refusal(Method.STUDENT, Case(120)) and "not 5%" in refusal(Method.STUDENT, Case(120))
    assert refusal(Method.STUDENT, Case(120, data=Data.INDEPENDENT)) is None
    assert "measured from 60 observations on, and 40 are planned" in refusal(Method.PREWHITENED, Case(40))
    assert "was not measured" in refusal(Method.BERNSTEIN, Case(120))
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
