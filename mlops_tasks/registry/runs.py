"""One MLflow run per training: parameters, metrics, curves, datasets, plots and the model itself."""

import json
import logging
import tempfile
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version as package_version
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import mlflow.pyfunc
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, LoggedModelOutput, Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.types import ColSpec, Schema

from mlops_tasks.columns import SCORE, SEGMENTS
from mlops_tasks.config import Settings
from mlops_tasks.dag_run import DagRun
from mlops_tasks.files import digest_of, folder_lock
from mlops_tasks.modeling.model_zoo.families import PACKAGES
from mlops_tasks.registry.client import connect, experiment_id, quoted, registry_errors
from mlops_tasks.registry.lineage_document import LINEAGE_FILE, LineageDocument, lineage_document
from mlops_tasks.registry.presentation import numbered_name, origin_tags, show_columns
from mlops_tasks.registry.report_artifacts import log_validation
from mlops_tasks.registry.training_record import TrainingRecord

log = logging.getLogger(__name__)

FINISHED = "FINISHED"
BATCH = 1000
"""Metrics that MLflow takes in one call; it takes 100 parameters or tags."""
SMALL_BATCH = 100
DATASET_DIGEST_LENGTH = 36
DATASET_NAME_LENGTH = 500
"""Characters that MLflow keeps of a dataset's digest and name."""
RAW_DATASETS = 50
"""Up to this many raw files become separate inputs; `lineage.json` names all of them, however many there are."""
EVALUATION_TAG = "evaluation_digest"
CERTIFICATE_FILE = "leak_certificate.json"
"""Artifact of every run whose training was certified."""
LINEAGE_PLOT = "lineage.png"
"""Artifact of every run: `lineage.json` as a graph."""

T = TypeVar("T")


@registry_errors
def log_run(settings: Settings, training_key: str) -> str:
    """Log a training to MLflow, once; returns the run's id.

    A finished run with this training key is reused (its metrics and its leak certificate are brought up to date). A run
    that a killed attempt left unfinished is deleted and logged again.

    Raises
    ------
    RegistryError
        The training folder is incomplete, or MLflow refuses.
    """
    record = TrainingRecord.load(settings, training_key)
    with folder_lock(settings.home / "mlflow" / "locks" / training_key):
        client, experiment = connect(settings), experiment_id(settings)
        run_id = _finished_run(client, experiment, training_key)
        if run_id is None:
            show_columns(client, experiment)
            lineage = lineage_document(settings, record, DagRun.of_environment())
            run_id = _log_new(client, experiment, settings, record, lineage)
        else:
            _bring_up_to_date(client, run_id, record)
    return run_id


@dataclass(frozen=True)
class Target:
    """The run that is written, and the model that its metrics belong to."""

    run_id: str
    model_id: str | None


def _finished_run(client: MlflowClient, experiment: str, training_key: str) -> str | None:
    """The finished run of a training key; unfinished ones are deleted."""
    finished: str | None = None
    for run in client.search_runs([experiment], f"tags.training_key = {quoted(training_key)}"):
        if run.info.status == FINISHED:
            finished = run.info.run_id
        else:
            log.warning("run %s of %s was left unfinished: deleted", run.info.run_id, training_key)
            _delete_run(client, experiment, run.info.run_id)
    return finished


def _delete_run(client: MlflowClient, experiment: str, run_id: str) -> None:
    for model in client.search_logged_models([experiment], f"source_run_id = {quoted(run_id)}"):
        client.delete_logged_model(model.model_id)
    client.delete_run(run_id)


def _bring_up_to_date(client: MlflowClient, run_id: str, record: TrainingRecord) -> None:
    tags = client.get_run(run_id).data.tags
    if tags.get(EVALUATION_TAG) != record.evaluation_digest:
        _log_evaluation(client, Target(run_id, None), record)
    if not record.certificate_tags.items() <= tags.items():
        _log_certificate(client, run_id, record)


def _log_new(
    client: MlflowClient, experiment: str, settings: Settings, record: TrainingRecord, lineage: LineageDocument
) -> str:
    tags = {**record.identity, **record.fit_tags, **origin_tags(settings, record), **record.made_by}
    name = numbered_name(client, experiment, record.name)
    run_id = str(client.create_run(experiment, run_name=name, tags=tags).info.run_id)
    for params in batched([Param(k, v) for k, v in record.parameters.items()], SMALL_BATCH):
        client.log_batch(run_id, params=params)
    inputs = [*_sources(lineage), *_features(record)]
    try:
        client.log_inputs(run_id, inputs)
    except MlflowException as error:
        # Another run has added an equal data set at the same moment; now MLflow finds it.
        if "unique constraint" not in str(error).lower():
            raise
        client.log_inputs(run_id, inputs)
    client.log_dict(run_id, lineage, LINEAGE_FILE)
    _draw_lineage(client, run_id, f"Lineage of {name}", lineage)
    if record.columns_file.is_file():
        client.log_artifact(run_id, str(record.columns_file))
    _log_certificate(client, run_id, record)
    _log_evaluation(client, Target(run_id, _log_model(client, experiment, run_id, record)), record)
    for metrics in batched(_curve_metrics(record), BATCH):
        client.log_batch(run_id, metrics=metrics)
    log_validation(client, run_id, settings, record.identity["data_version"])
    client.set_terminated(run_id, FINISHED)
    log.info("run %s (%s): %d metrics, %d plots", run_id, name, len(record.evaluation), len(record.plots))
    return run_id


