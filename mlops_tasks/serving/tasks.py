"""Task entries of the serving stage."""

import logging

from mlops_tasks.config import load_settings
from mlops_tasks.data.vintages import load_vintage
from mlops_tasks.errors import ConfigError
from mlops_tasks.serving.deployment import deploy_blue_green
from mlops_tasks.serving.score_files import score_challenger, score_champion
from mlops_tasks.stage_results import DeployedModel, Judged, ScoredDate
from mlops_tasks.states import Outcome, Strategy

log = logging.getLogger(__name__)


def deploy_model_task(*, gate: Judged, strategy: str) -> DeployedModel:
    """Deploy what the gate promoted; a kept or rejected challenger, or a shadow run, changes nothing."""
    if strategy not in [*Strategy]:
        raise ConfigError(f"unknown deployment strategy {strategy!r}; use {' or '.join(Strategy)}")
    reason = None
    if gate["decision"] != Outcome.PROMOTE:
        reason = f"the gate's decision is {gate['decision']} (rule {gate['rule']})"
    elif strategy == Strategy.SHADOW:
        reason = "strategy shadow: the challenger is scored beside the champion and takes no traffic"
    if reason is not None:
        log.info("version %s is not deployed: %s", gate["version"], reason)
        return {"deployed": False, "version": gate["version"], "reason": reason}
    return {**deploy_blue_green(load_settings(), gate["version"], gate["digest"]), "strategy": strategy}


def score_newest_date_task(*, data_version: str) -> ScoredDate:
    """Score the universe's members of the newest date: the champion through the service, the challenger here.

    Each on the features of its own set. `instruments` is how many were scored.
    """
    settings = load_settings()
    vintage = load_vintage(settings, data_version)
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
    }
