"""Small markets for the tests of the data stages: made here, so that each truth is known."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mlops_tasks.data.calendars import sessions
from mlops_tasks.data.tasks import (
    compare_vintages_task,
    publish_vintage_task,
    read_source_task,
    validate_bars_task,
    version_snapshot_task,
    write_qlib_store_task,
)


def make_bars(days: int = 30, instruments: int = 4, start: str = "2019-12-10", seed: int = 0) -> pd.DataFrame:
    """Good bars under vendor names, in two calendar years at the defaults, sorted by symbol and date."""
    rng = np.random.default_rng(seed)
    dates = pd.DatetimeIndex(sessions("XNYS", start, pd.Timestamp(start) + pd.Timedelta(days=2 * days + 10))[:days])
    frames = []
    for name in (f"S{i:02d}" for i in range(instruments)):
        close = 50 * np.exp(np.cumsum(rng.normal(0, 0.01, days)))
        first = close * np.exp(rng.normal(0, 0.003, days))
        frames.append(
            pd.DataFrame(
                {
                    "Date": dates.strftime("%Y-%m-%d"),
                    "Symbol": name,
                    "Open": first,
                    "High": np.maximum(first, close) * 1.002,
                    "Low": np.minimum(first, close) * 0.998,
                    "Close": close,
                    "Volume": rng.integers(1_000, 9_000, days).astype("float64"),
                }
            )
        )
    return pd.concat(frames, ignore_index=True)


def save(frame: pd.DataFrame, path: Path) -> Path:
    """Write as the suffix says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if ".csv" in path.suffixes:
        frame.to_csv(path, index=False)
    else:
        frame.to_parquet(path)
    return path


def sync(source: Path | str, universe: Path | None = None) -> dict[str, Any]:
    """The whole chain of data stages; the results of all of them, merged."""
    read = read_source_task(source=str(source), universe=universe and str(universe))
    validated = validate_bars_task(staging=read["staging"])
    version = version_snapshot_task(staging=read["staging"])
    compared = compare_vintages_task(data_version=version["data_version"])
    store = write_qlib_store_task(data_version=version["data_version"])
    published = publish_vintage_task(data_version=version["data_version"])
    return read | validated | version | compared | store | {"published": published}


def tree(folder: Path) -> dict[str, bytes]:
    """Relative path to content of every file, locks and DVC's own bookkeeping left out."""
    kept = (p for p in sorted(folder.rglob("*")) if p.is_file() and not p.name.startswith(".lock"))
    inside = ((p, p.relative_to(folder).as_posix()) for p in kept)
    return {name: p.read_bytes() for p, name in inside if not name.startswith((".dvc/tmp", ".dvc/site", ".dvc/config"))}
