"""The technical indicators of the YAML list, 200 instruments x 1,250 days, in memory, against the library `ta`.

Both sides run in a process of their own on the same bars; `ta` runs once, instrument after instrument. `ours` is the
second call, on all processors, `ours_one_thread_s` on one, `ours_first_call_s` the first in a new process with compiled
code cached on disk, `ours_one_day_s` the update of a saved state by one more day. `ratio_without_loops` leaves out what
`ta` computes in Python loops or by a function a window (`LOOPS`), on both sides. `agreement` is the share of values
within 1e-9 of those of `ta`; `mlops_tasks/features/indicators/definitions.py` says why the rest differs.
"""

import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from tests.benchmarks.processes import in_process

INSTRUMENTS, DAYS = 200, 1250
LOOPS = {"adx", "aroon", "atr", "cci", "kama", "keltner", "mfi", "nvi", "psar", "ulcer_index", "wma"}


def run() -> dict:
    """Both sides, and how far apart their values are."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        make_bars().to_parquet(home / "bars.parquet")
        in_process(__name__, "compile", home)
        ours = in_process(__name__, "ours", home)
        peer = in_process(__name__, "peer", home)
        mine, theirs = np.load(home / "ours.npy"), np.load(home / "peer.npy")
    assert mine.shape == theirs.shape, (mine.shape, theirs.shape)
    alike = np.isclose(mine, theirs, rtol=1e-9, atol=1e-12 * np.nanmax(np.abs(theirs), axis=0), equal_nan=True)
    return {
        "name": "indicators",
        "ours": ours["second_s"],
        "peer": peer["seconds"],
        "unit": "s",
        "ratio": round(peer["seconds"] / ours["second_s"], 1),
        "ratio_one_thread": round(peer["seconds"] / ours["one_thread_s"], 1),
        "ratio_without_loops": round(peer["without_loops_s"] / ours["without_loops_s"], 1),
        "rows": len(mine),
        "columns": mine.shape[1],
        **{f"ours_{name}": value for name, value in ours.items() if name != "second_s"},
        "peer_without_loops_s": peer["without_loops_s"],
        "peer_slowest_s": peer["slowest_s"],
        "agreement": round(float(alike.mean()), 6),
        "different_nan": int((np.isnan(mine) != np.isnan(theirs)).sum()),
    }


def make_bars():
    """Random walks, sorted by datetime, then instrument."""
    import pandas as pd

    random, shape = np.random.default_rng(0), (DAYS, INSTRUMENTS)
    close = 20 * np.exp(np.cumsum(random.normal(0, 0.02, shape), axis=0))
    opened = close * np.exp(random.normal(0, 0.005, shape))
    fields = {
        "open": opened,
        "high": np.maximum(opened, close) * (1 + random.exponential(0.004, shape)),
        "low": np.minimum(opened, close) * (1 - random.exponential(0.004, shape)),
        "close": close,
        "volume": random.lognormal(13, 1, shape).round(),
    }
    keys = {
        "datetime": np.repeat(pd.bdate_range("2019-01-02", periods=DAYS), INSTRUMENTS),
        "instrument": np.tile([f"S{number:04d}" for number in range(INSTRUMENTS)], DAYS),
    }
    return pd.DataFrame({**keys, **{name: values.ravel() for name, values in fields.items()}})


def fill_cache(home: Path) -> dict:
    """Compile, if no cached code is there."""
    import pandas as pd

    from mlops_tasks.features.indicators.specs import load_indicators
    from mlops_tasks.features.indicators.state import compute_indicators

    compute_indicators(pd.read_parquet(home / "bars.parquet").head(10), load_indicators())
    return {}


def measure_ours(home: Path) -> dict:
    """First and second call in this process, parts of the work, and the daily update."""
    import resource

    import pandas as pd

    from mlops_tasks.features.indicators.specs import load_indicators
    from mlops_tasks.features.indicators.state import IndicatorState, compute_indicators

    bars, specs = pd.read_parquet(home / "bars.parquet"), load_indicators()

    def seconds(*arguments, **options) -> float:
        started = time.perf_counter()
        compute_indicators(bars, *arguments, **options)
        return round(time.perf_counter() - started, 3)

    first, second = seconds(specs), seconds(specs)
    one_thread = seconds(specs, threads=1)
    without_loops = seconds([spec for spec in specs if spec.indicator not in LOOPS])
    peak = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    is_last = bars["datetime"] == bars["datetime"].max()
    state = IndicatorState.empty(specs)
    earlier = state.update(bars[~is_last])
    content = state.to_bytes()
    started = time.perf_counter()
    last = IndicatorState.from_bytes(content).update(bars[is_last])
    one_day = round(time.perf_counter() - started, 4)
    whole = compute_indicators(bars, specs)
    pd.testing.assert_frame_equal(pd.concat([earlier, last]), whole, check_exact=True)
    np.save(home / "ours.npy", whole.drop(columns=["datetime", "instrument"]).to_numpy())
    return {
        "first_call_s": first,
        "second_s": second,
        "one_thread_s": one_thread,
        "without_loops_s": without_loops,
        "one_day_s": one_day,
        "state_mb": round(len(content) / 1e6, 1),
        "peak_mb": peak,
    }


def measure_peer(home: Path) -> dict:
    """`ta` over each instrument's bars."""
    import pandas as pd

    from mlops_tasks.features.indicators.specs import load_indicators
    from tests.features.ta_indicators import ta_columns

    bars, specs = pd.read_parquet(home / "bars.parquet"), load_indicators()
    seconds = dict.fromkeys([spec.name for spec in specs], 0.0)
    values = np.empty((len(bars), sum(len(spec.columns) for spec in specs)))
    for _, group in bars.groupby("instrument"):
        own, first = group.reset_index(drop=True), 0
        for spec in specs:
            started = time.perf_counter()
            columns = ta_columns(own, spec)
            seconds[spec.name] += time.perf_counter() - started
            values[group.index, first : first + columns.shape[1]] = columns
            first += columns.shape[1]
    np.save(home / "peer.npy", values)
    slowest = sorted(seconds, key=seconds.__getitem__, reverse=True)[:5]
    return {
        "seconds": round(sum(seconds.values()), 2),
        "without_loops_s": round(sum(seconds[spec.name] for spec in specs if spec.indicator not in LOOPS), 2),
        "slowest_s": {name: round(seconds[name], 1) for name in slowest},
    }


SIDES = {"compile": fill_cache, "ours": measure_ours, "peer": measure_peer}

if __name__ == "__main__":
    print(json.dumps(SIDES[sys.argv[1]](Path(sys.argv[2]))))
