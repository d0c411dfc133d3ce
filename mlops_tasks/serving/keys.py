"""Identifies a client of the service by its key, and limits its rate of requests."""

import logging
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from hmac import compare_digest
from typing import Protocol

from mlops_tasks.config import Settings
from mlops_tasks.errors import ErrorKind, MlopsError
from mlops_tasks.serving.board import Bucket
from mlops_tasks.state.database import reason_of
from mlops_tasks.state.scoring_keys import TOKEN_NAME, ClientKey, client_keys, digest_of_secret, parse_key
from mlops_tasks.state.tables import now
from mlops_tasks.states import Scope

log = logging.getLogger(__name__)

BURST_S = 10.0
"""A burst may contain the requests of this period, and at least one."""


class ScopeError(MlopsError, PermissionError):
    """The key lacks the scope of the request."""

    kind = ErrorKind.CONFIGURATION


@dataclass(frozen=True)
class Holder:
    """The owner of a valid key."""

    name: str
    scopes: frozenset[Scope]
    requests_per_minute: int | None = None
    """None: no limit."""

    @property
    def is_admin(self) -> bool:
        """Whether it has every scope, and only the service's own limits."""
        return Scope.ADMIN in self.scopes

    def has(self, *scopes: Scope) -> bool:
        """Whether it has one of these scopes."""
        return self.is_admin or not self.scopes.isdisjoint(scopes)

    def need(self, *scopes: Scope) -> None:
        """Raise ScopeError if it has none of these scopes."""
        if not self.has(*scopes):
            raise ScopeError(
                f"the key of {self.name} does not have the scope {' or '.join(scopes)}; ask for one that has it "
                "(alphaops keys add)"
            )


NOBODY = Holder("", frozenset())


class KeyRing:
    """The keys that are valid now; the token is one of them.

    While the state database is unavailable, the keys read last stay valid until they expire.
    """

    def __init__(self, settings: Settings, token: str) -> None:
        self.settings = settings
        self.error = ""
        """That the newest look at the keys failed: for clients too, so it names an error's class alone."""
        self._told = ""
        """Why it failed, as it was logged last."""
        self._looking = threading.Lock()
        """Of two looks the later one's keys stay."""
        self._token = token.encode()
        self._keys: Mapping[str, ClientKey] | None = None
        """By id; None before they were read for the first time."""
        self._nobodys = digest_of_secret(secrets.token_urlsafe(32))

    def follow(self) -> None:
        """Read the keys that there are now."""
        with self._looking:
            try:
                self._keys = {each.key_id: each for each in client_keys(self.settings)}
            except Exception as error:  # a long-lived process: the keys that it has stay valid
                reason = reason_of(error)
                if reason != self._told:
                    log.warning("the keys of clients cannot be read: %s", reason)
                self._told = reason
                self.error = f"the keys of clients cannot be read ({type(error).__name__}); the service's log says more"
            else:
                self.error = self._told = ""

    def is_unknown_yet(self, shown: bytes) -> bool:
        """Whether it cannot be checked whether a key is valid: none have been read since the service started."""
        return self._keys is None and parse_key(shown.decode("latin-1")) is not None

    def holder(self, shown: bytes) -> Holder | None:
        """Owner of a key; None: it is unknown or no longer valid."""
        if compare_digest(shown, self._token):
            return Holder(TOKEN_NAME, frozenset({Scope.ADMIN}))
        parsed = parse_key(shown.decode("latin-1"))
        if parsed is None:
            return None
        key_id, secret = parsed
        key = (self._keys or {}).get(key_id)
        if key is None:
            compare_digest(digest_of_secret(secret), self._nobodys)
            return None
        if not key.fits(secret) or key.standing(now()) != "valid":
            return None
        return Holder(key.name, key.scopes, key.requests_per_minute)


class Buckets(Protocol):
    """Where buckets of permits are kept, by the client's name."""

    def exchange(self, client: str, draw: Callable[[Bucket | None], tuple[Bucket, float]]) -> float:
        """Replace a client's bucket by what `draw` makes of it, and return what else that gives."""


class OwnBuckets(dict[str, Bucket]):
    """Of one process; used on one event loop only, so it needs no lock."""

    def exchange(self, client: str, draw: Callable[[Bucket | None], tuple[Bucket, float]]) -> float:
        """As `Buckets`."""
        self[client], result = draw(self.get(client))
        return result


class Rates:
    """How often each holder has asked.

    A bucket of permits by name, so that a second key of the same client gives it no more of them.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, buckets: Buckets | None = None) -> None:
        self._clock = clock
        self._buckets = OwnBuckets() if buckets is None else buckets

    def wait_s(self, holder: Holder) -> float:
        """0 if it may send a request now, which is counted; else how long it has to wait, in seconds."""
        per_minute = holder.requests_per_minute
        if per_minute is None or holder.is_admin:
            return 0.0
        return self._buckets.exchange(holder.name, partial(_draw, per_minute / 60, self._clock()))


def _draw(rate: float, moment: float, bucket: Bucket | None) -> tuple[Bucket, float]:
    """Take a permit, of which there are so many a second; what is left, and how long to wait for one."""
    most = max(1.0, rate * BURST_S)
    left, counted = bucket or (most, moment)
    left = min(most, left + max(0.0, moment - counted) * rate)
    allowed = left >= 1
    return (left - allowed, moment), 0.0 if allowed else (1 - left) / rate
