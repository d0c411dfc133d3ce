"""A year of daily retrains before the gate, simulated: how often it errs, and how often it finds what is better.

A training d of 252 is tested on the segment that `rolling_segments` gives it, with five years of bars before the first
of them: 252 to 302 labelled days. Its daily rank IC is its skill plus an AR(1) of its own over the days; those of one
day's and the next day's training have the correlation `KINSHIP`, those of trainings a month apart hardly any, and the
first champion is no kin of the retrains. What all models have in common on a day cancels in a comparison and is left
out. The difference of two models has the standard deviation `DEVIATION`: as that of two models of 500 names whose ranks
have a correlation of 0.9, since the rank IC of N names varies by 1 / sqrt(N).

Calendar, segments, looks and decisions are the product's own functions. `before` is the policy that compared every
training with the champion in service, each at a level of a tenth by the test of Newey and West, and refreshed a
champion whose training data were more than 20 days older.

A year without a champion is that of `proofs`: each look asks whether the newest training has skill. Its daily rank ICs
have the standard deviation `SPREAD`.

In a year of `experimented`, an experiment is due every `EXPERIMENT_EVERY_DAYS` besides, if the budget has a look for
it. Two retrains, ten days apart, run against the model in service for up to `EXPERIMENT_DAYS`, with a look a day from
day 30 on. Its days are those after the newest arm's bars, so they are test days of later retrains, and each retrain's
rank ICs go on from its test days with the same memory. A winner goes to the gate.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import date
from functools import cache
from typing import TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.signal import lfilter

from mlops_tasks.config import GateSettings
from mlops_tasks.data.exchanges.calendars import sessions
from mlops_tasks.errors import ExperimentError
from mlops_tasks.evaluation.gate import BOOTSTRAP, REFRESH, SUPERIORITY, CandidateEvidence, Champion, should_promote
from mlops_tasks.evaluation.looks import (
    YEAR_DAYS,
    Entry,
    Look,
    LookSubject,
    MarketDays,
    PlannedExperiment,
    Reservation,
    Wait,
    plan_look,
    reserve_look,
)
from mlops_tasks.evaluation.newey_west import newey_west_mean
from mlops_tasks.experiments.inference.analysis import analyse
from mlops_tasks.experiments.inference.offers import Case as PlannedDays
from mlops_tasks.experiments.inference.offers import Looks, first_look
from mlops_tasks.training.plan import rolling_segments

HISTORY_DAYS = 1260
DEVIATION = 0.02
SPREAD = 0.1
KINSHIP = 0.9
HORIZON = 1
WARM_UP = 100
POLICY = GateSettings()
EAGER = GateSettings(looks="daily")
BEFORE_LEVEL, BEFORE_AGE_DAYS = 0.1, 20
EXPERIMENT_EVERY_DAYS, EXPERIMENT_DAYS, EXPERIMENT_ALPHA = 40, 60, 0.05
ARMS_APART_DAYS = 10
"""Between the retrains that are arms of one experiment."""


@dataclass(frozen=True)
class Case:
    """What the year is like."""

    rho: float
    """AR(1) coefficient of the daily rank ICs of a training."""
    better: float = 0.0
    """Mean rank IC of every retrain minus that of the first champion."""
    deviation: float = DEVIATION
    history: int = HISTORY_DAYS


@dataclass(frozen=True)
class Calendar:
    """The market's days, and by training (0: the first champion's) the last train day and the test days' positions."""

    days: pd.DatetimeIndex
    train_ends: tuple[int, ...]
    tests: tuple[slice, ...]


@cache
def calendar_of(history: int) -> Calendar:
    """New York's sessions: `history` of them up to the first champion, and a year."""
    days = pd.DatetimeIndex(sessions("XNYS", "2015-01-02", "2025-12-31")[: history + YEAR_DAYS])
    train_ends, tests = [], []
    for end in range(history, history + YEAR_DAYS + 1):
        known = days[:end]
        segments = rolling_segments(known, HORIZON)
        train_ends.append(int(known.searchsorted(pd.Timestamp(segments["train"][1]))))
        tests.append(slice(int(known.searchsorted(pd.Timestamp(segments["test"][0]))), end - HORIZON - 1))
    return Calendar(days, tuple(train_ends), tuple(tests))


@dataclass(frozen=True)
class Year:
    """Daily rank ICs of the first champion and of a year's retrains."""

    calendar: Calendar
    first: int
    """Position in the calendar of the first column of `rank_ic`."""
    rank_ic: NDArray[np.float64]
    """Shape (trainings, days), the first champion's first."""

    def on_test_days(self, training: int, of: int) -> NDArray[np.float64]:
        """A training's rank ICs on the test days of another one."""
        test = self.calendar.tests[of]
        return self.rank_ic[training, test.start - self.first : test.stop - self.first]

    def series(self, training: int, of: int) -> pd.Series:
        """The same by day."""
        return pd.Series(self.on_test_days(training, of), self.calendar.days[self.calendar.tests[of]])


