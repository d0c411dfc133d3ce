"""Registered versions are explained on the vintage in use, by the command line too."""

import json

import pytest

from mlops_tasks import cli
from mlops_tasks.errors import ExplanationError
from mlops_tasks.registry.explained import ExplainedDay
from tests.registry.conftest import Operation
from tests.registry.trainings import Spec


@pytest.mark.parametrize(
    ("spec", "gap"),
    [
        (Spec(model="lightgbm"), 1e-12),
        (Spec(model="linear"), 1e-8),
        (Spec(model="network", window=5), 0.2),
    ],
    ids=["lightgbm", "linear", "network"],
)
def test_a_version_is_explained_by_its_number(
    operation: Operation, capsys: pytest.CaptureFixture[str], spec: Spec, gap: float
) -> None:
    """The newest day and the changes since the day before; parts, rest and base are the score but for the gap."""
    version = operation.register(spec)
    assert cli.main(["explain", str(version), "--names", "3", "--parts", "2", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    days = operation.vintage.calendar()
    assert (told["date"], told["changes"]["since"]) == (str(days[-1].date()), str(days[-2].date()))
    assert told["gap"]["share"] <= gap
    assert sum(told["groups"].values()) == pytest.approx(1)
    assert [each["rank"] for each in told["names"]] == [1, 2, 3]
    for each in told["names"]:
        total = told["base"] + sum(part["contribution"] for part in each["parts"]) + each["rest"]
        assert total == pytest.approx(each["score"], abs=2 * told["gap"]["largest"] + 1e-12)
    for each in told["changes"]["names"]:
        moved = sum(part["contribution"] for part in each["parts"]) + each["rest"]
        gaps = told["gap"]["largest"] + told["changes"]["gap_before"]["largest"]
        assert moved == pytest.approx(each["score"] - each["score_before"], abs=gaps + 1e-12)


def test_the_text_names_what_was_asked_for(operation: Operation, capsys: pytest.CaptureFixture[str]) -> None:
    """A line for each name, and one for its change."""
    version = operation.register(Spec())
    found = ExplainedDay.of(operation.settings, version)
    name = str(found.explanation.on(found.day).scores.index[0][1])
    assert cli.main(["explain", str(version), "--instrument", name]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"version {version}, {found.day.date()}, data {operation.vintage.data_version}: trees")
    assert sum(f" {name} " in line for line in lines) == 2
    assert "all others" in lines[-1]


def test_a_day_without_trading_is_refused(operation: Operation) -> None:
    """The error says where the vintage ends."""
    version = operation.register(Spec())
    day = operation.vintage.calendar()[-1]
    with pytest.raises(ExplanationError, match=f"which ends at {day.date()}"):
        ExplainedDay.of(operation.settings, version, (day + (day - operation.vintage.calendar()[0])).date())
