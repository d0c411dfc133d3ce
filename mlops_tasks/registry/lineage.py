"""LineageTracker: from a registered version back to the raw files that it was made from.

Every run holds `lineage.json` (`lineage_document.py`): raw files > vintage > features > training > model. What is known
only later, the studies, the certificate and the gate's decision, comes from the state database and the certificates.
For a run without the document, the training's folder and the vintage's manifest tell what they have. The other way,
from a file or a factor to the versions, is `origins.py`, from a bar `bar_use.py`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from mlflow.artifacts import load_dict
from mlflow.entities import LifecycleStage, Run
from mlflow.exceptions import MlflowException

from mlops_tasks.config import Settings
from mlops_tasks.dag_run import DagRun
from mlops_tasks.errors import LineageError, RegistryError
from mlops_tasks.features.labels import label_expression
from mlops_tasks.modeling.environment import CodeState, Environment
from mlops_tasks.registry.client import MODEL_NAME, connect, registry_errors
from mlops_tasks.registry.lineage_document import LINEAGE_FILE, lineage_document, vintage_manifest
from mlops_tasks.registry.models import NOT_FOUND, get_run_id, get_tags
from mlops_tasks.registry.presentation import DAG_RUN_TAG, DAG_TAG
from mlops_tasks.registry.training_record import TrainingRecord
from mlops_tasks.state.history import latest_gate_decision
from mlops_tasks.state.trials import studies_of
from mlops_tasks.training.certificate import certificate_of
from mlops_tasks.training_folder import Days


@dataclass(frozen=True)
class CertificateVerdict:
    """The leak certificate that a version was trained under."""

    key: str
    passed: bool
    unproven: tuple[str, ...]
    """What no check can prove, in words."""
    artefact: str | None
    """Digest of the model whose scores were checked too; None: none was."""


@dataclass(frozen=True)
class GateRecord:
    """The gate's newest decision on a version."""

    decision: str
    rule: str
    reasons: tuple[str, ...]
    champion_version: int | None
    """That it was compared with; None: there was none."""
    at: datetime


@dataclass(frozen=True)
class Lineage:
    """The chain behind one version. What was not recorded, as by earlier releases, is None or empty."""

    version: int
    digest: str
    """Of the artefact's bytes."""
    run_id: str
    """Of MLflow's run."""
    training_key: str
    model: str
    feature_version: str
    data_version: str
    source: str | None
    """Where the vintage's bars came from; None if neither the run nor the vintage says."""
    raw: tuple[dict[str, Any], ...]
    """The files, or answers of a database or vendor, that were read: name, sha256, rows."""
    vintage: Mapping[str, Any]
    """accepted, received, quarantined, rows, instruments, first_date, last_date, universe_digest."""
    feature_set: str
    definition: str | None
    """Digest of the feature set's definition."""
    feature_names: tuple[str, ...]
    """In the model's order."""
    depends_on: Mapping[str, Mapping[str, Any]]
    """Column to its expression or indicator, and to the fields that it reads, with the rows back."""
    horizon: int | None
    label: str
    """Its expression."""
    segments: Mapping[str, Days]
    seed: int | None
    configuration: Mapping[str, Any]
    """Of the training: family, hyper-parameters, processors, stopping."""
    code: CodeState | None
    environment: Environment | None
    training_run: str | None
    """The run whose events tell how it was trained (`alphaops training show`)."""
    owner: str | None
    """Who requested it."""
    dag_run: DagRun | None
    """That trained it, or where that is not known, that logged it."""
    studies: tuple[str, ...]
    """The searches that chose its hyper-parameters."""
    certificate: CertificateVerdict | None
    gate: GateRecord | None

    def to_json(self) -> dict[str, Any]:
        """As a plain dict."""
        gate = None if self.gate is None else vars(self.gate) | {"at": self.gate.at.isoformat()}
        plain = {
            "raw": list(self.raw),
            "segments": {name: list(days) for name, days in self.segments.items()},
            "code": self.code and self.code.to_json(),
            "environment": self.environment and self.environment.to_json(),
            "dag_run": self.dag_run and self.dag_run.to_json(),
            "certificate": self.certificate and dict(vars(self.certificate)),
            "gate": gate,
        }
        return vars(self) | plain


