"""Search among 10,000 registered versions: our index against MLflow's own search with the same filter, in turns.

Both read SQLite files on the same disk, in one process. MLflow's tables are filled by copies of one version that was
registered by its client, with its run. Each filter asks for a page of 50 versions; both sides find the same ones, with
the same tags. Ours also counts all that match, and has the metrics.

MLflow searches versions by name, run and tags. Where it has no such filter (metrics, dates), the bar is the shortest
of its 95th percentiles, of whatever filter. `ratio` is the smallest of all filters' ratios: MLflow's 95th percentile
over ours. `cpu_ratio` is the same of processor times, for a machine that has other work.

Ours keeps a copy of the index in the process: `first_ms` is a search that has to make it, `after_a_change_ms` the
median of searches that follow a tag.
"""

import gc
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa
from mlflow.utils.search_utils import SearchUtils

from mlops_tasks.config import Settings
from mlops_tasks.registry.client import MODEL_NAME, connect, experiment_id, quoted
from mlops_tasks.registry.lifecycle import STATE_TAG
from mlops_tasks.registry.model_index import index_models
from mlops_tasks.state.database import session
from mlops_tasks.state.model_index import tag_version
from mlops_tasks.state.tables import ModelTransition, now
from mlops_tasks.state.version_search import MetricRange, VersionSearch, search_versions
from mlops_tasks.states import ModelState

VERSIONS, METRICS, SHOWN = 10_000, 20, 50
ROUNDS = 20
FAMILIES = ("lightgbm", "xgboost", "linear", "patchtst")
NEWEST, OLDEST = "version_number DESC", "creation_timestamp ASC"
TODAY = datetime.now(UTC).date()


@dataclass(frozen=True)
class Trial:
    """A filter, as each side writes it."""

    ours: VersionSearch
    theirs: str | None
    """None: MLflow has no such filter."""
    order: str = NEWEST


FILTERS = {
    "none": Trial(VersionSearch(), ""),
    "family": Trial(VersionSearch(family="linear"), "tags.model = 'linear'"),
    "tag": Trial(VersionSearch(tags={"model": "linear"}), "tags.model = 'linear'"),
    "data_version": Trial(VersionSearch(data_version="data7"), "tags.data_version = 'data7'"),
    "tags": Trial(
        VersionSearch(tags={"model": "patchtst", "leak_certificate": "failed"}),
        "tags.model = 'patchtst' and tags.leak_certificate = 'failed'",
    ),
    "state": Trial(VersionSearch(state=ModelState.REJECTED), f"tags.{STATE_TAG} = 'rejected'"),
    "frequent_word": Trial(VersionSearch(text="PATCH"), "tags.model ILIKE '%patch%'"),
    "rare_word": Trial(VersionSearch(text="beef"), "tags.digest LIKE '%beef%'"),  # no number of a version contains it
    "oldest_first": Trial(
        VersionSearch(family="linear", sort="registered_at", ascending=True), "tags.model = 'linear'", OLDEST
    ),
    "deep_page": Trial(VersionSearch(family="linear", page=41), "tags.model = 'linear'"),
    "metric": Trial(VersionSearch(metrics=(MetricRange("metric_3", 0.2, 0.7),)), None),
    "by_metric": Trial(VersionSearch(family="linear", sort="metric.metric_5"), None),
    "dates": Trial(VersionSearch(since=TODAY, until=TODAY), None),
}

Found = list[tuple[int, dict[str, str]]]
Times = list[tuple[float, float]]
"""Seconds by the clock, and of the processor."""


def run() -> dict[str, Any]:
    """All filters in turns, each side after the other."""
    with tempfile.TemporaryDirectory() as home:
        settings = Settings(home=Path(home))
        fill(settings)
        _, (indexing, _) = timed(lambda: index_models(settings))
        _, (first, _) = timed(lambda: search(settings, VersionSearch()))
        ours: dict[str, Times] = {name: [] for name in FILTERS}
        theirs: dict[str, Times] = {name: [] for name, trial in FILTERS.items() if trial.theirs is not None}
        for turn in range(ROUNDS + 1):
            for name, trial in FILTERS.items():
                take_turns(settings, trial, ours[name], theirs.get(name))
            if not turn:  # the first one opens connections
                for times in (*ours.values(), *theirs.values()):
                    times.clear()
        after = [after_a_change(settings, number) for number in range(1, ROUNDS + 1)]
    filters = compared(ours, theirs)
    return {
        "name": "registry_search",
        "versions": VERSIONS,
        "ratio": min(each["ratio"] for each in filters.values()),
        "cpu_ratio": min(each["cpu_ratio"] for each in filters.values()),
        "filters": filters,
        "first_ms": round(first * 1e3, 1),
        "after_a_change_ms": round(float(np.median(after)) * 1e3, 1),
        "index_s": round(indexing, 1),
    }


