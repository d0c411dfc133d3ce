"""Search among 10,000 registered versions: our index against MLflow's own search with the same filter, in turns.

Both read SQLite files on the same disk, in one process. MLflow's tables are filled by copies of one version that was
registered by its client, with its run. Each filter asks for the newest 50 versions; both sides find the same ones, with
the same tags but that of the state, which ours takes from the history. `ratio` is the 95th percentile of MLflow's times
over that of ours.
"""

import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa

from mlops_tasks.config import Settings
from mlops_tasks.registry.client import MODEL_NAME, connect, experiment_id, quoted
from mlops_tasks.registry.lifecycle import STATE_TAG
from mlops_tasks.registry.model_index import index_models
from mlops_tasks.state.model_index import VersionSearch, search_versions

VERSIONS, METRICS, SHOWN = 10_000, 20, 50
ROUNDS = 20
FAMILIES = ("lightgbm", "xgboost", "linear", "patchtst")
FILTERS: tuple[Mapping[str, str], ...] = (
    {"model": "linear"},
    {"data_version": "data7"},
    {"model": "patchtst", "leak_certificate": "failed"},
)


def run() -> dict[str, Any]:
    """All filters in turns, each side after the other."""
    with tempfile.TemporaryDirectory() as home:
        settings = Settings(home=Path(home))
        fill(settings)
        started = time.perf_counter()
        index_models(settings)
        indexing = time.perf_counter() - started
        ours, theirs = [], []
        for turn in range(ROUNDS + 1):
            for asked in FILTERS:
                found, seconds = timed(lambda: search(settings, asked))  # noqa: B023
                peers, peer_seconds = timed(lambda: search_mlflow(settings, asked))  # noqa: B023
                assert found == peers and len(found) == SHOWN
                if turn:  # the first one opens connections
                    ours.append(seconds)
                    theirs.append(peer_seconds)
    p95, peer_p95 = np.percentile(ours, 95), np.percentile(theirs, 95)
    return {
        "name": "registry_search",
        "versions": VERSIONS,
        "p50_ms": round(float(np.median(ours)) * 1e3, 2),
        "p95_ms": round(float(p95) * 1e3, 2),
        "mlflow_p50_ms": round(float(np.median(theirs)) * 1e3, 1),
        "mlflow_p95_ms": round(float(peer_p95) * 1e3, 1),
        "ratio": round(float(peer_p95 / p95), 1),
        "index_s": round(indexing, 1),
    }


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    started = time.perf_counter()
    found = work()
    return found, time.perf_counter() - started


def search(settings: Settings, asked: Mapping[str, str]) -> list[tuple[int, dict[str, str]]]:
    """By our index."""
    page = search_versions(settings, VersionSearch(tags=asked, size=SHOWN))
    return [(each.version, dict(each.tags)) for each in page.versions]


def search_mlflow(settings: Settings, asked: Mapping[str, str]) -> list[tuple[int, dict[str, str]]]:
    """By MLflow's client."""
    conditions = [f"name = {quoted(MODEL_NAME)}", *(f"tags.{name} = {quoted(value)}" for name, value in asked.items())]
    found = connect(settings).search_model_versions(
        " and ".join(conditions), max_results=SHOWN, order_by=["version_number DESC"]
    )
    return [(int(each.version), {k: v for k, v in each.tags.items() if k != STATE_TAG}) for each in found]


def fill(settings: Settings) -> None:
    """Register one version by the client, and copy its rows."""
    client, experiment = connect(settings), experiment_id(settings)
    run_id = client.create_run(experiment).info.run_id
    client.log_param(run_id, "model", "linear")
    for number in range(METRICS):
        client.log_metric(run_id, f"metric_{number}", number)
    client.create_registered_model(MODEL_NAME)
    client.create_model_version(MODEL_NAME, source="file:///nowhere", run_id=run_id, tags=tags_of(1))
    engine, schema = sa.create_engine(settings.registry_uri), sa.MetaData()
    schema.reflect(engine)
    with engine.begin() as connection:
        for name, key in (("runs", "run_uuid"), ("latest_metrics", "run_uuid"), ("params", "run_uuid")):
            rows = [dict(row) for row in connection.execute(sa.select(schema.tables[name])).mappings()]
            copies = [{**row, key: f"{number:032d}"} for number in range(2, VERSIONS + 1) for row in rows]
            connection.execute(sa.insert(schema.tables[name]), copies)
        (row,) = connection.execute(sa.select(schema.tables["model_versions"])).mappings()
        (tag, *_) = connection.execute(sa.select(schema.tables["model_version_tags"])).mappings()
        versions, tags = [], []
        for number in range(2, VERSIONS + 1):
            created = row["creation_time"] + number
            versions.append({**row, "version": number, "run_id": f"{number:032d}", "creation_time": created})
            tags += [{**tag, "version": number, "key": name, "value": own} for name, own in tags_of(number).items()]
        connection.execute(sa.insert(schema.tables["model_versions"]), versions)
        connection.execute(sa.insert(schema.tables["model_version_tags"]), tags)


def tags_of(number: int) -> dict[str, str]:
    """As our registration sets them."""
    draw = np.random.default_rng(number)
    return {
        "training_key": f"{number:016x}",
        "model": str(draw.choice(FAMILIES)),
        "data_version": f"data{draw.integers(40)}",
        "feature_version": f"features{draw.integers(40)}",
        "digest": f"{number:064x}",
        "leak_certificate": str(draw.choice(["passed", "failed"])),
        STATE_TAG: str(draw.choice(["challenger", "rejected", "retired"])),
    }
