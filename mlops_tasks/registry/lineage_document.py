"""The lineage that is logged with a run: raw files > vintage > features > training > model, as `lineage.json`."""

from collections.abc import Mapping
from math import isfinite
from typing import Any, NotRequired, TypedDict

from mlops_tasks.columns import FACTOR
from mlops_tasks.config import Settings
from mlops_tasks.dag_run import DagRun
from mlops_tasks.data.vintages import is_complete, load_vintage, vintage_path
from mlops_tasks.errors import StoreError
from mlops_tasks.features.expressions import dependencies, foreign_dependencies, market_dependencies
from mlops_tasks.features.labels import label_expression
from mlops_tasks.features.sets import FeatureSet
from mlops_tasks.features.store import FeatureStore
from mlops_tasks.registry.training_record import TrainingRecord
from mlops_tasks.shared_store import Kind, is_published
from mlops_tasks.state.training_runs import find_training_run

LINEAGE_FILE = "lineage.json"
"""Artifact of every run."""

ALL_ROWS = "all"
"""In place of a number of rows: back to the first row."""

_VINTAGE_FACTS = ("source", "received", "quarantined", "rows", "instruments", "first_date", "last_date")


class LineageDocument(TypedDict):
    """The content of a run's `lineage.json`. Documents of earlier versions have no label and no training."""

    raw: list[dict[str, Any]]
    """The files, or answers of a database or vendor, that were read: name, sha256, rows."""
    vintage: dict[str, Any]
    """data_version, accepted, universe_digest, and the facts that the vintage's manifest has."""
    features: dict[str, Any]
    """feature_version, feature_set, definition, names in the model's order, adjusted_by, and what each column depends
    on."""
    label: NotRequired[dict[str, Any]]
    """horizon, expression."""
    training: NotRequired[dict[str, Any]]
    """run_id, owner, dag_run, seed, configuration, code, environment; None where it was not recorded."""
    model: dict[str, Any]
    """training_key, model, digest, segments."""


def lineage_document(settings: Settings, record: TrainingRecord, dag_run: DagRun | None = None) -> LineageDocument:
    """The lineage of a training, from the raw files on; what is no longer available is None or empty.

    `dag_run` is named where the run that trained it is not known.
    """
    identity = record.identity
    manifest = vintage_manifest(settings, identity["data_version"])
    horizon = int(record.manifest["horizon"])
    return {
        "raw": manifest.get("raw", []),
        "vintage": {
            "data_version": identity["data_version"],
            "accepted": manifest.get("rows"),
            "universe_digest": manifest.get("universe_digest"),
            **{name: manifest.get(name) for name in _VINTAGE_FACTS},
        },
        "features": _features(settings, record),
        "label": {"horizon": horizon, "expression": label_expression(horizon)},
        "training": _training(settings, record, dag_run),
        "model": {
            "training_key": record.key,
            "model": record.model,
            "digest": record.digest,
            "segments": record.manifest["segments"],
        },
    }


def vintage_manifest(settings: Settings, data_version: str) -> dict[str, Any]:
    """The manifest of a vintage; empty where neither this machine nor the shared store has it."""
    here = is_complete(vintage_path(settings, data_version)) or is_published(settings, Kind.VINTAGES, data_version)
    return load_vintage(settings, data_version).manifest if here else {}


def _features(settings: Settings, record: TrainingRecord) -> dict[str, Any]:
    feature_version = record.identity["feature_version"]
    definition: FeatureSet | None
    try:
        definition = FeatureStore(settings).definition(feature_version)
    except StoreError:  # the features are gone, the model is not
        definition = None
    known = {} if definition is None else _dependencies(definition)
    names = list(record.manifest["feature_names"])
    return {
        "feature_version": feature_version,
        "feature_set": record.manifest["feature_set"],
        "definition": None if definition is None else definition.digest,
        "names": names,
        "adjusted_by": FACTOR,
        "depends_on": {name: known[name] for name in names if name in known},
    }


def _training(settings: Settings, record: TrainingRecord, dag_run: DagRun | None) -> dict[str, Any]:
    asked = None if record.run_id is None else find_training_run(settings, record.run_id)
    if asked is not None and asked.request.get("dag_run"):
        dag_run = DagRun(**asked.request["dag_run"])
    return {
        "run_id": record.run_id,
        "owner": None if asked is None else asked.owner,
        "dag_run": None if dag_run is None else dag_run.to_json(),
        "seed": record.trained.seed,
        "configuration": dict(record.trained.model_config),
        "code": record.trained.more.get("code"),
        "environment": record.manifest.get("environment"),
    }


def _dependencies(definition: FeatureSet) -> dict[str, dict[str, Any]]:
    """Column to its computation and to what it reads: fields, also of other instruments, with the rows back."""
    found: dict[str, dict[str, Any]] = {}
    for name, node in definition.nodes.items():
        found[name] = {"expression": definition.expressions[name], "rows_back": _rows_back(dependencies(node))}
        if others := foreign_dependencies(node):
            found[name]["other_instruments"] = {each: _rows_back(others[each]) for each in sorted(others)}
        if market := market_dependencies(node):
            found[name]["all_instruments"] = _rows_back(market)
    for spec in definition.indicators:
        for column in spec.columns:
            rows_back = _rows_back(definition.dependencies[column])
            found[column] = {"indicator": spec.as_entry(), "rows_back": rows_back}
    return found


def _rows_back(reaches: Mapping[str, float]) -> dict[str, int | str]:
    """Field to the calendar rows before the current one that a column reaches back, or `ALL_ROWS`."""
    return {name: int(rows) if isfinite(rows) else ALL_ROWS for name, rows in sorted(reaches.items())}
