"""PSI, KS and Wasserstein of 158 columns, 100,000 rows against 50,000, against Evidently in an environment of its own.

The environment lies in `var/bench/evidently`, is made by the first run and kept; making it needs a package index. Both
sides have the same float32 columns in memory: normal, heavy-tailed, lognormal and rounded ones, some with gaps, some
that drift. `ours` is the median of five calls after the first of what one report takes, profile of the reference and
comparison, with a profile that keeps every value, so that all statistics are exact; `ours_compact` is the same with the
profile that is saved with a model, `ours_day` the comparison alone, as each day has it.

`peer` is the time of three Evidently reports (`DataDriftPreset`), one a method, since a report has one for each column.
`peer_functions` is that of its statistics alone, called one by one without a report, and `ratio_functions` compares
with it: what a report adds is left out on their side and kept on ours.

Agreement is over all columns, absolute, with Evidently's definitions: `ks_statistic` against SciPy, which it calls;
`ks_p_value` of our statistic; `wasserstein` in its unit, the standard deviation of the reference but at least 0.001,
which no column here comes near; `psi` on its bins (Sturges, both samples together) and with its filling of empty bins,
as ours has deciles. `compact_ks` and `compact_wasserstein` are the errors of the saved profile, and
`compact_wasserstein_bound` is what the profile says that the latter may be.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import distributions

from mlops_tasks.config import PROJECT
from mlops_tasks.monitoring.drift import drift, population_stability_index
from mlops_tasks.monitoring.profile import Profile, bin_shares, reference_profile, sorted_finite
from tests.benchmarks.processes import in_process

ENVIRONMENT = PROJECT / "var" / "bench" / "evidently"
PEER = ("evidently==0.7.23", "pandas==2.3.3", "numpy==2.2.6", "scipy==1.15.3")
COLUMNS, REFERENCE_ROWS, CURRENT_ROWS = 158, 100_000, 50_000
CALLS = 5

_PEER = """
import json, sys, time, warnings
import numpy as np, pandas as pd
from scipy.stats import ks_2samp
from evidently import DataDefinition, Dataset, Report
from evidently.presets import DataDriftPreset
from evidently.legacy.calculations.stattests import ks_stat_test, psi_stat_test, wasserstein_stat_test
from evidently.legacy.calculations.stattests.registry import get_stattest
from evidently.legacy.core import ColumnType

warnings.simplefilter("ignore")
folder = sys.argv[1]
reference, current = (np.load(f"{folder}/{side}.npy") for side in ("reference", "current"))
names = [f"F{i}" for i in range(reference.shape[1])]
reference, current = (pd.DataFrame(values, columns=names) for values in (reference, current))
definition = DataDefinition(numerical_columns=names)
sides = [Dataset.from_pandas(frame, definition) for frame in (current, reference)]
methods = {"psi": psi_stat_test, "ks": ks_stat_test, "wasserstein": wasserstein_stat_test}
result = {"report_s": {}, "function_s": {}, "reported": {}}
values = {}
for method, test in methods.items():
    started = time.perf_counter()
    snapshot = Report([DataDriftPreset(columns=names, num_method=method)]).run(*sides)
    found = snapshot.dict()
    result["report_s"][method] = round(time.perf_counter() - started, 2)
    drifts = [each["value"] for each in found["metrics"] if not isinstance(each["value"], dict)]
    compute = get_stattest(reference["F0"], current["F0"], ColumnType.Numerical, test.name).func
    started = time.perf_counter()
    values[method] = [
        float(compute(reference[name].dropna(), current[name].dropna(), ColumnType.Numerical, 0.1)[0]) for name in names
    ]
    result["function_s"][method] = round(time.perf_counter() - started, 2)
    assert np.allclose([float(each) for each in drifts], values[method], rtol=1e-9, atol=1e-300), method
