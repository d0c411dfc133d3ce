"""The decision about rollouts, in known situations."""

import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from scipy.stats import binomtest

from mlops_tasks.serving.rollout import MOST_FAILURES, Deploy, Move, Situation, decide, failed, is_of_candidate
from mlops_tasks.state.rollouts import Rollout, RolloutPlan
from mlops_tasks.states import QueuePolicy, RolloutState, Strategy

NOW = datetime(2024, 6, 3, 12, tzinfo=UTC)
HOLD_S = 3600.0
CANARY = RolloutPlan((0.01, 0.05, 1.0), HOLD_S, 10 * HOLD_S)
SHADOW = RolloutPlan((0.0,), HOLD_S, 10 * HOLD_S)
BLUE_GREEN = RolloutPlan((), 0.0, 10 * HOLD_S)
PLANS = {Strategy.CANARY: CANARY, Strategy.SHADOW: SHADOW, Strategy.BLUE_GREEN: BLUE_GREEN}
LATER = NOW + timedelta(seconds=HOLD_S)


def rollout(version: int = 2, strategy: Strategy = Strategy.CANARY, **known: object) -> Rollout:
    state = known.pop("state", RolloutState.WAITING)
    return Rollout(
        rollout_id=f"{version:016d}",
        version=version,
        training_key="t",
        digest="d",
        strategy=strategy,
        plan=PLANS[strategy],
        state=state,  # type: ignore[arg-type]
        asked_at=NOW,
        at=NOW,
        **known,  # type: ignore[arg-type]
    )


def at_work(version: int = 2, strategy: Strategy = Strategy.CANARY, **known: object) -> Rollout:
    return rollout(version, strategy, **{"state": RolloutState.HOLDING, "champion": 1, "began_at": NOW} | known)


def moved(*queue: Rollout, now: datetime = NOW, champion: int | None = 1, **known: object) -> tuple[object, ...]:
    """Version, state and step that a situation leads to."""
    values = {"policy": QueuePolicy.NEWEST_WINS, "objections": {}, **known}
    step = decide(Situation(now, champion, queue, **values))  # type: ignore[arg-type]
    if isinstance(step, Move):
        return step.after.version, step.after.state, step.after.step
    return (step.rollout.version, "deploy") if isinstance(step, Deploy) else ()


S = RolloutState


@pytest.mark.parametrize(
    ("strategy", "champion", "expected"),
    [
        (Strategy.CANARY, 1, (2, S.HOLDING, 0)),
        (Strategy.SHADOW, 1, (2, S.HOLDING, 0)),
        (Strategy.BLUE_GREEN, 1, (2, S.PROMOTING, 0)),
        (Strategy.CANARY, None, (2, S.PROMOTING, 3)),
        (Strategy.SHADOW, None, (2, S.REJECTED, 0)),
        (Strategy.CANARY, 2, (2, S.PROMOTED, 0)),
    ],
)
def test_a_candidate_begins_as_its_strategy_says(
    strategy: Strategy, champion: int | None, expected: tuple[object, ...]
) -> None:
    """At its first step; without steps, or without a champion to be measured against, it is deployed."""
    assert moved(rollout(2, strategy), champion=champion) == expected


def test_each_step_lasts_for_its_time_and_the_last_one_ends_in_a_deployment() -> None:
    """Not a second less; and not while the candidate was not seen to score."""
    early = LATER - timedelta(seconds=1)
    assert moved(at_work(), now=early) == moved(at_work(), now=LATER, seen=False) == ()
    assert moved(at_work(), now=LATER) == (2, S.HOLDING, 1)
    assert moved(at_work(step=2), now=LATER) == (2, S.PROMOTING, 3)
    assert moved(at_work(step=3, state=S.PROMOTING)) == (2, "deploy")
    assert moved(at_work(step=3, state=S.PROMOTING), champion=2) == (2, S.PROMOTED, 3)
    assert moved(at_work(2, Strategy.SHADOW), now=LATER) == (2, S.COMPLETED, 0)


def test_what_speaks_against_a_candidate_ends_its_rollout() -> None:
    """A broken rule, another champion, the deadline; in the queue too."""
    due = NOW + timedelta(seconds=CANARY.deadline_s)
    for each in (at_work(), at_work(step=3, state=S.PROMOTING), rollout()):
        assert moved(each, objections={each.rollout_id: "a rule"}) == (2, S.REJECTED, each.step)
        assert moved(each, now=due) == (2, S.ABORTED, each.step)
    assert moved(at_work(), champion=7) == (2, S.ABORTED, 0)


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (QueuePolicy.NEWEST_WINS, [(3, S.REJECTED), (4, S.REJECTED)]),
        (QueuePolicy.SKIP, [(3, S.REJECTED), (4, S.REJECTED), (5, S.REJECTED)]),
        (QueuePolicy.ALL, []),
    ],
)
def test_the_queue_follows_its_policy(policy: QueuePolicy, expected: list[tuple[int, RolloutState]]) -> None:
    """While one is at work; which itself is never replaced."""
    queue = [at_work(2), rollout(3), rollout(4), rollout(5)]
    seen = []
    while isinstance(step := decide(Situation(NOW, 1, tuple(queue), policy, {})), Move):
        queue.remove(step.before)
        seen.append((step.after.version, step.after.state))
        assert not step.alarming
    assert seen == expected
    assert queue[0].version == 2


def test_the_next_one_begins_when_the_one_at_work_is_decided() -> None:
    """In the order in which they came, or the newest."""
    queue = (rollout(3), rollout(4))
    assert moved(*queue, policy=QueuePolicy.ALL) == (3, S.HOLDING, 0)
    assert moved(*queue, policy=QueuePolicy.SKIP) == (3, S.HOLDING, 0)
    assert moved(*queue[1:]) == (4, S.HOLDING, 0)


def test_a_deployment_is_tried_three_times_and_its_candidate_answers_nobody_meanwhile() -> None:
    """Then the candidate is rejected, and people are told."""
    present = at_work(step=3, state=S.PROMOTING)
    assert present.share == 1.0
    for number in range(1, MOST_FAILURES):
        present = failed(present, "no proof", NOW).after
        assert (present.state, present.failures, present.share) == (S.PROMOTING, number, 0.0)
    last = failed(present, "no proof", NOW)
    assert last.after.state == S.REJECTED and last.alarming and "no proof" in last.after.reason


def test_a_unit_keeps_its_side_as_the_share_grows() -> None:
    """The share of 20,000 units is the step's, as a binomial test has it; another rollout draws others."""
    units = [f"client-{number}" for number in range(20_000)]
    plan = RolloutPlan((0.01, 0.05, 0.25, 0.5, 1.0), HOLD_S, 10 * HOLD_S)
    before: set[str] = set()
    for step, share in enumerate(plan.shares):
        present = replace(at_work(step=step), plan=plan)
        drawn = {unit for unit in units if is_of_candidate(present, unit)}
        assert before <= drawn
        if share < 1:
            assert binomtest(len(drawn), len(units), share).pvalue > 1e-4
        before = drawn
    assert len(before) == len(units)
    first, second = (replace(at_work(version, step=1), plan=plan) for version in (2, 3))
    both = sum(is_of_candidate(first, unit) and is_of_candidate(second, unit) for unit in units)
    assert math.isclose(both / len(units), 0.05**2, abs_tol=0.002)
    assert not any(is_of_candidate(at_work(2, Strategy.SHADOW), unit) for unit in units)
