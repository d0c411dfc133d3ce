"""Logging a training to a real MLflow on SQLite."""

import json
from importlib.metadata import version

import pytest
from mlflow.artifacts import load_dict

from mlops_tasks.config import Settings
from mlops_tasks.errors import RegistryError
from mlops_tasks.files import read_json, write_json
from mlops_tasks.modeling.model_zoo.families import FAMILIES, PACKAGES
from mlops_tasks.registry.client import EXPERIMENT, connect, experiment_id
from mlops_tasks.registry.models import get_run_id, get_tags
from mlops_tasks.registry.runs import CERTIFICATE_FILE, log_run
from mlops_tasks.training.certificate import certificate_of
from tests.operation import certify_training, learning_data
from tests.registry.conftest import Operation
from tests.registry.trainings import Spec, make_training


def test_a_run_holds_parameters_metrics_curves_datasets_plots_and_tags(settings: Settings) -> None:
    """Everything that a training left can be read back from MLflow."""
    spec = Spec(metrics={"valid_rank_ic_mean": 0.03, "test_icir": None, "test_ic_mean": 1e-3})
    folder = make_training(settings, spec)
    client = connect(settings)
    run = client.get_run(log_run(settings, spec.key))

    assert run.info.status == "FINISHED"
    assert run.info.run_name == "lightgbm 2020-06-30 #1"
    assert run.data.params["model.hyperparameters.num_leaves"] == "7"
    assert run.data.params["segment.train"] == "2020-01-01 to 2020-03-24"
    assert run.data.metrics["valid_rank_ic_mean"] == 0.03
    assert run.data.metrics["best_iteration"] == 20
    assert "test_icir" not in run.data.metrics
    assert {k: run.data.tags[k] for k in ("training_key", "model", "data_version", "feature_version")} == {
        "training_key": spec.key,
        "model": "lightgbm",
        "data_version": "data0",
        "feature_version": "features0",
    }
    assert run.data.tags["code_version"]
    curve = client.get_metric_history(run.info.run_id, "curve.l2.valid")
    assert [m.value for m in sorted(curve, key=lambda m: m.step)] == read_json(folder / "curves.json")["l2"]["valid"]
    inputs = {i.tags[0].value: (i.dataset.name, i.dataset.digest) for i in run.inputs.dataset_inputs}
    assert inputs["source"] == ("bars", "data0")
    assert inputs["test"] == ("alpha158 2020-05-06 to 2020-06-30", "features0")
    assert [a.path for a in client.list_artifacts(run.info.run_id, "plots")] == ["plots/ic.png"]
    artifacts = {each.path: each.file_size for each in client.list_artifacts(run.info.run_id)}
    assert artifacts["lineage.png"] > 10_000
    assert run.data.tags["python_version"] and run.data.tags["lock"]


def test_the_logged_model_has_a_signature_metrics_and_no_pickle(settings: Settings) -> None:
    """MLflow knows the model's inputs and its metrics, and stores plain text only."""
    spec = Spec()
    make_training(settings, spec)
    run_id = log_run(settings, spec.key)
    client = connect(settings)
    (model,) = client.search_logged_models([experiment_id(settings)])
    assert model.source_run_id == run_id
    assert str(model.status) == "READY"
    assert {m.key: m.value for m in model.metrics}["valid_rank_ic_mean"] == 0.03
    paths = [p for p in (settings.home / "mlflow" / "artifacts").rglob("*") if p.is_file()]
    assert not [p for p in paths if p.suffix in {".pkl", ".pickle", ".joblib"}]
    assert {"model.json", "model.txt", "processors.json", "MLmodel"} <= {p.name for p in paths}


@pytest.mark.parametrize(
    ("family", "needed"), [("lightgbm", "lightgbm"), ("linear", "scikit-learn"), ("network", "torch")]
)
def test_the_logged_model_names_what_reads_it(settings: Settings, family: str, needed: str) -> None:
    """Its requirements are those of its family, in versions that an index has: without the build of this machine."""
    spec = Spec(model=family, window=5 if family == "network" else 1)
    make_training(settings, spec)
    log_run(settings, spec.key)
    (path,) = (settings.home / "mlflow" / "artifacts").rglob("requirements.txt")
    names = dict(line.split("==") for line in path.read_text().splitlines())
    assert {needed, "numpy", "pandas", "mlflow"} <= names.keys()
    assert all("+" not in version for version in names.values())


def test_every_family_says_what_it_is_read_with() -> None:
    """The distributions are installed under the names that are given."""
    assert PACKAGES.keys() == FAMILIES.keys()
    assert all(version(name) for names in PACKAGES.values() for name in names)


