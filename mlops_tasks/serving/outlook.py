"""What a deployment would do, before anybody asks for it: from the state database alone, by a pure function.

It promises nothing. The deployment itself also checks the artefact's bytes, the packages, the features and the scores
(`deployment.py`), and the record may change until then.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from mlops_tasks.config import DeploymentSettings, Settings
from mlops_tasks.serving.rollout_plan import plan_of
from mlops_tasks.state.approvals import standing_approval
from mlops_tasks.state.deployments import deployed_as, recorded_champion
from mlops_tasks.state.model_index import find_version
from mlops_tasks.state.rollouts import Rollout, RolloutPlan, undecided_rollouts
from mlops_tasks.states import DeploymentState, QueuePolicy, Strategy


@dataclass(frozen=True)
class Standing:
    """How things stand for a version that is to be deployed."""

    version: int
    champion: int | None
    queue: tuple[Rollout, ...]
    """Undecided rollouts, in the order in which they were asked for."""
    approved: bool
    """Whether its recorded bytes may serve."""
    other_bytes: bool = False
    """Whether others have served under its number."""


@dataclass(frozen=True)
class Outlook:
    """What would happen."""

    version: int
    strategy: Strategy
    objections: tuple[str, ...]
    """Why it would be refused, as far as the record says; empty: nothing speaks against it."""
    steps: tuple[str, ...]
    """What would be done, in order; empty where it would be refused."""
    plan: RolloutPlan


def outlook(settings: Settings, version: int, strategy: Strategy) -> Outlook:
    """What the deployment of a registered version by a strategy would do now.

    Raises
    ------
    StoreError
        The index has no such version, or the state database does not answer.
    """
    found = find_version(settings, version)
    digest = found.tags.get("digest", "")
    served = deployed_as(settings, version, (DeploymentState.SERVING,))
    standing = Standing(
        version=version,
        champion=recorded_champion(settings),
        queue=tuple(undecided_rollouts(settings)),
        approved=bool(digest) and standing_approval(settings, found.training_key, digest) is not None,
        other_bytes=served is not None and served.digest not in ("", digest),
    )
    return foresee(standing, strategy, settings.deployment)


def foresee(standing: Standing, strategy: Strategy, limits: DeploymentSettings) -> Outlook:
    """What a deployment would do where things stand like this."""
    objections = tuple(_objections(standing, strategy, limits))
    steps = () if objections else tuple(_steps(standing, strategy, limits))
    return Outlook(standing.version, strategy, objections, steps, plan_of(strategy, limits))


def _objections(standing: Standing, strategy: Strategy, limits: DeploymentSettings) -> Iterator[str]:
    if standing.other_bytes:
        yield "another artefact has served under this number, and no other one is ever deployed under it"
    if not standing.approved:
        yield "it may not serve: the gate has not promoted it and nobody has approved it, or it was withdrawn since"
    if strategy is Strategy.SHADOW and standing.champion is None:
        yield "there is no champion with which a shadow could be compared"
    at_work = _at_work(standing)
    if strategy is not Strategy.DIRECT and at_work is not None and limits.queue is QueuePolicy.SKIP:
        yield f"the rollout of version {at_work.version} is under way, and `deployment.queue` is skip"


def _steps(standing: Standing, strategy: Strategy, limits: DeploymentSettings) -> Iterator[str]:
    if standing.champion == standing.version:
        yield f"version {standing.version} serves already: nothing changes"
        return
    if any((each.version, each.strategy) == (standing.version, strategy) for each in standing.queue):
        yield "its rollout is under way or waits already: that goes on, and nothing else begins"
        return
    if strategy is Strategy.DIRECT:
        yield from _switch(standing, limits)
        yield from (f"the rollout of version {each.version} is aborted" for each in standing.queue if each.is_at_work)
        return
    yield from _turn(standing, limits)
    if strategy is Strategy.BLUE_GREEN or standing.champion is None:
        yield from _switch(standing, limits)
    elif strategy is Strategy.SHADOW:
        yield f"for {limits.shadow_h:g} hours it scores what the champion is asked, and answers nobody"
        yield "then the rollout is completed, and it does not serve unless somebody deploys it"
    else:
        yield from (f"{share:g}% of the clients for {limits.hold_h:g} hours" for share in limits.canary_steps_pct)
        yield "a broken rule, or rank ICs that prove it worse, end the rollout at once"
        yield from _switch(standing, limits)


def _turn(standing: Standing, limits: DeploymentSettings) -> Iterator[str]:
    """Its place in the queue."""
    if not standing.queue:
        return
    before = ", ".join(f"version {each.version}" for each in standing.queue if each.is_at_work) or "those before it"
    yield f"it waits, for {limits.deadline_days:g} days at most, until the rollout of {before} is decided"
    waiting = [each for each in standing.queue if not each.is_at_work]
    if limits.queue is QueuePolicy.NEWEST_WINS and waiting:
        yield f"waiting candidates are displaced by it: {', '.join(f'version {each.version}' for each in waiting)}"


def _switch(standing: Standing, limits: DeploymentSettings) -> Iterator[str]:
    champion = standing.champion
    yield "its digest, its compatibility with the service and its scores of the newest day are checked"
    beside = "" if champion is None else f" beside version {champion}"
    yield f"the service loads it{beside}, switches, and each worker's scores are compared with the artefact's"
    if champion is None:
        yield "if anything fails, nobody serves, as before"
        return
    yield f"if anything fails, version {champion} is back; otherwise it is retired, and a rollback leads to it"
    yield (
        f"on probation, rules may roll it back for {limits.watch_h:g} hours, and rank ICs for "
        f"{limits.probation_days} market days"
    )


def _at_work(standing: Standing) -> Rollout | None:
    return next((each for each in standing.queue if each.is_at_work), None)
