"""When the gate looks, at which level, and what it may spend."""

from dataclasses import replace
from datetime import date

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlops_tasks.config import GateSettings
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

CALENDAR = pd.bdate_range("2020-01-01", periods=1500)
MARKET = MarketDays(CALENDAR)
POLICY = GateSettings()


def subject(day: int, key: str | None = None, champion: int = 1) -> LookSubject:
    """Of a day's training, by position in the calendar."""
    return LookSubject(key or f"t{day}", CALENDAR[day].date(), champion)


def looks_on(days: list[int], policy: GateSettings = POLICY) -> list[Look]:
    """The looks that are taken when somebody asks on these days."""
    past: list[Look] = []
    for day in days:
        found = plan_look(subject(day), "gain", past, MARKET, policy)
        if isinstance(found, Look) and found not in past:
            past.append(found)
    return past


def position(look: Look) -> int:
    """Of its day in the calendar."""
    return int(CALENDAR.get_loc(pd.Timestamp(look.subject.day)))


def test_a_year_of_daily_trainings_has_twelve_looks() -> None:
    """Every 21st market day, each at a twelfth of the budget, counted, with what is spent and left; after a year, each
    takes the place of the one that is a year old."""
    past = looks_on(list(range(300)))
    assert [position(look) for look in past] == list(range(0, 300, 21))
    assert [look.number for look in past] == [*range(1, 13), 12, 12, 12]
    assert {look.level for look in past} == {0.05 / 12}
    assert [look.spent for look in past[:12]] == pytest.approx([0.05 / 12 * number for number in range(1, 13)])
    assert past[10].left == pytest.approx(0.05 / 12) and past[11].left == past[12].left == 0
    assert (past[11].year_began, past[12].year_began) == (CALENDAR[0].date(), CALENDAR[21].date())


@settings(max_examples=60)
@given(st.lists(st.integers(0, 1400), max_size=80), st.integers(1, 60))
def test_no_year_spends_more_than_its_budget(days: list[int], every: int) -> None:
    """Whenever somebody asks, the levels within any 252 market days sum to the budget at most."""
    policy = GateSettings(look_every_days=every)
    past = looks_on(sorted(days), policy)
    for look in past:
        spent = sum(each.level for each in past if 0 <= position(each) - position(look) < YEAR_DAYS)
        assert spent <= policy.alpha + 1e-12
        assert look.spent <= policy.alpha + 1e-9


def test_the_same_challenge_is_the_same_look() -> None:
    """A training that is judged again on the same bars takes no further look; another one, or one against another
    champion, waits."""
    past = looks_on([0, 30])
    for look in past:
        assert plan_look(look.subject, "gain", past, MARKET, POLICY) == look
    for other in (subject(30, "other"), subject(30, champion=2), subject(20)):
        assert isinstance(plan_look(other, "gain", past, MARKET, POLICY), Wait)


def test_a_wait_says_when_the_next_look_is() -> None:
    """In market days and as a date: the market's, or weekdays where its calendar ends."""
    past = looks_on([10])
    wait = plan_look(subject(16), "gain", past, MARKET, POLICY)
    assert isinstance(wait, Wait)
    assert (wait.last, wait.days, wait.next_day) == (CALENDAR[10].date(), 15, CALENDAR[31].date())
    assert (wait.spent, wait.left) == pytest.approx((0.05 / 12, 0.05 * 11 / 12))
    short = plan_look(subject(16), "gain", past, MarketDays(CALENDAR[:17]), POLICY)
    assert isinstance(short, Wait) and short.next_day == wait.next_day
    assert isinstance(plan_look(subject(wait.days + 16), "gain", past, MARKET, POLICY), Look)


def day(position: int) -> date:
    return date.fromisoformat(str(CALENDAR[position].date()))


def planned(name: str, begins: int, first_look_days: int = 30) -> PlannedExperiment:
    return PlannedExperiment(name, day(begins), first_look_days)


