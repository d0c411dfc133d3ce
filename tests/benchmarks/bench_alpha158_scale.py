"""Alpha158 into the store, 5,000 instruments x 2,500 days: rows a second beside those of 500 x 1,250, and peak memory.

`ours` is the large market, `peer` the small one, both by `FeatureStore.compute` with its files, each in a process of
its own that has computed the small one before. `peak_mb` is the most memory that the process of the large one had;
`ratio_cpu` compares rows a second of processor time, which tells how it scales also where the disk is the limit.
"""

import json
import resource
import sys
import tempfile
import time
from pathlib import Path
from shutil import rmtree

from tests.benchmarks.bench_alpha158 import make_bars
from tests.benchmarks.processes import in_process

SMALL, LARGE = (500, 1_250), (5_000, 2_500)


def run() -> dict:
    """Both markets, one after the other."""
    with tempfile.TemporaryDirectory() as folder:
        small, large = Path(folder) / "small", Path(folder) / "large"
        for home, shape in ((small, SMALL), (large, LARGE)):
            in_process(__name__, "make", home, *shape)
        of_small = in_process(__name__, "measure", small, small)
        of_large = in_process(__name__, "measure", large, small)
    return {
        "name": "alpha158_scale",
        "ours": of_large["rows_a_second"],
        "peer": of_small["rows_a_second"],
        "unit": "rows/s",
        "ratio": round(of_large["rows_a_second"] / of_small["rows_a_second"], 2),
        "ratio_cpu": round(of_large["rows_a_cpu_second"] / of_small["rows_a_cpu_second"], 2),
        "rows": of_large["rows"],
        "seconds": of_large["seconds"],
        "written_mb": of_large["written_mb"],
        "peak_mb": of_large["peak_mb"],
        "peak_mb_small": of_small["peak_mb"],
    }


def make(home: Path, instruments: str, days: str) -> dict:
    """A vintage of random walks, in use."""
    from mlops_tasks.config import Settings
    from mlops_tasks.data.vintages import publish

    publish(Settings(home=home), make_bars(home, int(instruments), int(days)).data_version)
    return {}


def measure(home: Path, small: str) -> dict:
    """Compute the small market, then the one in question."""
    compute(Path(small))
    started = time.process_time()
    seconds, rows, written = compute(home)
    cpu = time.process_time() - started
    return {
        "rows": rows,
        "seconds": round(seconds, 2),
        "rows_a_second": round(rows / seconds),
        "rows_a_cpu_second": round(rows / cpu),
        "written_mb": round(written / 2**20),
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }


def compute(home: Path) -> tuple[float, int, int]:
    """Seconds, rows and bytes of all features of the vintage in use, into an empty store."""
    from mlops_tasks.config import Settings
    from mlops_tasks.data.vintages import current_vintage
    from mlops_tasks.features.store import FeatureStore

    settings = Settings(home=home)
    rmtree(settings.features_dir, ignore_errors=True)
    store, started = FeatureStore(settings), time.perf_counter()
    version = store.compute(current_vintage(settings))
    seconds = time.perf_counter() - started
    return seconds, version.computed_rows, sum(path.stat().st_size for path in store.partitions.iterdir())


SIDES = {"make": make, "measure": measure}

if __name__ == "__main__":
    print(json.dumps(SIDES[sys.argv[1]](Path(sys.argv[2]), *sys.argv[3:])))
