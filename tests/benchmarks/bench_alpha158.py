"""Alpha158, 500 instruments x 1,250 days: from bars in the store to features in memory, against Qlib on two processes.

Both sides run in a process of their own on the same bars and give one instrument after the other. `ours` is the median
of five calls after the first, `ours_cpu_s` their processor time; `ours_first_call_s` is the first in a new process with
compiled code cached on disk and the libraries imported, `ours_import_s` that import, `ratio_first_call` goes by the sum
of both; `compile_s` is the first call ever, and `ours_store_s` a whole `FeatureStore.compute` with its files.
`agreement` is the share of values within 1e-4 of Qlib's; `docs/features.md` says why the rest differs.
"""

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from tests.benchmarks.processes import in_process

INSTRUMENTS, DAYS, PROCESSES = 500, 1250, 2
CALLS = 5


def run() -> dict:
    """Both sides, and how far apart their values are."""
    compiled, ours, peer, agreement = both_sides(__name__, "compile")
    return {
        "name": "alpha158",
        "ours": ours["median_s"],
        "peer": peer["seconds"],
        "unit": "s",
        "ratio": round(peer["seconds"] / ours["median_s"], 1),
        "ours_cpu_s": ours["median_cpu_s"],
        "ratio_first_call": round(peer["seconds"] / (ours["import_s"] + ours["first_s"]), 1),
        "ours_first_call_s": ours["first_s"],
        "ours_import_s": ours["import_s"],
        "compile_s": compiled["first_s"],
        "ours_store_s": ours["store_s"],
        "peak_mb": ours["peak_mb"],
        **agreement,
    }


def both_sides(module: str, warm_up: str) -> tuple[dict, dict, dict, dict]:
    """Results of the warm-up, of ours and of the peer on the same bars, and how far apart the last two are."""
    from mlops_tasks.config import Settings
    from mlops_tasks.data.qlib.store import write_qlib_store

    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        vintage = make_bars(home)
        store = write_qlib_store(Settings(home=home), vintage)
        warm = in_process(module, warm_up, home, vintage.data_version)
        ours = in_process(module, "ours", home, vintage.data_version)
        peer = in_process(module, "peer", home, str(store))
        mine, theirs = np.load(home / "ours.npy", mmap_mode="r"), np.load(home / "peer.npy", mmap_mode="r")
        assert mine.shape == theirs.shape, (mine.shape, theirs.shape)
        apart = np.array([compare(a, b) for a, b in zip(mine, theirs, strict=True)])
    agreement = {
        "rows": int(mine.shape[1]),
        "max_abs_diff": float(apart[:, 0].max()),
        "agreement": round(float(1 - apart[:, 1].mean()), 6),
        "different_nan": int(apart[:, 2].sum()),
    }
    return warm, ours, peer, agreement


def make_bars(home: Path, instruments: int = INSTRUMENTS, days: int = DAYS):
    """A vintage of random walks."""
    import pandas as pd

    from mlops_tasks.config import Settings
    from mlops_tasks.data.vintages import canonical_bars, write_vintage

    random, shape = np.random.default_rng(0), (instruments, days)
    close = 20 * np.exp(np.cumsum(random.normal(0, 0.02, shape), axis=1))
    opened = close * np.exp(random.normal(0, 0.005, shape))
    high = np.maximum(opened, close) * (1 + random.exponential(0.004, shape))
    low = np.minimum(opened, close) * (1 - random.exponential(0.004, shape))
    prices = {"open": opened, "high": high, "low": low, "close": close, "vwap": (high + low + close) / 3}
    bars = pd.DataFrame(
        {
            "datetime": np.tile(pd.bdate_range("2019-01-02", periods=days), instruments),
            "instrument": np.repeat([f"S{number:04d}" for number in range(instruments)], days),
            **{name: values.ravel() for name, values in prices.items()},
            "volume": random.lognormal(13, 1, shape).round().ravel(),
            "factor": 1.0,
        }
    )
    return write_vintage(Settings(home=home), canonical_bars(bars), None, {})


