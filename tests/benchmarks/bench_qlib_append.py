"""One new day in the Qlib store, 5,000 instruments x 2,500 days: added to an older store, against a rebuild.

Both sides make the store of the same vintage, each in a new process with its imports done and the disk's queue empty;
the two stores are compared byte for byte. `ours` and `peer` are medians over the rounds, `*_all_s` shows how they
scatter. `compare_s` is not in `ours`: the diff of two vintages that every sync makes before, which says that a day was
added and nothing else.
"""

import filecmp
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from tests.benchmarks.processes import in_process

INSTRUMENTS, DAYS, ROUNDS = 5000, 2500, 5


def run(instruments: int = INSTRUMENTS, days: int = DAYS, rounds: int = ROUNDS) -> dict:
    """The stores of days N-2 and N-1, then that of N both ways, a few times."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        market = in_process(__name__, "market", home, instruments, days)
        done = [both_ways(home, *market["versions"]) for _ in range(rounds)]
    ours, peer = ([each[side]["seconds"] for each in done] for side in ("append", "rebuild"))
    return {
        "name": "qlib_append",
        "ours": round(statistics.median(ours), 3),
        "peer": round(statistics.median(peer), 2),
        "unit": "s",
        "ratio": round(statistics.median(peer) / statistics.median(ours), 1),
        "ours_all_s": ours,
        "peer_all_s": peer,
        "files": done[-1]["files"],
        "compare_s": market["compare_s"],
        "peak_mb": done[-1]["rebuild"]["peak_mb"],
        "append_peak_mb": done[-1]["append"]["peak_mb"],
    }


def make_market(home: Path, instruments: str, days: str) -> dict:
    """Vintages of random walks up to the last three days, the middle one in use, and their diffs."""
    import pandas as pd

    from mlops_tasks.config import Settings
    from mlops_tasks.data.revisions.diff import diff_vintages
    from mlops_tasks.data.vintages import publish, write_vintage

    random, shape = np.random.default_rng(0), (int(instruments), int(days))
    close = np.round(20 * np.exp(np.cumsum(random.normal(0, 0.02, shape), axis=1)), 2)
    calendar = pd.bdate_range("2014-01-02", periods=shape[1]).as_unit("ns")
    names = pd.array([f"S{number:05d}" for number in range(shape[0])], dtype="str")
    bars = pd.DataFrame(
        {
            "datetime": np.tile(calendar, shape[0]),
            "instrument": names.take(np.repeat(np.arange(shape[0]), shape[1])),
            **{name: (close * scale).ravel() for name, scale in (("open", 1), ("high", 1.01), ("low", 0.99))},
            "close": close.ravel(),
            "volume": random.integers(1_000, 10**7, shape).astype("float64").ravel(),
            "vwap": close.ravel(),
            "factor": 1.0,
        }
    )
    settings = Settings(home=home)
    versions = [
        write_vintage(settings, bars[bars["datetime"] <= last].reset_index(drop=True), None, {}).data_version
        for last in calendar[-3:]
    ]
    diff_vintages(settings, *versions[:2])
    started = time.perf_counter()
    diff_vintages(settings, *versions[1:])
    compared = time.perf_counter() - started
    publish(settings, versions[1])
    return {"versions": versions, "compare_s": round(compared, 2)}


def both_ways(home: Path, oldest: str, current: str, new: str) -> dict:
    """The new store made from the oldest one, then from nothing, and that both are the same."""
    stores = home / "data" / "qlib"
    shutil.rmtree(stores, ignore_errors=True)
    in_process(__name__, "store", home, current)
    in_process(__name__, "store", home, oldest)
    appended = in_process(__name__, "store", home, new)
    assert not (stores / oldest).exists(), "the oldest store was not recycled"
    (stores / new).rename(home / "appended")
    rebuilt = in_process(__name__, "store", home, new)
    files = assert_equal(home / "appended", stores / new)
    shutil.rmtree(home / "appended")
    return {"append": appended, "rebuild": rebuilt, "files": files}


def write_store(home: Path, data_version: str) -> dict:
    """Seconds of the stage's own work, and what the process took at most."""
    import resource

    from mlops_tasks.config import Settings
    from mlops_tasks.data.qlib.store import write_qlib_store
    from mlops_tasks.data.vintages import load_vintage

    vintage = load_vintage(Settings(home=home), data_version)
    vintage.bars(fields=["close"], start=vintage.last_date)  # imports and starts what reads parquet
    os.sync()
    started = time.perf_counter()
    write_qlib_store(Settings(home=home), vintage)
    seconds = time.perf_counter() - started
    return {
        "seconds": round(seconds, 3),
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }


def assert_equal(one: Path, other: Path) -> int:
    """The number of files, after comparing every one of them."""
    names, others = (sorted(p.relative_to(root) for p in root.rglob("*") if p.is_file()) for root in (one, other))
    assert names == others
    assert all(filecmp.cmp(one / name, other / name, shallow=False) for name in names)
    return len(names)


SIDES = {"market": make_market, "store": write_store}

if __name__ == "__main__":
    print(json.dumps(SIDES[sys.argv[1]](Path(sys.argv[2]), *sys.argv[3:])))
