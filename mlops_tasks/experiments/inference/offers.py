"""Which methods are offered for which data, by their measured rates of false findings.

`include/experiments/rates.json` has what `make bench NAME=experiments_rates` measured: by method, kind of data, number
of days or units and looks, how often a nominal 5% finds an effect where there is none, and how often it finds a true
one. A method is offered where at most 5.6% were found (5%, and the error of the simulation), and refused elsewhere,
with what it did there and what to use instead. Whoever does not know how his days depend on each other gets what holds
for every kind that was measured.
"""

from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

from mlops_tasks.config import PROJECT
from mlops_tasks.errors import ExperimentError
from mlops_tasks.experiments.inference.results import Method
from mlops_tasks.files import read_json

RATES = PROJECT / "include" / "experiments" / "rates.json"
MOST_FALSE = 0.056
MOST_AUTOCORRELATION = 0.8
"""Measured up to 0.7; estimates of it vary, and are seldom above this."""


class Data(StrEnum):
    """What is known of the days, or the units."""

    INDEPENDENT = "independent"
    AR_03 = "ar_03"
    AR_07 = "ar_07"
    OVERLAPPING_LABELS = "overlapping_labels"
    HEAVY_TAILS = "heavy_tails"
    VOLATILITY_CLUSTERS = "volatility_clusters"


OVERLAP = 5
"""Days that the labels of `OVERLAPPING_LABELS` have."""


class Looks(StrEnum):
    """How often the result is looked at until the planned end."""

    ONE = "one"
    WEEKLY = "weekly"
    DAILY = "daily"


class Observations(StrEnum):
    """What is compared. Methods for one kind say nothing of the others, and neither does their power."""

    PAIRED_DAYS = "paired_days"
    """Differences of the arms on the same days."""
    SWITCHED_DAYS = "switched_days"
    """Days of one arm each."""
    UNITS = "units"
    """Independent units of two arms."""


_OTHERS: dict[str, Observations] = {
    Method.SWITCHBACK: Observations.SWITCHED_DAYS,
    **dict.fromkeys(
        (
            Method.WELCH,
            Method.PROPORTIONS,
            Method.MANN_WHITNEY,
            Method.BOOTSTRAP,
            Method.CUPED,
            Method.RATIO,
        ),
        Observations.UNITS,
    ),
}


def observations_of(method: str) -> Observations:
    """What a method compares."""
    return _OTHERS.get(method, Observations.PAIRED_DAYS)


LOOK_STEPS = {Looks.WEEKLY: 5, Looks.DAILY: 1}
"""Market days between looks."""

FIRST_LOOK, LEAST_FIRST_LOOK = 60, 30


