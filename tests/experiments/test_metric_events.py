"""Metric events: exact sums whatever the order, the repetitions and the kills; and what is refused."""

import json
import random
import re
import resource
import statistics
from collections.abc import Iterator
from datetime import datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlops_tasks.config import Settings
from mlops_tasks.errors import ExperimentError
from mlops_tasks.experiments.lifecycle import (
    create_experiment,
    create_layer,
    history_of,
    move_experiment,
    override_units,
    running_traffic,
)
from mlops_tasks.experiments.metric_events import ingest_events, scaled
from mlops_tasks.state.metric_events import BATCH, DAY, ONE, UNIT, Sum, metric_sums, refused_events
from mlops_tasks.states import ExperimentState, UnitKind
from tests import programs
from tests.experiments.designs import design, running
from tests.postgres import DATABASES, settings_on

SENDER = """
import json, sys
from datetime import datetime, timedelta
from pathlib import Path
from mlops_tasks.config import Settings
from mlops_tasks.experiments.metric_events import ingest_events
from tests.experiments.test_metric_events import BATCH, event

def events(first, count):
    for number in range(count):
        if number and number % BATCH == 0:
            print("stored", flush=True)
        yield event(number, first + timedelta(microseconds=number))

home, url, first, count = sys.argv[1:]
settings = Settings(home=Path(home), state_url=url)
print(json.dumps(vars(ingest_events(settings, "orders", events(datetime.fromisoformat(first), int(count))))))
"""
"""A client that sends events and says when a batch of them has been stored."""


@pytest.fixture(params=DATABASES)
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Settings]:
    """Settings of an empty database of its own."""
    with settings_on(request.param, tmp_path) as made:
        yield made


def event(number: int, at: datetime, **changes: Any) -> dict[str, Any]:
    """An event of one of 40 accounts, with a value of its own."""
    value = random.Random(number).gauss(3, 10)
    values = {"event_id": f"e{number}", "unit": f"account-{number % 40}", "metric": "cost_bps", "value": value}
    return values | {"at": at.isoformat()} | changes


def started(settings: Settings) -> datetime:
    """When the experiment was started."""
    return next(step.at for step in history_of(settings, "orders") if step.state == ExperimentState.RUNNING)


def brute_force(settings: Settings, events: list[dict[str, Any]], of: str) -> dict[tuple[str, str], Sum]:
    """The sums, from the events one by one."""
    found: dict[tuple[str, str], Sum] = {}
    for sent in {each["event_id"]: each for each in events}.values():
        arm = running_traffic(settings).assign("orders", [sent["unit"]]).arm_of(0)
        assert arm is not None
        name = sent["unit"] if of == UNIT else sent["at"][:10]
        found.setdefault((arm, name), Sum()).add(scaled(sent["value"]))
    return found


def test_sums_are_exact_in_any_order(settings: Settings) -> None:
    """Late, shuffled, sent twice in one stream and again in another: each counts once, to the last digit."""
    running(settings)
    first = started(settings)
    events = [event(number, first + timedelta(microseconds=number)) for number in range(300)]
    sent = events + events[:100]
    random.Random(1).shuffle(sent)
    told = ingest_events(settings, "orders", sent[:250])
    again = ingest_events(settings, "orders", [json.dumps(each) for each in sent])
    assert told.new + again.new == 300
    assert told.repeated + again.repeated == 350
    assert not told.refused + again.refused
    for of in (DAY, UNIT):
        assert metric_sums(settings, "orders", "cost_bps", of) == brute_force(settings, events, of)


def test_values_far_apart_lose_nothing(settings: Settings) -> None:
    """A sum in floating point would lose the small ones beside the large ones."""
    running(settings)
    first = started(settings)
    values = [1e9, 1e-9, -1e9, 1e-9, 0.1, 0.2]
    ingest_events(settings, "orders", [event(40 * n, first, value=value) for n, value in enumerate(values)])
    (found,) = metric_sums(settings, "orders", "cost_bps", UNIT).values()
    assert found.total == 300_000_002
    assert found.squares == sum(scaled(value) ** 2 for value in values)


