"""What a person can do with an alert: acknowledge, resolve or silence it. For the command line and the API."""

from datetime import timedelta

from mlops_tasks.config import Settings
from mlops_tasks.errors import ErrorKind, StoreError
from mlops_tasks.state.alerts.delivery import deliver
from mlops_tasks.state.alerts.episodes import Change, Episode, Key, acknowledged, resolved
from mlops_tasks.state.alerts.journal import advance, running_episodes, silence
from mlops_tasks.state.tables import AlertEvent, AlertSilence, now

LONGEST_SILENCE = timedelta(days=90)


class NoEpisodeError(StoreError):
    """No open episode matches, or several do."""

    kind = ErrorKind.CONFIGURATION


def open_episodes(settings: Settings) -> list[Episode]:
    """All open episodes, newest first."""
    found = [episode for episode in running_episodes(settings).values() if episode.state == "open"]
    return sorted(found, key=lambda episode: episode.updated, reverse=True)


def open_key(settings: Settings, kind: str, subject: str = "") -> Key:
    """The key of an open episode; the subject may be omitted if the kind has only one.

    Raises
    ------
    NoEpisodeError
        There is none, or there are several; the message names them.
    """
    keys = [episode.key for episode in open_episodes(settings)]
    fitting = [key for key in keys if key.kind == kind and subject in ("", key.subject)]
    if len(fitting) == 1:
        return fitting[0]
    shown = ", ".join(f"{key.kind} {key.subject!r}" for key in fitting or keys) or "none"
    which = "several are open; give the subject" if fitting else "no such alert is open"
    raise NoEpisodeError(f"{kind} {subject}".strip() + f": {which}; open: {shown}")


def acknowledge(settings: Settings, key: Key, by: str) -> AlertEvent:
    """Record that somebody is handling an alert: it does not escalate, and is not repeated each day.

    Raises
    ------
    NoEpisodeError
        It is not open, or was acknowledged before.
    """

    def decide(episode: Episode | None, silenced: bool) -> Change | None:
        return acknowledged(episode, by)

    event = advance(settings, key, decide, now())
    if event is None:
        raise NoEpisodeError(f"{key.kind} {key.subject}: it is not open, or already acknowledged")
    return event


def resolve(settings: Settings, key: Key, by: str) -> AlertEvent:
    """End an episode; a problem that persists opens the next one at the next check.

    Raises
    ------
    NoEpisodeError
        It is not open.
    """

    def decide(episode: Episode | None, silenced: bool) -> Change | None:
        return resolved(episode, by, silenced)

    event = advance(settings, key, decide, now())
    if event is None:
        raise NoEpisodeError(f"{key.kind} {key.subject}: it is not open")
    deliver(settings)
    return event


def be_silent(settings: Settings, key: Key, lasting: timedelta, by: str, reason: str) -> AlertSilence:
    """Suppress notifications for a key (empty subject: for a whole kind) for some time; zero ends a silence.

    Raises
    ------
    StoreError
        The time is negative or longer than `LONGEST_SILENCE`, or there is no reason.
    """
    if not timedelta(0) <= lasting <= LONGEST_SILENCE:
        raise StoreError(f"a silence lasts at most {LONGEST_SILENCE.days} days; to disable an alert, change its rule")
    if not reason.strip():
        raise StoreError("a silence needs a reason; give one for your colleagues")
    return silence(settings, key, lasting, by, reason)
