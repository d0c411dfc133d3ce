"""How many streams this process has open, in all and for each user, and who may have one.

The limits are checked before the database is asked for anything. A valid token is remembered for a minute: many
streams of one user cost one check, and each stream checks again when the minute is over.
"""

import asyncio
import hashlib
import time
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

from starlette.websockets import WebSocket

from mlops_api.access import refuse_foreign_stream, token_of, user_who_may_see
from mlops_tasks.config import StreamSettings

ADMISSION_S = 60.0
"""How long a stream may go on before its token is checked again."""
REMEMBERED = 1024


class TooManyStreamsError(Exception):
    """One stream more than a limit allows. `status` is the HTTP status."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class StreamLimits:
    """The streams of a process, for use on one event loop."""

    def __init__(self, limits: Callable[[], StreamSettings]) -> None:
        self.limits = limits
        self._open = 0
        self._of_user: Counter[str] = Counter()
        self._admitted: OrderedDict[bytes, tuple[str, float]] = OrderedDict()
        self._one_look = asyncio.Lock()

    @asynccontextmanager
    async def place(self, websocket: WebSocket) -> AsyncIterator[None]:
        """Hold a place for a stream while the block runs.

        Raises
        ------
        TooManyStreamsError
            503: there are as many streams as allowed in all. 429: this user has as many as allowed.
        WebSocketException
            1008: from a foreign page, without a valid token, or of a user who may not see runs.
        """
        if self._open >= self.limits().total:
            raise TooManyStreamsError(503, f"{self._open} streams are open; ask for events instead, or try again later")
        self._open += 1
        try:
            with self._users_place(await self.admit(websocket)):
                yield
        finally:
            self._open -= 1

    @contextmanager
    def _users_place(self, user: str) -> Iterator[None]:
        if self._of_user[user] >= self.limits().per_user:
            raise TooManyStreamsError(
                429, f"you have {self._of_user[user]} streams open; close one, or ask for events instead"
            )
        self._of_user[user] += 1
        try:
            yield
        finally:
            self._of_user[user] -= 1
            self._of_user += Counter()  # drops users who have none

    async def admit(self, websocket: WebSocket) -> str:
        """The id of the user, who may see runs. Raises the same errors as `place`."""
        refuse_foreign_stream(websocket)
        token = token_of(websocket)
        key = hashlib.sha256(str(token).encode()).digest()
        async with self._one_look:
            user, until = self._admitted.get(key, ("", 0.0))
            if time.monotonic() < until:
                return user
            self._admitted.pop(key, None)
            user = await user_who_may_see(token)
            self._admitted[key] = user, time.monotonic() + ADMISSION_S
            if len(self._admitted) > REMEMBERED:
                self._admitted.popitem(last=False)
            return user
