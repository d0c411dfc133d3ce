"""Two model slots, blue and green: a new champion is loaded and probed in the idle one, then takes over in one step."""

import logging
import threading
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from mlops_tasks.columns import DATETIME, INSTRUMENT
from mlops_tasks.config import Settings
from mlops_tasks.errors import MlopsError, RegistryError
from mlops_tasks.registry.approvals import load_approved
from mlops_tasks.registry.models import LoadedModel
from mlops_tasks.serving.reconciliation import reconcile

log = logging.getLogger(__name__)

SlotName = Literal["blue", "green"]


@dataclass(frozen=True)
class Slot:
    """A loaded model in its slot."""

    name: SlotName
    model: LoadedModel


class ModelSlots:
    """Follows the alias `champion`, once it is reconciled with the record: no version is served that is not proven, or
    under proof by a deployment at work.

    `active` is replaced in one assignment: a request that holds the old slot finishes with the old model. The
    replaced model stays in its slot, so that the way back needs no loading.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.active: Slot | None = None
        self.error: str | None = None
        """Why the newest look at the alias did not end in serving what it names; None when it did."""
        self.failures = 0
        self.switches = 0
        self._idle: Slot | None = None
        self._lock = threading.Lock()

    def follow(self) -> None:
        """Put the alias right and serve what it names, if that may serve; on trouble the old one stays: see `error`."""
        with self._lock:
            try:
                found = reconcile(self.settings)
                self._switch_to(found.champion)
            except Exception as error:
                # A long-lived process: whatever goes wrong with the new model, the old one goes on.
                self._note_failure(error)
            else:
                self.error = found.error

    def _switch_to(self, version: int | None) -> None:
        active = self.active
        if version == (None if active is None else active.model.version):
            return
        new = None if version is None else self._prepare(version)
        self.active, self._idle = new, active
        self.switches += 1
        log.info("serving version %s in slot %s", version, new and new.name)

    def _prepare(self, version: int) -> Slot:
        if self._idle is not None and self._idle.model.version == version:
            return self._idle
        model = load_approved(self.settings, version)
        probe(model)
        return Slot("green" if self.active and self.active.name == "blue" else "blue", model)

    def _note_failure(self, error: Exception) -> None:
        self.failures += 1
        message = f"{type(error).__name__}: {error}"
        if message != self.error:
            log.error(
                "the champion alias cannot be followed: %s",
                message,
                exc_info=not isinstance(error, MlopsError),
            )
        self.error = message


def probe(model: LoadedModel) -> None:
    """Score a row of zeros and a row of missing values; a window model, so many days of each.

    Raises
    ------
    RegistryError
        A score is not finite.
    """
    names, window = model.artefact.feature_names, model.artefact.window
    days = pd.bdate_range("2000-01-03", periods=window)
    index = pd.MultiIndex.from_product([days, ["zeros", "missing"]], names=[DATETIME, INSTRUMENT])
    values = np.tile(np.array([[0.0], [np.nan]], dtype=np.float32), (window, len(names)))
    scores = model.artefact.predict(pd.DataFrame(values, index, names))
    if not np.isfinite(scores.to_numpy()).all():
        raise RegistryError(f"version {model.version} scores probe rows with {scores.to_list()}; it is not served")
