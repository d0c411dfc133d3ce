"""Registered versions are explained on the vintage in use, by the command line too."""

import json
from pathlib import Path

import pandas as pd
import pytest

from mlops_tasks import cli
from mlops_tasks.errors import ExplanationError
from mlops_tasks.explain.day_list import day_changes
from mlops_tasks.explain.model_report import FACTORS
from mlops_tasks.files import read_json
from mlops_tasks.registry.client import connect
from mlops_tasks.registry.explained import ExplainedDay, ExplainedVersion
from mlops_tasks.registry.explanation_report import publish_explanation, write_explanation
from mlops_tasks.registry.models import get_run_id
from mlops_tasks.registry.tasks import explain_model_task
from mlops_tasks.reports import ReportKind, newest_reports
from tests.operation import define_own_set
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


def test_the_report_of_a_version_is_written_once_and_logged(
    operation: Operation, capsys: pytest.CaptureFixture[str]
) -> None:
    """Page, plots and tables in its folder and among the artefacts of its run; shares and parts of the IC add up; the
    same content, to the byte, when it is made again."""
    version = operation.register(Spec())
    assert cli.main(["explain", str(version), "--report", "--json"]) == 0
    page = Path(json.loads(capsys.readouterr().out)["report"])
    (report,) = newest_reports(operation.settings, ReportKind.EXPLANATION, 9)
    assert page == report.folder / "explanation.html"
    assert set(report.files) == set(report.layout.files)
    run_id = get_run_id(operation.settings, version)
    logged = connect(operation.settings).list_artifacts(run_id, f"reports/explanation/{report.name}")
    assert {Path(each.path).name for each in logged} == set(report.files)
    content = report.content
    assert sum(each["share"] for each in content["groups"].values()) == pytest.approx(1)
    assert sum(each["ic_part"] for each in content["groups"].values()) == pytest.approx(content["ic"], abs=1e-9)
    assert report.said.startswith(f"version {version}: ")
    table = pd.read_parquet(report.file("features.parquet"))
    assert len(table) == 158 and table["share"].sum() == pytest.approx(1)
    assert table["ic_part"].sum() == pytest.approx(content["ic"], abs=1e-9)
    made = {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in report.folder.iterdir()}
    assert publish_explanation(operation.settings, version) == report.folder
    assert {path.name: path.stat().st_mtime_ns for path in report.folder.iterdir()} == {
        name: when for name, (when, _) in made.items()
    }
    again = report.folder.parent / "again"
    again.mkdir()
    write_explanation(again, ExplainedVersion.of(operation.settings, version))
    assert {path.name: path.read_bytes() for path in again.iterdir()} == {
        name: text for name, (_, text) in made.items()
    }


def test_the_stage_explains_what_was_judged_and_the_champion_that_stays(operation: Operation) -> None:
    """A promoted version's list is compared with the champion's of the day before; where the champion stays, it has a
    report of its own; trees that cannot be explained are skipped with the reason."""
    first = operation.register(Spec(model="linear"))
    second = operation.register(Spec(key="b" * 16))
    home, data_version = operation.settings.home, operation.vintage.data_version
    judged = {"version": second, "champion_version": first, "decision": "promote", "data_version": data_version}
    promoted = explain_model_task(gate=judged)  # type: ignore[arg-type]
    assert promoted == {"version": second, "path": promoted["path"], "champion_path": None}  # type: ignore[typeddict-item]
    told = read_json(home / promoted["path"] / "report.json")  # type: ignore[typeddict-item]
    assert told["replaced_version"] == first
    for each in told["changes"]["names"]:
        parts = [part["contribution"] for part in (*each["parts"], *each["model"]["parts"])]
        total = sum(parts) + each["rest"] + each["model"]["rest"] + each["model"]["base"]
        assert total == pytest.approx(each["score"] - each["score_before"], abs=1e-8)
    kept = explain_model_task(gate={**judged, "decision": "keep"})  # type: ignore[arg-type,typeddict-item]
    folders = [home / kept["path"], home / kept["champion_path"]]  # type: ignore[typeddict-item]
    reports = [read_json(folder / "report.json") for folder in folders]
    assert [(each["model_version"], each["replaced_version"]) for each in reports] == [(second, None), (first, None)]


def test_indicators_are_ranked(operation: Operation) -> None:
    """A set of one: RSI of the desk's own set, with its partial dependence, beside the factors of that set."""
    define_own_set(operation.settings)
    version = operation.register(Spec(feature_names=["ROC5", "GAP", "RSI"]), "mine")
    report = ExplainedVersion.of(operation.settings, version).report()
    assert report.indicators is not None
    assert set(report.indicators.table.index) == {"RSI", FACTORS}
    assert report.indicators.table["share"].sum() == pytest.approx(1)
    (curve,) = [each for each in report.dependence if each.feature == "RSI"]
    assert 0 < curve.values[0] < curve.values[-1] < 100
    assert set(report.group_of.values()) == {"other", "ta_momentum"}


def test_a_model_that_takes_long_is_explained_for_the_names_that_are_shown(
    operation: Operation, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ranks stay those among all; a name that is no member is refused by its name."""
    version = operation.register(Spec(model="network", window=5))
    shown = ExplainedDay.of(operation.settings, version, names=2)
    whole = ExplainedDay.of(operation.settings, version)
    assert len(shown.explanation.on(shown.day).scores) == 2
    mine, all_of_them = (day_changes(each.explanation, each.day, 2, 3) for each in (shown, whole))
    assert [(each.instrument, each.rank, each.rank_before) for each in mine.names] == [
        (each.instrument, each.rank, each.rank_before) for each in all_of_them.names
    ]
    assert mine.names[0].parts == all_of_them.names[0].parts
    assert cli.main(["explain", str(version), "--instrument", "NONE"]) == 1
    assert "not among the names of" in capsys.readouterr().out