class LineageTracker:
    """Reads lineage from the registry's tags, the runs' `lineage.json`, and what training and gate have recorded."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    @registry_errors
    def trace(self, version: int) -> Lineage:
        """The lineage of a version.

        Raises
        ------
        RegistryError
            There is no such version.
        LineageError
            Its run was deleted in MLflow, or says something else than the version's tags.
        """
        tags = get_tags(self.settings, version)
        run = self.run(version)
        document = self._document(run.info.run_id, tags["training_key"])
        _check_same(version, tags, document)
        manifest = vintage_manifest(self.settings, tags["data_version"])
        vintage = {**manifest, **{k: v for k, v in document.get("vintage", {}).items() if v is not None}}
        features, training = document.get("features", {}), document.get("training", {})
        horizon = document.get("label", {}).get("horizon")
        return Lineage(
            version=version,
            digest=tags["digest"],
            run_id=run.info.run_id,
            training_key=tags["training_key"],
            model=tags["model"],
            feature_version=tags["feature_version"],
            data_version=tags["data_version"],
            source=vintage.get("source"),
            raw=tuple(document.get("raw") or manifest.get("raw", [])),
            vintage={name: vintage.get(name) for name in _VINTAGE},
            feature_set=features.get("feature_set", ""),
            definition=features.get("definition"),
            feature_names=tuple(features.get("names") or features.get("depends_on", {})),
            depends_on=features.get("depends_on", {}),
            horizon=horizon,
            label="" if horizon is None else label_expression(horizon),
            segments=_segments(document),
            seed=training.get("seed"),
            configuration=training.get("configuration", {}),
            code=CodeState(**training["code"]) if training.get("code") else None,
            environment=Environment.from_json(training["environment"]) if training.get("environment") else None,
            training_run=training.get("run_id"),
            owner=training.get("owner"),
            dag_run=_dag_run(training.get("dag_run"), run),
            studies=studies_of(self.settings, tags["training_key"]),
            certificate=self._certificate(tags["training_key"]),
            gate=self._gate(tags["training_key"]),
        )

    @registry_errors
    def run(self, version: int) -> Run:
        """MLflow's run of a version.

        Raises
        ------
        RegistryError
            There is no such version.
        LineageError
            The run was deleted in MLflow.
        """
        run_id, run = get_run_id(self.settings, version), None
        try:
            run = connect(self.settings).get_run(run_id)
        except MlflowException as error:
            if error.error_code not in NOT_FOUND:
                raise
        if run is None:
            raise LineageError(
                f"{MODEL_NAME} version {version}: its run {run_id} was removed from MLflow, and with it the record of "
                "what it was made of; restore MLflow's database and artifacts from a backup, or delete the version and "
                "register its training again"
            )
        if run.info.lifecycle_stage == LifecycleStage.DELETED:
            raise LineageError(
                f"{MODEL_NAME} version {version}: its run {run_id} was deleted in MLflow, and with it what it was made "
                f"of; bring it back with `mlflow runs restore --run-id {run_id}`"
            )
        return run

    def _document(self, run_id: str, training_key: str) -> dict[str, Any]:
        """The document of a run; where it has none, made from the training's folder; empty where that is gone too."""
        connect(self.settings)
        try:
            return dict(load_dict(f"runs:/{run_id}/{LINEAGE_FILE}"))
        except (MlflowException, OSError):  # each artifact store raises its own error
            pass
        try:
            return dict(lineage_document(self.settings, TrainingRecord.load(self.settings, training_key)))
        except RegistryError:
            return {}

    def _certificate(self, training_key: str) -> CertificateVerdict | None:
        found = certificate_of(self.settings, training_key)
        return None if found is None else CertificateVerdict(found.key, found.passed, found.unproven, found.artefact)

    def _gate(self, training_key: str) -> GateRecord | None:
        row = latest_gate_decision(self.settings, training_key)
        if row is None:
            return None
        decided = row.decision
        return GateRecord(
            decision=decided["decision"],
            rule=decided["rule"],
            reasons=tuple(decided.get("reasons", ())),
            champion_version=row.champion_version,
            at=row.recorded_at,
        )


_VINTAGE = (
    *("accepted", "received", "quarantined", "rows", "instruments", "first_date", "last_date"),
    "universe_digest",
)


def _check_same(version: int, tags: Mapping[str, str], document: Mapping[str, Any]) -> None:
    """Compare what the run has recorded with what the version's tags say: anybody who may write to MLflow can set them.

    Raises
    ------
    LineageError
        They differ.
    """
    places = {"digest": "model", "training_key": "model", "feature_version": "features", "data_version": "vintage"}
    recorded = {name: document.get(place, {}).get(name, tags[name]) for name, place in places.items()}
    if wrong := [name for name, value in recorded.items() if value != tags[name]]:
        name = wrong[0]
        raise LineageError(
            f"{MODEL_NAME} version {version}: its tag {name} says {tags[name][:64]}, and {LINEAGE_FILE} of its run "
            f"{recorded[name]}: one of the two was changed; restore it, and check who may write to MLflow"
        )


def _segments(document: Mapping[str, Any]) -> dict[str, Days]:
    recorded = document.get("model", {}).get("segments", {})
    return {name: (str(first), str(last)) for name, (first, last) in recorded.items()}


def _dag_run(recorded: Mapping[str, str] | None, run: Run) -> DagRun | None:
    if recorded:
        return DagRun(**recorded)
    tags = run.data.tags
    return DagRun(tags[DAG_TAG], tags[DAG_RUN_TAG]) if DAG_TAG in tags and DAG_RUN_TAG in tags else None
