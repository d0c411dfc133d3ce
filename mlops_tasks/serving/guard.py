"""ASGI middleware in front of every route: the bearer token, the size of a body, counts and times."""

import base64
import hmac
import json

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mlops_tasks.config import ServingSettings
from mlops_tasks.serving.caller import REQUEST_ID, SCOPE, Caller, request_id
from mlops_tasks.serving.docs_page import BROWSED
from mlops_tasks.serving.gates import RETRY_AFTER_S, BusyError, Gate
from mlops_tasks.serving.metrics import ServiceMetrics
from mlops_tasks.serving.reader import LARGE_BYTES
from mlops_tasks.serving.secret import TOKEN

ROUTES = frozenset({"/v1/score", "/v1/refresh", "/health", "/metrics"})
_SEND_TOKEN = f"send the header 'Authorization: Bearer <token>'; {TOKEN.where}"
_SIGN_IN = f"sign in with any name, and the token as password; {TOKEN.where}"
Headers = dict[bytes, bytes]
TOKENS_HOLDER = "admin"
"""What the log of predictions calls who has shown the token."""
CLIENT_GONE = 499
"""Counted for a request that nobody waits for any more; it is what nginx calls it."""


class Guard:
    """Refuses requests without the token (401) before anything of them is read, and reads bodies up to a limit.

    What it passes on has its whole body, so a client that sends slowly holds nothing but its connection: a body that
    is large, or of a size that is not said, needs a free place before it is read.
    """

    def __init__(self, app: ASGIApp, token: str, metrics: ServiceMetrics, limits: ServingSettings) -> None:
        self.app = app
        self.token = token.encode()
        self.metrics = metrics
        self.most_bytes = int(limits.max_body_mb * 10**6)
        self.large = Gate("large", limits.large_at_once, metrics.busy)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        route = scope["path"] if scope["path"] in ROUTES else "other"
        headers = dict(scope["headers"])
        caller = Caller(TOKENS_HOLDER, request_id(headers.get(REQUEST_ID)))
        scope[SCOPE] = caller
        status = CLIENT_GONE

        async def counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (REQUEST_ID, caller.request_id.encode())]
            await send(message)

        try:
            await self._serve(scope, headers, receive, counted)
        except Exception:
            status = 500
            raise
        finally:
            self.metrics.requests.labels(route, str(status)).inc()
            self.metrics.latency.labels(route).observe(caller.seconds)
            if status >= 500:
                self.metrics.errors.labels(route).inc()

    async def _serve(self, scope: Scope, headers: Headers, receive: Receive, send: Send) -> None:
        length = int(headers.get(b"content-length", b"0"))
        browsed = scope["path"] in BROWSED and scope["method"] in ("GET", "HEAD")
        if not self._is_known(headers.get(b"authorization", b""), browsed):
            await refuse(send, 401, _SIGN_IN if browsed else _SEND_TOKEN, challenge="Basic" if browsed else "Bearer")
        elif length > self.most_bytes:
            await self._refuse_size(send)
        elif length > LARGE_BYTES or b"transfer-encoding" in headers:
            try:
                with self.large.passing():
                    await self._pass_on(scope, receive, send)
            except BusyError as error:
                await refuse(send, 503, str(error))
        else:
            await self._pass_on(scope, receive, send)

    def _is_known(self, authorization: bytes, browsed: bool) -> bool:
        """Whether the token was sent: as a bearer token, or where people look with a browser as a password."""
        scheme, _, given = authorization.partition(b" ")
        if browsed and scheme.lower() == b"basic":
            scheme, given = b"Bearer", _password(given)
        return hmac.compare_digest(scheme + b" " + given, b"Bearer " + self.token)

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


def _password(credentials: bytes) -> bytes:
    """Of a header of HTTP basic authentication, whatever the user's name is; empty where there is none."""
    try:
        return base64.b64decode(credentials, validate=True).partition(b":")[2]
    except ValueError:
        return b""


async def _next(whole: list[Message], receive: Receive) -> Message:
    return whole.pop() if whole else await receive()


async def refuse(send: Send, status: int, detail: str, challenge: str = "Bearer") -> None:
    """Answer without the app; a 401 says by `challenge` how to authenticate."""
    content = json.dumps({"detail": detail}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode())]
    if status == 401:
        headers.append((b"www-authenticate", f'{challenge} realm="AlphaOps scoring"'.encode()))
    if status == 503:
        headers.append((b"retry-after", str(RETRY_AFTER_S).encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})
