"""Bars of 600 instruments x 4,000 days in CSV files, one an instrument, against pandas.

`ours` is the reading of a source up to the parsed rows: every file digested and read, columns found by their names,
rows that do not fit the header and cells that are none kept apart, each row with its file and number. `peer` is
`pandas.read_csv` of each file with its dates parsed, and `concat`. Both are processor time, in processes of their own,
after one small reading. `max_abs_diff` is over all prices and volumes. `BENCH_READ_CSV_INSTRUMENTS` makes it smaller.
"""

import json
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from tests.benchmarks.processes import in_process

INSTRUMENTS, DAYS = int(os.environ.get("BENCH_READ_CSV_INSTRUMENTS", "600")), 4000
FIELDS = ("open", "high", "low", "close", "volume")


def run() -> dict:
    """Both sides on the same files, and how far apart they are."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        write_files(home)
        ours, peer = (in_process(__name__, side, home) for side in ("ours", "peer"))
        apart = np.abs(np.load(home / "ours.npy") - np.load(home / "peer.npy")).max()
    return {
        "name": "read_csv",
        "ours": ours["seconds"],
        "peer": peer["seconds"],
        "unit": "s of processor time",
        "ratio": round(peer["seconds"] / ours["seconds"], 2),
        "rows": INSTRUMENTS * DAYS,
        "peak_mb": ours["peak_mb"],
        "peer_peak_mb": peer["peak_mb"],
        "max_abs_diff": float(apart),
    }


def write_files(home: Path) -> None:
    """Random walks, a file an instrument; and a small folder to begin with."""
    import pandas as pd

    random, days = np.random.default_rng(0), pd.bdate_range("2005-01-03", periods=DAYS).strftime("%Y-%m-%d")
    for folder, count in (("first", 2), ("bars", INSTRUMENTS)):
        (home / folder).mkdir()
        for number in range(count):
            close = np.round(50 * np.exp(np.cumsum(random.normal(0, 0.01, DAYS))), 4)
            prices = {
                "open": close,
                "high": np.round(close * 1.01, 4),
                "low": np.round(close * 0.99, 4),
                "close": close,
            }
            name = f"T{number:04d}"
            bars = pd.DataFrame({"date": days, "instrument": name, **prices, "volume": random.integers(1, 10**6, DAYS)})
            bars.to_csv(home / folder / f"{name}.csv", index=False)


def read_ours(home: Path, folder: str) -> np.ndarray:
    """Through the source."""
    from mlops_tasks.config import DataSettings, Settings
    from mlops_tasks.data.sources import read_source

    source = str(home / folder)
    frame = read_source(Settings(home=home / "home", data=DataSettings(source=source)), source, None).frame
    return frame[list(FIELDS)].to_numpy()


def read_peer(home: Path, folder: str) -> np.ndarray:
    """With pandas alone."""
    import pandas as pd

    files = sorted((home / folder).glob("*.csv"))
    frame = pd.concat([pd.read_csv(path, parse_dates=["date"]) for path in files], ignore_index=True)
    return frame[list(FIELDS)].to_numpy(dtype=np.float64)


def measured(side: str, home: Path) -> dict:
    """One side's time and peak memory."""
    import resource

    read = {"ours": read_ours, "peer": read_peer}[side]
    read(home, "first")
    before = time.process_time()
    values = read(home, "bars")
    seconds = time.process_time() - before
    np.save(home / f"{side}.npy", values)
    return {
        "seconds": round(seconds, 2),
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }


if __name__ == "__main__":
    print(json.dumps(measured(sys.argv[1], Path(sys.argv[2]))))
