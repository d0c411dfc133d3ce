"""The command line for the keys of the scoring service's clients: `alphaops keys ...`."""

import argparse
import getpass
from collections.abc import Iterator, Sequence
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from mlops_tasks.cli.answers import tell
from mlops_tasks.config import load_settings
from mlops_tasks.errors import ConfigError
from mlops_tasks.states import Scope

if TYPE_CHECKING:
    from mlops_tasks.state.scoring_keys import ClientKey


def add_keys_verb(verbs: Any, shared: argparse.ArgumentParser) -> None:
    """Add the verb `keys` with its own verbs; `shared` has the options that all of them take."""
    keys = verbs.add_parser(
        "keys", help="who may send which requests to the scoring service, and how often (docs/scoring.md)"
    )
    own = keys.add_subparsers(required=True, metavar="action", dest="action")

    add = own.add_parser("add", parents=[shared], help="create a key and show it, once")
    add.add_argument("name", help="name of the client; a second key with the same name is for replacing the first")
    scopes = [scope.value for scope in Scope]
    add.add_argument(
        "--scope", choices=scopes, action="append", help="may be given several times; default: score, read"
    )
    add.add_argument("--requests-per-minute", type=int, help="none: serving.key_requests_per_minute")
    add.add_argument("--days", type=float, help="how long it is valid; default: until it is revoked")
    add.set_defaults(verb_function=_add)

    listed = own.add_parser("list", parents=[shared], help="all keys, without their secrets")
    listed.set_defaults(verb_function=_list)

    revoke = own.add_parser("revoke", parents=[shared], help="permanently revoke all keys of a client, or one of them")
    revoke.add_argument("name")
    revoke.add_argument("--id", help="id of one key; default: all keys of the client")
    revoke.add_argument("--reason", required=True, help="kept with your name")
    revoke.set_defaults(verb_function=_revoke)


def _add(arguments: argparse.Namespace) -> int:
    from mlops_tasks.state.scoring_keys import KeyRequest, make_key

    settings = load_settings()
    scopes = [Scope(each) for each in arguments.scope or (Scope.SCORE, Scope.READ)]
    per_minute = arguments.requests_per_minute
    wanted = KeyRequest(
        arguments.name,
        frozenset(scopes),
        settings.serving.key_requests_per_minute if per_minute is None else per_minute,
        None if arguments.days is None else _days(arguments.days),
    )
    key, known = make_key(settings, wanted, getpass.getuser())
    said = f"{key}\nthe key of {known.name}, with the id {known.key_id}; it is shown only once"
    return tell(arguments, {"key": key, **_row(known)}, said)


def _days(given: float) -> timedelta:
    try:
        return timedelta(days=given)
    except (ValueError, OverflowError):
        raise ConfigError(
            f"--days {given:g}: give a positive number of days, or omit it for a key that does not expire"
        ) from None


def _list(arguments: argparse.Namespace) -> int:
    from mlops_tasks.state.scoring_keys import client_keys

    found = client_keys(load_settings())
    return tell(arguments, lambda: [_row(each) for each in found], partial(_listed, found))


def _revoke(arguments: argparse.Namespace) -> int:
    from mlops_tasks.state.scoring_keys import revoke_keys

    settings = load_settings()
    ended = revoke_keys(settings, arguments.name, arguments.id, arguments.reason, getpass.getuser())
    ids = [each.key_id for each in ended]
    said = f"{', '.join(ids)} of {arguments.name}: no service accepts it {settings.serving.poll_s:g} s from now"
    return tell(arguments, {"revoked": ids, "name": arguments.name}, said)


def _row(key: "ClientKey") -> dict[str, Any]:
    from mlops_tasks.state.tables import now

    return {
        "id": key.key_id,
        "name": key.name,
        "standing": key.standing(now()),
        "scopes": sorted(key.scopes),
        "requests_per_minute": key.requests_per_minute,
        "expires_at": None if key.expires_at is None else key.expires_at.isoformat(timespec="seconds"),
        "made_at": key.at.isoformat(timespec="seconds"),
        "made_by": key.made_by,
    }


def _listed(found: "Sequence[ClientKey]") -> Iterator[str]:
    if not found:
        yield "there is no key except the token in secrets/scoring_token"
    for row in map(_row, found):
        ends = f", until {row['expires_at']}" if row["expires_at"] else ""
        yield (
            f"{row['id']} {row['name']:<20}{row['standing']:<9}{' '.join(row['scopes'])}, "
            f"{row['requests_per_minute']} requests a minute{ends}; made {row['made_at']} by {row['made_by']}"
        )