def winner(name: str, position: int, arms: int = 1) -> LookSubject:
    return LookSubject(f"arm of {name}", day(position), 1, name, arms)


EVENTS = st.lists(
    st.tuples(st.integers(0, 90), st.sampled_from(["retrain", "retrain", "begin", "judge", "end"])), max_size=120
)


@settings(max_examples=150)
@given(EVENTS, st.integers(5, 60), st.integers(1, 300))
def test_no_year_of_gate_and_experiments_spends_more_than_its_budget(
    events: list[tuple[int, str]], every: int, first: int
) -> None:
    """Whatever is asked when: what is compared, or given up, within any 252 market days sums to the budget at most.

    Experiments begin, end without a winner, or have one judged, in any order, beside retrainings.
    """
    policy, past, open_ones, now = GateSettings(look_every_days=every), list[Entry](), list[str](), 0
    compared: list[tuple[int, float]] = []
    for ahead, event in events:
        now += ahead // 10
        if event == "retrain":
            found: Look | Reservation | Wait = plan_look(subject(now), "gain", past, MARKET, policy)
            if isinstance(found, Look) and found not in past:
                past.append(found)
                compared.append((now, found.level))
        elif event == "begin":
            found = reserve_look(planned(f"e{len(past)}", now, first), past, MARKET, policy)
            if isinstance(found, Reservation):
                past.append(found)
                open_ones.append(found.experiment)
        elif open_ones:
            name = open_ones[0]
            if event == "judge":
                found = plan_look(winner(name, now, 2), "gain", past, MARKET, policy)
                if isinstance(found, Wait):
                    continue
                past.append(found)
                assert found.level == policy.alpha / found.planned / 2
            open_ones.pop(0)
            past = [
                replace(each, ended=day(now)) if isinstance(each, Reservation) and each.experiment == name else each
                for each in past
            ]
            if event == "judge":
                compared.append((now, 2 * found.level))
    for began, _ in compared:
        spent = sum(level for position, level in compared if 0 <= position - began < YEAR_DAYS)
        assert spent <= policy.alpha + 1e-9


def test_an_experiment_takes_the_place_of_a_later_daily_look() -> None:
    """When the daily looks have spent a whole year, one may begin that cannot have a winner before a look expires; the
    next daily look waits for it, and the one after that does not."""
    past: list[Entry] = [*looks_on(list(range(240)))]
    assert isinstance(reserve_look(planned("hasty", 240, 10), past, MARKET, POLICY), Wait)
    reserved = reserve_look(planned("a", 240), past, MARKET, POLICY)
    assert isinstance(reserved, Reservation) and reserved.level == 0.05 / 12
    past.append(reserved)
    early = plan_look(winner("a", 251), "gain", past, MARKET, POLICY)
    assert isinstance(early, Wait) and early.days == 1, "its look is not free yet"
    displaced = plan_look(subject(252), "gain", past, MARKET, POLICY)
    assert isinstance(displaced, Wait) and displaced.days == 21
    look = plan_look(winner("a", 270, 2), "gain", past, MARKET, POLICY)
    assert isinstance(look, Look)
    assert (look.level, look.spent, look.left) == (0.05 / 24, pytest.approx(0.05), 0)
    assert look.said().startswith("the look of experiment a, look 12 of 12 in the year since")
    past.append(look)
    assert isinstance(plan_look(subject(273), "gain", past, MARKET, POLICY), Look)


def test_an_unused_reservation_is_not_given_back() -> None:
    """Not while the experiment runs, however long, nor in the year after its decision."""
    policy = GateSettings(look_every_days=YEAR_DAYS)
    held = reserve_look(planned("a", 0), [], MARKET, policy)
    assert isinstance(held, Reservation)
    for position, entry, days in [(600, held, 252), (700, replace(held, ended=day(600)), 152)]:
        found = plan_look(subject(position), "gain", [entry], MARKET, policy)
        assert isinstance(found, Wait) and found.days == days
    over = replace(held, ended=day(600), verdict="keep by rule no_proven_gain")
    assert isinstance(plan_look(subject(852), "gain", [over], MARKET, policy), Look)
    assert Reservation.from_json(over.to_json()) == over and Reservation.from_json(held.to_json()) == held