def compile_kernels(home: Path, data_version: str) -> dict:
    """The first call ever, with an empty cache of compiled code."""
    os.environ["NUMBA_CACHE_DIR"] = str(home / "compiled")
    _, seconds, _ = timed(compute_in_memory, home, data_version)
    return {"first_s": seconds}


def timed(function: Callable, *arguments: object) -> tuple[Any, float, float]:
    """A call's result, its seconds, and those of the processor."""
    started, used = time.perf_counter(), time.process_time()
    result = function(*arguments)
    return result, round(time.perf_counter() - started, 4), round(time.process_time() - used, 4)


def measure_ours(home: Path, data_version: str) -> dict:
    """The first call in this process, the median of five more, then the store."""
    import resource

    from mlops_tasks.config import Settings

    os.environ["NUMBA_CACHE_DIR"] = str(home / "compiled")
    _, imported, _ = timed(import_libraries)
    _, first, _ = timed(compute_in_memory, home, data_version)
    calls = [timed(compute_in_memory, home, data_version)[1:] for _ in range(CALLS)]
    values = compute_in_memory(home, data_version)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    np.save(home / "ours.npy", values)

    from mlops_tasks.data.vintages import load_vintage
    from mlops_tasks.features.store import FeatureStore

    vintage = load_vintage(Settings(home=home), data_version)
    _, store, _ = timed(FeatureStore(Settings(home=home)).compute, vintage)
    return {
        "import_s": imported,
        "first_s": first,
        "median_s": round(median(seconds for seconds, _ in calls), 4),
        "median_cpu_s": round(median(processor for _, processor in calls), 4),
        "store_s": round(store, 2),
        "peak_mb": round(peak),
    }


def import_libraries() -> None:
    """What every user of the data has imported already."""
    import numba
    import pandas
    import pyarrow.parquet

    assert numba, (pandas, pyarrow)


def compute_in_memory(home: Path, data_version: str):
    """From bars in the store to the features of the whole vintage, float32 (158, rows)."""
    from mlops_tasks.config import Settings
    from mlops_tasks.data.vintages import load_vintage
    from mlops_tasks.features.bars import MarketBars
    from mlops_tasks.features.sets import find_feature_set
    from mlops_tasks.features.values import compute_values

    definition = find_feature_set("alpha158")
    bars = MarketBars(load_vintage(Settings(home=home), data_version))
    grid = bars.grid(bars.names, int(bars.days[0]), int(bars.days[-1]), definition.fields)
    panel, _ = grid.panel(grid.begin_rows, np.full(len(grid.names), len(grid.days) - 1))
    return compute_values(definition, panel, np.where(panel.has_bar, np.cumsum(panel.has_bar) - 1, -1))


def measure_peer(home: Path, store: str) -> dict:
    """Qlib's loader over the same bars; nothing of mlops_tasks is imported."""
    import qlib
    from qlib.contrib.data.loader import Alpha158DL
    from qlib.data import D

    qlib.init(provider_uri=store, region="us", kernels=PROCESSES, joblib_backend="multiprocessing")
    texts, _ = Alpha158DL.get_feature_config()
    frame, seconds, _ = timed(lambda: D.features(D.instruments("all"), texts, freq="day"))
    np.save(home / "peer.npy", frame.to_numpy(np.float32).T)
    return {"seconds": round(seconds, 2)}


def compare(ours, theirs) -> tuple[float, float, int]:
    """Largest difference, share of values further apart than 1e-4 relative, and number of NaN in one only."""
    difference = np.abs(ours.astype(np.float64) - theirs)
    apart = (difference > 1e-4 * np.abs(theirs) + 1e-9).mean()
    return float(np.nanmax(difference)), float(apart), int((np.isnan(ours) != np.isnan(theirs)).sum())


SIDES = {"compile": compile_kernels, "ours": measure_ours, "peer": measure_peer}

if __name__ == "__main__":
    print(json.dumps(SIDES[sys.argv[1]](Path(sys.argv[2]), sys.argv[3])))
