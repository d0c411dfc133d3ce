"""500 instruments scored by a LightGBM model of 200 trees: the scoring service against `mlflow models serve`.

The same trees on both sides, one worker process each, four connections that ask as fast as they are answered. `ours`
and `peer` are requests a second with 500 rows of Alpha158's 158 features, each in the fastest format that its server
reads: an Arrow stream here, `dataframe_split` there; nothing of that is cached. Beside it: the same rows as JSON, one
row, and what the service is for, instruments by name: the newest day, in memory (`by_name`), one instrument of it
(`by_name_one`), and dates in turn of which most are not in memory (`by_name_uncached`). `p99_ratio` is the peer's p99
over ours, `one_ratio` of one row each, `max_abs_diff` of the scores. SERVING_S says how long each is asked (8).
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pyarrow as pa

from mlops_tasks.config import Settings, StackSettings
from mlops_tasks.features.store import FeatureStore
from mlops_tasks.registry.approvals import approve_model
from mlops_tasks.registry.models import load_version
from mlops_tasks.serving.media_types import ARROW, JSON
from tests.benchmarks.load import Load, Target, load
from tests.benchmarks.soak import running_service
from tests.operation import free_ports, make_champion, publish_vintage, register_model
from tests.registry.trainings import DAYS, Spec

INSTRUMENTS = [f"S{number:04d}" for number in range(500)]
PERIODS = 200
TREES, LEAVES, DEPTH = 200, 210, 8
"""As Qlib publishes them for Alpha158, and as `models.yaml` has them."""
TOKEN = "token-of-the-benchmark"


def run() -> dict[str, Any]:
    """Ours, then the peer's."""
    seconds = float(os.environ.get("SERVING_S", "8"))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ports = free_ports(2)
        settings = Settings(home=folder / "home", stack=StackSettings(scoring_port=ports[0]))
        version, rows = make_operation(settings)
        os.environ |= {
            "MLOPS_HOME": str(settings.home),
            "MLOPS_SCORING_TOKEN": TOKEN,
            "MLOPS_STACK__SCORING_PORT": str(ports[0]),
        }
        with running_service(settings, dict(os.environ)):
            ours, scores = ask_ours(ports[0], rows, seconds, folder)
        with mlflow_server(settings, version, folder, ports[1]):
            peer, peer_scores = ask_peer(ports[1], rows, seconds, folder)
    return {
        "name": "serving",
        "ours": round(ours["rows_arrow"].requests_per_s, 1),
        "peer": round(peer["rows"].requests_per_s, 1),
        "unit": "requests/s",
        "ratio": round(ours["rows_arrow"].requests_per_s / peer["rows"].requests_per_s, 1),
        "p99_ratio": round(peer["rows"].percentile_ms(99) / ours["rows_arrow"].percentile_ms(99), 1),
        "one_ratio": round(ours["row"].requests_per_s / peer["row"].requests_per_s, 1),
        "max_abs_diff": float(np.abs(scores - peer_scores).max()),
        **{name: each.summary() for name, each in ours.items()},
        **{f"peer_{name}": each.summary() for name, each in peer.items()},
    }


def make_operation(settings: Settings) -> tuple[int, pd.DataFrame]:
    """A champion, and the newest day's features by instrument."""
    days = pd.bdate_range(DAYS[0], periods=PERIODS)
    (settings.home / "mlflow").mkdir(parents=True)
    vintage, feature_version = publish_vintage(settings, days, INSTRUMENTS)
    version = register_model(settings, Spec(rounds=TREES, leaves=LEAVES, depth=DEPTH), vintage, feature_version)
    approve_model(settings, version, reason="the model of the benchmark")
    make_champion(settings, version)
    newest = str(days[-1].date())
    return version, FeatureStore(settings).load(feature_version, start=newest, end=newest).droplevel("datetime")


