"""Alpha158 of the newest day, 500 instruments x 1,250 days in the store, against Qlib on two processes.

The bars and the two processes are those of `bench_alpha158`; `ours` is the median of nine calls after the first,
from bars in the store to features in memory. `agreement` is as there.
"""

import json
import sys
from pathlib import Path
from statistics import median

import numpy as np

from tests.benchmarks.bench_alpha158 import PROCESSES, both_sides, import_libraries, timed

LOOKBACK_DAYS = 95
"""Days before the newest one that hold the 60 trading days which the longest window needs."""


def run() -> dict:
    """Both sides, and how far apart their values are."""
    _, ours, peer, agreement = both_sides(__name__, "ours")
    return {
        "name": "alpha158_newest_day",
        "ours": ours["median_s"],
        "peer": peer["seconds"],
        "unit": "s",
        "ratio": round(peer["seconds"] / ours["median_s"], 1),
        "ours_cpu_s": ours["median_cpu_s"],
        "ours_first_call_s": ours["first_s"],
        "ours_import_s": ours["import_s"],
        **agreement,
    }


def measure_ours(home: Path, data_version: str) -> dict:
    """The first call in this process, and the median of nine more."""
    _, imported, _ = timed(import_libraries)
    _, first, _ = timed(compute_newest, home, data_version)
    calls = [timed(compute_newest, home, data_version) for _ in range(9)]
    np.save(home / "ours.npy", calls[0][0])
    return {
        "import_s": imported,
        "first_s": first,
        "median_s": round(median(seconds for _, seconds, _ in calls), 4),
        "median_cpu_s": round(median(seconds for _, _, seconds in calls), 4),
    }


def compute_newest(home: Path, data_version: str):
    """From bars in the store to the features of its newest day, float32 (158, instruments)."""
    import pandas as pd

    from mlops_tasks.config import Settings
    from mlops_tasks.data.vintages import load_vintage
    from mlops_tasks.features.panel import build_panel
    from mlops_tasks.features.sets import find_feature_set
    from mlops_tasks.features.values import compute_values

    definition = find_feature_set("alpha158")
    vintage = load_vintage(Settings(home=home), data_version)
    first = pd.Timestamp(vintage.last_date) - pd.Timedelta(days=LOOKBACK_DAYS)
    bars = vintage.adjusted_bars(first, fields=definition.fields)
    calendar = pd.DatetimeIndex(np.unique(bars["datetime"]))
    assert len(calendar) > definition.lookback_rows
    panel = build_panel(bars, calendar, definition.fields)
    return compute_values(definition, panel, panel.positions(panel.bar_order(first_row=len(calendar) - 1)))


def measure_peer(home: Path, store: str) -> dict:
    """Qlib's loader on that day alone; nothing of mlops_tasks is imported."""
    import qlib
    from qlib.contrib.data.loader import Alpha158DL
    from qlib.data import D

    qlib.init(provider_uri=store, region="us", kernels=PROCESSES, joblib_backend="multiprocessing")
    texts, _ = Alpha158DL.get_feature_config()
    instruments, day = D.instruments("all"), D.calendar()[-1]
    frame, seconds, _ = timed(lambda: D.features(instruments, texts, start_time=day, end_time=day, freq="day"))
    np.save(home / "peer.npy", frame.swaplevel().sort_index().to_numpy(np.float32).T)
    return {"seconds": round(seconds, 2)}


SIDES = {"ours": measure_ours, "peer": measure_peer}

if __name__ == "__main__":
    print(json.dumps(SIDES[sys.argv[1]](Path(sys.argv[2]), sys.argv[3])))
