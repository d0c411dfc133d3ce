"""Who starts next: weighted fair sharing of one machine between owners. Knows no database, no process and no clock.

The owner with the lowest level goes first. The level includes what the owner's running requests are still expected to
use, as for servers that work on several requests at once (Jin, Chase and Kaur, "Interposed proportional sharing for a
storage service utility", SIGMETRICS 2004). Within an owner the higher priority goes first, then the older request. The
first request of the first owner is the head of the queue; if it does not fit, later ones that fit may start before it.

Guarantees, with T the longest time that a request is held (at least `FORECAST_S`) and B = `lead_s`:

- Capacity is never exceeded, and the machine never idles while anything waits.
- Work-conserving: a request that fits waits only if room is kept for one that was overtaken `overtakes` times, or if
  the request's owner is `lead_s` ahead of the head's.
- Fair: what two owners get while both have requests waiting, divided by their weights v and w, differs by at most
  2 B + 2 T (1/v + 1/w + 2/u), u the least weight of all owners; the factor 2 stands for two resources.
- No starvation: no request is overtaken more than `overtakes` times, either by younger requests of its own owner,
  whatever their priority, or, as the head, by any request. After that it is the first of its owner, and while it is the
  head all room that becomes free is kept for it.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from mlops_tasks.machine.queue_state import Capacity, QueueState, Request, Waiting


@dataclass(frozen=True)
class FairPolicy:
    """How far the order may be relaxed so that no capacity stays idle."""

    overtakes: int = 8
    lead_s: float = 600.0
    """How far the owner of a request that starts before the head may be ahead of the head's owner; seconds of the whole
    machine, for a weight of 1."""

    def settle(self, state: QueueState, capacity: Capacity, at: float) -> tuple[QueueState, list[Request]]:
        """Start everything that may start now; returns the new state and what was started, in order."""
        state, started = state.advanced(at), []
        while (chosen := self.next_start(state, capacity)) is not None:
            started.append(chosen)
            state = state.grant(chosen.request_id, capacity.share(chosen), self._overtaken(state, capacity, chosen), at)
        return state, started

    def next_start(self, state: QueueState, capacity: Capacity) -> Request | None:
        """The request to start now; None: nothing fits, or what is free is reserved for the head."""
        free, order = state.free(capacity), self.order(state, capacity)
        head = next(order, None)
        if head is None:
            return None
        if free.fits(head.request):
            return head.request
        return None if self.due(head) else next(self._instead(state, head, order, free), None)

    def order(self, state: QueueState, capacity: Capacity) -> Iterator[Waiting]:
        """All waiting requests, in the order in which they would start if each had to wait for the one before it."""
        queues = self._queues(state)
        levels = {owner: state.foreseen(owner) for owner in queues}
        places = {each.request.request_id: place for place, each in enumerate(state.waiting)}
        while queues:
            owner = min(queues, key=lambda name: (levels[name], places[queues[name][-1].request.request_id]))
            first = queues[owner].pop()
            yield first
            levels[owner] += state.forecast_s * capacity.share(first.request) / first.request.weight
            if not queues[owner]:
                del queues[owner]

    def due(self, each: Waiting) -> bool:
        """Whether it has been overtaken as often as allowed."""
        return each.overtaken >= self.overtakes

    def _queues(self, state: QueueState) -> dict[str, list[Waiting]]:
        """Each owner's requests, the next one last: what is due comes first, then by priority, then by age."""
        queues: dict[str, list[Waiting]] = {}
        for each in reversed(state.waiting):
            queues.setdefault(each.request.owner, []).append(each)
        for own in queues.values():
            own.sort(key=lambda each: (self.due(each), 0 if self.due(each) else each.request.priority))
        return queues

    def _instead(self, state: QueueState, head: Waiting, later: Iterable[Waiting], free: Capacity) -> Iterator[Request]:
        """What may start ahead of the head, in order."""
        limit = state.foreseen(head.request.owner) + self.lead_s
        closed = set()
        for each in later:
            owner = each.request.owner
            if owner in closed or state.foreseen(owner) > limit:
                continue
            if free.fits(each.request):
                yield each.request
            elif self.due(each):
                closed.add(owner)

    def _overtaken(self, state: QueueState, capacity: Capacity, chosen: Request) -> set[str]:
        """What a request overtakes when it starts: the head, and older requests of its own owner."""
        waiting = [each.request for each in state.waiting]
        older = {each.request_id for each in waiting[: waiting.index(chosen)] if each.owner == chosen.owner}
        head = next(self.order(state, capacity)).request.request_id
        return (older | {head}) - {chosen.request_id}