def first_look(n: int) -> int:
    """Day of the first of several looks at n planned days: 60, half of a shorter plan, and 30 at least."""
    return max(LEAST_FIRST_LOOK, min(FIRST_LOOK, n // 2))


@dataclass(frozen=True)
class Rate:
    """One cell of the table."""

    method: str
    data: Data
    n: int
    """Days, or units of each arm."""
    looks: Looks
    false: float
    """Share of experiments without effect in which one was found; 5% is meant."""
    power: float
    """Share of those with an effect of `effect` standard deviations in which it was found."""
    effect: float
    count: int
    """Simulated experiments without effect."""

    @property
    def holds(self) -> bool:
        """Whether the level is kept."""
        return self.false <= MOST_FALSE


@dataclass(frozen=True)
class Case:
    """What is to be analysed."""

    n: int
    """Planned days, or units of the smaller arm."""
    looks: Looks = Looks.ONE
    data: Data | None = None
    """None: nothing is known but that days are in order, and that units are independent."""
    observations: Observations = Observations.PAIRED_DAYS

    def said(self) -> str:
        """In words."""
        what = self.observations.replace("_", " ")
        if self.data is not None:
            kind = self.data.replace("_", " ")
        else:
            kind = "of unknown spread" if self.observations is Observations.UNITS else "of unknown dependence"
        return f"{self.n} {what} ({kind}), looked at {'once' if self.looks is Looks.ONE else self.looks}"


@lru_cache(maxsize=1)
def rates() -> tuple[Rate, ...]:
    """The measured table."""
    rows = read_json(RATES)["rates"]
    return tuple(Rate(**{**row, "data": Data(row["data"]), "looks": Looks(row["looks"])}) for row in rows)


def offered(case: Case) -> tuple[Method, ...]:
    """The methods that keep their level in a case; none for a case that was not measured.

    The most powerful comes first; where nothing is known of the days, by its mean power over all kinds.
    """
    held = [method for method in Method if _refusal(method, case) is None]
    return tuple(sorted(held, key=lambda method: -_power(method, case)))


def refusal(method: Method, case: Case) -> str | None:
    """Why a method is not offered for a case, and what to use instead; None where it is offered."""
    reason = _refusal(method, case)
    if reason is None:
        return None
    instead = offered(case)
    if instead:
        return f"{reason}; use {' or '.join(instead[:2])} instead"
    return f"{reason}; no method is offered for {case.said()}: take more observations, or fewer looks"


def demand(method: Method, case: Case) -> None:
    """Refuse a method that is not offered for a case.

    Raises
    ------
    ExperimentError
        With the measured rate and what to use instead.
    """
    reason = refusal(method, case)
    if reason is not None:
        raise ExperimentError(reason)


def demand_persistence(rho: float) -> None:
    """Refuse a series whose first autocorrelation is above what was measured.

    Raises
    ------
    ExperimentError
        With the coefficient and the remedy.
    """
    if rho > MOST_AUTOCORRELATION:
        raise ExperimentError(
            f"the daily differences have a first autocorrelation of {rho:.2f}, and no method was shown to keep its "
            f"level above {MOST_AUTOCORRELATION}; compare weekly means, or switch the arms by days (switchback)"
        )


def _power(method: Method, case: Case) -> float:
    """Mean power over the cells of a case."""
    found = [rate.power for rate in _cells(method, case)]
    return sum(found) / len(found)


def _refusal(method: Method, case: Case) -> str | None:
    own = observations_of(method)
    if own is not case.observations:
        return f"{method} compares {own.replace('_', ' ')}, not {case.observations.replace('_', ' ')}"
    cells = _cells(method, case)
    if not cells:
        known = sorted({rate.n for rate in rates() if rate.method == method})
        if known and case.n < known[0]:
            return f"{method} was measured from {known[0]} observations on, and {case.n} are planned"
        if known and case.n > known[-1] and method is Method.OPEN_ENDED:
            return (
                f"{method} was measured up to {known[-1]} observations, and over the {case.n} planned its errors add up"
            )
        return f"{method} was not measured for {case.said()}"
    worst = max(cells, key=lambda rate: rate.false)
    if worst.holds:
        return None
    looked = "at one look" if worst.looks is Looks.ONE else f"with {worst.looks} looks"
    return (
        f"{method} finds an effect where there is none in {worst.false:.1%} of experiments, not 5%, on {worst.n} "
        f"observations ({worst.data.replace('_', ' ')}) {looked}"
    )


def _cells(method: Method, case: Case) -> list[Rate]:
    """The measured cells that a case lies between; none where it lies outside.

    Longer ones than measured count as the longest: the level comes nearer to 5% the longer the series. Not so for
    `open_ended`, which finds something at more and more looks from the same first day on. Where nothing is
    known of the days, every kind must have been measured.
    """
    own = [rate for rate in rates() if rate.method == method and rate.looks is case.looks]
    own = [rate for rate in own if case.data in (None, rate.data)]
    kinds = len(_kinds(case.observations)) if case.data is None else 1
    sizes = sorted({rate.n for rate in own})
    sizes = [size for size in sizes if sum(rate.n == size for rate in own) == kinds]
    if not sizes or case.n < sizes[0] or (method is Method.OPEN_ENDED and case.n > sizes[-1]):
        return []
    below = max(size for size in sizes if size <= case.n)
    above = min((size for size in sizes if size >= case.n), default=below)
    return [rate for rate in own if rate.n in (below, above)]


@lru_cache(maxsize=len(Observations))
def _kinds(observations: Observations) -> frozenset[Data]:
    """Kinds of data that were measured of them."""
    return frozenset(rate.data for rate in rates() if observations_of(rate.method) is observations)
