"""Reports in MLflow: artifacts of the run of the model, or of the training on the vintage, that they are about."""

import logging

from mlflow import MlflowClient

from mlops_tasks.config import Settings
from mlops_tasks.registry.client import connect, registry_errors
from mlops_tasks.registry.models import get_run_id
from mlops_tasks.reports import ReportKind, find_report, validation_of

log = logging.getLogger(__name__)

FOLDER = "reports"
"""Folder among a run's artifacts; it holds `<kind>/<name>/`."""
LARGEST_FILE = 10_000_000
"""Bytes; a larger file of a report (a quarantine of hundreds of thousands of rows) is left where it is."""


@registry_errors
def log_report(settings: Settings, version: int, kind: ReportKind, name: str) -> None:
    """Log a report about a registered version to the version's run; a second call changes nothing.

    Raises
    ------
    RegistryError
        There is no such version, or MLflow refuses.
    NoReportError
        There is no such report.
    """
    _log_files(connect(settings), get_run_id(settings, version), settings, kind, name)


def log_validation(client: MlflowClient, run_id: str, settings: Settings, data_version: str) -> None:
    """Log data docs and quarantine of a vintage to the run of a training on it; nothing if they are no longer kept."""
    validation = validation_of(settings, data_version)
    if validation is not None:
        for kind in (ReportKind.DATA_DOCS, ReportKind.QUARANTINE):
            _log_files(client, run_id, settings, kind, validation.name)


def _log_files(client: MlflowClient, run_id: str, settings: Settings, kind: ReportKind, name: str) -> None:
    report, folder = find_report(settings, kind, name), f"{FOLDER}/{kind}/{name}"
    there = {each.path: each.file_size for each in client.list_artifacts(run_id, folder)}
    for file in report.files:
        path = report.file(file)
        size = path.stat().st_size
        if size > LARGEST_FILE:
            log.warning("%s is not logged to MLflow: it is larger than %d MB", path, LARGEST_FILE // 1_000_000)
        elif there.get(f"{folder}/{path.name}") != size:
            client.log_artifact(run_id, str(path), folder)
            log.info("logged to MLflow run %s: %s %s, %s", run_id, kind, name, path.name)
