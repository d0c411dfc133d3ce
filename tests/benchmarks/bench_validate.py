"""All rules over 5,000 instruments x 2,500 days, against Great Expectations on the whole frame.

`ours` is `validate` from the parsed frame to the conclusion with every quarantined row explained: calendars, measures
and the three suites. `peer` is Great Expectations with the suite about rows only, over the same frame with the measured
columns added beforehand (not timed). Each side runs in a process of its own that does nothing else; compiled code is
cached on disk. `peak_mb` is the whole process of ours, frame included. `max_abs_diff` is the number of rows that one
side finds broken and the other does not, over all rules. `BENCH_VALIDATE_INSTRUMENTS` makes it smaller.
"""

import json
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from tests.benchmarks.processes import in_process

INSTRUMENTS, DAYS = int(os.environ.get("BENCH_VALIDATE_INSTRUMENTS", "5000")), 2500
SMALL = 20
"""Instruments on which compiled code and calendars are brought in before the clock starts."""


def run() -> dict:
    """Both sides on the same bars, and whether they find the same rows."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        make_bars(home)
        in_process(__name__, "compile", home)
        ours = in_process(__name__, "ours", home)
        in_process(__name__, "derive", home)
        peer = in_process(__name__, "peer", home)
        mine, theirs = np.load(home / "ours.npz"), np.load(home / "peer.npz")
        assert set(mine.files) == set(theirs.files), "the same rules"
        apart = {name: len(np.setxor1d(mine[name], theirs[name])) for name in mine.files}
        found = sum(len(mine[name]) for name in mine.files)
    return {
        "name": "validate",
        "ours": ours["seconds"],
        "peer": peer["seconds"],
        "unit": "s",
        "ratio": round(peer["seconds"] / ours["seconds"], 1),
        "rows": INSTRUMENTS * DAYS,
        "peak_mb": ours["peak_mb"],
        "peer_peak_mb": peer["peak_mb"],
        "rules": ours["rules"],
        "peer_rules": len(apart),
        "rows_found": found,
        "max_abs_diff": sum(apart.values()),
    }


def make_bars(home: Path) -> None:
    """Random walks on real sessions with defects planted in some thousand rows, a column a file."""
    from mlops_tasks.data.exchanges.calendars import sessions

    random, shape = np.random.default_rng(0), (INSTRUMENTS, DAYS)
    rows = INSTRUMENTS * DAYS
    close = np.cumsum(random.normal(0, 0.01, shape), axis=1).ravel()
    close = 20 * np.exp(close, out=close)
    opened = close * np.exp(random.normal(0, 0.003, rows))
    columns = {
        "open": opened,
        "high": np.maximum(opened, close) * (1 + random.exponential(0.004, rows)),
        "low": np.minimum(opened, close) * (1 - random.exponential(0.004, rows)),
        "close": close,
        "volume": random.lognormal(13, 0.5, rows).round(),
        "vwap": (opened + close) / 2,
        "factor": np.ones(rows),
    }
    for name, values in columns.items():
        for value in (np.nan, values.max() * 2 if name != "factor" else 3.0, -1.0):
            values[random.integers(0, rows, rows // 200_000 + 1)] = value
    repeated = random.integers(1, rows, rows // 50_000 + 1)
    for values in columns.values():
        values[repeated] = values[repeated - 1]
    days = np.tile(sessions("XNYS", "2014-01-01", "2024-12-31")[:DAYS], INSTRUMENTS).astype("datetime64[ns]")
    days[random.integers(0, rows, rows // 100_000 + 1)] = np.datetime64("2014-07-04")
    for name, values in (columns | {"datetime": days}).items():
        np.save(home / f"{name}.npy", values)


def load_frame(home: Path, instruments: int = INSTRUMENTS):
    """The parsed frame of the first instruments, as a source hands it on."""
    import pandas as pd
    import pyarrow as pa

    from mlops_tasks.columns import BAR_FIELDS
    from mlops_tasks.data.sources.parsed import PARSED_COLUMNS

    rows = instruments * DAYS
    names = pd.array([f"S{number:04d}" for number in range(instruments)], dtype="str")
    columns = {name: np.load(home / f"{name}.npy", mmap_mode="r")[:rows].copy() for name in ("datetime", *BAR_FIELDS)}
    columns["instrument"] = names.take(np.repeat(np.arange(instruments), DAYS))
    columns["source_file"] = pd.Categorical.from_codes(np.zeros(rows, dtype=np.int8), ["bars.parquet"])
    columns["source_row"] = np.arange(1, rows + 1)
    columns["parse_error"] = pd.array(pa.nulls(rows, pa.large_string()), dtype="str")
    return pd.DataFrame(columns, copy=False)[list(PARSED_COLUMNS)]


def compile_kernels(home: Path) -> dict:
    """Fill the cache of compiled code."""
    conclude(load_frame(home, min(SMALL, INSTRUMENTS)))
    return {}


def conclude(frame):
    """The validation with its quarantine written out in memory, part after part."""
    from mlops_tasks.data.validation.expectations import load_suites
    from mlops_tasks.data.validation.rules import Rules, validate

    validation = validate(frame, Rules(load_suites()))
    kept = sum(len(part) for part in validation.failures())
    assert kept == sum(validation.rules.values())
    return validation


def measure_ours(home: Path) -> dict:
    """Time, peak memory and the rows that each rule about rows finds."""
    conclude(load_frame(home, min(SMALL, INSTRUMENTS)))
    frame = load_frame(home)
    started = time.perf_counter()
    validation = conclude(frame)
    seconds = time.perf_counter() - started
    peak = peak_mb()
    from mlops_tasks.data.validation.expectations import load_suites

    suites = load_suites()
    found = {expectation.rule.rule: np.empty(0, np.int64) for expectation in suites.bars.expectations}
    found |= {broken.rule.rule: broken.positions for broken in validation.bars}
    np.savez(home / "ours.npz", **found)
    rules = sum(len(suite.expectations) for suite in suites)
    return {"seconds": round(seconds, 2), "peak_mb": peak, "rules": rules}


def derive_columns(home: Path) -> dict:
    """The measured columns, for the peer."""
    from mlops_tasks.data.validation.expectations import load_suites
    from mlops_tasks.data.validation.measures import measure

    frame = load_frame(home)
    rows = measure(frame, "auto", load_suites().measures).rows
    for name in rows.columns.difference(frame.columns):
        np.save(home / f"measured_{name}.npy", rows[name].to_numpy())
    return {}


def measure_peer(home: Path) -> dict:
    """Great Expectations on the whole frame, in the form that names the failing rows."""
    from mlops_tasks.data.validation.data_docs import run_suite
    from mlops_tasks.data.validation.expectations import load_suites

    frame = load_frame(home)
    for path in home.glob("measured_*.npy"):
        frame[path.stem.removeprefix("measured_")] = np.load(path)
    suite = load_suites().bars
    run_suite(suite, frame.iloc[:DAYS])
    started = time.perf_counter()
    outcome = run_suite(suite, frame)
    seconds = time.perf_counter() - started
    found = {
        result.expectation_config.meta["rule"]: np.sort(np.array(result.result.get("unexpected_index_list") or [], int))
        for result in outcome.results
    }
    np.savez(home / "peer.npz", **found)
    return {"seconds": round(seconds, 2), "peak_mb": peak_mb()}


def peak_mb() -> int:
    """Most memory that this process ever held."""
    import resource

    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


SIDES = {"compile": compile_kernels, "ours": measure_ours, "derive": derive_columns, "peer": measure_peer}

if __name__ == "__main__":
    print(json.dumps(SIDES[sys.argv[1]](Path(sys.argv[2]))))
