"""What the scoring service does, without HTTP: follow the champion and the vintage, score, say how it is."""

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from mlops_tasks.config import Settings
from mlops_tasks.data.vintages import current_vintage
from mlops_tasks.errors import MlopsError, StoreError
from mlops_tasks.serving.market import Day, Market, MarketView
from mlops_tasks.serving.messages import FeatureRow, FeatureTable
from mlops_tasks.serving.metrics import ServiceMetrics
from mlops_tasks.serving.slots import ModelSlots, Slot
from mlops_tasks.serving.watch import View, Watch, is_scored

log = logging.getLogger(__name__)

SCORES_KEPT = 32


class NotReadyError(MlopsError, RuntimeError):
    """Nothing can be scored yet: there is no champion, or no features."""


class BadFeaturesError(MlopsError, ValueError):
    """Features that the model does not know, or lacks."""


@dataclass(frozen=True)
class Scored:
    """The answer to a scoring request."""

    slot: Slot
    instruments: Sequence[str]
    scores: Sequence[float]
    day: Day | None = None
    missing: Sequence[str] = field(default=())

    def to_json(self) -> dict[str, Any]:
        """As it goes over the wire."""
        market = None if self.day is None else self.day.market
        pairs = zip(self.instruments, self.scores, strict=True)
        return {
            "model_version": self.slot.model.version,
            "training_key": self.slot.model.training_key,
            "date": None if self.day is None else self.day.date.isoformat(),
            "data_version": None if market is None else market.data_version,
            "feature_version": None if market is None else market.feature_version,
            "scores": [{"instrument": instrument, "score": score} for instrument, score in pairs],
            "missing": list(self.missing),
        }


@dataclass(frozen=True)
class Values:
    """Features as they were sent: names, and a list of values a row (None: missing)."""

    names: list[str]
    rows: list[list[float | None]]


