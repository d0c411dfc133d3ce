"""The candidate of the rollout in progress, beside the champion: it is loaded, and given its share of the clients.

It never affects the champion's answers. It has its own thread, view of the data and scores of days. If it cannot
answer, the champion does; a candidate that cannot be loaded, or scores nothing, is rejected immediately.
"""

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from prometheus_client import Counter
from sqlalchemy.exc import SQLAlchemyError

from mlops_tasks.config import Settings
from mlops_tasks.errors import ErrorKind, IsolationError, MlopsError, RecordMismatchError
from mlops_tasks.registry.approvals import Permit, candidate_permit
from mlops_tasks.registry.models import LoadedModel
from mlops_tasks.serving.caller import Caller
from mlops_tasks.serving.day_scores import DayScores
from mlops_tasks.serving.gates import Places
from mlops_tasks.serving.keys import NOBODY, Holder
from mlops_tasks.serving.market import Market, MarketView, ModelError
from mlops_tasks.serving.rollout import is_of_candidate, rejected
from mlops_tasks.serving.rollouts import record
from mlops_tasks.serving.score_table import ScoreTable
from mlops_tasks.serving.scored import DayPlan, Scored, choose
from mlops_tasks.serving.slots import REFUSALS, ModelSlots, ProbeError, Slot, probe
from mlops_tasks.serving.workers import ALONE, Worker
from mlops_tasks.state.rollouts import Rollout, rollout_at_work
from mlops_tasks.state.tables import now
from mlops_tasks.states import Arm

log = logging.getLogger(__name__)

OWN = Holder("rollout", frozenset())
"""The name under which the service itself logs the scores of a candidate on a day."""


class NoScoresError(MlopsError, ValueError):
    """A candidate has no finite score, although the champion has some."""

    kind = ErrorKind.DATA


@dataclass(frozen=True)
class Candidate:
    """A candidate that is ready to score."""

    rollout: Rollout
    slot: Slot
    market: Market

    def plan(self, champions: DayPlan) -> DayPlan | None:
        """Plan with which it scores the champion's requests; None: it is not on the champion's data."""
        if self.market.data_version != champions.market.data_version:
            return None
        return DayPlan(self.slot, self.market, champions.date, champions.due)


