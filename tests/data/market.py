"""Small markets for the tests of the data stages: made here, so that each truth is known."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mlops_tasks.columns import DATETIME, FACTOR, INSTRUMENT, VOLUME, VWAP
from mlops_tasks.data.exchanges.calendars import sessions
from mlops_tasks.data.sources.parsed import PARSE_ERROR, PARSED_COLUMNS, SOURCE_FILE, SOURCE_ROW
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


def parsed_frame(bars: pd.DataFrame) -> pd.DataFrame:
    """Bars under vendor names as a source would parse them (`PARSED_COLUMNS`); `Factor` and `Vwap` may be there."""
    frame = pd.DataFrame(
        {
            DATETIME: pd.to_datetime(bars["Date"]).to_numpy().astype("datetime64[ns]"),
            INSTRUMENT: pd.array(bars["Symbol"], dtype="str"),
            **{name.lower(): bars[name].to_numpy(dtype="float64") for name in ("Open", "High", "Low", "Close")},
            VOLUME: bars["Volume"].to_numpy(dtype="float64"),
            VWAP: bars["Vwap"].to_numpy() if "Vwap" in bars else np.nan,
            FACTOR: bars["Factor"].to_numpy() if "Factor" in bars else 1.0,
            SOURCE_FILE: pd.Categorical(["bars.csv"] * len(bars)),
            SOURCE_ROW: np.arange(1, len(bars) + 1),
            PARSE_ERROR: pd.array([None] * len(bars), dtype="str"),
        }
    )
    return frame[list(PARSED_COLUMNS)]
