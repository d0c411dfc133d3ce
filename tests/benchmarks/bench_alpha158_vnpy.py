"""Alpha158, 500 instruments x 1,250 days, against vnpy.alpha (polars) in an environment of its own.

The environment lies in `var/bench/vnpy`, is made by the first run and kept; making it needs a package index. Both sides
run in a process of their own on the same bars: ours from bars in the store to features in memory (the median of
five calls after the first), the peer from a frame in memory with two processes, as its `Alpha158` dataset does it.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

import numpy as np

from mlops_tasks.config import PROJECT
from tests.benchmarks.bench_alpha158 import CALLS, compute_in_memory, make_bars, timed
from tests.benchmarks.processes import in_process

ENVIRONMENT = PROJECT / "var" / "bench" / "vnpy"
PEER = "vnpy==4.5.0"
# What its alpha package imports; the rest of its requirements is the trading platform and its window.
NEEDED = (
    "polars==2.1.0", "numpy==2.4.6", "pandas==3.1.1", "pyarrow==26.0.1", "scipy==1.17.1", "scikit-learn==1.9.1",
    "statsmodels==0.15.0", "loguru==0.7.3", "tqdm==4.70.1", "plotly==7.1.0", "ta-lib==0.8.2", "tzlocal==5.4.5",
)  # fmt: skip

_PEER = """
import json, sys, time
import polars as pl
from vnpy.alpha.dataset.datasets.alpha_158 import Alpha158

if __name__ == "__main__":
    folder = sys.argv[1]
    bars = pl.read_parquet(folder + "/bars.parquet").rename({"instrument": "vt_symbol"}).sort("datetime", "vt_symbol")
    days = (str(bars["datetime"].min().date()), str(bars["datetime"].max().date()))
    dataset = Alpha158(bars, days, days, days)
    dataset.label_expression = ""
    started = time.perf_counter()
    dataset.prepare_data(max_workers=2)
    seconds = time.perf_counter() - started
    frame = dataset.raw_df.sort("vt_symbol", "datetime")
    frame.write_parquet(folder + "/peer.parquet")
    print(json.dumps({"seconds": round(seconds, 2), "columns": frame.width - 2, "rows": frame.height}))
"""


def run() -> dict:
    """Both sides; without a package index a line that says so."""
    python, problem = _environment()
    if problem:
        return {"name": "alpha158_vnpy", "skipped": f"the environment {ENVIRONMENT} could not be made: {problem}"}
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        vintage = make_bars(home)
        vintage.adjusted_bars().drop(columns="factor").to_parquet(home / "bars.parquet", index=False)
        ours = in_process(__name__, "ours", home, vintage.data_version)
        (home / "peer.py").write_text(_PEER)
        done = subprocess.run([python, "peer.py", folder], cwd=home, check=True, stdout=subprocess.PIPE, text=True)
        peer = json.loads(done.stdout.splitlines()[-1])
        agreement = _agreement(home)
    assert peer["columns"] == ours["columns"], (peer, ours)
    assert peer["rows"] == ours["rows"], (peer, ours)
    return {
        "name": "alpha158_vnpy",
        "ours": ours["seconds"],
        "peer": peer["seconds"],
        "unit": "s",
        "ratio": round(peer["seconds"] / ours["seconds"], 1),
        "rows": ours["rows"],
        "agreement": agreement,
    }


def _environment() -> tuple[Path, str]:
    """The interpreter that has the peer, and what went wrong in making it."""
    python, complete = ENVIRONMENT / "bin" / "python", ENVIRONMENT / "complete.json"
    wanted = json.dumps([PEER, *NEEDED])
    if complete.is_file() and complete.read_text() == wanted:
        return python, ""
    shutil.rmtree(ENVIRONMENT, ignore_errors=True)
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    for command in ([sys.executable, "-m", "venv", ENVIRONMENT], [*pip, *NEEDED], [*pip, "--no-deps", PEER]):
        print(*command, file=sys.stderr)
        done = subprocess.run(command, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode:
            return python, (done.stdout.strip() or "no output").splitlines()[-1]
    complete.write_text(wanted)
    return python, ""


def measure_ours(home: Path, data_version: str) -> dict:
    """The median of five calls after the first."""
    values = compute_in_memory(home, data_version)
    seconds = median(timed(compute_in_memory, home, data_version)[1] for _ in range(CALLS))
    np.save(home / "ours.npy", values)
    return {"seconds": round(seconds, 3), "columns": len(values), "rows": values.shape[1]}


def _agreement(home: Path) -> float:
    """Share of values within 1e-4 of the peer's; its windows need all their rows, so beginnings are left out."""
    import pyarrow.parquet as pq

    theirs = pq.read_table(home / "peer.parquet")
    shares = []
    for own, name in zip(np.load(home / "ours.npy", mmap_mode="r"), theirs.column_names[2:], strict=True):
        other = theirs[name].to_numpy().astype(float)
        both = np.isfinite(own) & np.isfinite(other)
        shares.append((np.abs(own - other)[both] <= 1e-4 * np.abs(other[both]) + 1e-6).mean())
    return round(float(np.mean(shares)), 4)


if __name__ == "__main__":
    print(json.dumps(measure_ours(Path(sys.argv[2]), sys.argv[3])))
