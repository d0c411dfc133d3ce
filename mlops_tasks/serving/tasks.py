"""Task entries of the serving stage."""

import logging
from typing import Any

from mlops_tasks.config import load_settings
from mlops_tasks.errors import ConfigError
from mlops_tasks.serving.deployment import BLUE_GREEN, deploy_blue_green
from mlops_tasks.serving.score_files import newest_day, score_challenger, score_champion

log = logging.getLogger(__name__)

SHADOW = "shadow"


def deploy_model_task(*, gate: dict[str, Any], strategy: str) -> dict[str, Any]:
    """Deploy what the gate promoted; a kept or rejected challenger, or a shadow run, changes nothing."""
    if strategy not in (BLUE_GREEN, SHADOW):
        raise ConfigError(f"unknown deployment strategy {strategy!r}; use {BLUE_GREEN} or {SHADOW}")
    reason = None
    if gate["decision"] != "promote":
        reason = f"the gate's decision is {gate['decision']} (rule {gate['rule']})"
    elif strategy == SHADOW:
        reason = "strategy shadow: the challenger is scored beside the champion and takes no traffic"
    if reason is not None:
        log.info("version %s is not deployed: %s", gate["version"], reason)
        return {"deployed": False, "version": gate["version"], "reason": reason}
    return {**deploy_blue_green(load_settings(), int(gate["version"])), "strategy": strategy}


def score_newest_date_task(*, data_version: str, feature_version: str) -> dict[str, Any]:
    """Score the universe's members of the newest date: the champion through the service, the challenger here."""
    settings = load_settings()
    day = newest_day(settings, data_version, feature_version)
    challenger = score_challenger(settings, day)
    champion = score_champion(settings, day)
    if champion is None:
        log.warning("there is no champion: its scores of %s are not written", day.date)
    return {
        "date": day.date.isoformat(),
        "champion_version": None if champion is None else champion[0],
        "challenger_version": challenger,
        "instruments": len(day.features),
        "path": None if champion is None else settings.relative(champion[1]),
    }