def draw(case: Case, seed: int) -> Year:
    """Draw the rank ICs of a year."""
    calendar = calendar_of(case.history)
    first, last = calendar.tests[0].start, calendar.tests[-1].stop
    shape = (YEAR_DAYS + 1, last - first + WARM_UP)
    shocks = np.random.default_rng(seed).normal(size=shape)
    kin = shocks.copy()
    shocks[2:] *= np.sqrt(1 - KINSHIP**2)
    kin[1:] = lfilter([1.0], [1.0, -KINSHIP], shocks[1:], axis=0)
    own = lfilter([np.sqrt(1 - case.rho**2)], [1.0, -case.rho], kin, axis=1)[:, WARM_UP:]
    rank_ic = own * case.deviation / np.sqrt(2)
    rank_ic[1:] += case.better
    return Year(calendar, first, rank_ic)


@dataclass(frozen=True)
class Outcome:
    """What the gate did in a year."""

    superior: int
    """Promotions by superiority."""
    refreshed: int
    serving: int
    """The training that serves in the end; 0: the first champion."""


T = TypeVar("T")


class _Gate:
    """The gate on the days of a year: what serves, and what was spent."""

    def __init__(self, year: Year, policy: GateSettings) -> None:
        self.year, self.policy, self.market = year, policy, MarketDays(year.calendar.days)
        self.looks, self.reserved = list[Look](), dict[str, Reservation]()
        self.serving, self.anchor, self.since = 0, 0, _day(year, 0)
        self.rules = list[str]()

    @property
    def past(self) -> list[Entry]:
        return [*self.looks, *self.reserved.values()]

    def judge(self, training: int, subject: LookSubject) -> bool:
        """Whether there was a look for it."""
        look = plan_look(subject, "gain", self.past, self.market, self.policy)
        if isinstance(look, Wait):
            return False
        self.looks.append(look)
        age = self.market.between(self.since, subject.day)
        champion = Champion(str(self.serving), _evidence(self.year, self.anchor, training), age_days=age)
        decision = should_promote(_evidence(self.year, training, training), champion, self.policy, look)
        if decision.promotes:
            self.rules.append(decision.rule)
            self.serving, self.since = training, subject.day
            self.anchor = training if decision.rule == SUPERIORITY else self.anchor
        return True

    def retrained(self, training: int) -> None:
        """A day's retraining."""
        self.judge(training, LookSubject(str(training), _day(self.year, training), self.serving + 1))

    def outcome(self) -> Outcome:
        """Of the year."""
        return Outcome(self.rules.count(SUPERIORITY), self.rules.count(REFRESH), self.serving)


def gated(year: Year, policy: GateSettings = POLICY) -> Outcome:
    """The year under the gate."""
    gate = _Gate(year, policy)
    for training in range(1, YEAR_DAYS + 1):
        gate.retrained(training)
    return gate.outcome()


@dataclass(frozen=True)
class ExperimentYear:
    """What the gate and experiments did in a year."""

    outcome: Outcome
    """Of both."""
    begun: int
    refused: int
    """Experiments that the budget had no look for."""
    won: int
    """Experiments with a winner."""
    promoted: int
    """Winners that the gate has promoted."""


@dataclass(frozen=True)
class _Running:
    name: str
    control: int
    arms: tuple[int, ...]
    begins: int
    """Position in the calendar of its first day."""

    def differences(self, year: Year, known: int) -> dict[int, NDArray[np.float64]]:
        """By arm: its rank ICs minus the control's on its days up to this position."""
        days = slice(self.begins - year.first, min(known, self.begins + EXPERIMENT_DAYS) - year.first)
        return {arm: year.rank_ic[arm, days] - year.rank_ic[self.control, days] for arm in self.arms}

    def ahead(self, year: Year, known: int) -> int | None:
        """The better arm after all days, however little better; None: there are more to come."""
        if known < self.begins + EXPERIMENT_DAYS:
            return None
        means = {arm: float(each.mean()) for arm, each in self.differences(year, known).items()}
        return max(means, key=means.__getitem__)

    def winner(self, year: Year, known: int) -> int | None:
        """Who has won on the days up to this position; the control if an arm is worse; None: nobody yet."""
        found = {}
        for arm, difference in self.differences(year, known).items():
            try:
                level = EXPERIMENT_ALPHA / len(self.arms)
                found[arm] = analyse(difference, PlannedDays(EXPERIMENT_DAYS, Looks.DAILY), confidence=1 - level)
            except ExperimentError:  # no look is due yet
                continue
        if any(each.upper < 0 for each in found.values()):
            return self.control
        better = {arm: each.effect for arm, each in found.items() if each.lower > 0}
        return max(better, key=better.__getitem__) if better else None


