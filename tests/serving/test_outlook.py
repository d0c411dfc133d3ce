"""What a deployment would do, told before anybody asks for it."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from mlops_tasks.config import DeploymentSettings
from mlops_tasks.serving.outlook import Standing, foresee
from mlops_tasks.serving.rollout_plan import plan_of
from mlops_tasks.state.rollouts import Rollout
from mlops_tasks.states import QueuePolicy, RolloutState, Strategy

LIMITS = DeploymentSettings(canary_steps_pct=(10.0, 100.0), hold_h=6)
MOMENT = datetime(2026, 3, 2, tzinfo=UTC)
CALM = Standing(version=7, champion=6, queue=(), approved=True)


def rollout(version: int, state: RolloutState) -> Rollout:
    """A canary in this state."""
    plan = plan_of(Strategy.CANARY, LIMITS)
    return Rollout(f"{version:016x}", version, "k", "d", Strategy.CANARY, plan, state, MOMENT, MOMENT)


BUSY = replace(CALM, queue=(rollout(4, RolloutState.HOLDING), rollout(5, RolloutState.WAITING)))


@pytest.mark.parametrize(
    ("standing", "strategy", "begins"),
    [
        (CALM, Strategy.BLUE_GREEN, ["its digest", "the service loads it beside version 6", "if anything", "on prob"]),
        (CALM, Strategy.CANARY, ["10% of the clients for 6 hours", "100% of the clients", "a broken rule", "its dig"]),
        (CALM, Strategy.SHADOW, ["for 120 hours it scores what the champion is asked", "then the rollout is comp"]),
        (replace(CALM, champion=7), Strategy.CANARY, ["version 7 serves already: nothing changes"]),
        (
            replace(CALM, champion=None),
            Strategy.CANARY,
            ["its digest", "the service loads it, switches"],
        ),
        (
            BUSY,
            Strategy.BLUE_GREEN,
            ["it waits, for 14 days at most, until the rollout of version 4 ", "waiting"],
        ),
        (replace(BUSY, version=5), Strategy.CANARY, ["its rollout is under way or waits already"]),
    ],
)
def test_it_says_what_would_be_done_in_order(standing: Standing, strategy: Strategy, begins: list[str]) -> None:
    """By the strategy, the champion and the queue."""
    found = foresee(standing, strategy, LIMITS)
    assert found.objections == ()
    for said, begin in zip(found.steps, begins, strict=False):
        assert said.startswith(begin), found.steps
    assert len(found.steps) >= len(begins)


def test_a_direct_deployment_ends_the_rollout_that_is_under_way() -> None:
    """And no other one."""
    found = foresee(BUSY, Strategy.DIRECT, LIMITS)
    assert [each for each in found.steps if "aborted" in each] == ["the rollout of version 4 is aborted"]


def test_the_queue_follows_its_policy() -> None:
    """A newer candidate displaces those that wait, waits behind them, or is refused."""
    told = {
        policy: foresee(BUSY, Strategy.CANARY, LIMITS.model_copy(update={"queue": policy})) for policy in QueuePolicy
    }
    assert "waiting candidates are displaced by it: version 5" in told[QueuePolicy.NEWEST_WINS].steps
    assert not any("displaced" in each for each in told[QueuePolicy.ALL].steps)
    assert told[QueuePolicy.SKIP].objections == (
        "the rollout of version 4 is under way, and `deployment.queue` is skip",
    )
    assert told[QueuePolicy.SKIP].steps == ()


@pytest.mark.parametrize(
    ("standing", "said"),
    [
        (replace(CALM, approved=False), "it may not serve"),
        (replace(CALM, other_bytes=True), "another artefact has served under this number"),
        (replace(CALM, champion=None), "there is no champion with which a shadow could be compared"),
    ],
)
def test_what_would_be_refused_has_its_reason_and_no_steps(standing: Standing, said: str) -> None:
    """As far as the record knows it."""
    found = foresee(standing, Strategy.SHADOW, LIMITS)
    assert found.objections[0].startswith(said) and found.steps == ()
