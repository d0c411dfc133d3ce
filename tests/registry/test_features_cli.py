"""The command line of the feature store: what a person sees and may remove."""

import json
import os
from typing import Any

import pytest

from mlops_tasks.cli import main
from mlops_tasks.columns import DATETIME
from mlops_tasks.config import Settings
from mlops_tasks.data.vintages import write_vintage
from mlops_tasks.features.store import FeatureStore
from tests.operation import bars
from tests.registry.conftest import Operation
from tests.registry.trainings import DAYS, Spec


@pytest.fixture
def older(operation: Operation) -> str:
    """A vintage of the first 100 days beside the one in use; its features are not stored yet."""
    known = bars()
    known = known[known[DATETIME] <= DAYS[99]].reset_index(drop=True)
    return write_vintage(operation.settings, known, None, {}).data_version


def answered(capsys: pytest.CaptureFixture[str], *arguments: str, status: int = 0) -> str:
    """What `features` with these arguments says."""
    assert main(["features", *arguments]) == status
    return capsys.readouterr().out


def answer(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    """The same for machines."""
    return json.loads(answered(capsys, *arguments, "--json"))


def test_compute_says_what_it_computes(operation: Operation, older: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Year by year, and how many rows; what another vintage has is not computed; the vintage in use is the default."""
    said = answered(capsys, "compute", "--set", "alpha360", "--data-version", older).splitlines()
    version = FeatureStore(operation.settings).find(older, "alpha360")
    assert said == [
        "2020: computed 2,000 rows",
        f"{version}: 2,000 rows of alpha360 over {older}, 2,000 of them computed now",
    ]
    assert answer(capsys, "compute", "--data-version", older)["computed_rows"] == 0
    again = answer(capsys, "compute", "--set", "alpha158")
    assert (again["feature_version"], again["computed_rows"]) == (operation.feature_version, 0)
    assert "did you mean alpha360 or alpha158?" in answered(capsys, "compute", "--set", "alpha16", status=1)


def test_list_show_and_compare(operation: Operation, older: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The list has a line a version and marks the one in use; show has a line a column; compare says what differs."""
    old = answer(capsys, "compute", "--data-version", older)["feature_version"]
    new, in_use = operation.feature_version, operation.vintage.data_version
    listed = {line.split()[0]: line for line in answered(capsys, "list").splitlines()}
    assert set(listed) == {old, new}
    assert "in use" in listed[new] and in_use in listed[new] and "in use" not in listed[old]
    assert {each["feature_version"]: each["in_use"] for each in answer(capsys, "list")} == {old: False, new: True}
    assert answer(capsys, "list", "--set", "alpha360") == []
    shown = answered(capsys, "show", new).splitlines()
    assert "2,600 rows of 20 instruments" in shown[3]
    (line,) = (line for line in shown if line.startswith("KMID "))
    column = answer(capsys, "show", new)["statistics"]["KMID"]
    assert line.endswith("($close-$open)/$open") and f"{column['mean']:.5g}" in line
    assert answered(capsys, "compare", old, new).splitlines() == [
        "rows        2,000 common, 600 added, 0 removed",
        "values      equal in all common rows and columns",
    ]
    assert answer(capsys, "compare", old, new)["rows_added"] == 600
    assert "no feature version nope" in answered(capsys, "show", "nope", status=1)


def test_what_a_model_needs_is_not_deleted(
    operation: Operation, older: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The refusal names the model; without one the version goes, and only that."""
    settings, needed = operation.settings, operation.feature_version
    old = answer(capsys, "compute", "--data-version", older)["feature_version"]
    operation.register(Spec())
    assert "needed by alphaops version 1" in answered(capsys, "delete", needed, status=1)
    assert f"{old} is removed" in answered(capsys, "delete", old)
    assert stored(settings) == {needed}


def test_garbage_is_told_before_it_goes(operation: Operation, older: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A dry run says what would go and removes nothing; the run removes that, and frees as many bytes."""
    settings, needed = operation.settings, operation.feature_version
    old = answer(capsys, "compute", "--data-version", older)["feature_version"]
    operation.register(Spec())
    root = settings.features_dir
    for path in [root / old / "manifest.json", *root.glob(f"by_vintage/{older}.*")]:
        os.utime(path, (0, 0))
    told = answer(capsys, "collect-garbage", "--dry-run")
    assert told["removed"] == [old] and stored(settings) == {old, needed}
    said = answered(capsys, "collect-garbage").splitlines()
    assert said[0] == f"{old}  removed"
    assert said[1] == f"{needed}  stays: alphaops version 1 needs it"
    assert said[2] == f"{told['files']} files, {told['bytes_freed']:,} bytes freed"
    assert stored(settings) == {needed}


def stored(settings: Settings) -> set[str]:
    """Versions that are there."""
    return {path.parent.name for path in settings.features_dir.glob("*/manifest.json")}