def experimented(
    year: Year, policy: GateSettings = POLICY, always: bool = False, picky: bool = False
) -> ExperimentYear:
    """The year under the gate with experiments.

    `always`: each has a winner, which is its better arm, proven or not. `picky`: its arms are the best of twenty
    retrains on the gate's own test days.
    """
    gate, running, waiting = _Gate(year, policy), list[_Running](), list[tuple[_Running, int]]()
    begun = refused = won = promoted = 0
    for training in range(1, YEAR_DAYS + 1):
        day, known = _day(year, training), year.calendar.tests[training].stop
        gate.retrained(training)
        for each in list(running):
            winner = each.ahead(year, known) if always else each.winner(year, known)
            if winner is None and known < each.begins + EXPERIMENT_DAYS:
                continue
            running.remove(each)
            gate.reserved[each.name] = replace(gate.reserved[each.name], ended=day)
            if winner not in (None, each.control):
                waiting.append((each, winner))
                won += 1
        for each, winner in list(waiting):
            subject = LookSubject(str(winner), day, gate.serving + 1, each.name, len(each.arms))
            before = gate.serving
            if winner in (gate.serving, gate.anchor) or gate.judge(winner, subject):
                waiting.remove((each, winner))
                promoted += gate.serving != before
        if training % EXPERIMENT_EVERY_DAYS == EXPERIMENT_EVERY_DAYS // 2:
            wanted = PlannedExperiment(f"e{training}", day, first_look(EXPERIMENT_DAYS))
            found = reserve_look(wanted, gate.past, gate.market, policy)
            if isinstance(found, Wait):
                refused += 1
                continue
            begun, gate.reserved[wanted.name] = begun + 1, found
            arms = _arms(gate, training, picky)
            running.append(_Running(wanted.name, gate.serving, arms, known + HORIZON + 1))
    return ExperimentYear(gate.outcome(), begun, refused, won, promoted)


def _arms(gate: _Gate, training: int, picky: bool) -> tuple[int, ...]:
    """Two retrains up to this one that do not serve."""
    newest = [each for each in range(training, training - 20, -1) if each not in (gate.serving, gate.anchor)]
    if not picky:
        return newest[0], newest[ARMS_APART_DAYS]

    def gain(each: int) -> float:
        return float(np.mean(gate.year.on_test_days(each, each) - gate.year.on_test_days(gate.anchor, each)))

    first, second = sorted(newest, key=gain)[-2:]
    return first, second


def before(year: Year) -> Outcome:
    """The year under the earlier policy."""
    serving, superior, refreshed = 0, 0, 0
    for training in range(1, YEAR_DAYS + 1):
        difference = year.on_test_days(training, training) - year.on_test_days(serving, training)
        test = newey_west_mean(difference)
        age = year.calendar.train_ends[training] - year.calendar.train_ends[serving]
        if test.mean > 0 and test.p_one_sided <= BEFORE_LEVEL:
            serving, superior = training, superior + 1
        elif age > BEFORE_AGE_DAYS and test.lower_bound(BEFORE_LEVEL) >= -POLICY.non_inferiority_margin:
            serving, refreshed = training, refreshed + 1
    return Outcome(superior, refreshed, serving)


def proofs(year: Year, policy: GateSettings = POLICY, level: float | None = None) -> list[int]:
    """The numbers of a year's looks at which a training is taken for skilled; `level` in place of the looks' own."""
    market, past, found = MarketDays(year.calendar.days), list[Look](), []
    for training in range(1, YEAR_DAYS + 1):
        look = plan_look(LookSubject(str(training), _day(year, training), 1), "skill", past, market, policy)
        if isinstance(look, Wait):
            continue
        past.append(look)
        used = look if level is None else replace(look, level=level)
        provisional = Champion("provisional", provisional=True)
        if should_promote(_evidence(year, training, training), provisional, policy, used).rule == BOOTSTRAP:
            found.append(look.number)
    return found


def skilled(rho: float, skill: float) -> Case:
    """A year in which each training has this mean daily rank IC, with the standard deviation `SPREAD`."""
    return Case(rho, skill, deviation=SPREAD * float(np.sqrt(2)))


def years(case: Case, gate: Callable[[Year], T], count: int, seed: int = 0) -> list[T]:
    """What becomes of independent years."""
    return [gate(draw(case, seed + number)) for number in range(count)]


def _day(year: Year, training: int) -> date:
    """Newest day of bars of a training."""
    return year.calendar.days[year.calendar.tests[training].stop + HORIZON].date()


def _evidence(year: Year, training: int, of: int) -> CandidateEvidence:
    return CandidateEvidence(str(training), year.series(training, of), coverage=1.0, constant_days_share=0.0)
