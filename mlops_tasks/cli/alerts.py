"""The command line for alerts: `alphaops alerts ...`."""

import argparse
import getpass
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from mlops_tasks.cli.answers import tell
from mlops_tasks.config import load_settings
from mlops_tasks.errors import ConfigError, MlopsError, StoreError

if TYPE_CHECKING:
    from mlops_tasks.state.alerts.episodes import Episode, Key
    from mlops_tasks.state.tables import AlertEvent, AlertSilence

SHOWN = 20
"""Number of past events in a list."""


def add_alerts_verb(verbs: Any, shared: argparse.ArgumentParser) -> None:
    """Add the verb `alerts` with its own verbs; `shared` has the options that all of them take."""
    alerts = verbs.add_parser("alerts", help="what needs attention, and who is handling it (docs/alerts.md)")
    own = alerts.add_subparsers(required=True, metavar="action", dest="action")

    listed = own.add_parser("list", parents=[shared], help="open alerts, silences, and the latest events")
    listed.set_defaults(verb_function=_list)

    shown = own.add_parser("show", parents=[shared], help="the history of one alert, and who was notified")
    shown.add_argument("kind")
    shown.add_argument("subject", nargs="?", default="", help="not needed if only one is open")
    shown.set_defaults(verb_function=_show)

    for action, text in (("acknowledge", "say that you are handling it"), ("resolve", "say that it is over")):
        parser = own.add_parser(action, parents=[shared], help=text)
        parser.add_argument("kind")
        parser.add_argument("subject", nargs="?", default="", help="not needed if only one is open")
        parser.set_defaults(verb_function=_handle)

    silence = own.add_parser("silence", parents=[shared], help="silence it for a while")
    silence.add_argument("kind")
    silence.add_argument("subject", nargs="?", default="", help="default: the whole kind")
    silence.add_argument("--hours", type=float, required=True, help="0 ends a silence")
    silence.add_argument("--reason", required=True, help="kept with your name")
    silence.set_defaults(verb_function=_silence)

    test = own.add_parser("test", parents=[shared], help="send a test message: webhook, email or airflow_email")
    test.add_argument("sink")
    test.set_defaults(verb_function=_test)

    check = own.add_parser(
        "check", parents=[shared], help="evaluate the rules, send pending notifications, and exit; for cron"
    )
    check.set_defaults(verb_function=_check)


def _list(arguments: argparse.Namespace) -> int:
    from mlops_tasks.state.alerts.handling import open_episodes
    from mlops_tasks.state.alerts.journal import newest_events, silences

    settings = load_settings()
    episodes, silent, events = open_episodes(settings), silences(settings), newest_events(settings, SHOWN)
    rows = [
        {
            "kind": each.key.kind,
            "subject": each.key.subject,
            "severity": each.severity,
            "opened": each.opened.isoformat(timespec="seconds") if each.opened else None,
            "acknowledged_by": each.acknowledged_by,
            "message": each.message,
        }
        for each in episodes
    ]
    quiet = [
        {"kind": kind, "subject": subject, "until": row.until.isoformat(), "by": row.by, "reason": row.reason}
        for (kind, subject), row in silent.items()
    ]
    return tell(arguments, {"open": rows, "silenced": quiet}, partial(_listed, episodes, silent, events))


def _listed(
    episodes: "Sequence[Episode]", silent: "Mapping[Key, AlertSilence]", events: "Sequence[AlertEvent]"
) -> Iterator[str]:
    if not episodes:
        yield "nothing is open"
    for each in episodes:
        whose = f", {each.acknowledged_by} is handling it" if each.acknowledged_by else ""
        yield f"{each.severity:<9}{each.key.kind} {each.key.subject!r}, since {each.opened:%Y-%m-%d %H:%M} UTC{whose}"
        yield f"         {each.message}"
    for key, row in silent.items():
        yield f"silenced {key.kind} {key.subject!r} until {row.until:%Y-%m-%d %H:%M} UTC, {row.by}: {row.reason}"
    if events:
        yield "\nlast events:"
    for event in events:
        yield f"{event.at:%Y-%m-%d %H:%M:%S} {event.step:<13}{event.kind} {event.subject!r} {event.by}".rstrip()


