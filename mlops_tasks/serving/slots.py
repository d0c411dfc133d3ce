"""Two model slots, blue and green: a new champion is loaded and probed in the idle one, then takes over in one step."""

import logging
import threading
import time
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd
from sqlalchemy.exc import SQLAlchemyError

from mlops_tasks.columns import DATETIME, INSTRUMENT
from mlops_tasks.config import Settings
from mlops_tasks.errors import (
    DigestMismatchError,
    MlopsError,
    NotApprovedError,
    RecordMismatchError,
    RegistryError,
)
from mlops_tasks.registry.approvals import Permit, serving_permit
from mlops_tasks.registry.models import LoadedModel
from mlops_tasks.serving.champion import Action
from mlops_tasks.serving.reconciliation import Reconciled, named, reconcile
from mlops_tasks.state.alerts import raise_daily_alert
from mlops_tasks.state.database import reason_of
from mlops_tasks.states import Arm

log = logging.getLogger(__name__)

SlotName = Literal["blue", "green"]


class ProbeError(RegistryError):
    """A model's scores of probe rows are not finite."""


REFUSALS = (DigestMismatchError, NotApprovedError, RecordMismatchError)
"""Errors which mean that a champion was changed, not that something is unavailable."""


@dataclass(frozen=True)
class Slot:
    """A loaded model in its slot."""

    name: SlotName
    model: LoadedModel
    arm: Arm = Arm.CHAMPION
    """Arm of its answers."""

    @property
    def standing(self) -> str:
        """Standing of the model in an answer: `champion`, `provisional`, or `canary`."""
        return self.arm.value if self.arm == Arm.CANARY else self.model.standing


class ModelSlots:
    """Follows the record of deployments, with which the alias `champion` is reconciled.

    Only versions that are proven, or being proven by a running deployment, are served; and only with exactly the bytes
    that were deployed, if they may still serve.

    `active` is replaced in one assignment: a request that holds the old slot finishes with the old model. The
    replaced model stays in its slot, so that a rollback needs no loading.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.active: Slot | None = None
        self.since = time.monotonic()
        """When `active` became what it is."""
        self.error: str | None = None
        """Why the version that the alias names was not served after the newest check; None if it was."""
        self._told = ""
        """The last failure, as it was logged."""
        self.failures = 0
        self.switches = 0
        self._idle: Slot | None = None
        self._lock = threading.Lock()

    def follow(self) -> None:
        """Correct the alias and serve the champion, if it may serve; on an error the old one stays: see `error`."""
        with self._lock:
            try:
                found = reconcile(self.settings)
            except Exception as error:
                self._note_failure(error)
                return
            try:
                self._switch_to(None if found.champion is None else serving_permit(self.settings, found.champion))
            except Exception as error:
                # A long-lived process: whatever goes wrong with the new model, the old one stays in service.
                self._note_failure(error)
                self._tell(found, error)
            else:
                self.error, self._told = found.error, ""

    def keep(self, model: LoadedModel) -> Slot:
        """Load a candidate into the idle slot, from which it becomes champion without being loaded again."""
        with self._lock:
            if self._idle is None or self._idle.model is not model:
                self._idle = Slot(self._idle_name(), model)
            return self._idle

    def _idle_name(self) -> SlotName:
        return "green" if self.active and self.active.name == "blue" else "blue"

    def _switch_to(self, permit: Permit | None) -> None:
        active = self.active
        if active is not None and permit is not None and _is_same(active, permit):
            self.active = _with_standing(active, permit)
            return
        if active is None and permit is None:
            return
        new = None if permit is None else self._prepare(permit)
        self.active, self._idle, self.since = new, active, time.monotonic()
        self.switches += 1
        log.info("serving version %s in slot %s", new and new.model.version, new and new.name)

    def _prepare(self, permit: Permit) -> Slot:
        if self._idle is not None and _is_same(self._idle, permit):
            return _with_standing(self._idle, permit)
        model = permit.load(self.settings)
        probe(model)
        return Slot(self._idle_name(), model)

    def _tell(self, found: Reconciled, error: Exception) -> None:
        """Report a refused champion, unless a running deployment put it there, which reports it itself."""
        if not isinstance(error, REFUSALS) or found.action is Action.WAIT:
            return
        active = self.active
        kept = "nothing" if active is None else named(active.model.version)
        message = f"{named(found.champion)} is the champion and is refused, the service continues with {kept}: {error}"
        raise_daily_alert(self.settings, kind="champion_refused", cause=named(found.champion), message=message)

    def _note_failure(self, error: Exception) -> None:
        self.failures += 1
        is_known, message = isinstance(error, MlopsError | SQLAlchemyError), f"{type(error).__name__}: {error}"
        if isinstance(error, SQLAlchemyError):
            message = reason_of(error)
        if message != self._told:
            log.error("the champion alias cannot be followed: %s", message, exc_info=not is_known)
        self._told = message
        if isinstance(error, SQLAlchemyError):  # clients read `error`: what a driver says names hosts
            message = f"the champion alias cannot be followed ({type(error).__name__}); the service's log says more"
        self.error = message


def _is_same(slot: Slot, permit: Permit) -> bool:
    return (slot.model.version, slot.model.digest) == (permit.claim.version, permit.claim.digest)


def _with_standing(slot: Slot, permit: Permit) -> Slot:
    """The slot, with the current standing of the model."""
    if slot.model.provisional == permit.provisional:
        return slot
    return replace(slot, model=replace(slot.model, provisional=permit.provisional))


def probe(model: LoadedModel) -> None:
    """Score a row of zeros and a row of missing values; for a window model, a window of each.

    Raises
    ------
    ProbeError
        A score is not finite.
    """
    names, window = model.artefact.feature_names, model.artefact.window
    days = pd.bdate_range("2000-01-03", periods=window)
    index = pd.MultiIndex.from_product([days, ["zeros", "missing"]], names=[DATETIME, INSTRUMENT])
    values = np.tile(np.array([[0.0], [np.nan]], dtype=np.float32), (window, len(names)))
    scores = model.artefact.predict(pd.DataFrame(values, index, names))
    if not np.isfinite(scores.to_numpy()).all():
        raise ProbeError(f"version {model.version} scores probe rows with {scores.to_list()}; it is not served")
