"""The drift stage on a small operation with a registered champion."""

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import pandas as pd
import pytest

from mlops_tasks.config import Settings
from mlops_tasks.features.store import FeatureStore
from mlops_tasks.monitoring import report as drift_report
from mlops_tasks.monitoring.profile import Profile
from mlops_tasks.monitoring.tasks import check_drift_task, profile_training_task
from mlops_tasks.registry.approvals import load_champion
from mlops_tasks.registry.client import connect
from mlops_tasks.registry.models import get_run_id
from mlops_tasks.stage_results import Judged
from mlops_tasks.state.history import latest_drift_report, newest_alerts
from tests.operation import OWN_ROC, define_own_set, make_champion
from tests.registry.conftest import Operation
from tests.registry.trainings import DAYS, Spec


def check(operation: Operation) -> dict[str, object]:
    """Run the stage on the operation's data."""
    return check_drift_task(data_version=operation.vintage.data_version)


def test_without_a_champion_the_check_is_skipped(operation: Operation) -> None:
    """No champion: the result says so, and nothing is recorded."""
    assert check(operation) == {"skipped": "there is no champion yet"}
    assert latest_drift_report(operation.settings) is None


@pytest.fixture
def champion(operation: Operation) -> int:
    """A registered and promoted model; its version."""
    version = operation.register(Spec())
    make_champion(operation.settings, version)
    return version


def test_the_report_is_written_and_recorded_once(operation: Operation, champion: int) -> None:
    """Report, table, picture and state row exist after one run and do not change in a second one."""
    result = check(operation)
    folder = operation.settings.home / str(result["path"])
    table = pd.read_parquet(folder / "drift.parquet").set_index("column")
    assert "score" in table.index and len(table) == result["columns"] == 159
    assert table.loc["score", "wasserstein"] == result["score_wasserstein"] > 0
    assert result["date"] == str(DAYS[-1].date()) and result["current_days"] == 20
    assert (folder / "drift.png").read_bytes().startswith(b"\x89PNG")
    assert result["n_alert"] == (table["exceedance"] >= 1).sum() and result["psi_max"] == table["psi"].max()
    assert result["verdict"] == ("drift" if result["n_alert"] else "quiet")
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*")}
    assert check(operation) == result
    assert {p: p.stat().st_mtime_ns for p in folder.rglob("*")} == before
    row = latest_drift_report(operation.settings, champion)
    assert row is not None and row.path == result["path"] and row.n_alert == result["n_alert"]
    assert json.loads((folder / "report.json").read_text())["model_version"] == champion
    client, run_id = connect(operation.settings), get_run_id(operation.settings, champion)
    logged = client.list_artifacts(run_id, f"reports/drift/{folder.name}")
    assert sorted(Path(each.path).name for each in logged) == ["drift.parquet", "drift.png", "report.json"]


def test_a_promoted_training_is_profiled_before_its_first_check(operation: Operation, champion: int) -> None:
    """The check reads the profile that is there; a model that the gate does not promote is not profiled."""
    gate: dict[str, object] = {"version": champion, "rule": "best", "training_key": "k", "decision": "keep"}
    assert profile_training_task(gate=cast("Judged", gate)) == {"skipped": "the gate's decision is keep (rule best)"}
    gate["decision"] = "promote"
    folder = operation.settings.home / str(profile_training_task(gate=cast("Judged", gate))["path"])
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert check(operation)["columns"] == len(Profile.load(folder / "profile.npz").columns)
    assert {path: path.stat().st_mtime_ns for path in folder.parent.glob("*/*")} == before


def test_drift_that_alerts_is_a_warning_with_its_columns(
    operation: Operation, champion: int, caplog: pytest.LogCaptureFixture
) -> None:
    """In the task's log, each time that the task runs, and once as an alert; a quiet day is a plain line of the log."""
    first = check(operation)
    place = operation.settings.home / str(first["path"]) / "report.json"
    column = {"statistic": "level", "days": 1, "exceedance": 2.5, "rows_outside": 0.3, "column": "VSTD30"}
    column |= {"importance_share": 0.12, "cost": 0.07}
    found = {
        "n_alert": 2,
        "verdict": "drift",
        "importance_beyond": 0.2,
        "beyond": [column, column | {"column": "ROC5"}],
    }
    for changed, level in ((found, logging.WARNING), ({"n_alert": 0, "verdict": "quiet"}, logging.INFO)):
        place.write_text(json.dumps(json.loads(place.read_text()) | changed))
        for _ in range(2):
            caplog.clear()
            with caplog.at_level(logging.INFO, "mlops_tasks.monitoring.tasks"):
                check(operation)
            (told,) = [record for record in caplog.records if record.name == "mlops_tasks.monitoring.tasks"]
            assert told.levelno == level
            assert all((name in told.getMessage()) == bool(changed["n_alert"]) for name in ("VSTD30", "ROC5"))
    (alert,) = newest_alerts(operation.settings, 10)
    assert (alert.kind, alert.subject) == ("drift_found", f"version {champion}")
    assert alert.message.startswith(f"{first['n_alert']} columns drift on {DAYS[-1].date()}")