class ScoringService:
    """One model and one vintage in service; thread-safe."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.slots = ModelSlots(settings)
        self.market_view = MarketView(settings)
        self.metrics = ServiceMetrics()
        self.watch = Watch(settings)
        self.started = time.monotonic()
        self._scores: OrderedDict[tuple[str, str, date], pd.Series] = OrderedDict()
        self._lock = threading.Lock()

    def refresh(self) -> None:
        """Look at the champion alias and at the vintage in use, now."""
        self.slots.follow()
        slot = self.slots.active
        if slot is not None:
            self.market_view.follow(slot.model)
        self._publish_metrics(slot)
        if self.watch.is_due():
            self._look_out()

    def _look_out(self) -> None:
        try:
            self.watch.look(self._view())
        except Exception as error:  # the service serves on, also while the state database is away
            log.warning("scores and data were not looked after: %s: %s", type(error).__name__, error)

    def _view(self) -> View:
        health, vintage = self.health(), self._vintage_date()
        return View(
            champion=health["model_version"],
            served=None if health["newest_date"] is None else date.fromisoformat(health["newest_date"]),
            vintage=vintage,
            scored=vintage is None or is_scored(self.settings, vintage),
            error="; ".join(health["errors"]),
        )

    def _vintage_date(self) -> date | None:
        try:
            return date.fromisoformat(current_vintage(self.settings).last_date)
        except (StoreError, OSError):  # none yet, or not readable: the market view says so
            return None

    def _publish_metrics(self, slot: Slot | None) -> None:
        market = None if slot is None else self.market_view.market(slot.model)
        self.metrics.set_dates(None if market is None else market.newest_date, self._vintage_date())
        self.metrics.load_failures.set(self.slots.failures)
        self.metrics.switches.set(self.slots.switches)
        self.metrics.model_version.set(0 if slot is None else slot.model.version)
        self.metrics.model.clear()
        if slot is not None:
            self.metrics.model.labels(str(slot.model.version), slot.model.training_key, slot.name).set(1)

    def score_date(self, instruments: Sequence[str] | None, wanted: date | None) -> Scored:
        """Score instruments on a day; None: all that have a bar that day, the newest day.

        Raises
        ------
        NotReadyError, UnknownDateError
            No champion or no features; no such trading day.
        """
        slot = self._slot()
        market = self._market(slot)
        if market is None:
            raise NotReadyError(f"no features are served yet: {self.market_view.error}")
        day = self.market_view.day(market, wanted, slot.model.artefact.window)
        scores = self._scores_of_day(slot, day)
        asked = scores.index if instruments is None else pd.Index(dict.fromkeys(instruments), dtype=object)
        found = scores.reindex(asked)
        known = np.isfinite(found.to_numpy())
        values = found[known]
        self.metrics.scored_rows.inc(len(values))
        return Scored(slot, values.index.to_list(), values.to_list(), day, asked[~known].to_list())

    def score_rows(self, rows: Sequence[FeatureRow]) -> Scored:
        """Score given features, one row an instrument.

        Raises
        ------
        NotReadyError, BadFeaturesError
            There is no champion; a feature is unknown or missing, or a score is not finite; the model looks back on
            earlier days, which such a request does not hold.
        """
        slot = self._slot_for_rows()
        given = list(rows[0].features)
        if all(list(row.features) == given for row in rows):
            values = [list(row.features.values()) for row in rows]
            return self._score_values(slot, [row.instrument for row in rows], Values(given, values))
        names = slot.model.artefact.feature_names
        for row in rows:
            check_names(row.instrument, list(row.features), names)
        values = [[row.features[name] for name in names] for row in rows]
        return self._score_values(slot, [row.instrument for row in rows], Values(names, values))

    def score_table(self, table: FeatureTable) -> Scored:
        """Score given features, as a table. Errors as for `score_rows`."""
        return self._score_values(self._slot_for_rows(), table.instruments, Values(table.feature_names, table.values))

    def _score_values(self, slot: Slot, instruments: Sequence[str], given: Values) -> Scored:
        names = slot.model.artefact.feature_names
        matrix = np.array(given.rows, dtype=np.float32)
        if given.names != names:
            check_names(instruments[0] if len(instruments) == 1 else "every row", given.names, names)
            position = {name: i for i, name in enumerate(given.names)}
            matrix = matrix[:, [position[name] for name in names]]
        return self._score_matrix(slot, instruments, matrix)

    def _score_matrix(self, slot: Slot, instruments: Sequence[str], matrix: npt.NDArray[np.float32]) -> Scored:
        features = pd.DataFrame(matrix, columns=slot.model.artefact.feature_names, copy=False)
        values = slot.model.artefact.predict(features).to_numpy()
        bad = [instruments[i] for i in np.flatnonzero(~np.isfinite(values)).tolist()]
        if bad:
            raise BadFeaturesError(
                f"the score of {bad[:5]} is not finite; are their features infinite? send null for none"
            )
        self.metrics.scored_rows.inc(len(values))
        return Scored(slot, instruments, values.tolist())

    def _slot(self) -> Slot:
        slot = self.slots.active
        if slot is None:
            why = (
                self.slots.error or "the alias champion names no version; run daily_retraining, whose gate promotes one"
            )
            raise NotReadyError(f"no model is in service: {why}")
        return slot

    def _slot_for_rows(self) -> Slot:
        slot = self._slot()
        if slot.model.artefact.window > 1:
            raise BadFeaturesError(
                f"version {slot.model.version} sees {slot.model.artefact.window} trading days at once, and these are "
                "features of one; ask by instruments and date"
            )
        return slot

    def _market(self, slot: Slot) -> Market | None:
        """The data of a model; looked for here when it has been switched to a moment ago."""
        if self.market_view.market(slot.model) is None:
            self.market_view.follow(slot.model)
        return self.market_view.market(slot.model)

    def _scores_of_day(self, slot: Slot, day: Day) -> pd.Series:
        """Scores of all instruments of a day: computed once a model, since neither can change."""
        key = (slot.model.digest, day.market.feature_version, day.date)
        found = self._scores.get(key)
        if found is None:
            found = day.score(slot.model)
            with self._lock:
                self._scores[key] = found
                while len(self._scores) > SCORES_KEPT:
                    self._scores.popitem(last=False)
        return found

    def health(self) -> dict[str, Any]:
        """What is in service; `status` is ok, degraded (the newest look at alias or vintage failed) or no_model."""
        slot = self.slots.active
        market = None if slot is None else self.market_view.market(slot.model)
        errors = [error for error in (self.slots.error, self.market_view.error) if error]
        return {
            "status": "no_model" if slot is None else "degraded" if errors else "ok",
            "errors": errors,
            "model_version": None if slot is None else slot.model.version,
            "training_key": None if slot is None else slot.model.training_key,
            "slot": None if slot is None else slot.name,
            "newest_date": None if market is None else market.newest_date.isoformat(),
            "data_version": None if market is None else market.data_version,
            "feature_version": None if market is None else market.feature_version,
            "uptime_s": round(time.monotonic() - self.started, 1),
        }


def check_names(whose: str, given: Sequence[str], needed: Sequence[str]) -> None:
    """Raise BadFeaturesError when names are unknown, missing or given twice."""
    unknown = [name for name in given if name not in set(needed)]
    missing = [name for name in needed if name not in set(given)]
    if unknown:
        raise BadFeaturesError(f"{whose}: unknown features {unknown[:5]} ({len(unknown)}); leave them out")
    if missing:
        raise BadFeaturesError(
            f"{whose}: missing features {missing[:5]} ({len(missing)}); give them, null where unknown"
        )
    if len(given) != len(needed):
        raise BadFeaturesError(f"{whose}: a feature is given twice; give each once")
