"""Answers about a day: by the champion or by a candidate, and by a shadow once the answer is given."""

import asyncio
import logging
from dataclasses import replace

from fastapi.concurrency import run_in_threadpool

from mlops_tasks.serving.caller import Caller
from mlops_tasks.serving.candidates import NoScoresError
from mlops_tasks.serving.market import ModelError
from mlops_tasks.serving.reading import DayAsked
from mlops_tasks.serving.scored import DayPlan, Scored
from mlops_tasks.serving.service import ScoringService, note_fallback
from mlops_tasks.states import Arm

log = logging.getLogger(__name__)

CANDIDATE_S = 5.0
"""How long a client waits for a candidate before the champion answers."""


class DayAnswers:
    """Used only on the service's event loop."""

    def __init__(self, service: ScoringService) -> None:
        self.service = service

    async def score(self, asked: DayAsked, caller: Caller) -> Scored:
        """The answer to a request, or the champion's error. Raises what `plan_day` and `ask_day` of the service do,
        whatever a candidate does."""
        service = self.service
        slot = service.slot()
        if not service.has_data(slot):
            await run_in_threadpool(service.look_for_data, slot)
        plan = service.plan_day(slot, asked.date)
        candidate = service.candidates.of_unit(caller.unit, slot)
        own = None if candidate is None else candidate.plan(plan)
        if own is not None:
            try:
                return await self._by_candidate(own, asked, caller)
            except Exception as error:  # whatever it is, the champion answers
                note_fallback(error)
            plan = replace(plan, slot=replace(slot, arm=Arm.FALLBACK))
        scores = service.ask_day(plan, caller.holder)
        if not scores.done():
            await asyncio.wait([asyncio.wrap_future(scores)])
        try:
            return service.choose(plan, scores.result(), asked.instruments)
        except ModelError as error:
            return Scored.failed(plan.slot, error.cause, plan)

    async def _by_candidate(self, plan: DayPlan, asked: DayAsked, caller: Caller) -> Scored:
        scores = self.service.candidates.ask_day(plan, caller.holder)
        if not scores.done():
            await asyncio.wait([asyncio.wrap_future(scores)], timeout=CANDIDATE_S)
        table = scores.result(0)
        if not table.scores:
            raise NoScoresError(f"version {plan.slot.model.version} has no finite score of {plan.date}")
        return self.service.choose(plan, table, asked.instruments)

    async def score_as_shadow(self, scored: Scored, asked: DayAsked, caller: Caller) -> None:
        """Log the scores of a shadow for an answer of the champion."""
        try:
            shadow = self.service.candidates.shadow_of(scored, asked.instruments)
            if shadow is not None:
                self.service.predictions.add(shadow, caller)
        except Exception:  # the answer has been sent, and nothing waits for this
            log.exception("a shadow was not logged")
