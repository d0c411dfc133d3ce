"""An app that is made at its first request: Airflow loads plugins in every process, but only its API server serves."""

from collections.abc import Awaitable, Callable, MutableMapping
from functools import cached_property
from importlib import import_module
from typing import Any

Message = MutableMapping[str, Any]
App = Callable[[Message, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]]


class LazyApp:
    """The ASGI app that a factory without arguments returns.

    Parameters
    ----------
    factory
        `module:function`, imported with the first request.
    """

    def __init__(self, factory: str) -> None:
        self.factory = factory

    @cached_property
    def app(self) -> App:
        """The app itself."""
        module, _, name = self.factory.partition(":")
        made: App = getattr(import_module(module), name)()
        return made

    async def __call__(
        self, scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
    ) -> None:
        """Serve."""
        await self.app(scope, receive, send)