def _draw_lineage(client: MlflowClient, run_id: str, title: str, lineage: LineageDocument) -> None:
    from mlops_tasks.plots.figure import write_png
    from mlops_tasks.plots.lineage import lineage_info, plot_lineage

    with tempfile.TemporaryDirectory(prefix="mlops_lineage_") as folder:
        write_png(plot_lineage(lineage_info(title, lineage)), Path(folder, LINEAGE_PLOT))
        client.log_artifact(run_id, str(Path(folder, LINEAGE_PLOT)))


def _log_evaluation(client: MlflowClient, target: Target, record: TrainingRecord) -> None:
    now = int(time.time() * 1000)
    values = {**record.training_metrics, **record.evaluation}
    metrics = [Metric(k, v, now, 0, model_id=target.model_id, run_id=target.run_id) for k, v in values.items()]
    for some in batched(metrics, BATCH):
        client.log_batch(target.run_id, metrics=some)
    for plot in record.plots:
        client.log_artifact(target.run_id, str(plot), artifact_path="plots")
    client.set_tag(target.run_id, EVALUATION_TAG, record.evaluation_digest)


def _log_certificate(client: MlflowClient, run_id: str, record: TrainingRecord) -> None:
    """Log the leak certificate, and last the tags that name it; nothing if there is none."""
    if record.certificate is not None:
        client.log_dict(run_id, record.certificate.to_json(), CERTIFICATE_FILE)
    client.log_batch(run_id, tags=[RunTag(name, value) for name, value in record.certificate_tags.items()])


def _curve_metrics(record: TrainingRecord) -> Iterator[Metric]:
    """Training curves as one metric per series, with the iteration (from 0) as step."""
    now = int(time.time() * 1000)
    for name, series in sorted(record.curves.items()):
        for segment, values in sorted(series.items()):
            for step, value in enumerate(values):
                if value is not None:
                    yield Metric(f"curve.{name}.{segment}", float(value), now, step)


def _sources(lineage: LineageDocument) -> Iterator[DatasetInput]:
    """What was read, by digest (many files as one input), and the vintage that was made from it."""
    raw, vintage = lineage["raw"], lineage["vintage"]
    if len(raw) > RAW_DATASETS:
        profile = {"files": len(raw), "rows": sum(each["rows"] for each in raw)}
        yield _dataset(f"{len(raw)} raw files", digest_of(raw, DATASET_DIGEST_LENGTH), LINEAGE_FILE, "raw", profile)
    else:
        for each in raw:
            yield _dataset(each["name"], each["sha256"], each["name"], "raw", {"rows": each["rows"]})
    profile = {name: vintage[name] for name in ("rows", "instruments", "first_date", "last_date")}
    version = vintage["data_version"]
    yield _dataset("bars", version, f"data/vintages/{version}", "source", profile)


def _features(record: TrainingRecord) -> Iterator[DatasetInput]:
    """The features by segment, under their version."""
    version = record.identity["feature_version"]
    for segment in SEGMENTS:
        first, last = record.manifest["segments"][segment]
        name = f"{record.manifest['feature_set']} {first} to {last}"
        profile = {"features": len(record.manifest["feature_names"])}
        yield _dataset(name, version, f"features/{version}", segment, profile)


def _dataset(name: str, digest: str, uri: str, context: str, profile: Mapping[str, Any]) -> DatasetInput:
    dataset = Dataset(
        name[-DATASET_NAME_LENGTH:],
        digest[:DATASET_DIGEST_LENGTH],
        source_type="local",
        source=json.dumps({"uri": uri}),
        profile=json.dumps(profile),
    )
    return DatasetInput(dataset, [InputTag("mlflow.data.context", context)])


def _log_model(client: MlflowClient, experiment: str, run_id: str, record: TrainingRecord) -> str:
    """Log the artefact as a model of the pyfunc flavour, with a signature and without any pickle."""
    logged = client.create_logged_model(
        experiment,
        name=record.model,
        source_run_id=run_id,
        tags={**record.identity, "digest": record.digest},
        params=record.parameters,
        model_type=record.model,
    )
    meta = Model(logged.artifact_location, run_id, model_uuid=logged.model_id, model_id=logged.model_id)
    with tempfile.TemporaryDirectory(prefix="mlops_model_") as folder, warnings.catch_warnings():
        # The signature says what an input example would say.
        warnings.filterwarnings("ignore", ".*input example was not provided")
        path = Path(folder, "model")
        mlflow.pyfunc.save_model(
            path,
            loader_module="mlops_tasks.registry.pyfunc_model",
            data_path=str(record.artefact),
            signature=_signature(record),
            mlflow_model=meta,
            pip_requirements=_requirements(record),
        )
        client.log_model_artifacts(logged.model_id, str(path))
    client.finalize_logged_model(logged.model_id, "READY")
    client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, 0)])
    return str(logged.model_id)


def _requirements(record: TrainingRecord) -> list[str]:
    """The versions that the artefact was made with, without the machine's build (`+cpu`)."""
    names = (*PACKAGES[record.manifest["family"]], "numpy", "pandas")
    return [f"{name}=={package_version(name).partition('+')[0]}" for name in names]


def _signature(record: TrainingRecord) -> ModelSignature:
    inputs = [ColSpec("double", name) for name in record.manifest["feature_names"]]
    return ModelSignature(inputs=Schema(inputs), outputs=Schema([ColSpec("double", SCORE)]))


def batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of at most `size` successive items."""
    rest = iter(items)
    while batch := list(islice(rest, size)):
        yield batch
