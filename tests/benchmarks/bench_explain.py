"""Shapley values of 50,000 rows x 158 features, 200 LightGBM trees of depth 8, against `shap.TreeExplainer`.

Each side has a process of its own and one thread (`ours_threads`: ours with as many threads as cores). `ours` is the
fastest of three times from the model's text to local and global values of all rows; the peers, `shap.TreeExplainer`
(path-dependent, which hands LightGBM's models to LightGBM) and LightGBM's `pred_contrib`, explain the first `peer_rows`
of them once, loading the model not counted. Their cost grows in proportion to the rows: `peer` and `pred_contrib` are
their seconds times rows / peer_rows. EXPLAIN_PEER_ROWS=50000 has them explain all rows.

`max_abs_diff` is the largest difference from the peers on those rows, `relative_diff` the same as a share of the spread
of the scores (largest less smallest), `gap` our largest additivity gap over all rows, as a share of the spread, too.
"""

import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mlops_tasks.columns import DATETIME, INSTRUMENT
from tests.benchmarks.processes import in_process

MODULE = "tests.benchmarks.bench_explain"
ROWS, FEATURES, TREES, DEPTH, LEAVES = 50_000, 158, 200, 8, 256
PEER_ROWS = int(os.environ.get("EXPLAIN_PEER_ROWS", "2500"))
REPEATS = 3
MODEL, MATRIX = "model.txt", "rows.npy"


def run() -> dict[str, Any]:
    """Every side after the other, on the same model and rows."""
    with tempfile.TemporaryDirectory() as home:
        model = in_process(MODULE, "prepare", home)
        ours, threaded = (in_process(MODULE, "ours", home, threads) for threads in (1, os.cpu_count()))
        peers = {side: in_process(MODULE, side, home) for side in ("shap", "pred_contrib")}
        found = np.load(Path(home, "ours.npy"))
        differences = [np.abs(found - np.load(Path(home, f"{side}.npy"))).max() for side in peers]
    scaled = {side: result["seconds"] * ROWS / PEER_ROWS for side, result in peers.items()}
    return {
        "name": "explain",
        "ours": round(ours["seconds"], 2),
        "peer": round(scaled["shap"], 1),
        "unit": "s",
        "ratio": round(scaled["shap"] / ours["seconds"], 1),
        "pred_contrib": round(scaled["pred_contrib"], 1),
        "ratio_pred_contrib": round(scaled["pred_contrib"] / ours["seconds"], 1),
        "ours_threads": round(threaded["seconds"], 2),
        "threads": os.cpu_count(),
        "cpu_ratio": round(peers["shap"]["cpu_seconds"] * ROWS / PEER_ROWS / ours["cpu_seconds"], 1),
        "max_abs_diff": float(f"{max(differences):.2g}"),
        "relative_diff": float(f"{max(differences) / ours['spread']:.2g}"),
        "gap": float(f"{ours['gap']:.2g}"),
        "rows": ROWS,
        "peer_rows": PEER_ROWS,
        **model,
        "peak_mb": {side: result["peak_mb"] for side, result in {"ours": ours, **peers}.items()},
    }


def prepare(home: Path) -> dict[str, Any]:
    """Trees that use many columns, with gaps in some; what they are like."""
    import lightgbm

    rng = np.random.default_rng(0)
    rows = rng.standard_normal((ROWS, FEATURES), dtype=np.float32)
    rows[:, ::5][rng.random(rows[:, ::5].shape) < 0.02] = np.nan
    known = np.nan_to_num(rows)
    label = known[:, :40] @ rng.standard_normal(40) + known[:, 0] * known[:, 1] + 2 * rng.standard_normal(ROWS)
    parameters = {"objective": "regression", "max_depth": DEPTH, "num_leaves": LEAVES, "learning_rate": 0.05}
    parameters |= {"colsample_bytree": 0.9, "num_threads": 1, "seed": 1, "verbosity": -1}
    booster = lightgbm.train(parameters, lightgbm.Dataset(rows, label), TREES)
    booster.save_model(home / MODEL)
    np.save(home / MATRIX, rows)
    leaves = sum(each["num_leaves"] for each in booster.dump_model()["tree_info"])
    return {"trees": booster.num_trees(), "leaves": leaves, "depth": DEPTH, "features": FEATURES}


def ours(home: Path, threads: str) -> dict[str, Any]:
    """From the text to contributions and importance."""
    from mlops_tasks.explain.explanation import Explanation, Method
    from mlops_tasks.explain.trees import TreeExplainer
    from mlops_tasks.modeling.model_zoo.lightgbm import LightGBMPredictor

    rows = np.load(home / MATRIX)
    index = pd.MultiIndex.from_product([pd.bdate_range("2020-01-01", periods=100), range(ROWS // 100)])
    index = index.set_names([DATETIME, INSTRUMENT])
    names = [f"F{number}" for number in range(FEATURES)]
    scores = pd.Series(LightGBMPredictor(home / MODEL, 1).predict(rows), index)

    made: list[Explanation] = []

    def work() -> None:
        explainer = TreeExplainer.of_lightgbm((home / MODEL).read_text())
        contributions = pd.DataFrame(explainer.contributions(rows, int(threads)), index, names)
        found = Explanation(Method.TREES, contributions, explainer.base, scores)
        found.importance()
        made[:] = [found]

    fastest = min((timed(work) for _ in range(REPEATS)), key=lambda each: each["seconds"])
    np.save(home / "ours.npy", made[0].contributions.to_numpy()[:PEER_ROWS])
    return {**fastest, "gap": made[0].gap.share, "spread": made[0].gap.spread}


def shap_side(home: Path) -> dict[str, Any]:
    """`shap.TreeExplainer`."""
    import lightgbm
    import shap

    booster = lightgbm.Booster(model_file=home / MODEL)
    booster.params["num_threads"] = 1
    rows = np.load(home / MATRIX)[:PEER_ROWS]
    explainer = shap.TreeExplainer(booster, feature_perturbation="tree_path_dependent")
    return kept(home / "shap.npy", lambda: explainer.shap_values(rows))


def pred_contrib(home: Path) -> dict[str, Any]:
    """LightGBM's own."""
    import lightgbm

    booster = lightgbm.Booster(model_file=home / MODEL)
    rows = np.load(home / MATRIX)[:PEER_ROWS]
    return kept(home / "pred_contrib.npy", lambda: booster.predict(rows, pred_contrib=True, num_threads=1)[:, :-1])


def kept(path: Path, work: Callable[[], np.ndarray]) -> dict[str, Any]:
    """Seconds of the work, whose values are written."""
    found: list[np.ndarray] = []
    taken = timed(lambda: found.append(work()))
    np.save(path, found[0])
    return taken


def timed(work: Callable[[], object]) -> dict[str, Any]:
    """Wall and processor seconds of a call."""
    began, cpu_began = time.perf_counter(), time.process_time()
    work()
    return {"seconds": time.perf_counter() - began, "cpu_seconds": time.process_time() - cpu_began}


if __name__ == "__main__":
    side, folder, *more = sys.argv[1:]
    sides: dict[str, Callable[..., dict[str, Any]]] = {
        "prepare": prepare,
        "ours": ours,
        "shap": shap_side,
        "pred_contrib": pred_contrib,
    }
    result = sides[side](Path(folder), *more)
    peak = {} if side == "prepare" else {"peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)}
    print(json.dumps({**result, **peak}))
