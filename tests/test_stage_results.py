"""A stage that returns something else than it says fails, and says what."""

from typing import Any

import pytest

from mlops_tasks.config import GateSettings
from mlops_tasks.errors import StageError
from mlops_tasks.evaluation.gate import GateVerdict
from mlops_tasks.stage_results import (
    Compared,
    DriftFound,
    Judged,
    PlannedRun,
    ServiceProbe,
    Skipped,
    Worked,
    check_result,
    keys_of,
)
from mlops_tasks.states import Outcome
from mlops_tasks.training.plan import RunPlan

FAULTS: dict[str, tuple[Any, dict[str, Any], str]] = {
    "a missing key": (Worked, {"worker": 1}, "finished is missing"),
    "a key that is not declared": (Worked, {"worker": 1, "finished": 2, "done": 2}, "done is not declared"),
    "another type": (Worked, {"worker": 1, "finished": "2"}, "finished: Input should be a valid integer"),
    "another type inside": (
        Skipped | Worked,
        {"skipped": ["no champion"]},
        "skipped: Input should be a valid string; or finished is missing",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_another_result_is_refused(fault: str) -> None:
    """By its first fault; of a union, by the first fault against each."""
    declared, content, said = FAULTS[fault]
    with pytest.raises(StageError, match=f"a.stage: it returned something other than .*{said}"):
        check_result("a.stage", declared, content)


def test_what_is_declared_passes() -> None:
    """Whole numbers where numbers are; keys that may be missing; either of a union."""
    check_result("a.stage", Worked, {"worker": 1, "finished": 2})
    check_result("a.stage", Skipped | Worked, {"skipped": "no champion", "delivered": "nothing yet"})
    check_result("a.stage", ServiceProbe, {"date": "2024-01-31", "instruments": 1, "max_abs_diff": 0})


def test_types_name_what_is_made() -> None:
    """A plan's fields, and a decision's."""
    assert keys_of(PlannedRun) == set(RunPlan.model_fields)
    decision = GateVerdict(Outcome.KEEP, "rule", ("reason",), policy=GateSettings().model_dump(mode="json"))
    assert set(decision.to_json()) < keys_of(Judged)
    assert {"path", "verdict", "skipped"} < keys_of(DriftFound | Skipped) and "delivered" in keys_of(Compared)
