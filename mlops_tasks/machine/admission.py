"""Admission of trainings to this machine: `fair_queue.py` decides, the state database remembers, processes wait here.

Each change of the queue (a request joins or leaves, a process is found to be gone) also grants, in the same
transaction, what may start as a result; waiting processes look for their grant. What a killed process held is released
by the next process that looks.
"""

import logging
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from mlops_tasks.config import Settings
from mlops_tasks.errors import CapacityError, StoreError
from mlops_tasks.machine.fair_queue import FairPolicy
from mlops_tasks.machine.liveness import is_gone, this_host, this_process
from mlops_tasks.machine.memory_limits import available_mb
from mlops_tasks.machine.memory_need import MemoryNeed
from mlops_tasks.machine.queue_state import Capacity, QueueState, Request
from mlops_tasks.machine.resources import usage_of_tree
from mlops_tasks.state.resource_requests import ASKED, GRANTED, RELEASED, WORKS, RequestStep, change_queue, newest_queue

log = logging.getLogger(__name__)

POLICY = FairPolicy()

POLL_S = 0.5
"""How often a waiting request checks its place."""
LEAVE_S = 60.0
"""How long a process keeps trying to release what it holds while the database does not answer."""

HELD_MB = "held_mb"
"""Memory that a request's process already held when it asked; the request is for what it needs beyond that."""
WORKER, INHERITED_MB = "worker", "inherited_mb"
"""The forked process that works for a request's holder, and the memory that it shares with the stage server."""

ALONE_S = 300.0
"""How long a request waits for memory while no training holds any."""

QueueChange = Callable[[QueueState, float], tuple[QueueState, Sequence[RequestStep]]]


@dataclass(frozen=True)
class Place:
    """A request's place in the queue."""

    granted: bool
    position: int = 0
    """In the queue, from 1; 0 when it was granted."""
    waits_for: str = ""
    """`memory`, `slots`, or `turn`: it would fit, but what is free is kept for another request."""
    reason: str = ""