def _show(arguments: argparse.Namespace) -> int:
    from mlops_tasks.state.alerts.delivery import deliveries
    from mlops_tasks.state.alerts.episodes import Key
    from mlops_tasks.state.alerts.handling import open_key
    from mlops_tasks.state.alerts.journal import events_of
    from mlops_tasks.state.alerts.rules import configured_sinks

    settings = load_settings()
    given = arguments.subject
    key = Key(arguments.kind, given) if given else open_key(settings, arguments.kind)
    rows: list[dict[str, Any]] = []
    for event in events_of(settings, key):
        told = {row.sink: row.outcome for row in deliveries(settings, event)}
        due = {name: "owed" for name in configured_sinks(settings) if name in event.sinks.split()}
        rows.append(
            {
                "at": event.at.isoformat(timespec="seconds"),
                "episode": event.episode,
                "step": event.step,
                "by": event.by,
                "message": event.message,
                "sinks": due | told,
            }
        )
    if not rows:
        raise StoreError(f"{key.kind} {key.subject!r}: there is no such alert; see `alphaops alerts list`")
    return tell(arguments, rows, [_event_text(row) for row in rows])


def _event_text(row: Mapping[str, Any]) -> str:
    who = f", {row['by']}" if row["by"] else ""
    sinks = ", ".join(f"{name} {outcome}" for name, outcome in row["sinks"].items()) or "no sink"
    return f"{row['at']} episode {row['episode']} {row['step']}{who} ({sinks}): {row['message']}"


def _handle(arguments: argparse.Namespace) -> int:
    from mlops_tasks.state.alerts import handling

    settings = load_settings()
    key = handling.open_key(settings, arguments.kind, arguments.subject)
    act = handling.acknowledge if arguments.action == "acknowledge" else handling.resolve
    event = act(settings, key, getpass.getuser())
    said = {"kind": key.kind, "subject": key.subject, "step": event.step, "by": event.by}
    return tell(arguments, said, f"{key.kind} {key.subject!r} is {event.step}")


def _silence(arguments: argparse.Namespace) -> int:
    from mlops_tasks.state.alerts.episodes import Key
    from mlops_tasks.state.alerts.handling import be_silent

    key = Key(arguments.kind, arguments.subject)
    lasting = timedelta(hours=arguments.hours)
    row = be_silent(load_settings(), key, lasting, getpass.getuser(), arguments.reason)
    until = row.until.isoformat(timespec="seconds")
    said = {"kind": key.kind, "subject": key.subject, "until": until}
    return tell(arguments, said, f"nobody is notified of {key.kind} until {until}")


def _test(arguments: argparse.Namespace) -> int:
    from mlops_tasks.state.alerts.delivery import try_sink

    try_sink(load_settings(), arguments.sink, getpass.getuser())
    return tell(arguments, {"told": arguments.sink}, f"{arguments.sink} delivered the test message")


def _check(arguments: argparse.Namespace) -> int:
    from mlops_tasks.data.exchanges.calendars import last_session_of
    from mlops_tasks.state.alerts.delivery import finish, is_owing
    from mlops_tasks.state.alerts.handling import open_episodes
    from mlops_tasks.state.alerts.rules import configured_sinks
    from mlops_tasks.state.alerts.watching import look
    from mlops_tasks.state.tables import now

    settings = load_settings()
    if not configured_sinks(settings):
        raise ConfigError("no sink is configured in this environment, so nobody would be notified; see docs/alerts.md")
    # Only the rules are evaluated here: alerts that only the scoring service can judge stay as they are.
    look(settings, [], (), now(), last_session_of(settings.calendar.schedule))
    finish(60 + 3 * settings.alerts.timeout_s)
    if is_owing(settings):
        raise MlopsError("not every notification could be sent; the log above says why, and the next check tries again")
    count = len(open_episodes(settings))
    return tell(arguments, {"open": count}, f"{count} alerts are open, and every notification was sent")