values["ks_statistic"] = [ks_2samp(reference[name].dropna(), current[name].dropna()).statistic for name in names]
pd.DataFrame(values, index=names).to_json(f"{folder}/peer.json", double_precision=15)
print(json.dumps(result))
"""


def run() -> dict[str, Any]:
    """Both sides.

    Raises
    ------
    SystemExit
        The peer's environment could not be made.
    """
    python = peer_environment()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        write_samples(home)
        ours = in_process(__name__, "ours", home)
        (home / "peer.py").write_text(_PEER)
        command: list[str | Path] = [python, "peer.py", folder]
        environment = os.environ | {"DO_NOT_TRACK": "1"}
        done = subprocess.run(command, cwd=home, env=environment, check=True, stdout=subprocess.PIPE, text=True)
        peer = json.loads(done.stdout.splitlines()[-1])
        differences = agreement(home)
    reports, functions = sum(peer["report_s"].values()), sum(peer["function_s"].values())
    return {
        "name": "drift",
        "ours": ours["exact_s"],
        "peer": round(reports, 1),
        "unit": "s",
        "ratio": round(reports / ours["exact_s"], 1),
        "ours_compact": ours["compact_s"],
        "ours_day": ours["day_s"],
        "peer_reports": peer["report_s"],
        "peer_functions": peer["function_s"],
        "ratio_functions": round(functions / ours["exact_s"], 1),
        "max_abs_diff": differences,
    }


def peer_environment() -> Path:
    """The interpreter that has the peer."""
    python, complete = ENVIRONMENT / "bin" / "python", ENVIRONMENT / "complete.json"
    if complete.is_file() and complete.read_text() == json.dumps(PEER):
        return python
    shutil.rmtree(ENVIRONMENT, ignore_errors=True)
    install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *PEER]
    for command in ([sys.executable, "-m", "venv", str(ENVIRONMENT)], install):
        print(*command, file=sys.stderr)
        done = subprocess.run(command, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode:
            said = (done.stdout.strip() or "no output").splitlines()[-1]
            raise SystemExit(f"the environment {ENVIRONMENT} could not be made, which needs a package index: {said}")
    complete.write_text(json.dumps(PEER))
    return python


def write_samples(home: Path) -> None:
    """Four kinds of columns; every fifth has gaps, every third of the current ones is shifted and wider."""
    rng = np.random.default_rng(7)
    for side, rows in (("reference", REFERENCE_ROWS), ("current", CURRENT_ROWS)):
        values = rng.standard_normal((rows, COLUMNS))
        values[:, 1::4] = rng.standard_t(3, values[:, 1::4].shape)
        if side == "current":
            values[:, ::3] = values[:, ::3] * 1.02 + 0.02
        values[:, 2::4] = np.exp(values[:, 2::4])
        values[:, 3::4] = np.round(values[:, 3::4], 2)
        values[:, ::5][rng.random(values[:, ::5].shape) < 0.03] = np.nan
        np.save(home / f"{side}.npy", values.astype(np.float32))


def samples(home: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """What `write_samples` wrote."""
    reference, current = (
        pd.DataFrame(np.load(home / f"{side}.npy")).rename(columns="F{}".format) for side in ("reference", "current")
    )
    return reference, current


def measure_ours(home: Path) -> dict[str, float]:
    """Medians of five calls after the first."""
    reference, current = samples(home)
    compact = reference_profile(reference)
    return {
        "exact_s": seconds_of(lambda: drift(exact_profile(reference), current)),
        "compact_s": seconds_of(lambda: drift(reference_profile(reference), current)),
        "day_s": seconds_of(lambda: drift(compact, current)),
    }


def exact_profile(reference: pd.DataFrame) -> Profile:
    """One that keeps every value."""
    return reference_profile(reference, points=len(reference))


def seconds_of(call: Callable[[], object]) -> float:
    """Median wall time of a call."""
    taken = []
    for _ in range(CALLS + 1):
        started = time.perf_counter()
        call()
        taken.append(time.perf_counter() - started)
    return round(median(taken[1:]), 3)


def agreement(home: Path) -> dict[str, float]:
    """Largest absolute differences over the columns."""
    reference, current = samples(home)
    peer = pd.read_json(home / "peer.json", precise_float=True).loc[reference.columns]
    exact, profile = drift(exact_profile(reference), current).loc[peer.index], reference_profile(reference)
    compact = drift(profile, current).loc[peer.index]
    sizes = np.array([[side[name].notna().sum() for name in peer.index] for side in (reference, current)], dtype=float)
    p_values = distributions.kstwo.sf(exact["ks_statistic"], np.round(sizes.prod(axis=0) / sizes.sum(axis=0)))
    psi = [psi_by_peers_bins(reference[name], current[name]) for name in peer.index]
    bound = max(profile.columns[name].moved / profile.columns[name].deviation for name in peer.index)
    differences = {
        "ks_statistic": exact["ks_statistic"] - peer["ks_statistic"],
        "ks_p_value": p_values - peer["ks"],
        "wasserstein": exact["wasserstein"] - peer["wasserstein"],
        "psi": psi - peer["psi"],
        "compact_ks": compact["ks_statistic"] - peer["ks_statistic"],
        "compact_wasserstein": compact["wasserstein"] - peer["wasserstein"],
    }
    largest = {name: float(f"{np.abs(each).max():.2g}") for name, each in differences.items()}
    return largest | {"compact_wasserstein_bound": float(f"{bound:.2g}")}


def psi_by_peers_bins(reference: pd.Series, current: pd.Series) -> float:
    """Our index on bins of Sturges' rule, an empty one filled with 1e-4, or a millionth of a least share below that."""
    sides = [sorted_finite(each) for each in (reference, current)]
    edges = np.histogram_bin_edges(np.concatenate(sides), bins="sturges")[1:-1]
    edges = np.nextafter(edges, edges.dtype.type(-np.inf))  # their bins are closed below, ours above
    shares = [bin_shares(each, edges, len(each))[:-1] for each in sides]
    for each in shares:
        least = each[each > 0].min()
        each[each == 0] = least / 10**6 if least <= 1e-4 else 1e-4
    return population_stability_index(*shares, floor=0.0)


if __name__ == "__main__":
    print(json.dumps(measure_ours(Path(sys.argv[2]))))
