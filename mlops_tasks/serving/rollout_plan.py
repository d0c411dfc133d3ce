"""What a rollout plans and how it stands, in words: read by pages too, so nothing here needs the registry."""

from mlops_tasks.config import DeploymentSettings
from mlops_tasks.state.rollouts import Rollout, RolloutPlan
from mlops_tasks.states import RolloutState, Strategy


def plan_of(strategy: Strategy, limits: DeploymentSettings) -> RolloutPlan:
    """What a strategy does."""
    deadline_s = limits.deadline_days * 86_400
    if strategy == Strategy.CANARY:
        return RolloutPlan(tuple(step / 100 for step in limits.canary_steps_pct), limits.hold_h * 3600, deadline_s)
    if strategy == Strategy.SHADOW:
        return RolloutPlan((0.0,), limits.shadow_h * 3600, deadline_s)
    return RolloutPlan((), 0.0, deadline_s)


def describe(rollout: Rollout) -> str:
    """The state of a rollout, in words."""
    state = rollout.state.value
    if rollout.state == RolloutState.HOLDING:
        share = f" with {rollout.share:.0%} of the clients" if rollout.strategy == Strategy.CANARY else ""
        state = f"holding until {rollout.holds_until:%F %R} UTC{share}"
    elif not rollout.is_decided:
        state += f" since {rollout.at:%F %R} UTC"
    reason = f": {rollout.reason}" if rollout.reason else ""
    return f"{rollout.strategy.value} of version {rollout.version}, {state}{reason}"
