"""The scoring service without HTTP: it follows the champion and the vintage, scores, and reports its state."""

import logging
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import replace
from datetime import date
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from mlops_tasks.config import Settings
from mlops_tasks.data.vintages import current_vintage
from mlops_tasks.errors import ErrorKind, MlopsError, StoreError, excerpt, first_few
from mlops_tasks.modeling.environment import Environment
from mlops_tasks.serving.candidates import Candidates
from mlops_tasks.serving.day_scores import DayScores
from mlops_tasks.serving.gates import Places
from mlops_tasks.serving.keys import NOBODY, Holder, KeyRing
from mlops_tasks.serving.market import Market, MarketView, ModelError
from mlops_tasks.serving.metrics import ServiceMetrics
from mlops_tasks.serving.prediction_log import PredictionLog
from mlops_tasks.serving.reading import FeaturesGiven
from mlops_tasks.serving.score_table import ScoreTable
from mlops_tasks.serving.scored import DayPlan, Scored, choose
from mlops_tasks.serving.secret import scoring_token
from mlops_tasks.serving.slots import ModelSlots, Slot
from mlops_tasks.serving.watch import View, Watch, due_date, is_scored
from mlops_tasks.serving.workers import ALONE, Worker, WorkerState, health_of
from mlops_tasks.state.tables import now
from mlops_tasks.states import Arm

log = logging.getLogger(__name__)

FEW_ROWS = 8
"""Rows of features that a quick model scores in less time than a thread takes to begin."""


class NotReadyError(MlopsError, RuntimeError):
    """Nothing can be scored yet: there is no champion, or no features."""

    kind = ErrorKind.TRANSIENT


class BadFeaturesError(MlopsError, ValueError):
    """Features that the model does not know, or that are missing."""

    kind = ErrorKind.DATA