def test_reserved_looks_do_not_move_the_days_of_the_daily_ones() -> None:
    """An experiment's look on the day before makes no training wait."""
    reserved = reserve_look(planned("a", 0), [], MARKET, POLICY)
    assert isinstance(reserved, Reservation)
    used = plan_look(winner("a", 40), "gain", [reserved], MARKET, POLICY)
    assert isinstance(used, Look) and used.level == reserved.level
    past: list[Entry] = [replace(reserved, ended=day(40)), used]
    daily = plan_look(subject(41), "gain", past, MARKET, POLICY)
    assert isinstance(daily, Look) and (daily.number, daily.spent) == (2, pytest.approx(2 * reserved.level))
    for subject_, said in [(winner("a", 50), "has used its look"), (winner("b", 50), "has reserved no look")]:
        with pytest.raises(ValueError, match=said):
            plan_look(subject_, "gain", past, MARKET, POLICY)


def test_closed_days_of_the_market_do_not_count() -> None:
    """21 market days are 21 sessions, however many weekdays lie between them."""
    market = MarketDays(CALENDAR[::2])
    past = [plan_look(subject(0), "gain", [], market, POLICY)]
    assert isinstance(plan_look(subject(40), "gain", past, market, POLICY), Wait)  # type: ignore[arg-type]
    assert isinstance(plan_look(subject(42), "gain", past, market, POLICY), Look)  # type: ignore[arg-type]


def test_looks_at_skill_spend_the_same_budget() -> None:
    """A first model's look is the year's first, at a twelfth of the budget; the next one is a month later."""
    first = plan_look(subject(0, champion=0), "skill", [], MARKET, POLICY)
    assert isinstance(first, Look) and (first.level, first.spent) == pytest.approx((0.05 / 12, 0.05 / 12))
    assert "look 1 of 12" in first.said() and "0.0458 left" in first.said()
    assert isinstance(plan_look(subject(5), "gain", [first], MARKET, POLICY), Wait)
    second = plan_look(subject(21), "gain", [first], MARKET, POLICY)
    assert isinstance(second, Look) and (second.number, second.spent) == (2, pytest.approx(0.1 / 12))


def test_daily_looks_have_no_budget() -> None:
    """Every training is compared at the whole level, and what that adds up to is said."""
    eager = GateSettings(looks="daily", alpha=0.1)
    past = looks_on([0, 1, 2, 3], eager)
    assert [(look.number, look.level, look.left) for look in past] == [(n, 0.1, None) for n in (1, 2, 3, 4)]
    assert past[-1].spent == pytest.approx(0.4) and "without a budget: 0.4000 spent" in past[-1].said()
    blocked = plan_look(subject(30), "gain", past, MARKET, POLICY)
    assert isinstance(blocked, Wait) and blocked.days == YEAR_DAYS - 27 and blocked.left == 0


def test_a_look_is_read_as_it_was_written() -> None:
    """Plain JSON values and back."""
    (look,) = looks_on([3])
    assert Look.from_json(look.to_json()) == look
    endless = replace(look, planned=None, left=None)
    assert Look.from_json(endless.to_json()) == endless


def test_market_days_are_counted_both_ways() -> None:
    """After the first up to the last; the other way round it is negative."""
    first, last = date(2020, 1, 3), date(2020, 1, 10)
    assert (MARKET.between(first, last), MARKET.between(last, first), MARKET.between(first, first)) == (5, -5, 0)
    assert MARKET.after(first, 5) == last