def take_turns(settings: Settings, trial: Trial, ours: Times, theirs: Times | None) -> None:
    """Search by both sides, and compare what they find."""
    gc.collect()
    found, times = timed(lambda: search(settings, trial.ours))
    assert found
    ours.append(times)
    if theirs is not None:
        peers, times = timed(lambda: search_mlflow(settings, trial))
        theirs.append(times)
        assert found == peers


def compared(ours: dict[str, Times], theirs: dict[str, Times]) -> dict[str, dict[str, float]]:
    """Milliseconds and ratios of each filter."""
    least = np.min([p95(times) for times in theirs.values()], axis=0)
    found = {}
    for name, times in ours.items():
        bar = p95(theirs[name]) if name in theirs else least
        ratio, cpu_ratio = bar / p95(times)
        found[name] = {
            "p50_ms": round(float(np.median(times, axis=0)[0]) * 1e3, 2),
            "p95_ms": round(float(p95(times)[0]) * 1e3, 2),
            "mlflow_p95_ms": round(float(bar[0]) * 1e3, 1),
            "ratio": round(float(ratio), 1),
            "cpu_ratio": round(float(cpu_ratio), 1),
        }
    return found


def p95(times: Times) -> np.ndarray[Any, Any]:
    return np.percentile(times, 95, axis=0)


def timed(work: Callable[[], Any]) -> tuple[Any, tuple[float, float]]:
    started, started_cpu = time.perf_counter(), time.process_time()
    found = work()
    return found, (time.perf_counter() - started, time.process_time() - started_cpu)


def after_a_change(settings: Settings, number: int) -> float:
    """Seconds of a search after a version was given a tag."""
    tag_version(settings, number, "desk", "asia", "ann")
    return timed(lambda: search_versions(settings, VersionSearch(family="linear")))[1][0]


def search(settings: Settings, asked: VersionSearch) -> Found:
    """By our index."""
    page = search_versions(settings, replace(asked, size=SHOWN))
    return [(each.version, {**each.tags, STATE_TAG: each.state.value}) for each in page.versions]


def search_mlflow(settings: Settings, trial: Trial) -> Found:
    """By MLflow's client."""
    conditions = [f"name = {quoted(MODEL_NAME)}", *filter(None, [trial.theirs])]
    offset = (trial.ours.page - 1) * SHOWN
    token = SearchUtils.create_page_token(offset) if offset else None
    found = connect(settings).search_model_versions(
        " and ".join(conditions), max_results=SHOWN, order_by=[trial.order], page_token=token
    )
    return [(int(each.version), dict(each.tags)) for each in found]


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
            if name == "latest_metrics":
                draws = np.random.default_rng(0).uniform(size=len(copies))
                copies = [{**each, "value": float(draw)} for each, draw in zip(copies, draws, strict=True)]
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
    with session(settings) as active:
        active.execute(sa.insert(ModelTransition), list(rejections()))


def rejections() -> Iterator[dict[str, Any]]:
    """The history that MLflow's tags of the states tell."""
    rejected = [number for number in range(1, VERSIONS + 1) if tags_of(number)[STATE_TAG] == ModelState.REJECTED]
    for sequence, number in enumerate(rejected, 1):
        yield {
            "sequence": sequence,
            "training_key": f"{number:016x}",
            "model_version": number,
            "before": ModelState.CHALLENGER.value,
            "after": ModelState.REJECTED.value,
            "by": "gate",
            "reason": "rule skill",
            "replaced_version": None,
            "replaced_after": "",
            "content_digest": f"{number:064x}",
            "at": now(),
            "recorded_at": now(),
        }


def tags_of(number: int) -> dict[str, str]:
    """As our registration sets them."""
    draw = np.random.default_rng(number)
    return {
        "training_key": f"{number:016x}",
        "model": str(draw.choice(FAMILIES)),
        "data_version": f"data{draw.integers(40)}",
        "feature_version": f"features{draw.integers(40)}",
        "digest": draw.bytes(32).hex(),
        "leak_certificate": str(draw.choice(["passed", "failed"])),
        STATE_TAG: str(draw.choice([ModelState.CHALLENGER, ModelState.REJECTED])),
    }
