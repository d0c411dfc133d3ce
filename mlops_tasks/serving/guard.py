"""ASGI middleware in front of every route: keys with scopes and rates, body size, counts and times."""

import base64
import json
import logging
import math
from collections.abc import Mapping

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mlops_tasks.config import ServingSettings
from mlops_tasks.serving.access_log import AccessLog
from mlops_tasks.serving.caller import REQUEST_ID, SCOPE, UNIT, Caller, request_id, unit_of
from mlops_tasks.serving.docs_page import BROWSED
from mlops_tasks.serving.gates import RETRY_AFTER_S, BusyError, Gate, Places
from mlops_tasks.serving.keys import NOBODY, Holder, KeyRing, Rates, ScopeError
from mlops_tasks.serving.metrics import ServiceMetrics
from mlops_tasks.serving.reader import LARGE_BYTES
from mlops_tasks.serving.secret import TOKEN
from mlops_tasks.states import Scope as KeyScope

log = logging.getLogger(__name__)

NEEDED: Mapping[str, tuple[KeyScope, ...]] = {
    "/v1/score": (KeyScope.SCORE, KeyScope.SCORE_ROWS),
    "/v1/refresh": (KeyScope.ADMIN,),
    "/v1/environment": (KeyScope.ADMIN,),
    "/health": (KeyScope.READ,),
    "/ready": (KeyScope.READ,),
    "/metrics": (KeyScope.READ,),
    **dict.fromkeys(BROWSED, (KeyScope.READ,)),
}
"""Scopes of which a key needs one, by route; which of the two a score needs depends on the request."""
ROUTES = frozenset({"/v1/score", "/v1/refresh", "/v1/environment", "/health", "/live", "/ready", "/metrics"})
"""Methods that metrics name."""
_SEND_KEY = f"send the header 'Authorization: Bearer <key>': one of alphaops keys add, or the token; {TOKEN.where}"
_SIGN_IN = f"sign in with any name, and a key or the token as password; {TOKEN.where}"
LIVE = "/live"
"""Open to everybody, so that a watchdog needs no key: it always returns the same single word."""
CLIENT_GONE = 499
"""Counted for a request whose client has gone, as nginx does."""

Headers = dict[bytes, bytes]