@given(st.lists(st.floats(-1e9, 1e9).map(lambda value: round(value, 9)), min_size=2, max_size=30))
def test_mean_and_variance(values: list[float]) -> None:
    """Against the standard library's exact ones."""
    found = Sum()
    for value in values:
        found.add(scaled(value))
    exact = [Fraction(scaled(value), ONE) for value in values]
    assert found.mean == float(statistics.mean(exact))
    assert found.variance == float(statistics.variance(exact))


def test_arms_are_those_of_the_events_time(settings: Settings) -> None:
    """An event from before an override counts for the arm that was drawn; a later one is kept and not counted."""
    running(settings)
    first = started(settings)
    arm = running_traffic(settings).assign("orders", ["account-1"]).arm_of(0)
    override_units(settings, "orders", {"account-1": "control" if arm == "treatment" else "treatment"}, "by hand")
    later = history_of(settings, "orders")[-1].at
    told = ingest_events(settings, "orders", [event(1, first, value=5.0), event(41, later)])
    assert told.new == 2
    assert metric_sums(settings, "orders", "cost_bps", UNIT) == {(arm, "account-1"): Sum(1, 5 * ONE, 25 * ONE**2)}


def test_late_events_count_after_the_stop(settings: Settings) -> None:
    """Those of its time; those of a pause, and those of after it, are refused."""
    running(settings)
    first = started(settings)
    paused = move_experiment(settings, "orders", ExperimentState.PAUSED, "holiday").at
    move_experiment(settings, "orders", ExperimentState.RUNNING, "back")
    stopped = move_experiment(settings, "orders", ExperimentState.STOPPED, "end").at
    told = ingest_events(settings, "orders", [event(1, first), event(2, paused), event(3, stopped)])
    assert (told.new, told.refused) == (1, 2)
    assert "when the experiment was paused, not running" in told.faults[0]
    assert "when the experiment was stopped, not running" in told.faults[1]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"metric": "cost"}, r"event 1: no metric 'cost'; did you mean cost_bps\?"),
        ({"value": "nan"}, r"event 1: value: "),
        ({"value": True}, r"event 1: value: Input should be a valid number"),
        ({"value": "3.1"}, r"event 1: value: Input should be a valid number"),
        ({"value": float("inf")}, r"event 1: value: "),
        ({"value": 2e9}, r"event 1: value: .*less than or equal to 1000000000"),
        ({"event_id": ""}, r"event 1: event_id: "),
        ({"event_id": "a\0b"}, r"event 1: a NUL byte in a name"),
        ({"unit": "u" * 129}, r"event 1: unit: .*at most 128"),
        ({"at": "2026-01-05T10:00:00"}, r"event 1: at: .*timezone"),
        ({"at": "2020-01-05T10:00:00Z"}, r"when the experiment was not registered, not running"),
        ({"at": "2199-01-05T10:00:00Z"}, r"more than 5 minutes ahead of this machine's clock; set the sender's clock"),
        ({"at": "0001-01-01T00:00:00+23:59"}, r"of 0001-01-01T00:00:00\+23:59, when the experiment was not registered"),
        ({"at": "9999-12-31T23:59:59-23:59"}, r"of 9999-12-31T23:59:59-23:59, which is more than 5 minutes ahead"),
        ({"arm": "control"}, r"event 1: arm: Extra inputs are not permitted"),
    ],
)
def test_wrong_events_are_refused_and_kept(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    """With the row, the rule and the remedy; the others of the batch are stored."""
    settings = Settings(home=tmp_path)
    running(settings)
    first = started(settings)
    wrong = event(1, first) | changes
    told = ingest_events(settings, "orders", [wrong, event(2, first)])
    assert (told.new, told.refused) == (1, 1)
    assert re.search(said, told.faults[0])
    (kept,) = refused_events(settings, "orders")
    assert told.faults[0] == f"event 1: {kept.reason}"
    assert json.loads(kept.event) == wrong


def test_what_is_no_event_is_refused(settings: Settings) -> None:
    """Broken JSON, another JSON value, bytes that are no text; an empty stream is nothing."""
    running(settings)
    told = ingest_events(settings, "orders", ['{"event_id": ', "[1]", b"\xff\xfe", "null"])
    assert (told.new, told.refused) == (0, 4)
    assert ingest_events(settings, "orders", []).new == 0


def test_a_reason_is_short_and_plain_whatever_an_event_calls_its_fields(settings: Settings) -> None:
    """Also where the database takes no NUL."""
    running(settings)
    told = ingest_events(settings, "orders", [{"a\0b" * 5000: 1}, {f"field{number}": 1 for number in range(9000)}])
    assert (told.new, told.refused) == (0, 2)
    reasons = [each.reason for each in refused_events(settings, "orders")]
    assert len(reasons) == 2
    assert all(len(each) <= 1009 and "\0" not in each for each in (*reasons, *told.faults))


def test_an_identifier_with_other_content_is_refused(settings: Settings) -> None:
    """The first one stays."""
    running(settings)
    first = started(settings)
    told = ingest_events(settings, "orders", [event(1, first), event(1, first, value=9.0), event(1, first)])
    assert (told.new, told.repeated, told.refused) == (1, 1, 1)
    assert "event 'e1': another one with this identifier has other content" in told.faults[0]
    assert metric_sums(settings, "orders", "cost_bps", UNIT) == brute_force(settings, [event(1, first)], UNIT)


def test_units_that_take_no_part_are_refused(settings: Settings) -> None:
    """Half of the layer is of another experiment."""
    create_layer(settings, "accounts", UnitKind.ACCOUNT, Decimal(0))
    create_experiment(settings, design(share="0.5"))
    with pytest.raises(ExperimentError, match="orders is a draft; start it: alphaops experiments start orders"):
        ingest_events(settings, "orders", [])
    move_experiment(settings, "orders", ExperimentState.RUNNING, "go")
    first = started(settings)
    told = ingest_events(settings, "orders", [event(number, first) for number in range(40)])
    assert told.new + told.refused == 40 and min(told.new, told.refused) > 8
    assert "had no arm at that time (other_experiment)" in told.faults[0]


def test_a_killed_sender_loses_and_doubles_nothing(settings: Settings) -> None:
    """Killed twice in the middle, then sent whole: the sums are those of one undisturbed stream, and memory is flat."""
    running(settings)
    first = started(settings)
    arguments = [str(settings.home), settings.state_database, first.isoformat(), str(3 * BATCH)]
    for batches in (1, 2):
        with programs.start(SENDER, *arguments) as sender:
            assert sender.stdout is not None
            for _ in range(batches):
                assert sender.stdout.readline().startswith("stored")
            sender.kill()
    with programs.start(SENDER, *arguments) as sender:
        out, _ = sender.communicate()
    *_, last = out.splitlines()
    told = json.loads(last)
    assert told["new"] + told["repeated"] == 3 * BATCH
    assert told["repeated"] >= 2 * BATCH
    events = [event(number, first + timedelta(microseconds=number)) for number in range(3 * BATCH)]
    assert metric_sums(settings, "orders", "cost_bps", UNIT) == expected_by_unit(settings, events)


def expected_by_unit(settings: Settings, events: list[dict[str, Any]]) -> dict[tuple[str, str], Sum]:
    """As `brute_force`, with one assignment of all units."""
    found: dict[tuple[str, str], Sum] = {}
    units = sorted({each["unit"] for each in events})
    arms = running_traffic(settings).assign("orders", units)
    arm_of = {unit: arms.arm_of(row) for row, unit in enumerate(units)}
    for each in events:
        arm = arm_of[each["unit"]]
        assert arm is not None
        found.setdefault((arm, each["unit"]), Sum()).add(scaled(each["value"]))
    return found


def test_memory_does_not_grow(tmp_path: Path) -> None:
    """More events need no more of it than the first ones did."""
    settings = Settings(home=tmp_path)
    running(settings)
    first = started(settings)

    def stream(numbers: range) -> Iterator[dict[str, Any]]:
        return (event(number, first + timedelta(microseconds=number)) for number in numbers)

    ingest_events(settings, "orders", stream(range(2 * BATCH)))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    ingest_events(settings, "orders", stream(range(2 * BATCH, 5 * BATCH)))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < before + 20_000, "kB"