def test_the_reference_is_cached_by_training(
    operation: Operation, champion: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second report of the same model, with another error rate, reads no training features again."""
    first = check(operation)
    monkeypatch.setenv("MLOPS_DRIFT__ERROR_RATE", "0.2")

    def fail(settings: Settings, champion: object) -> None:
        raise AssertionError("the reference was read again")

    monkeypatch.setattr(drift_report, "_reference_rows", fail)
    second = check(operation)
    assert second["path"] != first["path"] and second["psi_max"] == first["psi_max"]


def test_importance_is_that_of_the_champions_own_scores(operation: Operation, champion: int) -> None:
    """Mean absolute Shapley values on rows of the training segment, by LightGBM itself; kept with the reference."""
    result = check(operation)
    (kept,) = (operation.settings.reports_dir / "drift" / "references").glob("*/column_importance.json")
    sizes = json.loads(kept.read_text())["sizes"]
    model = load_champion(operation.settings)
    rows = drift_report._reference_rows(operation.settings, model).at_most(2000).scored_features()
    names = model.artefact.feature_names
    found = model.artefact.predictor.booster.predict(rows[names].to_numpy(), pred_contrib=True)[:, :-1]
    assert sizes == pytest.approx(dict(zip(names, np.abs(found).mean(axis=0).tolist(), strict=True)))
    assert result["importance_by"] == f"mean absolute Shapley value on {len(rows):,} rows of the training segment"
    table = pd.read_parquet(operation.settings.home / str(result["path"]) / "drift.parquet").set_index("column")
    assert table["importance_share"].sum() == pytest.approx(1.0) and np.isnan(table.loc["score", "importance_share"])
    assert [each["column"] for each in result["beyond"]] == list(table.index[table["exceedance"] >= 1][:20])


def test_a_model_that_cannot_say_is_not_weighed(operation: Operation, champion: int) -> None:
    """A network whose training recorded nothing: its columns are not of no importance, but of an unknown one."""
    model = load_champion(operation.settings)
    network = replace(model.artefact, manifest={**model.artefact.manifest, "family": "network"})
    rows = drift_report._reference_rows(operation.settings, model)
    found = drift_report._importance(operation.settings, replace(model, artefact=network), rows)
    assert (found.sizes, found.measured_by, len(found.shares)) == ({}, "not known", 0)
    told = {"scores_beyond": False, "importance_beyond": None, "importance_unknown": 3}
    assert drift_report.at_stake(told) == "the importance of these columns is not known"


def test_a_long_reference_is_thinned(operation: Operation, champion: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the limit, rows at equal distances are taken, and the same ones each time."""
    monkeypatch.setattr(drift_report, "MAX_REFERENCE_ROWS", 500)
    check(operation)
    (profile,) = (operation.settings.reports_dir / "drift" / "references").glob("*/profile.npz")
    loaded = drift_report.Profile.load(profile)
    assert {column.rows for column in loaded.columns.values()} == {500}


def test_a_champion_is_watched_on_the_features_of_its_own_set(operation: Operation) -> None:
    """Whatever set the runs are on by now: the columns are the champion's, and so is the reference."""
    define_own_set(operation.settings)
    version = operation.register(Spec(), "mine")
    make_champion(operation.settings, version)
    define_own_set(operation.settings, days=9)
    result = check(operation)
    table = pd.read_parquet(operation.settings.home / str(result["path"]) / "drift.parquet").set_index("column")
    assert set(table.index) == {"ROC5", "GAP", "RSI", "score"}
    store = FeatureStore(operation.settings)
    assert store.definition(str(result["feature_version"])).expressions["ROC5"] == OWN_ROC.format(days=5)