def ask_ours(port: int, rows: pd.DataFrame, seconds: float, folder: Path) -> tuple[dict[str, Load], np.ndarray]:
    """Every kind of request in turn; the scores of the rows."""

    def target(kind: str) -> Target:
        return Target(port, "/v1/score", {"Authorization": f"Bearer {TOKEN}", "Content-Type": kind, "Accept": kind})

    dates = pd.bdate_range(DAYS[0], periods=PERIODS)[60:-1]
    kinds: dict[str, tuple[str, list[bytes]]] = {
        "rows_arrow": (ARROW, [arrow(rows)]),
        "rows_json": (JSON, [table(rows)]),
        "row": (JSON, [table(rows.iloc[[number]]) for number in range(50)]),
        "by_name": (JSON, [b"{}"]),
        "by_name_one": (JSON, [json.dumps({"instruments": [name]}).encode() for name in INSTRUMENTS[:50]]),
        "by_name_uncached": (JSON, [json.dumps({"date": str(day.date())}).encode() for day in dates]),
    }
    found = {name: load(target(kind), bodies, seconds, folder / name) for name, (kind, bodies) in kinds.items()}
    answer = httpx.post(f"http://127.0.0.1:{port}/v1/score", content=table(rows), headers=dict(target(JSON).headers))
    return found, np.array([each["score"] for each in answer.raise_for_status().json()["scores"]])


def ask_peer(port: int, rows: pd.DataFrame, seconds: float, folder: Path) -> tuple[dict[str, Load], np.ndarray]:
    """All rows, and one."""
    target = Target(port, "/invocations", {"Content-Type": JSON})
    found = {
        "rows": load(target, [split(rows)], seconds, folder / "peer_rows"),
        "row": load(target, [split(rows.iloc[[number]]) for number in range(50)], seconds, folder / "peer_row"),
    }
    answer = httpx.post(f"http://127.0.0.1:{port}/invocations", content=split(rows), headers=dict(target.headers))
    return found, np.array(answer.raise_for_status().json()["predictions"])


def arrow(rows: pd.DataFrame) -> bytes:
    """As a stream."""
    content = pa.Table.from_pandas(rows.rename_axis("instrument").reset_index(), preserve_index=False)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, content.schema) as writer:
        writer.write_table(content)
    return bytes(sink.getvalue().to_pybytes())


def table(rows: pd.DataFrame) -> bytes:
    """As the service's JSON."""
    content = {"instruments": list(rows.index), "feature_names": list(rows.columns), "values": plain(rows)}
    return json.dumps({"table": content}).encode()


def split(rows: pd.DataFrame) -> bytes:
    """As MLflow's JSON."""
    return json.dumps({"dataframe_split": {"columns": list(rows.columns), "data": plain(rows)}}).encode()


def plain(rows: pd.DataFrame) -> list[list[float | None]]:
    """Numbers, None where there is none."""
    return [[None if np.isnan(value) else value for value in row] for row in rows.to_numpy(np.float64).tolist()]


@contextmanager
def mlflow_server(settings: Settings, version: int, folder: Path, port: int) -> Iterator[None]:
    """`mlflow models serve` with the trees of a version, once it answers."""
    import lightgbm
    import mlflow

    artefact = load_version(settings, version).artefact
    booster = lightgbm.Booster(model_file=str(artefact.folder / "model.txt"))
    mlflow.lightgbm.save_model(booster, str(folder / "peer"))
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", str(folder / "peer"), "-p", str(port)]
    command += ["--env-manager", "local", "--workers", "1"]
    environ = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    with (folder / "peer.log").open("w") as log:
        process = subprocess.Popen(command, env=environ, stdout=log, stderr=log, start_new_session=True)
    try:
        until = time.monotonic() + 180
        while True:
            try:
                httpx.get(f"http://127.0.0.1:{port}/ping").raise_for_status()
                break
            except httpx.HTTPError:
                assert time.monotonic() < until and process.poll() is None, (folder / "peer.log").read_text()
                time.sleep(0.2)
        yield
    finally:
        os.killpg(process.pid, 15)
        process.wait(60)
