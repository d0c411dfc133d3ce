"""What is known of a finished training beside its figures: how it went, what certifies it, what was decided on it, and
what it was made of. MLflow is not asked."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlops_tasks.config import Settings
from mlops_tasks.errors import MlopsError
from mlops_tasks.plots.figure import GREEN
from mlops_tasks.plots.lineage import Box, LineageInfo, lineage_info
from mlops_tasks.registry.lineage_document import lineage_document
from mlops_tasks.registry.training_record import TrainingRecord
from mlops_tasks.reports import Report, ReportKind, newest_reports
from mlops_tasks.state.history import gate_decisions
from mlops_tasks.state.model_index import FoundVersion
from mlops_tasks.state.tables import GateDecision
from mlops_tasks.state.version_search import VersionSearch, search_versions
from mlops_tasks.training.certificate import Certificate, certificate_of
from mlops_tasks.training_folder import EvaluationRecord, TrainingFolder, TrainingManifest, TrainingMetrics

log = logging.getLogger(__name__)

SEARCHED_REPORTS = 100
"""Newest explanations among which a training's is looked for."""


@dataclass(frozen=True)
class TrainingEvidence:
    """What is known.

    Attributes
    ----------
    decisions
        The gate's, the newest first.
    versions
        As which it is registered, the newest first; one at most, unless it was registered again.
    explanation
        The newest report on what moves its scores.
    lineage
        From the raw files to the registered versions; None where the training is not evaluated, or records are gone.
    plots
        File names of the pictures that were drawn of it.
    """

    manifest: TrainingManifest
    metrics: TrainingMetrics | None
    evaluation: EvaluationRecord | None
    certificate: Certificate | None
    decisions: Sequence[GateDecision]
    versions: Sequence[FoundVersion]
    explanation: Report | None
    lineage: LineageInfo | None
    plots: Sequence[str]


def training_evidence(settings: Settings, training_key: str) -> TrainingEvidence:
    """Gather it.

    Raises
    ------
    StoreError
        There is no such training, or the state database does not answer.
    """
    folder = TrainingFolder.of(settings, training_key)
    versions = _versions(settings, training_key)
    return TrainingEvidence(
        manifest=folder.manifest(),
        metrics=folder.find_metrics(),
        evaluation=folder.evaluation.find(),
        certificate=certificate_of(settings, training_key),
        decisions=gate_decisions(settings, training_key)[::-1],
        versions=versions,
        explanation=explanation_of(settings, training_key),
        lineage=_lineage(settings, training_key, versions),
        plots=[path.name for path in folder.evaluation.plot_files()],
    )


def _versions(settings: Settings, training_key: str) -> list[FoundVersion]:
    found = search_versions(settings, VersionSearch(text=training_key)).versions
    return [version for version in found if version.training_key == training_key]


def explanation_of(settings: Settings, training_key: str) -> Report | None:
    """The newest report on what moves a training's scores, among the last `SEARCHED_REPORTS`."""
    found = newest_reports(settings, ReportKind.EXPLANATION, SEARCHED_REPORTS)
    return next((report for report in found if report.content.get("training_key") == training_key), None)


def _lineage(settings: Settings, training_key: str, versions: Sequence[FoundVersion]) -> LineageInfo | None:
    try:
        document: Mapping[str, Any] = lineage_document(settings, TrainingRecord.load(settings, training_key))
    except MlopsError as error:
        log.info("training %s has no graph of its lineage: %s", training_key, error)
        return None
    info = lineage_info(f"training {training_key}", document)
    model = next(box for box in info.boxes if box.key == "model")
    row, column = model.row - (len(versions) - 1) / 2, model.column + 1
    registered = [
        Box(f"version{each.version}", (f"version {each.version}", str(each.state)), column, row + place, GREEN)
        for place, each in enumerate(versions)
    ]
    edges = [("model", box.key) for box in registered]
    return LineageInfo(info.title, (*info.boxes, *registered), (*info.edges, *edges))
