"""Refuses bodies that are longer than any request has reason to be, before they are in memory.

FastAPI reads a body whole before it asks who sends it, so without a limit a stranger could fill the server's memory.
"""

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LONGEST_BODY = 4_000_000
"""Bytes; the largest batches of events and units are about half as long."""


class BodyLimit:
    """Passes requests on, and gives up one whose body gets too long: 413."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve."""
        await self.app(scope, _Counted(receive).receive if scope["type"] == "http" else receive, send)


class _Counted:
    """What comes of one request."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._length = 0

    async def receive(self) -> Message:
        """The next message.

        Raises
        ------
        HTTPException
            413: with it the body is too long. Whoever reads the body gets this, and the app answers it as any other.
        """
        message = await self._receive()
        self._length += len(message.get("body", b""))
        if self._length > LONGEST_BODY:
            raise HTTPException(413, f"the body is longer than {LONGEST_BODY:,} bytes; send it in parts")
        return message