class Admission:
    """One training's request for a part of this machine."""

    def __init__(self, settings: Settings, request_id: str, owner: str, priority: int = 0) -> None:
        self.settings = settings
        self.request_id = request_id
        self.owner = owner
        self.priority = priority
        self._asked = False
        self._need: MemoryNeed | None = None
        self._alone_since: float | None = None

    def wait(
        self, need: MemoryNeed, tell: Callable[[Place], None], is_given_up: Callable[[], bool] = lambda: False
    ) -> bool:
        """Join the queue and wait for the grant; False when the request was given up first.

        `tell` is called with each new place. When the database does not answer, this keeps waiting.

        Raises
        ------
        CapacityError
            As from `ask` and `look`.
        """
        place, told = None, (0, "")
        while not is_given_up():
            try:
                place = self.ask(need) if place is None else self.look()
            except (SQLAlchemyError, StoreError, OSError) as error:
                log.warning("%s waits for its turn: the state database does not answer: %s", self.request_id, error)
            else:
                if place.granted:
                    return True
                if (place.position, place.waits_for) != told:
                    told = place.position, place.waits_for
                    tell(place)
            time.sleep(POLL_S)
        return False

    def leave(self) -> None:
        """Retry `release` for up to `LEAVE_S`; what is still held after that is freed when this process ends."""
        deadline = time.monotonic() + LEAVE_S
        while True:
            try:
                self.release()
                return
            except (SQLAlchemyError, StoreError, OSError) as error:
                if time.monotonic() > deadline:
                    log.error("%s: holds its resources until this process ends: %s", self.request_id, error)
                    return
                time.sleep(POLL_S)

    def ask(self, need: MemoryNeed) -> Place:
        """Join the queue; granted at once if there is room and nothing is ahead of it.

        Raises
        ------
        CapacityError
            It would not fit if nothing else were trained here.
        """
        capacity = refuse_what_never_fits(self.settings, need)
        request = Request(
            request_id=self.request_id,
            owner=self.owner,
            memory_mb=round(need.total_mb, 1),
            slots=min(self.settings.training.threads, capacity.slots),
            priority=self.priority,
            weight=self.settings.training.owner_weights.get(self.owner, 1.0),
            holder={**this_process(), HELD_MB: usage_of_tree(os.getpid()).rss_mb},
        )
        self._asked, self._need = True, need
        details = {"need": need.to_json(), "slots": request.slots, "priority": request.priority}

        def join(state: QueueState, at: float) -> tuple[QueueState, Sequence[RequestStep]]:
            if _has(state, self.request_id):  # an earlier commit whose answer was lost
                return state, ()
            return state.ask(request, at), (RequestStep(ASKED, self.request_id, self.owner, details),)

        return _place(self.settings, _change(self.settings, join), self.request_id)

    def look(self) -> Place:
        """The request's present place; grants whatever may start now, other requests included.

        Raises
        ------
        CapacityError
            For `ALONE_S` it has not fitted although nothing is trained here: other programs have taken the memory.
        """
        state = _read(self.settings)
        if any(each.request.request_id == self.request_id for each in state.running):
            return Place(granted=True)
        capacity = machine_capacity(self.settings, state)
        if _lost(state) or POLICY.next_start(state.advanced(time.time()), capacity) is not None:
            state = _change(self.settings, lambda state, at: (state, ()))
        place = _place(self.settings, state, self.request_id)
        if state.running or place.waits_for != "memory":
            self._alone_since = None
            return place
        self._alone_since = self._alone_since or time.monotonic()
        if self._need is not None and time.monotonic() - self._alone_since >= ALONE_S:
            raise CapacityError(_refusal(self.settings, self._need, capacity))
        return place

    def works_in(self, pid: int, inherited_mb: float) -> None:
        """Record the process that works for this one but is not its child: its memory counts as this request's.

        While the database does not answer, the memory counts as another program's, so others wait longer.
        """

        def note(state: QueueState, at: float) -> tuple[QueueState, Sequence[RequestStep]]:
            holder = next((each.request.holder for each in state.running if each.request.request_id == name), None)
            if holder is None:
                return state, ()
            worker = {WORKER: pid, INHERITED_MB: inherited_mb}
            return state.held_by(name, {**holder, **worker}), (RequestStep(WORKS, name, self.owner, worker),)

        name = self.request_id
        try:
            _change(self.settings, note)
        except (SQLAlchemyError, StoreError, OSError) as error:
            log.warning("%s: the queue does not know its process: %s", name, error)

    def release(self) -> None:
        """Release what it holds, or leave the queue; harmless if it has done so already or never joined."""
        if not self._asked:
            return

        def leave(state: QueueState, at: float) -> tuple[QueueState, Sequence[RequestStep]]:
            if not _has(state, self.request_id):
                return state, ()
            return state.release(self.request_id, at), (RequestStep(RELEASED, self.request_id, self.owner),)

        _change(self.settings, leave)
        self._asked = False


def refuse_what_never_fits(settings: Settings, need: MemoryNeed) -> Capacity:
    """This machine's capacity for trainings, if it is enough for this one.

    Raises
    ------
    CapacityError
        It is not enough, even if nothing else were trained here.
    """
    capacity = machine_capacity(settings, _read(settings))
    if need.total_mb > capacity.memory_mb:
        raise CapacityError(_refusal(settings, need, capacity))
    return capacity


def machine_capacity(settings: Settings, state: QueueState) -> Capacity:
    """This machine's capacity for trainings: what is free now, and what the running ones already hold."""
    training = settings.training
    slots = training.slots or len(os.sched_getaffinity(0))
    if training.memory_limit_mb is not None:
        return Capacity(training.memory_limit_mb, slots)
    granted: dict[int, float] = {}
    held: dict[int, float] = {}
    in_workers: dict[int, float] = {}
    for each in state.running:
        holder = each.request.holder
        pid = holder.get("pid", 0)
        granted[pid] = granted.get(pid, 0.0) + each.request.memory_mb
        held[pid] = min(held.get(pid, math.inf), holder.get(HELD_MB, 0.0))
        if WORKER in holder:
            used = usage_of_tree(holder[WORKER], holder[INHERITED_MB])
            in_workers[pid] = in_workers.get(pid, 0.0) + used.rss_mb
    taken = (
        min(memory_mb, max(0.0, usage_of_tree(pid).rss_mb - held[pid]) + in_workers.get(pid, 0.0))
        for pid, memory_mb in granted.items()
        if pid
    )
    return Capacity(max(0.0, available_mb() + sum(taken) - training.memory_reserve_mb), slots)