class Candidates:
    """Follows the rollout in progress; `current` is replaced in one assignment.

    It is None, and the champion answers everybody, while there is no rollout, its record cannot be read, the champion
    is not the one that it was begun with, or the candidate is not ready.

    Of several workers the one that leads logs its scores of the newest day.
    """

    def __init__(self, settings: Settings, slots: ModelSlots, refused: Counter, worker: Worker = ALONE) -> None:
        serving = settings.serving
        self.settings = settings
        self.slots = slots
        self.worker = worker
        self.current: Candidate | None = None
        self.error = ""
        """Why the candidate, if there is one, was not ready at the newest check."""
        self.log: Callable[[Scored, Caller], None] = lambda scored, caller: None
        """Logs an answer; called in any thread."""
        self.day_scores = DayScores(serving.dates_kept, Places(serving.cold_dates_at_once, serving.key_share), refused)
        self._market_view = MarketView(settings, worker.days)
        self._model: LoadedModel | None = None
        """The candidate that was loaded last, so that it need not be loaded again after a short outage."""
        self._at_fault: tuple[Rollout, str] | None = None
        """A rollout that is rejected, and why."""
        self._stopped = False
        self._noted: tuple[str, int, str] | None = None
        """Rollout, step and vintage whose scores were logged last."""

    def follow(self) -> None:
        """Check the rollout in progress now."""
        try:
            rollout, active = rollout_at_work(self.settings), self.slots.active
        except Exception as error:
            self._unready(f"the record of rollouts cannot be read: {type(error).__name__}")
            return
        if rollout is None or active is None or rollout.champion != active.model.version:
            self.current, self._model, self.error = None, None, ""
            return
        try:
            self._reject_again(rollout)
            self.current = self._ready(rollout)
            self.error = ""
        except Exception as error:
            self._unready(f"{type(error).__name__}: {error}")
            if _is_its_own(error) and not self._stopped:
                self._reject(rollout, self.error)

    def _unready(self, why: str) -> None:
        self.current = None
        if why != self.error:
            log.warning("the champion answers all: %s", why)
        self.error = why

    def _ready(self, rollout: Rollout) -> Candidate:
        """Raises the error that prevents it."""
        permit = candidate_permit(self.settings, rollout.version)
        if permit.claim.digest != rollout.digest:
            raise RecordMismatchError(f"version {rollout.version} is another artefact than the rollout's; see MLflow")
        model = self._model
        if model is None or model.digest != rollout.digest:
            model = self._model = _loaded(self.settings, permit)
        slot = replace(self.slots.keep(model), arm=rollout.arm)
        self._market_view.follow(model)
        market = self._market_view.market(model)
        if market is None:
            raise MlopsError(f"the candidate has no data: {self._market_view.error}")
        found = Candidate(rollout, slot, market)
        self._note_scores(found)
        return found

    def _note_scores(self, found: Candidate) -> None:
        """Score the newest day before it is requested, and log it, once per step and vintage."""
        day = DayPlan(replace(found.slot, arm=Arm.SHADOW), found.market, found.market.newest_date)
        table = self.ask_day(day).result()
        if not table.scores:
            raise NoScoresError(f"version {found.rollout.version} has no finite score of {day.date}")
        about = (found.rollout.rollout_id, found.rollout.step, found.market.data_version)
        if about == self._noted or not self.worker.leads:
            return
        self.log(Scored(day.slot, table, day, missing=table.unscored), Caller(OWN, found.rollout.step_id))
        self._noted = about

    def _reject(self, rollout: Rollout, reason: str) -> None:
        self._at_fault = (rollout, reason)
        record(self.settings, rejected(rollout, reason, now()))

    def _reject_again(self, rollout: Rollout) -> None:
        """Record a rejection that the state database did not accept before, without loading the candidate again."""
        if self._at_fault is not None and self._at_fault[0].rollout_id == rollout.rollout_id:
            self._reject(rollout, self._at_fault[1])
            raise MlopsError(self._at_fault[1])

    def of_unit(self, unit: str, champion: Slot) -> Candidate | None:
        """The candidate, if it answers this client instead of the champion."""
        current = self.current
        if current is None or not unit or champion.model.version != current.rollout.champion:
            return None
        return current if is_of_candidate(current.rollout, unit) else None

    def ask_day(self, plan: DayPlan, holder: Holder = NOBODY) -> "Future[ScoreTable]":
        """As the service's method of this name, by the candidate."""
        return self.day_scores.ask(plan.key, partial(self._table_of, plan), newest=plan.newest, holder=holder)

    def _table_of(self, plan: DayPlan) -> ScoreTable:
        return ScoreTable.of(self._market_view.score(plan.slot.model, plan.market, plan.date))

    def shadow_of(self, scored: Scored, instruments: Sequence[str] | None) -> Scored | None:
        """A shadow's scores for an answer of the champion about the newest day; None: there is no shadow, or it is not
        ready."""
        current = self.current
        if current is None or current.slot.arm != Arm.SHADOW or scored.plan is None or not scored.plan.newest:
            return None
        plan = current.plan(scored.plan)
        if plan is None or not self.day_scores.has(plan.key):
            return None
        return choose(plan, self.ask_day(plan).result(), instruments)

    def info(self) -> dict[str, Any] | None:
        """Its entry in /health; None if there is none."""
        current = self.current
        if current is None:
            return {"error": self.error} if self.error else None
        rollout = current.rollout
        return {"model_version": rollout.version, "strategy": rollout.strategy.value, "share": rollout.share}

    def stop(self) -> None:
        """End the threads; a check that fails because of this does not count against the candidate."""
        self._stopped = True
        self.day_scores.stop()


def _loaded(settings: Settings, permit: Permit) -> LoadedModel:
    model = permit.load(settings)
    probe(model)
    return model


def _is_its_own(error: Exception) -> bool:
    """Whether an error is the candidate's fault, and not due to something unavailable."""
    own = (*REFUSALS, ProbeError, IsolationError, ModelError, NoScoresError)
    return isinstance(error, own) or not isinstance(error, MlopsError | OSError | SQLAlchemyError)
