"""The splitter's hash against published values, and plans that are refused."""

import time
from collections.abc import Callable
from decimal import Decimal

import pytest

from mlops_tasks.errors import ExperimentError
from mlops_tasks.experiments.assignment import Allocation, Enrolment, Layer, Reason, TrafficPlan
from mlops_tasks.experiments.hashing import SPACE, unit_hashes
from mlops_tasks.states import UnitKind

HALVES = Allocation.of({"control": "0.5", "treatment": "0.5"})
LAYER = Layer("ranking", "r", UnitKind.ACCOUNT)

PUBLISHED = {1: 0x74F839C593DC67FD, 8: 0x93F5F5799A932462, 15: 0xA129CA6149BE45E5}
"""SipHash-2-4 of the bytes 0, 1, 2, ... under the key 0 to 15, by their number. 15: from the paper of Aumasson and
Bernstein; the others: vectors of their reference implementation."""


@pytest.mark.parametrize("length", PUBLISHED)
def test_hash_has_its_published_values(length: int) -> None:
    """The bytes are ASCII, so that they are also text."""
    found = unit_hashes(bytes(range(16)), [bytes(range(length)).decode()])
    assert int(found[0]) == PUBLISHED[length]


def test_a_million_units_take_less_than_a_second() -> None:
    """Of processor time, an experiment in a layer with a holdout: three positions each."""
    units = [f"account-{number}" for number in range(1_000_000)]
    layer = Layer("ranking", "r", UnitKind.ACCOUNT, Decimal("0.1"))
    traffic = TrafficPlan((layer,), (Enrolment("e", "s", "ranking", 0, SPACE // 2, HALVES),))
    began = time.process_time()
    found = traffic.assign("e", units)
    assert time.process_time() - began < 1
    assert abs(sum(found.counts().values()) - 450_000) < 3000


def test_overridden_units_are_marked() -> None:
    """They have the arm that a person chose, even where they would take no part, and are not counted."""
    enrolment = Enrolment("e", "s", "ranking", 0, SPACE // 2, HALVES, Decimal(0), overrides={"desk": "treatment"})
    found = TrafficPlan((LAYER,), (enrolment,)).assign("e", ["desk", "other"])
    assert (found.arm_of(0), found.reason_of(0)) == ("treatment", Reason.OVERRIDDEN)
    assert found.arm_of(1) is None
    assert found.counts() == {"control": 0, "treatment": 0}


def test_a_free_range_is_found_between_others() -> None:
    """The first gap that is wide enough; where there is none, who holds the layer is told."""
    held = (
        Enrolment("a", "a", "ranking", 0, 300_000, HALVES),
        Enrolment("b", "b", "ranking", 400_000, 700_000, HALVES),
    )
    traffic = TrafficPlan((LAYER,), held)
    assert traffic.free_range("ranking", Decimal("0.1")) == (300_000, 400_000)
    assert traffic.free_range("ranking", Decimal("0.3")) == (700_000, 1_000_000)
    with pytest.raises(ExperimentError, match=r"no free range of 0\.31; experiments hold a 0 to 299999, b 400000"):
        traffic.free_range("ranking", Decimal("0.31"))


def enrolled(experiment: str, first: int, end: int, **changes: object) -> Enrolment:
    """An experiment in the layer, with halves."""
    given = {"salt": experiment, "layer": "ranking", "first": first, "end": end, "allocation": HALVES}
    return Enrolment(experiment, **given | changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda: Allocation.of({"a": "0.5", "b": "0.4"}), r"shares sum to 0\.9, not to 1: 'a' 0\.5, 'b' 0\.4"),
        (lambda: Allocation.of({"a": "1"}), r"1 of them; an experiment compares at least two"),
        (lambda: Allocation.of({"a": "1.5", "b": "-0.5"}), r"share of 'a' is 1\.5; expected above 0 to 1"),
        (lambda: Allocation.of({"a": float("nan"), "b": 1.0}), r"share of 'a' is nan"),
        (lambda: Allocation.of({"a": "0.3333333", "b": "0.6666667"}), r"whole millionths"),
        (lambda: Allocation.of({"a\n": "0.5", "b": "0.5"}), r"is no name"),
        (lambda: enrolled("e", 0, 10, overrides={"u": "contrl"}), r"overridden to 'contrl'; did you mean control\?"),
        (lambda: enrolled("e", 5, 5), r"positions 5 to 5; expected a range"),
        (lambda: enrolled("e", 0, 10, exposure=Decimal("0.5")).ramped_to(Decimal("0.4")), r"Stop it instead"),
        (lambda: Layer("l", "s", UnitKind.DAY, Decimal(1)), r"all units are held out"),
        (lambda: TrafficPlan((LAYER,), (enrolled("e", 0, 9, layer="rank"),)), r"no layer 'rank'; did you mean ranking"),
        (
            lambda: TrafficPlan((LAYER,), (enrolled("a", 0, 500_000), enrolled("b", 400_000, 600_000))),
            r"a and b overlap in layer ranking: positions 400000 to 499999 belong to both",
        ),
        (
            lambda: TrafficPlan((LAYER,), (enrolled("a", 0, 900_000), enrolled("b", 1, 2), enrolled("c", 5, 6))),
            r"a and b overlap",
        ),
        (lambda: TrafficPlan((LAYER, LAYER)), r"two layers are called 'ranking'"),
        (lambda: TrafficPlan((LAYER, Layer("x", "r", UnitKind.ACCOUNT))), r"'ranking' and 'x' share a salt"),
        (lambda: TrafficPlan((LAYER,), (enrolled("e", 0, 9, salt="r"),)), r"belongs to a layer and to an experiment"),
        (lambda: TrafficPlan((LAYER,)).assign("e", ["u"]), r"no experiment 'e'"),
        (lambda: TrafficPlan((LAYER,), (enrolled("e", 0, 9),)).assign("e", ["u"], []), r"1 units and 0 groups"),
    ],
)
def test_wrong_plans_are_refused(wrong: Callable[[], object], said: str) -> None:
    """With the row, the rule and the remedy."""
    with pytest.raises(ExperimentError, match=said):
        wrong()
