"""Keys of the scoring service's clients: created, listed, revoked.

A key is `alphaops_<id>_<secret>`. The secret is shown once, to the creator of the key, and only its digest is stored.
"""

import hashlib
import logging
import re
import secrets
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache

from sqlalchemy import select
from sqlalchemy.orm import Session

from mlops_tasks.config import Settings
from mlops_tasks.errors import ConfigError, StoreError, excerpt, first_few
from mlops_tasks.state.database import reading, session
from mlops_tasks.state.rows import content_digest, lock_table
from mlops_tasks.state.tables import ScoringKey, ScoringKeyRevocation, now
from mlops_tasks.states import Scope

log = logging.getLogger(__name__)

PREFIX = "alphaops"
TOKEN_NAME = "admin"  # noqa: S105  (a name)
"""Name of the token that `make up` creates, which is a key with every scope and no row here."""
VALID_AT_ONCE = 2
"""Keys with one name: the one in use, and its replacement."""
LONGEST = timedelta(days=36_500)
"""Longest validity of a key; one that is to last longer does not expire."""
_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,31}")


@dataclass(frozen=True)
class KeyRequest:
    """A key to be created."""

    name: str
    scopes: Collection[Scope]
    requests_per_minute: int
    valid_for: timedelta | None = None
    """None: until it is revoked."""


@dataclass(frozen=True)
class ClientKey:
    """A key, without its secret."""

    key_id: str
    name: str
    secret_digest: str
    scopes: frozenset[Scope]
    requests_per_minute: int
    made_by: str
    at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None

    def standing(self, moment: datetime) -> str:
        """`valid`, `expired` or `revoked`."""
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if self.expires_at is not None and self.expires_at <= moment else "valid"

    def fits(self, secret: str) -> bool:
        """Whether this is the key's secret, compared in constant time."""
        return secrets.compare_digest(digest_of_secret(secret), self.secret_digest)


def digest_of_secret(secret: str) -> str:
    """SHA-256, hex."""
    return hashlib.sha256(secret.encode()).hexdigest()


def parse_key(text: str) -> tuple[str, str] | None:
    """Id and secret of a possible key."""
    prefix, _, rest = text.partition("_")
    key_id, _, secret = rest.partition("_")
    return (key_id, secret) if prefix == PREFIX and key_id and secret else None


def make_key(settings: Settings, wanted: KeyRequest, by: str) -> tuple[str, ClientKey]:
    """Create a key; returns it, to be shown once, and its record.

    Raises
    ------
    ConfigError
        The name is invalid or is the token's, there is no scope, or two keys with this name are valid already.
    """
    _check(wanted)
    secret, moment = secrets.token_urlsafe(32), now()
    expires = None if wanted.valid_for is None else moment + wanted.valid_for
    row = ScoringKey(
        key_id=secrets.token_hex(6),
        name=wanted.name,
        secret_digest=digest_of_secret(secret),
        scopes=" ".join(sorted(wanted.scopes)),
        requests_per_minute=wanted.requests_per_minute,
        expires_at=expires,
        made_by=by,
        at=moment,
    )
    row.content_digest = content_digest(row)
    with session(settings) as active:
        lock_table(active, ScoringKey.__tablename__)
        valid = [each for each in _keys(active) if each.name == wanted.name and each.standing(moment) == "valid"]
        if len(valid) >= VALID_AT_ONCE:
            raise ConfigError(
                f"{wanted.name} has {len(valid)} valid keys ({first_few(each.key_id for each in valid)}); revoke one "
                f"first: alphaops keys revoke {wanted.name} --id {valid[0].key_id} --reason ..."
            )
        active.add(row)
    return f"{PREFIX}_{row.key_id}_{secret}", _known(row, None)


def revoke_keys(settings: Settings, name: str, key_id: str | None, reason: str, by: str) -> list[ClientKey]:
    """Revoke the keys with a name, or one of them; returns those that were not revoked before.

    Raises
    ------
    ConfigError, StoreError
        The reason is missing; no such key exists or all are revoked.
    """
    if not reason.strip():
        raise ConfigError("give the reason; it is kept with your name")
    with session(settings) as active:
        lock_table(active, ScoringKeyRevocation.__tablename__)
        found = [each for each in _keys(active) if each.name == name and each.revoked_at is None]
        ended = [each for each in found if key_id in (None, each.key_id)]
        if not ended:
            which = excerpt(name) if key_id is None else f"{excerpt(name)} with the id {excerpt(key_id)}"
            raise StoreError(f"there is no unrevoked key of {which}; see alphaops keys list")
        for each in ended:
            row = ScoringKeyRevocation(key_id=each.key_id, revoked_by=by, reason=reason.strip())
            row.content_digest = content_digest(row)
            active.add(row)
    return ended


def client_keys(settings: Settings) -> list[ClientKey]:
    """All keys, in the order of their creation.

    Raises
    ------
    StoreError
        The state database does not answer.
    """
    with reading(settings) as active:
        return _keys(active)


def _keys(active: Session) -> list[ClientKey]:
    same = ScoringKeyRevocation.key_id == ScoringKey.key_id
    query = select(ScoringKey, ScoringKeyRevocation.at).outerjoin(ScoringKeyRevocation, same).order_by(ScoringKey.id)
    return [_known(row, revoked_at) for row, revoked_at in active.execute(query)]


def _known(row: ScoringKey, revoked_at: datetime | None) -> ClientKey:
    return ClientKey(
        key_id=row.key_id,
        name=row.name,
        secret_digest=row.secret_digest,
        scopes=_scopes(row.key_id, row.scopes),
        requests_per_minute=row.requests_per_minute,
        made_by=row.made_by,
        at=row.at,
        expires_at=row.expires_at,
        revoked_at=revoked_at,
    )


@lru_cache(maxsize=1024)  # a service reads the same keys every few seconds, and reports a fault once
def _scopes(key_id: str, text: str) -> frozenset[Scope]:
    """The known scopes; an unknown one, from a newer release, opens nothing and affects no other key."""
    names, known = text.split(), set(Scope)
    if unknown := [each for each in names if each not in known]:
        log.warning("the key %s has unknown scopes: %s", key_id, first_few(map(excerpt, unknown)))
    return frozenset(Scope(each) for each in names if each in known)


def _check(wanted: KeyRequest) -> None:
    if not _NAME.fullmatch(wanted.name) or wanted.name == TOKEN_NAME:
        raise ConfigError(
            f"{excerpt(wanted.name)} is not a valid key name: up to 32 lower-case letters, digits and `_.-`, but not "
            f"{TOKEN_NAME}, which is the token's"
        )
    if not wanted.scopes:
        raise ConfigError(f"a key needs a scope: {', '.join(Scope)}")
    if wanted.requests_per_minute < 1:
        raise ConfigError(f"{wanted.requests_per_minute} requests a minute: a key needs at least one")
    if wanted.valid_for is not None and wanted.valid_for > LONGEST:
        raise ConfigError(f"a key is valid for at most {LONGEST.days} days; omit the days for one that does not expire")
    if wanted.valid_for is not None and wanted.valid_for <= timedelta(0):
        raise ConfigError("a key must be valid for a positive time; omit the days for one that does not expire")