class Guard:
    """Refuses requests without a valid key (401) before reading anything of them, and reads bodies up to a limit.

    The only exception is `/live`.

    Requests are passed on with their whole body, so a slow client occupies only its connection: a body that is large,
    or of undeclared size, needs a free slot before it is read.
    """

    def __init__(
        self, app: ASGIApp, keys: KeyRing, rates: Rates, metrics: ServiceMetrics, limits: ServingSettings
    ) -> None:
        self.app = app
        self.keys = keys
        self.rates = rates
        self.metrics = metrics
        self.access = AccessLog(limits)
        self.most_bytes = int(limits.max_body_mb * 10**6)
        self.large = Gate("large", Places(limits.large_at_once, limits.key_share), metrics.busy)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        route = scope["path"] if scope["path"] in ROUTES else "other"
        live = scope["path"] == LIVE and scope["method"] == "GET"
        holder = None if live else self.keys.holder(_shown(scope, headers))
        unit = "" if holder is None else unit_of(holder, headers.get(UNIT))
        caller = Caller(holder or NOBODY, request_id(headers.get(REQUEST_ID)), unit)
        scope[SCOPE] = caller
        status = CLIENT_GONE

        async def counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (REQUEST_ID, caller.request_id.encode())]
            await send(message)

        try:
            await (self.app(scope, receive, counted) if live else self._serve(scope, headers, receive, counted))
        except Exception:
            log.exception("request %s failed", caller.request_id)
            if status != CLIENT_GONE:  # an answer has begun, and can no longer be replaced
                status = 500
                raise
            await refuse(counted, 500, failure_of(caller))
        finally:
            self.metrics.requests.labels(route, str(status)).inc()
            self.metrics.latency.labels(route).observe(caller.seconds)
            if status >= 500:
                self.metrics.errors.labels(route).inc()
            if caller.holder is not NOBODY:
                self.access.tell(scope, status)

    async def _serve(self, scope: Scope, headers: Headers, receive: Receive, send: Send) -> None:
        holder: Holder = scope[SCOPE].holder
        if holder is NOBODY:
            await self._refuse_stranger(send, scope, headers)
            return
        self.metrics.key_requests.labels(holder.name).inc()
        wait_s = self.rates.wait_s(holder)
        if wait_s:
            self.metrics.limited.labels(holder.name).inc()
            told = f"the key of {holder.name} may send {holder.requests_per_minute} requests a minute"
            await refuse(send, 429, told, retry_after_s=math.ceil(wait_s))
            return
        try:
            holder.need(*NEEDED.get(scope["path"], tuple(KeyScope)))
        except ScopeError as error:
            await refuse(send, 403, str(error))
            return
        await self._admit(headers, scope, receive, send)

    async def _refuse_stranger(self, send: Send, scope: Scope, headers: Headers) -> None:
        browsed = _is_browsed(scope)
        if self.keys.is_unknown_yet(_shown(scope, headers)):
            told = "the keys of clients are not read yet; retry in a moment"
            await refuse(send, 503, told, retry_after_s=RETRY_AFTER_S)
        else:
            await refuse(send, 401, _SIGN_IN if browsed else _SEND_KEY, challenge="Basic" if browsed else "Bearer")

    async def _admit(self, headers: Headers, scope: Scope, receive: Receive, send: Send) -> None:
        length = int(headers.get(b"content-length", b"0"))
        if length > self.most_bytes:
            await self._refuse_size(send)
        elif length > LARGE_BYTES or b"transfer-encoding" in headers:
            try:
                with self.large.passing(scope[SCOPE].holder):
                    await self._pass_on(scope, receive, send)
            except BusyError as error:
                await refuse(send, 503, str(error), retry_after_s=RETRY_AFTER_S)
        else:
            await self._pass_on(scope, receive, send)

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send) -> None:
        parts: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > self.most_bytes:
                await self._refuse_size(send)
                return
            if not message.get("more_body", False):
                break
        whole: list[Message] = [{"type": "http.request", "body": b"".join(parts), "more_body": False}]
        parts.clear()
        await self.app(scope, lambda: _next(whole, receive), send)

    async def _refuse_size(self, send: Send) -> None:
        await refuse(send, 413, f"the body is larger than {self.most_bytes} bytes; send fewer rows at a time")


def _is_browsed(scope: Scope) -> bool:
    """Whether it is a page for people with a browser."""
    return scope["path"] in BROWSED and scope["method"] in ("GET", "HEAD")


def _shown(scope: Scope, headers: Headers) -> bytes:
    """The key that was sent: as a bearer token, or, on pages for a browser, as a password; empty if there is none."""
    scheme, _, given = headers.get(b"authorization", b"").partition(b" ")
    if _is_browsed(scope) and scheme.lower() == b"basic":
        return _password(given)
    return given if scheme == b"Bearer" else b""


def _password(credentials: bytes) -> bytes:
    """The password in a header of HTTP basic authentication, with any user name; empty if there is none."""
    try:
        return base64.b64decode(credentials, validate=True).partition(b":")[2]
    except ValueError:
        return b""


def failure_of(caller: Caller) -> str:
    """What a client is told of an error of the service: nothing of it, as it may name files and hosts."""
    return f"the service failed; its log says how, under the request id {caller.request_id}"


async def _next(whole: list[Message], receive: Receive) -> Message:
    return whole.pop() if whole else await receive()


async def refuse(
    send: Send, status: int, detail: str, *, challenge: str = "Bearer", retry_after_s: int | None = None
) -> None:
    """Answer without the app; `challenge` of a 401 says how to authenticate."""
    content = json.dumps({"detail": detail}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode())]
    if status == 401:
        headers.append((b"www-authenticate", f'{challenge} realm="AlphaOps scoring"'.encode()))
    if retry_after_s is not None:
        headers.append((b"retry-after", str(retry_after_s).encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})