def test_logging_twice_is_one_run(settings: Settings) -> None:
    """A repeated task finds its run."""
    make_training(settings, Spec())
    first = log_run(settings, Spec().key)
    assert log_run(settings, Spec().key) == first
    assert len(connect(settings).search_runs([experiment_id(settings)])) == 1


@pytest.mark.parametrize("status", ["RUNNING", "FAILED", "KILLED"])
def test_an_unfinished_run_is_replaced(settings: Settings, status: str) -> None:
    """What a killed attempt left is deleted, its model too, and the training is logged anew."""
    make_training(settings, Spec())
    client = connect(settings)
    first = log_run(settings, Spec().key)
    client.update_run(first, status=status)
    second = log_run(settings, Spec().key)
    assert second != first
    assert [r.info.run_id for r in client.search_runs([experiment_id(settings)])] == [second]
    assert [m.source_run_id for m in client.search_logged_models([experiment_id(settings)])] == [second]


def test_a_new_evaluation_updates_the_run(settings: Settings) -> None:
    """A finished run shows the newest evaluation of its training."""
    folder = make_training(settings, Spec())
    run_id = log_run(settings, Spec().key)
    write_json(folder / "evaluation" / "evaluation.json", {"metrics": {"valid_rank_ic_mean": 0.07}})
    assert log_run(settings, Spec().key) == run_id
    assert connect(settings).get_run(run_id).data.metrics["valid_rank_ic_mean"] == 0.07


def test_a_run_holds_its_leak_certificate(operation: Operation) -> None:
    """The certificate is an artifact of the run, and tags of run and version name it."""
    version = operation.register(Spec())
    run = connect(operation.settings).get_run(get_run_id(operation.settings, version))
    certificate = certificate_of(operation.settings, Spec().key)
    assert certificate is not None
    expected = {"leak_certificate": "passed", "leak_certificate_key": certificate.key}
    assert expected.items() <= run.data.tags.items()
    assert expected.items() <= get_tags(operation.settings, version).items()
    assert load_dict(f"runs:/{run.info.run_id}/{CERTIFICATE_FILE}") == json.loads(json.dumps(certificate.to_json()))


def test_a_run_that_was_logged_before_its_certificate_gets_it(operation: Operation) -> None:
    """A training of an earlier release, certified since: its finished run is brought up to date."""
    spec = Spec(data_version=operation.vintage.data_version, feature_version=operation.feature_version)
    make_training(operation.settings, spec, learning_data(operation.settings, spec.feature_version))
    run_id, client = log_run(operation.settings, spec.key), connect(operation.settings)
    assert "leak_certificate" not in client.get_run(run_id).data.tags
    key = certify_training(operation.settings, spec).key
    assert log_run(operation.settings, spec.key) == run_id
    assert client.get_run(run_id).data.tags["leak_certificate_key"] == key
    assert load_dict(f"runs:/{run_id}/{CERTIFICATE_FILE}")["key"] == key


def test_more_curve_points_than_one_call_takes(settings: Settings) -> None:
    """A curve of 2,500 iterations arrives whole."""
    folder = make_training(settings, Spec())
    values = [1.0 / (i + 1) for i in range(2500)]
    (folder / "curves.json").write_text(json.dumps({"l2": {"train": values}}))
    run_id = log_run(settings, Spec().key)
    history = connect(settings).get_metric_history(run_id, "curve.l2.train")
    assert len(history) == 2500


def test_a_curve_with_gaps_keeps_its_iterations(settings: Settings) -> None:
    """A metric that is computed now and then is logged at the iterations at which it was."""
    folder = make_training(settings, Spec())
    (folder / "curves.json").write_text(json.dumps({"ic": {"valid": [None, 0.1, None, 0.3]}}))
    run_id = log_run(settings, Spec().key)
    history = connect(settings).get_metric_history(run_id, "curve.ic.valid")
    assert sorted((metric.step, metric.value) for metric in history) == [(1, 0.1), (3, 0.3)]


def test_a_missing_evaluation_is_named(settings: Settings) -> None:
    """The error names the file and the stage that makes it."""
    folder = make_training(settings, Spec())
    (folder / "evaluation" / "evaluation.json").unlink()
    with pytest.raises(RegistryError, match=r"evaluation\.json is missing; run the stage evaluation\.evaluate"):
        log_run(settings, Spec().key)
    assert connect(settings).get_experiment_by_name(EXPERIMENT) is None


def test_an_unreachable_server_is_a_registry_error(settings: Settings) -> None:
    """A server that is down is reported with its address, within seconds."""
    make_training(settings, Spec())
    down = settings.model_copy(update={"mlflow_tracking_uri": "http://127.0.0.1:9"})
    with pytest.raises(RegistryError, match=r"http://127\.0\.0\.1:9"):
        log_run(down, Spec().key)