class ScoringService:
    """One model and one vintage in service; thread-safe."""

    def __init__(self, settings: Settings, worker: Worker = ALONE) -> None:
        """Raises ConfigError where there is no token."""
        self.settings = settings
        self.worker = worker
        self.slots = ModelSlots(settings)
        self.market_view = MarketView(settings, worker.days)
        self.environment = Environment.whole()
        """As this process has begun with it."""
        self.metrics = ServiceMetrics(worker.counts)
        self.keys = KeyRing(settings, scoring_token(settings))
        self.predictions = PredictionLog(settings, self.metrics)
        self.watch = Watch(settings)
        self.started = time.monotonic()
        self.due: date | None = None
        """The newest session whose scores are due, as of the last check."""
        self._unscored = ""
        """Why the newest day could not be scored, as it was logged last."""
        serving = settings.serving
        cold = Places(serving.cold_dates_at_once, serving.key_share)
        self.day_scores = DayScores(serving.dates_kept, cold, self.metrics.busy)
        self.candidates = Candidates(settings, self.slots, self.metrics.busy, worker)

    def refresh(self) -> None:
        """Check the keys, the champion alias and the vintage in use now."""
        self.keys.follow()
        self.follow()

    def follow(self) -> None:
        """Check the champion alias and the vintage in use now, and by the clock whose scores are due."""
        self.slots.follow()
        slot = self.slots.active
        if slot is not None:
            self.market_view.follow(slot.model)
            self._warm(slot)
        self._publish_metrics(slot)
        self.due = due_date(self.settings, now())
        if self.worker.leads and self.watch.is_due():
            self._look_out()

    def _look_out(self) -> None:
        try:
            self.watch.look(self._view())
        except Exception as error:  # the service serves on, also while the state database is away
            log.warning("scores and data could not be checked for alerts: %s: %s", type(error).__name__, error)

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

    def _warm(self, slot: Slot) -> None:
        """Score the newest day before it is requested."""
        market = self.market_view.market(slot.model)
        if market is None:
            return
        try:
            self.ask_day(DayPlan(slot, market, market.newest_date)).result()
        except Exception as error:
            # A long-lived process: requests for the day get the same error, and the next check tries again.
            if str(error) != self._unscored:
                log.warning("the newest day cannot be scored: %s: %s", type(error).__name__, error)
            self._unscored = str(error)

    def _publish_metrics(self, slot: Slot | None) -> None:
        market = None if slot is None else self.market_view.market(slot.model)
        self.metrics.set_dates(None if market is None else market.newest_date, self._vintage_date())
        self.metrics.load_failures.set(self.slots.failures)
        self.metrics.switches.set(self.slots.switches)
        if slot is None:
            self.metrics.set_model(0)
        else:
            self.metrics.set_model(slot.model.version, slot.model.training_key, slot.name, slot.model.standing)

    def plan_day(self, slot: Slot, wanted: date | None) -> DayPlan:
        """The plan that scores a day; None: the newest.

        Raises
        ------
        NotReadyError, UnknownDateError
            No features; no such trading day.
        """
        market = self.market_view.market(slot.model)
        if market is None:
            raise NotReadyError(f"no features are served yet: {self.market_view.error}")
        if wanted is not None:
            market.check(wanted)
        return DayPlan(slot, market, wanted or market.newest_date, self.due)

    def ask_day(self, plan: DayPlan, holder: Holder = NOBODY) -> "Future[ScoreTable]":
        """Scores of all instruments of a day, as soon as they are available.

        Raises
        ------
        BusyError
            They are not in memory, and too many other dates are being loaded.
        """
        return self.day_scores.ask(plan.key, partial(self._table_of, plan), newest=plan.newest, holder=holder)

    def _table_of(self, plan: DayPlan) -> ScoreTable:
        return ScoreTable.of(self._score_day(plan))

    def _score_day(self, plan: DayPlan) -> pd.Series:
        return self.market_view.score(plan.slot.model, plan.market, plan.date)

    def choose(self, plan: DayPlan, table: ScoreTable, instruments: Sequence[str] | None) -> Scored:
        """The answer about some instruments of a day; None: all that have a bar on that day."""
        scored = choose(plan, table, instruments)
        self.metrics.scored_rows.inc(scored.count)
        return scored

    def scores_at_once(self, given: FeaturesGiven, unit: str = "") -> bool:
        """Whether to score given features takes less time than to hand them to a thread: a few, by the champion."""
        slot = self.slots.active
        if slot is None or len(given.instruments) > FEW_ROWS or not slot.model.artefact.is_quick:
            return False
        return self.candidates.of_unit(unit, slot) is None

    def score_features(self, given: FeaturesGiven, unit: str = "") -> Scored:
        """Score given features, by the model that answers a client; an error of the champion is in the result.

        Raises
        ------
        NotReadyError, BadFeaturesError
            There is no champion; a feature is unknown or missing, or a score is not finite; the model needs earlier
            days, which such a request does not contain.
        """
        slot = self.slot()
        candidate = self.candidates.of_unit(unit, slot)
        if candidate is not None:
            try:
                return self._score_given(candidate.slot, given)
            except Exception as error:  # whatever it is, the champion answers
                note_fallback(error)
                slot = replace(slot, arm=Arm.FALLBACK)
        try:
            return self._score_given(slot, given)
        except ModelError as error:
            return Scored.failed(slot, error.cause)

    def _score_given(self, slot: Slot, given: FeaturesGiven) -> Scored:
        _check_looks_at_one_day(slot)
        names, matrix = slot.model.artefact.feature_names, given.values
        if given.names != names:
            check_names(given.instruments[0] if len(given.instruments) == 1 else "every row", given.names, names)
            position = {name: i for i, name in enumerate(given.names)}
            matrix = matrix[:, [position[name] for name in names]]
        return self._score_matrix(slot, given.instruments, matrix)

    def _score_matrix(self, slot: Slot, instruments: Sequence[str], matrix: npt.NDArray[np.float32]) -> Scored:
        try:
            values = slot.model.artefact.predict_matrix(matrix)
        except Exception as error:
            raise ModelError(slot.model, error) from error
        bad = [instruments[i] for i in np.flatnonzero(~np.isfinite(values)).tolist()]
        if bad:
            raise BadFeaturesError(
                f"the score of {first_few(map(excerpt, bad))} is not finite; are their features far from what the "
                "model was trained on?"
            )
        self.metrics.scored_rows.inc(len(values))
        return Scored(slot, ScoreTable(instruments, values.tolist()).prepared())

    def slot(self) -> Slot:
        """The model in service: read it once per request, because it may change at any time.

        Raises
        ------
        NotReadyError
            There is no champion.
        """
        slot = self.slots.active
        if slot is None:
            why = self.slots.error or "no deployment has put one there; run daily_retraining, whose gate promotes one"
            raise NotReadyError(f"no model is in service: {why}")
        return slot

    def has_data(self, slot: Slot) -> bool:
        """Whether a model has data; immediately after a switch it does not."""
        return self.market_view.market(slot.model) is not None

    def look_for_data(self, slot: Slot) -> None:
        """Find the data of a model, without waiting for the next check of the vintage in use."""
        self.market_view.follow(slot.model)

    @property
    def uptime_s(self) -> float:
        """Since the start."""
        return round(time.monotonic() - self.started, 1)

    def state(self, answered: int = 0) -> WorkerState:
        """What this process serves, whatever others do; `answered` is the last call of theirs that it has followed."""
        slot = self.slots.active
        market = None if slot is None else self.market_view.market(slot.model)
        parts = (self.slots.error, self.market_view.error, self.keys.error, *self.predictions.errors)
        return WorkerState(
            worker=self.worker.number,
            since=self.slots.since,
            answered=answered,
            lacking=self._lacking(slot, market),
            errors=[error for error in parts if error],
            model_version=None if slot is None else slot.model.version,
            training_key=None if slot is None else slot.model.training_key,
            standing=None if slot is None else slot.model.standing,
            slot=None if slot is None else slot.name,
            candidate=self.candidates.info(),
            newest_date=None if market is None else market.newest_date.isoformat(),
            data_version=None if market is None else market.data_version,
            feature_version=None if market is None else market.feature_version,
        )

    def _lacking(self, slot: Slot | None, market: Market | None) -> str:
        if slot is None:
            return "no model is in service"
        if market is None:
            return "no features are served yet"
        there = self.day_scores.has(DayPlan(slot, market, market.newest_date).key)
        return "" if there else "no scores of the newest day"

    def lacking(self) -> str:
        """What the newest day's scores wait for, in any worker; empty: they are there."""
        return next((each.lacking for each in self.worker.with_others(self.state()) if each.lacking), "")

    def health(self) -> dict[str, Any]:
        """What is in service; `status` is ok, degraded (`errors` says by what) or no_model."""
        found = health_of(self.worker.with_others(self.state()), self.worker.count)
        newest, due = found["newest_date"], None if self.due is None else self.due.isoformat()
        stale = None if newest is None or due is None else newest < due
        return found | {"due_date": due, "stale": stale, "uptime_s": self.uptime_s}


def _check_looks_at_one_day(slot: Slot) -> None:
    if slot.model.artefact.window > 1:
        raise BadFeaturesError(
            f"version {slot.model.version} needs {slot.model.artefact.window} trading days at once, but these are "
            "features of one; ask by instruments and date"
        )


def note_fallback(error: Exception) -> None:
    """Log why the champion answers instead of a candidate; the log of predictions counts how often it does."""
    log.warning("the candidate did not answer, the champion does: %s: %s", type(error).__name__, error)


def check_names(whose: str, given: Sequence[str], needed: Sequence[str]) -> None:
    """Raise BadFeaturesError if names are unknown, missing or given twice."""
    known, found = set(needed), set(given)
    unknown = [name for name in given if name not in known]
    missing = [name for name in needed if name not in found]
    if unknown:
        raise BadFeaturesError(f"{whose}: unknown features {first_few(map(excerpt, unknown))}; leave them out")
    if missing:
        raise BadFeaturesError(f"{whose}: missing features {first_few(missing)}; give them, null where unknown")
    if len(given) != len(needed):
        raise BadFeaturesError(f"{whose}: a feature is given twice; give each once")
