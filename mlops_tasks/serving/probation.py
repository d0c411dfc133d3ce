"""A new champion's first days: it is rolled back by itself where a rule is broken, or its rank ICs prove it worse.

It is measured against the one that it replaced, for as long as that one may serve again. A champion that came back by a
rollback has no probation: the one before it was withdrawn. A rollback is a deployment like any other, with its proof
and its way back, so it may be killed at any point: the next evaluation finds the same reason again.
"""

import logging
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import pandas as pd

from mlops_tasks.config import RolloutRules, Settings
from mlops_tasks.data.vintages import current_vintage
from mlops_tasks.errors import MlopsError, TrainingError
from mlops_tasks.registry.approvals import load_recorded, standing_of
from mlops_tasks.registry.client import CHAMPION
from mlops_tasks.serving.champion import Action
from mlops_tasks.serving.deployment import roll_back
from mlops_tasks.serving.model_day import ModelDay
from mlops_tasks.serving.reconciliation import named, reconcile, still_approved
from mlops_tasks.serving.rollout_rules import Measures, Sides, breach, p99
from mlops_tasks.serving.score_files import newest_day
from mlops_tasks.serving.speed import seconds_to_score
from mlops_tasks.state.alerts import raise_daily_alert
from mlops_tasks.state.deployments import recorded_champion
from mlops_tasks.state.history import latest_deployment
from mlops_tasks.state.predictions import count_of_arm, latencies_of_arm
from mlops_tasks.state.quality_looks import found_worse
from mlops_tasks.state.tables import now
from mlops_tasks.states import Arm, DeploymentState

log = logging.getLogger(__name__)

SIDES = Sides("the new champion", "the previous champion")


@dataclass(frozen=True)
class Probation:
    """A champion, and the one that it replaced, which may serve again."""

    version: int
    replaced: int
    began_at: datetime
    subject: str
    """Of its looks: the attempt of the deployment."""


def probation_of(settings: Settings, champion: int | None) -> Probation | None:
    """The probation of a champion; None where there is nothing to go back to. It has no end here: rules have."""
    row = None if champion is None else latest_deployment(settings, champion, DeploymentState.SERVING)
    if champion is None or row is None or row.proven_version in (None, champion):
        return None
    if all(each.version != row.proven_version for each in still_approved(settings)):
        return None
    return Probation(champion, row.proven_version, row.at, row.attempt or f"deployment {row.id}")


def judge_champion(settings: Settings) -> str | None:
    """Roll the champion back where something speaks against it; returns what that is, None: it stays.

    People are told first, so that nothing is kept from them by a kill in between.

    Raises
    ------
    DeploymentError
        As `roll_back`; the next evaluation tries again.
    MlopsError, and what the drivers of the state database raise
        The record, the registry, the log of predictions or a model cannot be read.
    """
    probation = probation_of(settings, recorded_champion(settings))
    if probation is None:
        return None
    worse = found_worse(settings, probation.subject)
    reason = worse.said if worse is not None else _broken_rule(settings, probation)
    if reason is None:
        return None
    if reconcile(settings).action is Action.WAIT:
        log.info("a deployment is at work; its end decides who is champion")
        return None
    version, back = named(probation.version), named(probation.replaced)
    told = f"{version} is rolled back to {back}: {reason}"
    log.warning("%s", told)
    cause = f"{version} ({probation.subject})"  # where it was deployed once more, that is another episode
    raise_daily_alert(settings, kind="champion_rolled_back", cause=cause, message=told)
    roll_back(settings, probation.replaced, reason, condemned=probation.version)
    return told


def _broken_rule(settings: Settings, probation: Probation) -> str | None:
    """The rule that is broken in the first hours; None: none is, or they are over."""
    if now() >= probation.began_at + timedelta(hours=settings.deployment.watch_h):
        return None
    vintage = current_vintage(settings)
    try:
        rival = newest_day(settings, load_recorded(settings, probation.replaced), vintage)
        theirs = rival.scores()
    except MlopsError as error:
        log.warning("%s cannot be compared with %s: %s", named(probation.version), named(probation.replaced), error)
        return None
    own = newest_day(settings, load_recorded(settings, probation.version), vintage)
    try:
        ours = own.scores()
    except TrainingError as error:
        return f"{SIDES.judged} cannot score {own.date}: {error}"
    rules, topk = _rules(settings, probation), settings.portfolio.topk
    found = _requests(settings, probation)
    if breach(replace(found, failures=0), rules, topk, SIDES) is not None and not _is_slower(own, rival, rules):
        found = replace(found, p99_ms=float("nan"))
    scores = pd.concat({"champion": theirs, "candidate": ours}, axis=1)
    return breach(replace(found, scores=scores, day=str(own.date)), rules, topk, SIDES)


def _rules(settings: Settings, probation: Probation) -> RolloutRules:
    """Without those on how alike scores are, where the one before has proven no skill: to be unlike it is no fault."""
    rules = settings.deployment.rules
    if standing_of(settings, probation.replaced) == CHAMPION:
        return rules
    return rules.model_copy(update={"min_rank_correlation": None, "max_psi": None, "max_turnover": None})


def _requests(settings: Settings, probation: Probation) -> Measures:
    """Those since the promotion, and those to the one before in as long a time."""
    since = probation.began_at
    answers, failures = (count_of_arm(settings, probation.version, arm, since) for arm in (Arm.CHAMPION, Arm.FAILED))
    own = latencies_of_arm(settings, probation.version, Arm.CHAMPION, since)
    before = since - timedelta(hours=settings.deployment.watch_h)
    rival = latencies_of_arm(settings, probation.replaced, Arm.CHAMPION, before)
    return Measures(answers, failures, len(rival), p99(own), p99(rival))


def _is_slower(own: ModelDay, rival: ModelDay, rules: RolloutRules) -> bool:
    """Whether it takes longer here too, side by side: that the machine is busier than before is no fault of a model."""
    ours, theirs = (seconds_to_score(day) for day in (own, rival))
    return rules.max_latency_ratio is not None and ours > rules.max_latency_ratio * theirs
