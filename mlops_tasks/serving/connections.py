"""Connections with limits: uvicorn's own protocol with a time limit on everything at which a client can be slow.

Uvicorn alone waits for ever for the first byte, for the end of headers and of a body, and for a client to read its
answer, and it accepts headers of any length.
"""

import asyncio
import logging
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, ClassVar, Literal

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from mlops_tasks.config import ServingSettings
from mlops_tasks.serving.metrics import ServiceMetrics

# A line for each malformed request would let anybody fill the disk; they are counted. The logger is none of uvicorn's,
# which sets the levels of its own anew when a server is made.
_log = logging.getLogger(f"{__name__}.protocol")
_log.setLevel(logging.ERROR)

MOST_HEADER_BYTES = 32 * 2**10
_BESIDE = len(b": \r\n")
"""Bytes of a header field beside its name and value."""
MOST_PIPELINED = 16
"""Requests that a client may send before the first is answered."""

Reason = Literal["headers", "body", "idle", "answer", "crowded", "oversized"]
WAITS: tuple[Reason, ...] = ("headers", "body", "idle", "answer")
"""In the order in which they are closed for a new connection: those without a request yet come first."""


@dataclass
class Connections:
    """All open connections of a service, and which of them wait for their client."""

    limits: ServingSettings
    metrics: ServiceMetrics
    open: set["LimitedProtocol"] = field(default_factory=set)
    waiting: dict[Reason, dict["LimitedProtocol", None]] = field(default_factory=lambda: {each: {} for each in WAITS})
    """Connections by what they wait for, longest wait first."""

    def enter(self, connection: "LimitedProtocol") -> None:
        """Count a new connection; beyond the limit, close the one that has waited longest, or else the new one."""
        self.open.add(connection)
        self.metrics.connections.set(len(self.open))
        if len(self.open) > self.limits.connections:
            next(chain.from_iterable(self.waiting.values()), connection).cut("crowded")

    def leave(self, connection: "LimitedProtocol") -> None:
        """Forget a connection."""
        self.open.discard(connection)
        self.metrics.connections.set(len(self.open))


class LimitedProtocol(HttpToolsProtocol):
    """One connection. At each moment it waits for headers, for a body, for its own answer (no limit), or is idle."""

    others: ClassVar[Connections]

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._waits_for: Reason | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None
        self._received = 0
        self._trailed = 0
        """Bytes of the fields that follow a body."""
        self.logger = _log

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self.others.enter(self)
        if not transport.is_closing():
            self._wait_for("headers", self.others.limits.header_timeout_s)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self._wait_for(None)
        self.resume_writing()
        self.others.leave(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse the data, and check whether there is too much of it."""
        if self.transport.is_closing():
            return
        if self._waits_for == "idle":
            self._wait_for("headers", self.others.limits.header_timeout_s)
        self._received += len(data)
        super().data_received(data)
        # Chunks are separated by their lengths, so a body may need a multiple of its size on the wire.
        limit = 2 * self.others.limits.max_body_mb * 10**6 if self._waits_for == "body" else 0
        is_long = self._received > limit + MOST_HEADER_BYTES and self._waits_for not in ("idle", "answer")
        if is_long or self._trailed > MOST_HEADER_BYTES:
            self.cut("oversized")

    def on_message_begin(self) -> None:
        """A request begins."""
        self._received = self._trailed = 0
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a field, unless it follows the body: nobody reads those, and a small one takes much memory."""
        if self._waits_for == "body":
            self._trailed += len(name) + len(value) + _BESIDE
        else:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Wait for the body."""
        if len(self.pipeline) >= MOST_PIPELINED:
            raise ValueError("too many requests before the first is answered")  # the parser's caller answers 400
        self._received = 0
        self._wait_for("body", self.others.limits.body_timeout_s)
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The request is complete; there is no limit on the service's own time to answer."""
        self._received = 0
        super().on_message_complete()
        self._wait_for(None)
        if self.cycle is not None and self.cycle.response_complete:
            self._wait_for("idle", self.others.limits.idle_timeout_s)

    def on_response_complete(self) -> None:
        """Wait for the next request, if this one is complete."""
        super().on_response_complete()
        self._unset_keepalive_if_required()
        if self.transport.is_closing():
            self._wait_for("answer", self.others.limits.answer_timeout_s)
        elif self._waits_for is None and not self.pipeline:
            self._wait_for("idle", self.others.limits.idle_timeout_s)

    def send_400_response(self, msg: str) -> None:
        """Refuse invalid HTTP, and close once the refusal has been read."""
        self.others.metrics.cut_connections.labels("malformed").inc()
        super().send_400_response(msg)
        self._wait_for("answer", self.others.limits.answer_timeout_s)

    def pause_writing(self) -> None:
        """The client reads its answer more slowly than it is sent."""
        super().pause_writing()
        if self._unread is None:
            self._unread = self.loop.call_later(self.others.limits.answer_timeout_s, self.cut, "answer")

    def resume_writing(self) -> None:
        """The client has read most of it."""
        super().resume_writing()
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def cut(self, reason: Reason) -> None:
        """End the connection immediately, whatever its buffers contain."""
        self._wait_for(None)
        self.others.leave(self)
        self.others.metrics.cut_connections.labels(reason).inc()
        self.transport.abort()

    def _wait_for(self, what: Reason | None, seconds: float = 0.0) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        if self._waits_for is not None:
            self.others.waiting[self._waits_for].pop(self, None)
        self._waits_for = what
        if what is not None:
            self.others.waiting[what][self] = None
            self._deadline = self.loop.call_later(seconds, self.cut, what)


def limited_protocol(limits: ServingSettings, metrics: ServiceMetrics) -> type[LimitedProtocol]:
    """The protocol of one service as a class, as uvicorn requires."""
    return type("ServiceProtocol", (LimitedProtocol,), {"others": Connections(limits, metrics)})
