"""ASGI middleware in front of every route: the bearer token, the size of a body, counts and times."""

import hmac
import json
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mlops_tasks.serving.metrics import ServiceMetrics
from mlops_tasks.serving.secret import TOKEN

MAX_BODY_BYTES = 64 * 2**20

ROUTES = frozenset({"/v1/score", "/v1/refresh", "/health", "/metrics"})


class Guard:
    """Refuses requests without the token (401) before anything of them is read."""

    def __init__(self, app: ASGIApp, token: str, metrics: ServiceMetrics) -> None:
        self.app = app
        self.expected = f"Bearer {token}".encode()
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        route = scope["path"] if scope["path"] in ROUTES else "other"
        started, status = time.perf_counter(), 500

        async def counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._serve(scope, receive, counted)
        finally:
            self.metrics.requests.labels(route, str(status)).inc()
            self.metrics.latency.labels(route).observe(time.perf_counter() - started)
            if status >= 500:
                self.metrics.errors.labels(route).inc()

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope["headers"])
        if not hmac.compare_digest(headers.get(b"authorization", b""), self.expected):
            await _refuse(send, 401, f"send the header 'Authorization: Bearer <token>'; {TOKEN.where}")
        elif int(headers.get(b"content-length", b"0")) > MAX_BODY_BYTES:
            await _refuse(send, 413, f"the body is larger than {MAX_BODY_BYTES} bytes; send fewer rows at a time")
        elif b"transfer-encoding" in headers:
            await _refuse(send, 411, "send the body with a Content-Length, not in chunks")
        else:
            await self.app(scope, receive, send)


async def _refuse(send: Send, status: int, detail: str) -> None:
    headers = [(b"content-type", b"application/json")]
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps({"detail": detail}).encode()})
