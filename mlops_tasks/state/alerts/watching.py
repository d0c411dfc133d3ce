"""The regular check of everything that is watched: which episodes it opens, ends and escalates."""

import logging
from collections.abc import Collection, Sequence
from datetime import datetime

from sqlalchemy.exc import SQLAlchemyError

from mlops_tasks.config import Settings
from mlops_tasks.errors import ConfigError, StoreError
from mlops_tasks.state.alerts.delivery import deliver, is_owing
from mlops_tasks.state.alerts.episodes import Episode, Key, Observation, Standing, observed, overdue
from mlops_tasks.state.alerts.journal import Decide, advance, running_episodes
from mlops_tasks.state.alerts.rules import LastSession, SignalRule, evaluate, read_rules, rule_of
from mlops_tasks.state.alerts.signals import read_signals

log = logging.getLogger(__name__)

RULES_WRONG = Key("rules_wrong", "the rules of alerts")
SERVICE_KINDS = ("champion_missing", "service_stale", "scores_late")
"""Kinds that only the scoring service can observe; such an episode ends when the service or a person ends it."""


def look(
    settings: Settings, seen: Sequence[Observation], kinds: Collection[str], now: datetime, last_session: LastSession
) -> None:
    """Evaluate the rules, add the caller's own observations, and let each episode take the step that is due.

    A check at which nothing changes only reads. Notifications are sent in the background.

    Parameters
    ----------
    seen
        The caller's own observations.
    kinds
        Kinds that `seen` covers: their episodes that it does not name are over.

    Raises
    ------
    StoreError
        The state database does not answer.
    """
    found = {each.key: each for each in (*seen, *judged(settings, now, last_session))}
    running = running_episodes(settings)
    watched = {*SERVICE_KINDS, *kinds, *(key.kind for key in found)}
    if (
        found[RULES_WRONG].standing is not Standing.CALM
    ):  # the state of what the rules watch is unknown: it stays as it is
        watched |= {key.kind for key in running}
    for key in running:
        if key.kind in kinds and key not in found:
            found[key] = Observation(key, Standing.CALM, "")
    for key, observation in found.items():
        _take(settings, key, running.get(key), _after_look(settings, observation, now), now)
    for key, episode in running_episodes(settings).items():
        _take(settings, key, episode, _after_time(settings, key, key.kind in watched, now), now)
    if is_owing(settings):
        deliver(settings)


def judged(settings: Settings, now: datetime, last_session: LastSession) -> list[Observation]:
    """Results of the rules, and whether they could be evaluated; if not, the only result is that fault."""
    try:
        rules = read_rules(settings)
        names = {rule.signal for rule in rules.values() if isinstance(rule, SignalRule) and rule.enabled}
        found = evaluate(rules, read_signals(settings, names, now), now, last_session)
    except (StoreError, SQLAlchemyError):  # the database is unavailable, and nothing is known
        raise
    except Exception as error:
        told = str(error) if isinstance(error, ConfigError) else type(error).__name__
        log.error("no alert rule is evaluated: %s", told)
        return [Observation(RULES_WRONG, Standing.BREACHED, f"no alert rule is evaluated: {told}")]
    return [*found, Observation(RULES_WRONG, Standing.CALM, "")]


def _after_look(settings: Settings, seen: Observation, now: datetime) -> Decide:
    severity = rule_of(settings, seen.key.kind).severity
    return lambda episode, silenced: observed(episode, seen, severity, silenced, now)


def _after_time(settings: Settings, key: Key, watched: bool, now: datetime) -> Decide:
    policy = rule_of(settings, key.kind).policy
    return lambda episode, silenced: overdue(episode, policy, watched, silenced, now)


def _take(settings: Settings, key: Key, episode: Episode | None, decide: Decide, now: datetime) -> None:
    # If nothing seems to be due, the check does not wait for the lock of the table.
    if decide(episode, False) is None:
        return
    event = advance(settings, key, decide, now)
    if event is not None and event.tell:
        log.error("alert %s, %s, %s: %s", event.step, key.kind, key.subject, event.message)
