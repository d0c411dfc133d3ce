"""A training's folder says the same when it is read as when it was written, also one of an earlier version."""

import ast
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

import mlops_tasks
from mlops_tasks import training_folder
from mlops_tasks.config import PROJECT
from mlops_tasks.errors import StoreError
from mlops_tasks.files import read_json, write_json
from mlops_tasks.training_folder import (
    EvaluationRecord,
    FitRecord,
    ModelCertificate,
    TrainingFolder,
    TrainingManifest,
    TrainingMetrics,
)

PLAN = {
    "training_key": "k" * 16,
    "model": "lightgbm",
    "data_version": "d" * 16,
    "last_date": "2020-12-31",
    "feature_set": "alpha158",
    "feature_version": "f" * 16,
    "horizon": 1,
    "segments": {"train": ["2018-01-01", "2018-12-31"], "valid": ["2019-01-01", "2019-12-31"]},
    "seed": 42,
    "model_config": {"family": "lightgbm", "hyperparameters": {"num_leaves": 7}},
    "engine_version": 5,
    "identity": {"source": None, "threads": None},
    "topk": 50,
}
FIRST_VERSION = {name: value for name, value in PLAN.items() if name not in ("model_config", "identity")}
"""What the project's first version wrote."""
NAMES = {"plan", "curves", "importance", "columns", "metrics", "certificate", "evaluation"}
FILES = {*(f"{name}.json" for name in NAMES), "predictions.parquet"}


@pytest.fixture
def folder(tmp_path: Path) -> TrainingFolder:
    found = TrainingFolder(tmp_path / "training" / "k")
    found.path.mkdir(parents=True)
    return found


@pytest.mark.parametrize("content", [PLAN, FIRST_VERSION], ids=["now", "first version"])
def test_a_manifest_is_written_as_it_was_read(folder: TrainingFolder, content: dict) -> None:
    """Nothing that plan.json says is lost, and nothing is added."""
    write_json(folder.path / "plan.json", content)
    manifest = folder.manifest()
    before = (folder.path / "plan.json").read_bytes()
    folder.write_manifest(manifest)
    assert (folder.path / "plan.json").read_bytes() == before
    assert folder.manifest() == manifest and manifest.segments["valid"] == ("2019-01-01", "2019-12-31")
    assert folder.find_manifest() == manifest


def test_all_else_is_read_as_it_was_written(folder: TrainingFolder) -> None:
    """Metrics, certificate, evaluation, predictions of one segment and of all."""
    metrics = TrainingMetrics({"train_seconds": 1.5, "auc": None}, FitRecord("healthy", "all is well", 3, None), "run")
    folder.write_metrics(metrics)
    assert folder.metrics() == metrics == folder.find_metrics()
    assert read_json(folder.path / "metrics.json")["fit"]["kept_iteration"] == 3
    certificate = ModelCertificate("c", ({"name": "scores", "passed": True},), "a" * 64)
    folder.write_certificate(certificate)
    assert folder.find_certificate() == certificate
    record = EvaluationRecord("k", "linear", "d", "i", {"test_ic_mean": None}, {"topk": 5, "n_drop": 1}, ["a.png"])
    folder.evaluation.path.mkdir()
    folder.evaluation.write(record, pd.DataFrame({"ic": [0.1]}, pd.DatetimeIndex(["2020-01-01"], name="datetime")))
    assert folder.evaluation.read() == record
    days = pd.DatetimeIndex(["2020-01-02", "2020-01-01", "2020-01-01"])
    segments = {"segment": ["test", "test", "valid"], "score": [1.0, 2.0, 3.0], "label": [0.1, 0.2, 0.3]}
    frame = pd.DataFrame({"datetime": days, "instrument": ["A", "A", "B"], **segments})
    folder.write_predictions(frame)
    assert folder.segment("test")["score"].to_list() == [2.0, 1.0]
    pd.testing.assert_frame_equal(folder.segments()["test"], folder.segment("test"))
    assert len(folder.segment("train")) == 0


def test_a_folder_of_an_earlier_version_lacks_what_was_not_written_then(folder: TrainingFolder) -> None:
    """Metrics without a verdict, no curves, no importance, no certificate; an evaluation of metrics alone."""
    write_json(folder.path / "metrics.json", {"train_seconds": 2.0})
    write_json(folder.path / "evaluation" / "evaluation.json", {"metrics": {"test_ic_mean": 0.1}})
    assert folder.metrics() == TrainingMetrics({"train_seconds": 2.0})
    assert (folder.curves(), folder.importance(), folder.find_certificate()) == ({}, {}, None)
    found = folder.evaluation.read()
    assert found.metrics == {"test_ic_mean": 0.1} and found.identity == ""


def test_what_is_missing_is_named_with_its_stage(folder: TrainingFolder) -> None:
    """Each error names the path and the stage that writes it; what may be missing is None."""
    assert (folder.find_manifest(), folder.find_metrics(), folder.evaluation.find()) == (None, None, None)
    for read, said in (
        (folder.manifest, r"training/k: no such training; run the stage training\.train"),
        (folder.metrics, r"metrics\.json is missing; run the stage training\.train"),
        (folder.evaluation.read, r"evaluation\.json is missing; run the stage evaluation\.evaluate"),
        (folder.segments, r"predictions\.parquet is missing; run the stage training\.train"),
    ):
        with pytest.raises(StoreError, match=said):
            read()
    with pytest.raises(KeyError):
        TrainingManifest.from_json({name: value for name, value in PLAN.items() if name != "seed"})
    assert "training_key" not in replace(TrainingManifest.from_json(PLAN), training_key="").to_json()


def test_no_other_module_names_its_files() -> None:
    """Neither the library nor the plugin has another way to them."""
    own = Path(training_folder.__file__)
    library = Path(mlops_tasks.__file__).parent
    found = [
        f"{path}:{node.lineno}: {node.value}"
        for path in (*library.rglob("*.py"), *(PROJECT / "plugins").rglob("*.py"))
        if path != own
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and node.value in FILES
    ]
    assert found == []
