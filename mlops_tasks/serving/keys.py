"""Identifies a client of the service by its key, and limits its rate of requests."""

import logging
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hmac import compare_digest

from mlops_tasks.config import Settings
from mlops_tasks.errors import MlopsError
from mlops_tasks.state.database import reason_of
from mlops_tasks.state.scoring_keys import TOKEN_NAME, ClientKey, client_keys, digest_of_secret, parse_key
from mlops_tasks.state.tables import now
from mlops_tasks.states import Scope

log = logging.getLogger(__name__)

BURST_S = 10.0
"""A burst may contain the requests of this period, and at least one."""


class ScopeError(MlopsError, PermissionError):
    """The key lacks the scope of the request."""


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


class Rates:
    """How often each holder has asked; used on one event loop only, so it needs no lock.

    A bucket of permits by name, so that a second key of the same client gives it no more of them.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._buckets: dict[str, tuple[float, float]] = {}
        """Permits, and when they were counted."""

    def wait_s(self, holder: Holder) -> float:
        """0 if it may send a request now, which is counted; else how long it has to wait, in seconds."""
        per_minute = holder.requests_per_minute
        if per_minute is None or holder.is_admin:
            return 0.0
        rate, moment = per_minute / 60, self._clock()
        most = max(1.0, rate * BURST_S)
        left, counted = self._buckets.get(holder.name, (most, moment))
        left = min(most, left + (moment - counted) * rate)
        allowed = left >= 1
        self._buckets[holder.name] = (left - allowed, moment)
        return 0.0 if allowed else (1 - left) / rate
