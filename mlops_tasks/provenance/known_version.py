"""What the state database and the training's folder know of a registered version, for pages and the API: no MLflow, and
unverified. `registry/lineage.py` and `provenance/trace.py` verify it."""

from dataclasses import dataclass
from pathlib import Path

from mlops_tasks.config import Settings
from mlops_tasks.dag_run import DagRun
from mlops_tasks.errors import StoreError
from mlops_tasks.state.approvals import latest_revocation, standing_approval
from mlops_tasks.state.history import gate_decisions
from mlops_tasks.state.model_index import FoundVersion, find_version
from mlops_tasks.state.tables import GateDecision, ModelApproval, ModelRevocation, VersionOrigin, VintageInput
from mlops_tasks.state.training_runs import find_training_run
from mlops_tasks.state.version_origins import factors_of, files_of, origin_of
from mlops_tasks.training_folder import TrainingFolder, TrainingManifest, TrainingMetrics

MOST_FILES = 200
"""Raw files that are told of a vintage."""


@dataclass(frozen=True)
class Trained:
    """What is left of a training, where its folder is there."""

    manifest: TrainingManifest
    metrics: TrainingMetrics | None
    plots: tuple[Path, ...]
    """The pictures of its evaluation."""


@dataclass(frozen=True)
class KnownVersion:
    """A registered version, and what it was made of."""

    version: FoundVersion
    origin: VersionOrigin | None
    """None: it is not recorded."""
    files: tuple[VintageInput, ...]
    """The first raw files of its vintage, by name (`MOST_FILES`)."""
    factors: tuple[str, ...]
    trained: Trained | None
    """None: the training's folder is gone."""
    dag_run: DagRun | None
    """None: it is not known, or Airflow has not started it."""
    gate: tuple[GateDecision, ...]
    """What the gate said of it, oldest first."""
    approval: ModelApproval | None
    """By which it may serve; None: it may not."""
    revocation: ModelRevocation | None
    """The newest one of its training, whether something was approved since or not."""

    @property
    def run_id(self) -> str | None:
        """Of the training run whose events tell how it went."""
        metrics = None if self.trained is None else self.trained.metrics
        return None if metrics is None else metrics.run_id


def known_version(settings: Settings, version: int) -> KnownVersion:
    """What is known of a version.

    Raises
    ------
    StoreError
        The index does not have it, or the state database does not answer.
    """
    found = find_version(settings, version)
    key, trained = found.training_key, _trained(settings, found.training_key)
    origin = origin_of(settings, version)
    metrics = None if trained is None else trained.metrics
    return KnownVersion(
        version=found,
        origin=origin,
        files=tuple(files_of(settings, found.data_version, MOST_FILES)),
        factors=() if origin is None else tuple(factors_of(settings, origin.definition)),
        trained=trained,
        dag_run=None if metrics is None or metrics.run_id is None else _dag_run(settings, metrics.run_id),
        gate=tuple(gate_decisions(settings, key)),
        approval=standing_approval(settings, key, found.tags.get("digest", "")),
        revocation=latest_revocation(settings, key),
    )


def plot_of(settings: Settings, version: int, name: str) -> Path | None:
    """A picture of a version's evaluation by its file's name; None: there is none of this name.

    Raises
    ------
    StoreError
        As `known_version`.
    """
    trained = _trained(settings, find_version(settings, version).training_key)
    plots = () if trained is None else trained.plots
    return next((each for each in plots if each.name == name), None)


def _trained(settings: Settings, training_key: str) -> Trained | None:
    try:
        folder = TrainingFolder.of(settings, training_key)
    except StoreError:  # MLflow's tag names no folder
        return None
    manifest = folder.find_manifest()
    if manifest is None:
        return None
    return Trained(
        manifest, folder.find_metrics(), tuple(each for each in folder.evaluation.plot_files() if _own(each))
    )


def _own(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def _dag_run(settings: Settings, run_id: str) -> DagRun | None:
    run = find_training_run(settings, run_id)
    recorded = None if run is None else run.request.get("dag_run")
    return DagRun(**recorded) if recorded else None
