"""Task entries of the serving stage."""

import logging
from datetime import datetime

from mlops_tasks.config import load_settings
from mlops_tasks.dag_run import acting
from mlops_tasks.data.vintages import load_vintage
from mlops_tasks.errors import ConfigError, excerpt
from mlops_tasks.serving.operations import Asked, operate
from mlops_tasks.serving.score_files import score_challenger, score_champion, score_missed_days
from mlops_tasks.serving.strategies import Wanted, deploy
from mlops_tasks.stage_results import DeployedModel, Judged, Operated, ScoredDate
from mlops_tasks.states import Intervention, Outcome, Strategy

log = logging.getLogger(__name__)


def deploy_model_task(
    *,
    gate: Judged | None = None,
    version: int | None = None,
    strategy: str | None = None,
    asked_by: str = "",
    approved_by: str = "",
) -> DeployedModel:
    """Deploy what the gate promoted, or a version that a person names; a kept or rejected challenger changes nothing.

    Who has approved it is kept: as the reason of a deployment, and with who has asked for a rollout. A canary or a
    shadow begins, or waits, and the task is done; `monitoring.monitor` leads it on.

    Raises
    ------
    ConfigError
        There is no such strategy; there is neither a judgement nor a version, or both.
    DeploymentError
        As `strategies.deploy`.
    """
    settings = load_settings()
    by = _strategy(strategy or settings.deployment.strategy)
    if (gate is None) == (version is None):
        raise ConfigError("give either the gate's decision or a version")
    if version is not None:
        return deploy(settings, Wanted(version, by, by=asked_by, approved_by=approved_by))
    assert gate is not None
    if gate["decision"] != Outcome.PROMOTE:
        reason = f"the gate's decision is {gate['decision']} (rule {gate['rule']})"
        log.info("version %s is not deployed: %s", gate["version"], reason)
        return {"deployed": False, "version": gate["version"], "reason": reason}
    digest = gate["digest"]
    wanted = Wanted(gate["version"], by, digest, by="daily_retraining", approved_by=approved_by, again=False)
    return deploy(settings, wanted)


def operate_task(
    *, action: str, asked_at: str, version: int | None = None, reason: str | None = None, asked_by: str = ""
) -> Operated:
    """Do what a person has asked for about the models that serve, once: another try finds that it is done.

    Parameters
    ----------
    action
        An `Intervention`.
    asked_at
        When; ISO, with its zone. What is undone after this time is not done again.
    asked_by
        Who; empty: nobody is known by name, and the DAG's name is recorded.

    Raises
    ------
    ConfigError, OvertakenError, MlopsError
        As `operations.operate`.
    """
    if action not in [*Intervention]:
        raise ConfigError(f"action: unknown {excerpt(action)}; use {', '.join(Intervention)}")
    moment = datetime.fromisoformat(asked_at)
    return operate(load_settings(), Asked(Intervention(action), moment, version, reason or "", asked_by or acting()))


def _strategy(name: str) -> Strategy:
    if name not in [*Strategy]:
        raise ConfigError(f"unknown deployment strategy {excerpt(name)}; use {', '.join(Strategy)}")
    return Strategy(name)


def score_newest_date_task(*, data_version: str) -> ScoredDate:
    """Score the universe's members of the newest date: the champion through the service, the challenger here.

    Each on the features of its own set. `instruments` is how many were scored. Days that were missed come first, in
    their order, by the champion of their day (`catch_up.py`); `caught_up` lists them.
    """
    settings = load_settings()
    vintage = load_vintage(settings, data_version)
    missed = score_missed_days(settings, vintage)
    challenger = score_challenger(settings, vintage)
    champion = score_champion(settings, vintage)
    if champion is None:
        log.warning("there is no champion: its scores of %s are not written", vintage.last_date)
    written = champion or challenger
    return {
        "date": vintage.last_date,
        "champion_version": None if champion is None else champion.version,
        "standing": None if champion is None else champion.standing,
        "challenger_version": None if challenger is None else challenger.version,
        "instruments": 0 if written is None else written.instruments,
        "path": None if champion is None else settings.relative(champion.path),
        "caught_up": [each.date.isoformat() for each in missed],
    }
