"""Callbacks on a finished sync: functions that are called with each data version that comes into use.

`data.on_sync` in the settings names functions (`module:function`) that are called by whichever process publishes;
`on_finished_sync` registers one in the process that runs the sync itself. They are called one after the other, after
the version came into use, and once for each version: `data/callbacks/delivered.json` says which version each took last.
A function that fails is called again by the next sync, with the version in use by then, until it succeeds. One that was
killed before its success was recorded is called once more, so a callback must be able to take a version twice.
"""

import logging
import pkgutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from mlops_tasks.config import Settings
from mlops_tasks.data.revisions.diff import VintageDiff, diff_vintages
from mlops_tasks.data.snapshots import checkout_vintage
from mlops_tasks.data.vintages import Vintage, current_vintage, load_vintage
from mlops_tasks.errors import ConfigError, StoreError
from mlops_tasks.files import folder_lock, read_json, write_json

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FinishedSync:
    """A data version that came into use.

    Attributes
    ----------
    previous_version
        The version that this callback took last. It is older than the version last in use if the callback failed in
        between. None: this is its first one.
    """

    data_version: str
    last_date: str
    previous_version: str | None
    settings: Settings = field(repr=False, compare=False)

    def vintage(self) -> Vintage:
        """The bars that are in use now."""
        return load_vintage(self.settings, self.data_version)

    def difference(self) -> VintageDiff | None:
        """What changed since the previous version, compared now if it was not before. None for the first one.

        Raises
        ------
        StoreError
            The previous version is neither on disk nor in DVC.
        """
        if self.previous_version is None:
            return None
        checkout_vintage(self.settings, self.previous_version)
        return diff_vintages(self.settings, self.previous_version, self.data_version)


Callback = Callable[[FinishedSync], Any]
F = TypeVar("F", bound=Callback)

_registered: dict[str, Callback] = {}
_telling: ContextVar[frozenset[Path]] = ContextVar("_telling", default=frozenset())
"""Homes whose callbacks are being called."""


def on_finished_sync(function: F) -> F:
    """Register a function of this process, as a decorator or by a call. It is called after those of the settings.

    It is known by its module and name: a function that is defined again under the same name replaces the former one.

    Raises
    ------
    ConfigError
        It has no stable name: a lambda or a partial.
    """
    _registered[_name(function)] = function
    return function


def forget(function: Callback) -> None:
    """Undo a registration. Harmless when there is none."""
    _registered.pop(_name(function), None)


def tell_callbacks(settings: Settings) -> dict[str, str]:
    """Call every callback that has not taken the version in use yet, and raise an alert for each that fails.

    Returns
    -------
    What happened, by the name of each callback that failed; neither the others nor the publication depend on it.

    Raises
    ------
    StoreError
        No vintage is in use, or a callback runs a sync of the same home.
    """
    callbacks = {**dict.fromkeys(settings.data.on_sync), **_registered}
    if not callbacks:
        return {}
    failed = {}
    with _one_at_a_time(settings) as folder:
        path = folder / "delivered.json"
        for name, function in callbacks.items():
            vintage = current_vintage(settings)
            delivered = read_json(path) if path.is_file() else {}
            if delivered.get(name) == vintage.data_version:
                continue
            finished = FinishedSync(vintage.data_version, vintage.last_date, delivered.get(name), settings)
            try:
                (function or pkgutil.resolve_name(name))(finished)
            except (Exception, SystemExit) as error:
                log.exception("callback %s failed", name)
                failed[name] = f"{vintage.data_version} is in use, but {name} failed: {type(error).__name__}: {error}"
            else:
                write_json(path, delivered | {name: vintage.data_version})
                log.info("callback %s took %s", name, vintage.data_version)
    for name, reason in failed.items():
        from mlops_tasks.state.alerts import raise_alert

        remedy = "correct the function, or data.on_sync; every further sync calls it again until it succeeds"
        raise_alert(settings, kind="callback_failed", subject=name, message=f"data version {reason}; {remedy}")
    return failed


def _name(function: Callback) -> str:
    name = getattr(function, "__qualname__", "<none>")
    if name.rpartition(".")[2].startswith("<"):
        raise ConfigError(f"{function!r} has no stable name to record its deliveries under; define it with def")
    return f"{function.__module__}:{name}"


@contextmanager
def _one_at_a_time(settings: Settings) -> Iterator[Path]:
    """Lock the callbacks' folder, so that two syncs do not call one function at the same time."""
    homes = _telling.get()
    if settings.home in homes:
        raise StoreError(
            "a callback on a finished sync ran a sync of the same home, which would wait for its own end; let the "
            "callback return and start that sync afterwards"
        )
    token = _telling.set(homes | {settings.home})
    try:
        folder = settings.data_dir / "callbacks"
        with folder_lock(folder):
            yield folder
    finally:
        _telling.reset(token)
