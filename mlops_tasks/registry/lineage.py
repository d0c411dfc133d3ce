"""LineageTracker: from a registered version back to the raw files that it was made from, and forward again.

Every run holds `lineage.json`: raw files > vintage > features (with the fields and past rows that each depends on) >
model. The tracker reads it; for a run without it, it reads the vintage's manifest.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import isfinite
from typing import Any, TypedDict

from mlflow.artifacts import load_dict
from mlflow.exceptions import MlflowException

from mlops_tasks.columns import FACTOR
from mlops_tasks.config import Settings
from mlops_tasks.data.vintages import is_complete, load_vintage, vintage_path
from mlops_tasks.errors import StoreError
from mlops_tasks.features.expressions import dependencies, foreign_dependencies
from mlops_tasks.features.sets import FeatureSet
from mlops_tasks.features.store import FeatureStore
from mlops_tasks.registry.client import connect, registry_errors
from mlops_tasks.registry.models import get_run_id, get_tags, tags_of_versions
from mlops_tasks.registry.training_record import TrainingRecord

LINEAGE_FILE = "lineage.json"
"""Artifact of every run."""

ALL_ROWS = "all"
"""In place of a number of rows: back to the first row."""

_VINTAGE_FACTS = ("source", "received", "quarantined", "rows", "instruments", "first_date", "last_date")


@dataclass(frozen=True)
class Lineage:
    """The chain behind one version."""

    version: int
    digest: str
    run_id: str
    training_key: str
    model: str
    feature_version: str
    data_version: str
    source: str | None
    """Where the vintage's bars came from; None if neither the run nor the vintage says."""
    raw: tuple[dict[str, Any], ...] = ()
    """The files, or answers of a database or vendor, that were read: name, sha256, rows."""

    def to_json(self) -> dict[str, Any]:
        """As a plain dict."""
        return asdict(self) | {"raw": list(self.raw)}


class LineageDocument(TypedDict):
    """The content of a run's `lineage.json`."""

    raw: list[dict[str, Any]]
    """The files, or answers of a database or vendor, that were read: name, sha256, rows."""
    vintage: dict[str, Any]
    """data_version, accepted, universe_digest, and the facts that the vintage's manifest has."""
    features: dict[str, Any]
    """feature_version, feature_set, adjusted_by, and what each column depends on."""
    model: dict[str, Any]
    """training_key, model, digest, segments."""


class LineageTracker:
    """Reads lineage from the registry's tags, the runs' `lineage.json` and the vintages' manifests."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    @registry_errors
    def trace(self, version: int) -> Lineage:
        """The lineage of a version; RegistryError if there is no such version."""
        tags = get_tags(self.settings, version)
        run_id = get_run_id(self.settings, version)
        origin = self._origin(run_id, tags["data_version"])
        return Lineage(
            version=version,
            digest=tags["digest"],
            run_id=run_id,
            training_key=tags["training_key"],
            model=tags["model"],
            feature_version=tags["feature_version"],
            data_version=tags["data_version"],
            source=origin["source"],
            raw=tuple(origin["raw"]),
        )

    @registry_errors
    def descendants(self, digest: str) -> list[int]:
        """Versions made from a raw file (its SHA-256) or from a vintage (its data version), ascending."""
        origins: dict[str, set[str]] = {}
        found = []
        for version, tags in sorted(tags_of_versions(self.settings).items()):
            data_version = tags["data_version"]
            if data_version not in origins:
                raw = self._origin(get_run_id(self.settings, version), data_version)["raw"]
                origins[data_version] = {data_version, *(each["sha256"] for each in raw)}
            if digest in origins[data_version]:
                found.append(version)
        return found

    def _origin(self, run_id: str, data_version: str) -> dict[str, Any]:
        """`source` and `raw` of a run's vintage."""
        connect(self.settings)
        try:
            recorded = load_dict(f"runs:/{run_id}/{LINEAGE_FILE}")
        except (MlflowException, OSError):  # logged before there was one; each artifact store raises its own error
            recorded = {}
        manifest = _manifest(self.settings, data_version)
        source = recorded.get("vintage", {}).get("source")
        return {"source": source or manifest.get("source"), "raw": recorded.get("raw") or manifest.get("raw", [])}


def lineage_document(settings: Settings, record: TrainingRecord) -> LineageDocument:
    """The lineage of a training, from the raw files on; what is no longer available is None or empty."""
    identity = record.identity
    manifest = _manifest(settings, identity["data_version"])
    return {
        "raw": manifest.get("raw", []),
        "vintage": {
            "data_version": identity["data_version"],
            "accepted": manifest.get("rows"),
            "universe_digest": manifest.get("universe_digest"),
            **{name: manifest.get(name) for name in _VINTAGE_FACTS},
        },
        "features": _features(settings, record),
        "model": {
            "training_key": record.key,
            "model": record.model,
            "digest": record.digest,
            "segments": record.manifest["segments"],
        },
    }


def _manifest(settings: Settings, data_version: str) -> dict[str, Any]:
    """The manifest of a vintage; empty when it is not on disk."""
    on_disk = is_complete(vintage_path(settings, data_version))
    return load_vintage(settings, data_version).manifest if on_disk else {}


def _features(settings: Settings, record: TrainingRecord) -> dict[str, Any]:
    feature_version = record.identity["feature_version"]
    try:
        known = _dependencies(FeatureStore(settings).definition(feature_version))
    except StoreError:  # the features are gone, the model is not
        known = {}
    return {
        "feature_version": feature_version,
        "feature_set": record.manifest["feature_set"],
        "adjusted_by": FACTOR,
        "depends_on": {name: known[name] for name in record.manifest["feature_names"] if name in known},
    }


def _dependencies(definition: FeatureSet) -> dict[str, dict[str, Any]]:
    """Column to its computation and to what it reads: fields, also of other instruments, with the rows back."""
    found: dict[str, dict[str, Any]] = {}
    for name, node in definition.nodes.items():
        found[name] = {"expression": definition.expressions[name], "rows_back": _rows_back(dependencies(node))}
        if others := foreign_dependencies(node):
            found[name]["other_instruments"] = {each: _rows_back(others[each]) for each in sorted(others)}
    for spec in definition.indicators:
        for column in spec.columns:
            rows_back = _rows_back(definition.dependencies[column])
            found[column] = {"indicator": spec.as_entry(), "rows_back": rows_back}
    return found


def _rows_back(reaches: Mapping[str, float]) -> dict[str, int | str]:
    """Field to the calendar rows before the current one that a column reaches back, or `ALL_ROWS`."""
    return {name: int(rows) if isfinite(rows) else ALL_ROWS for name, rows in sorted(reaches.items())}
