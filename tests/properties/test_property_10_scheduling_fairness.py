"""Property 10, fairness of resource scheduling.

Whatever is asked for, in whatever order, of whatever size, and however long it takes: nothing starts that exceeds the
capacity of that moment, room stays free only for a reason that is stated, nobody starves, shares follow the weights
within the stated bound, and the same history gives the same decisions.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from mlops_tasks.machine.fair_queue import FairPolicy
from mlops_tasks.machine.queue_state import FORECAST_S, Capacity, QueueState, Request

CAPACITY = Capacity(memory_mb=1000.0, slots=4)
EXACT = 1e-6


@dataclass(frozen=True)
class Job:
    """A request, when it is made and how long it takes once it has started."""

    request: Request
    asked_at: float
    seconds: float


@dataclass
class Simulation:
    """A machine that starts what the policy says; `check` gets the state after every step."""

    policy: FairPolicy
    capacity: Capacity = CAPACITY
    changes: Sequence[tuple[float, Capacity]] = ()
    """When its capacity becomes another one, in order."""
    state: QueueState = field(default_factory=QueueState)
    started: list[tuple[str, float]] = field(default_factory=list)
    check: Callable[[QueueState], None] = lambda state: None

    def run(self, jobs: Sequence[Job], until: float = float("inf")) -> None:
        """Let all jobs come and go; what ends at a moment does so before what is asked for then."""
        coming = sorted(jobs, key=lambda job: job.asked_at)
        lasts = {job.request.request_id: job.seconds for job in jobs}
        ends: dict[str, float] = {}
        changing = list(self.changes)
        while coming or ends or changing:
            moment = min([*ends.values(), *(job.asked_at for job in coming[:1]), *(at for at, _ in changing[:1])])
            if moment > until:
                return
            for name in [name for name, end in ends.items() if end <= moment]:
                self.state = self.state.release(name, moment)
                del ends[name]
            while coming and coming[0].asked_at <= moment:
                self.state = self.state.ask(coming.pop(0).request, moment)
            while changing and changing[0][0] <= moment:
                self.capacity = changing.pop(0)[1]
            self.state, granted = self.policy.settle(self.state, self.capacity, moment)
            for request in granted:
                self.started.append((request.request_id, moment))
                ends[request.request_id] = moment + lasts[request.request_id]
            self.check(self.state)


OWNERS = st.sampled_from(["ada", "bea", "cyd"])
WEIGHTS = {"ada": 1.0, "bea": 2.0, "cyd": 0.5}
SECONDS = st.one_of(st.just(0.0), st.floats(0.1, 500.0))
POLICIES = st.builds(FairPolicy, overtakes=st.integers(0, 5), lead_s=st.sampled_from([0.0, 50.0, 600.0]))


@st.composite
def jobs(draw: st.DrawFn) -> list[Job]:
    """Up to thirty jobs of three owners; some as large as the machine, many at once, some in between."""
    made = []
    for number in range(draw(st.integers(1, 30))):
        owner = draw(OWNERS)
        request = Request(
            request_id=f"r{number}",
            owner=owner,
            memory_mb=draw(st.sampled_from([0.0, 10.0, 250.0, 400.0, 700.0, 1000.0])),
            slots=draw(st.integers(1, 4)),
            priority=draw(st.integers(-2, 2)),
            weight=WEIGHTS[owner],
        )
        made.append(Job(request, draw(st.sampled_from([0.0, 0.0, 10.0, 300.0])) + draw(SECONDS), draw(SECONDS)))
    return made


@st.composite
def changes(draw: st.DrawFn) -> list[tuple[float, Capacity]]:
    """Up to eight other capacities, down to nothing, and the first one again in the end."""
    capacities = st.builds(Capacity, st.sampled_from([0.0, 5.0, 300.0, 650.0, 1000.0]), st.integers(1, 4))
    made = draw(st.lists(st.tuples(st.floats(0.0, 1000.0), capacities), max_size=8))
    return [*sorted(made, key=lambda change: change[0]), (1000.0, CAPACITY)]


def check_capacity(state: QueueState, capacity: Capacity) -> None:
    """No more is held than there is."""
    free = state.free(capacity)
    assert free.memory_mb >= -EXACT
    assert free.slots >= 0


def check_work_conserving(policy: FairPolicy, state: QueueState, capacity: Capacity) -> None:
    """What fits and waits does so for a stated reason; nothing runs only while the first exceeds all there is."""
    order, free = list(policy.order(state, capacity)), state.free(capacity)
    assert state.running or not order or not capacity.fits(order[0].request)
    for place, each in enumerate(order):
        if free.fits(each.request):
            head = order[0]
            assert place > 0
            reserved = policy.due(head)
            ahead = state.foreseen(each.request.owner) - state.foreseen(head.request.owner) > policy.lead_s
            own = [other for other in order[1:place] if other.request.owner == each.request.owner]
            assert reserved or ahead or any(policy.due(other) and not free.fits(other.request) for other in own)


@given(work=jobs(), policy=POLICIES, changing=st.one_of(st.just([]), changes()))
@settings(max_examples=150)
def test_all_start_within_capacity_and_room_stays_free_for_a_reason_only(
    work: list[Job], policy: FairPolicy, changing: list[tuple[float, Capacity]]
) -> None:
    """Whatever comes: every request starts, none is overtaken too often, and the queue is empty then.

    What runs goes on while the capacity shrinks; nothing starts then before it fits into what is left.
    """
    count = 0

    def check(state: QueueState) -> None:
        nonlocal count
        if not changing or len(simulation.started) > count:
            check_capacity(state, simulation.capacity)
        count = len(simulation.started)
        check_work_conserving(policy, state, simulation.capacity)
        assert all(each.overtaken <= policy.overtakes for each in state.waiting)
        assert QueueState.from_json(json.loads(json.dumps(state.to_json()))) == state

    simulation = Simulation(policy, changes=changing, check=check)
    simulation.run(work)
    assert sorted(name for name, _ in simulation.started) == sorted(job.request.request_id for job in work)
    assert (simulation.state.waiting, simulation.state.running, dict(simulation.state.levels)) == ((), (), {})


@given(work=jobs(), policy=POLICIES)
@settings(max_examples=30)
def test_equal_histories_give_equal_decisions(work: list[Job], policy: FairPolicy) -> None:
    """Nothing but the history counts."""
    first, second = Simulation(policy), Simulation(policy)
    first.run(work)
    second.run(list(work))
    assert first.started == second.started


def _service(started: Sequence[tuple[str, float]], work: Sequence[Job], begin: float, end: float) -> dict[str, float]:
    """What each owner had between two moments: dominant share times seconds, by its weight."""
    by_name = {job.request.request_id: job for job in work}
    had = dict.fromkeys(WEIGHTS, 0.0)
    for name, since in started:
        job = by_name[name]
        seconds = max(0.0, min(end, since + job.seconds) - max(begin, since))
        had[job.request.owner] += seconds * CAPACITY.share(job.request) / job.request.weight
    return had


@st.composite
def backlogs(draw: st.DrawFn) -> list[Job]:
    """More than enough work of two or three owners, there from the start or (of one) from later on."""
    made = []
    for owner in draw(st.sampled_from([["ada", "bea"], ["ada", "bea", "cyd"]])):
        kinds = draw(
            st.lists(
                st.tuples(st.sampled_from([0.0, 100.0, 500.0, 1000.0]), st.integers(1, 4), st.floats(1.0, 200.0)),
                min_size=1,
                max_size=3,
            )
        )
        begin = draw(st.sampled_from([0.0, 0.0, 130.0]))
        for number in range(40):
            memory_mb, slots, seconds = kinds[number % len(kinds)]
            request = Request(f"{owner}{number}", owner, memory_mb, slots, priority=number % 2, weight=WEIGHTS[owner])
            made.append(Job(request, begin, seconds))
    return made


@given(work=backlogs(), lead_s=st.sampled_from([0.0, 20.0, 100.0]), cut=st.floats(0.0, 1.0))
@settings(max_examples=80)
def test_shares_follow_the_weights_within_the_bound(work: list[Job], lead_s: float, cut: float) -> None:
    """Over every span in which two owners have requests waiting, up to its end and from any moment in it on."""
    policy = FairPolicy(lead_s=lead_s)
    spans: list[tuple[float, set[str]]] = []
    simulation = Simulation(
        policy, check=lambda state: spans.append((state.at, {each.request.owner for each in state.waiting}))
    )
    simulation.run(work)
    longest = max(FORECAST_S, *(job.seconds for job in work))
    present = {job.request.owner for job in work}
    least = min(WEIGHTS[owner] for owner in present)
    for first in present:
        for second in present - {first}:
            both = [at for at, owners in spans if {first, second} <= owners]
            if len(both) < 2:
                continue
            begin, end = both[0] + cut * (both[-1] - both[0]), both[-1]
            had = _service(simulation.started, work, begin, end)
            inverse = 1 / WEIGHTS[first] + 1 / WEIGHTS[second] + 2 / least
            assert abs(had[first] - had[second]) <= 2 * lead_s + 2 * longest * inverse + EXACT


def test_the_shares_of_a_long_backlog_are_the_weights() -> None:
    """Weights 1, 2 and 1/2 on four slots: of 175 equal jobs they have 50, 100 and 25, within a round of the slots."""
    work = [
        Job(Request(f"{owner}{number}", owner, 0.0, weight=weight), 0.0, 10.0)
        for owner, weight in WEIGHTS.items()
        for number in range(120)
    ]
    simulation = Simulation(FairPolicy())
    simulation.run(work, until=440.0)
    count = {owner: sum(name.startswith(owner) for name, _ in simulation.started[:175]) for owner in WEIGHTS}
    for owner, expected in {"ada": 50, "bea": 100, "cyd": 25}.items():
        assert abs(count[owner] - expected) <= 4


@given(
    size=st.tuples(st.sampled_from([0.0, 1000.0]), st.integers(2, 4)),
    stream=st.lists(st.tuples(st.sampled_from(["bea", "cyd"]), st.floats(1.0, 100.0)), min_size=4, max_size=12),
    policy=POLICIES,
)
@settings(max_examples=40)
def test_a_large_request_gets_its_room_in_an_endless_stream_of_small_ones(
    size: tuple[float, int], stream: list[tuple[str, float]], policy: FairPolicy
) -> None:
    """At latest when it was overtaken as often as it may be, each time by one that lasts, and the room is cleared."""
    small = [
        Job(Request(f"s{number}", owner, 10.0, weight=WEIGHTS[owner]), 0.0, seconds)
        for number, (owner, seconds) in enumerate(stream * 12)
    ]
    large = Job(Request("large", "ada", *size, weight=WEIGHTS["ada"]), 50.0, 1.0)
    simulation = Simulation(policy)
    latest = 50.0 + (policy.overtakes + 3) * max(seconds for _, seconds in stream)
    simulation.run([*small, large], until=latest)
    assert "large" in dict(simulation.started)


def test_priority_goes_first_and_no_further_than_stated() -> None:
    """Three may overtake, so of ten urgent requests three start before the one that is not."""
    urgent = [Job(Request(f"u{number}", "ada", 0.0, slots=4, priority=9), 1.0, 10.0) for number in range(10)]
    plain = [Job(Request(name, "ada", 0.0, slots=4), 0.5, 10.0) for name in ("running", "plain")]
    simulation = Simulation(FairPolicy(overtakes=3))
    simulation.run([*plain, *urgent])
    assert [name for name, _ in simulation.started][:6] == ["running", "u0", "u1", "u2", "plain", "u3"]


def test_who_was_away_gets_no_more_than_who_was_here() -> None:
    """An owner that comes after a thousand seconds of another's work shares evenly from then on, with no arrears."""
    here = [Job(Request(f"a{number}", "ada", 0.0, slots=4), 0.0, 10.0) for number in range(140)]
    came = [Job(Request(f"b{number}", "bea", 0.0, slots=4), 1000.0, 10.0) for number in range(30)]
    simulation = Simulation(FairPolicy())
    simulation.run([*here, *came])
    after = [name[0] for name, at in simulation.started if at >= 1000.0][:40]
    assert abs(after.count("a") - after.count("b")) <= 1