def queue_info(settings: Settings) -> dict[str, Any]:
    """The queue of this machine as plain JSON: what runs, what waits (in the queue's order), and the owners."""
    state = _change(settings, lambda state, at: (state, ())) if _lost(_read(settings)) else _read(settings)
    capacity = machine_capacity(settings, state)
    state = state.advanced(time.time())
    order = list(POLICY.order(state, capacity))
    present = {request.owner: request.weight for request in state.requests()}
    waiting = [
        {**_request_json(each.request), **vars(_place(settings, state, each.request.request_id))} for each in order
    ]
    running = [
        {**_request_json(each.request), "share": round(each.share, 4), "seconds": round(state.at - each.since, 1)}
        for each in state.running
    ]
    owners = {
        owner: {
            "weight": weight,
            "entitled": round(weight / sum(present.values()), 4),
            "share": round(sum(each.share for each in state.running if each.request.owner == owner), 4),
            "level_s": round(state.level(owner) - state.virtual, 1),
        }
        for owner, weight in sorted(present.items())
    }
    return {"capacity": vars(capacity), "running": running, "waiting": waiting, "owners": owners}


def _request_json(request: Request) -> dict[str, Any]:
    names = ("request_id", "owner", "memory_mb", "slots", "priority")
    return {name: getattr(request, name) for name in names}


def _read(settings: Settings) -> QueueState:
    return _state(newest_queue(settings, this_host()))


def _state(queue: Mapping[str, Any] | None) -> QueueState:
    return QueueState() if queue is None else QueueState.from_json(queue)


def _change(settings: Settings, change: QueueChange) -> QueueState:
    """Apply a change, release what lost processes held, and grant what may start as a result."""

    def decide(queue: Mapping[str, Any] | None) -> tuple[Sequence[RequestStep], Mapping[str, Any]]:
        at = time.time()
        state, steps = change(_state(queue), at)
        lost = _lost(state)
        for request in lost:
            state = state.release(request.request_id, at)
        state, started = POLICY.settle(state, machine_capacity(settings, state), at)
        freed = [RequestStep(RELEASED, each.request_id, each.owner, {"lost": True}) for each in lost]
        granted = [RequestStep(GRANTED, each.request_id, each.owner) for each in started]
        return [*steps, *freed, *granted], state.to_json()

    return _state(change_queue(settings, this_host(), decide))


def _lost(state: QueueState) -> list[Request]:
    """Requests whose processes are gone."""
    return [request for request in state.requests() if is_gone(request.holder)]


def _has(state: QueueState, request_id: str) -> bool:
    return any(request.request_id == request_id for request in state.requests())


def _place(settings: Settings, state: QueueState, request_id: str) -> Place:
    capacity = machine_capacity(settings, state)
    order = [each.request for each in POLICY.order(state, capacity)]
    position = next((place for place, each in enumerate(order, 1) if each.request_id == request_id), 0)
    if not position:
        return Place(granted=True)
    request, free = order[position - 1], state.free(capacity)
    if request.slots > free.slots:
        reason = f"it needs {request.slots} slots, and {max(0, free.slots)} of {capacity.slots} are free"
        return Place(False, position, "slots", reason)
    if request.memory_mb > free.memory_mb:
        reason = f"it needs {request.memory_mb:,.0f} MB, and {max(0.0, free.memory_mb):,.0f} MB are free"
        return Place(False, position, "memory", reason)
    return Place(False, position, "turn", f"what is free is kept for {order[0].request_id}")


def _refusal(settings: Settings, need: MemoryNeed, capacity: Capacity) -> str:
    training = settings.training
    if training.memory_limit_mb is not None:
        given, remedy = "training.memory_limit_mb allows", "raise training.memory_limit_mb"
    else:
        given = (
            f"the machine has, besides a reserve of {training.memory_reserve_mb:,.0f} MB (training.memory_reserve_mb),"
        )
        remedy = "free memory"
    return (
        f"{need}, and {given} {capacity.memory_mb:,.0f} MB; {remedy}, choose a smaller universe, a later first day of "
        "segments.train, fewer features or a smaller model"
    )
