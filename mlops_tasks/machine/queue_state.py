"""The queue of trainings as a value: what waits, what runs, and what each owner has used. `fair_queue.py` decides.

A request holds memory and slots from its start to its release and is never interrupted; how long it will take is not
known. What it uses is its dominant share, the larger of its shares of memory and of slots (Ghodsi et al., "Dominant
resource fairness", NSDI 2011), times the seconds that it holds them. An owner's level is what its requests have used,
divided by its weight: a virtual time, as in start-time fair queueing (Goyal, Vin and Cheng, SIGCOMM 1996). An owner
that returns continues at the virtual time of those that wait: absence earns nothing and costs nothing.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

DAILY, TUNING = "daily", "tuning"
"""Default owners of trainings and of a search's trials."""

FORECAST_S = 60.0
"""Expected duration of a request in seconds, until the first one has ended."""
_KEPT = 0.75
"""Weight of the old forecast in the new one when a request ends."""


@dataclass(frozen=True)
class Request:
    """What a training asks for."""

    request_id: str
    owner: str
    memory_mb: float
    slots: int = 1
    """At least 1."""
    priority: int = 0
    weight: float = 1.0
    """Of the owner."""
    holder: Mapping[str, Any] = field(default_factory=dict)
    """The process that asks and the one that works for it; no decision depends on them."""


@dataclass(frozen=True)
class Capacity:
    """What the machine has, or how much of it is free."""

    memory_mb: float
    slots: int

    def fits(self, request: Request) -> bool:
        """Whether a request fits."""
        return request.memory_mb <= self.memory_mb and request.slots <= self.slots

    def share(self, request: Request) -> float:
        """The dominant share of a request that fits, in (0, 1]."""
        return min(1.0, max(request.memory_mb / max(self.memory_mb, 1e-9), request.slots / max(self.slots, 1)))


@dataclass(frozen=True)
class Waiting:
    """A request in the queue."""

    request: Request
    overtaken: int = 0
    """How often another request has started ahead of it."""


@dataclass(frozen=True)
class Running:
    """A request that has been granted."""

    request: Request
    share: float
    since: float

    @property
    def rate(self) -> float:
        """What it adds to its owner's level per second."""
        return self.share / self.request.weight


@dataclass(frozen=True)
class QueueState:
    """The queue at one moment; each transition returns the next state. Times are seconds; a past one counts as now."""

    at: float = 0.0
    waiting: tuple[Waiting, ...] = ()
    """The oldest first."""
    running: tuple[Running, ...] = ()
    levels: Mapping[str, float] = field(default_factory=dict)
    """By owner; one that is missing is at the virtual time."""
    virtual: float = 0.0
    """The lowest level of the owners that waited when something was last granted."""
    forecast_s: float = FORECAST_S

    def advanced(self, at: float) -> "QueueState":
        """The same queue at a later moment, with what the running requests have used since."""
        seconds = max(0.0, at - self.at)
        levels = dict(self.levels)
        for each in self.running:
            owner = each.request.owner
            levels[owner] = levels.get(owner, self.virtual) + each.rate * seconds
        return replace(self, at=self.at + seconds, levels=levels)

    def ask(self, request: Request, at: float) -> "QueueState":
        """A request joins the queue; the level of an owner with none waiting is raised to the virtual time at least."""
        after = self.advanced(at)
        owner = request.owner
        if all(each.request.owner != owner for each in self.waiting):
            after = replace(after, levels={**after.levels, owner: max(after.level(owner), after.virtual)})
        return replace(after, waiting=(*after.waiting, Waiting(request)))

    def grant(self, request_id: str, share: float, overtaken: Collection[str], at: float) -> "QueueState":
        """A waiting request starts, ahead of others."""
        after = self.advanced(at)
        chosen = next(each.request for each in after.waiting if each.request.request_id == request_id)
        waiting = tuple(
            replace(each, overtaken=each.overtaken + 1) if each.request.request_id in overtaken else each
            for each in after.waiting
            if each.request is not chosen
        )
        lowest = min(after.level(each.request.owner) for each in after.waiting)
        return replace(
            after,
            waiting=waiting,
            running=(*after.running, Running(chosen, share, after.at)),
            virtual=max(after.virtual, lowest),
        )

    def release(self, request_id: str, at: float) -> "QueueState":
        """A request ends or leaves the queue; harmless if it already has."""
        after = self.advanced(at)
        forecast = after.forecast_s
        for each in after.running:
            if each.request.request_id == request_id:
                forecast = _KEPT * forecast + (1 - _KEPT) * (after.at - each.since)
        return replace(
            after,
            waiting=tuple(each for each in after.waiting if each.request.request_id != request_id),
            running=tuple(each for each in after.running if each.request.request_id != request_id),
            forecast_s=forecast,
        )._without_the_absent()

    def held_by(self, request_id: str, holder: Mapping[str, Any]) -> "QueueState":
        """Record which process holds a running request."""
        running = (
            replace(each, request=replace(each.request, holder=holder))
            if each.request.request_id == request_id
            else each
            for each in self.running
        )
        return replace(self, running=tuple(running))

    def requests(self) -> list[Request]:
        """Every request, running or waiting."""
        return [each.request for each in self.running] + [each.request for each in self.waiting]

    def level(self, owner: str) -> float:
        """What an owner has used, divided by its weight."""
        return self.levels.get(owner, self.virtual)

    def foreseen(self, owner: str) -> float:
        """An owner's level, including what its running requests are still expected to use."""
        own = (each for each in self.running if each.request.owner == owner)
        rest = (max(0.0, self.forecast_s - (self.at - each.since)) * each.rate for each in own)
        return self.level(owner) + sum(rest)

    def free(self, capacity: Capacity) -> Capacity:
        """The part of a capacity that nobody holds."""
        held = [each.request for each in self.running]
        memory_mb = capacity.memory_mb - sum(request.memory_mb for request in held)
        return Capacity(memory_mb, capacity.slots - sum(request.slots for request in held))

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        waiting = [{"request": vars(each.request), "overtaken": each.overtaken} for each in self.waiting]
        running = [{**vars(each), "request": vars(each.request)} for each in self.running]
        return {**vars(self), "levels": dict(self.levels), "waiting": waiting, "running": running}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "QueueState":
        """The inverse of `to_json`."""
        waiting = (Waiting(**{**each, "request": Request(**each["request"])}) for each in content["waiting"])
        running = (Running(**{**each, "request": Request(**each["request"])}) for each in content["running"])
        return cls(**{**content, "waiting": tuple(waiting), "running": tuple(running)})

    def _without_the_absent(self) -> "QueueState":
        """Forget owners that have no request and are not ahead; an empty queue starts afresh."""
        present = {request.owner for request in self.requests()}
        if not present:
            return replace(self, levels={}, virtual=0.0)
        kept = {owner: level for owner, level in self.levels.items() if owner in present or level > self.virtual}
        return replace(self, levels=kept)
