"""Qlib's binary store, derived from a vintage, and the project's only `qlib.init`.

`data/qlib/<data_version>/`: calendars/day.txt, instruments/all.txt and universe.txt,
features/<instrument>/<field>.day.bin. A `.bin` file is float32 little-endian: the start index in the calendar, then
one value a calendar day, NaN where there is no bar. Prices are adjusted and volume is divided by the factor, Qlib's
convention.
"""

import logging
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mlops_tasks.columns import BAR_FIELDS, DATETIME, INSTRUMENT, VWAP
from mlops_tasks.config import Settings
from mlops_tasks.data.sources.membership import format_membership
from mlops_tasks.data.vintages import Vintage, load_vintage, own_spans
from mlops_tasks.errors import StoreError
from mlops_tasks.files import folder_lock, new_folder

log = logging.getLogger(__name__)

_DEVICE_NAME = re.compile(r"con|prn|aux|nul|com\d|lpt\d")
CALENDAR_FILE = "calendars/day.txt"


def qlib_store_path(settings: Settings, data_version: str) -> Path:
    """The folder of the store that belongs to a data version."""
    return settings.data_dir / "qlib" / data_version


def write_qlib_store(settings: Settings, vintage: Vintage) -> Path:
    """Write the store of a vintage, or find it there; return its folder."""
    target = qlib_store_path(settings, vintage.data_version)
    with folder_lock(settings.data_dir):
        if target.is_dir():
            return target
        bars = vintage.adjusted_bars()
        with new_folder(target) as folder:
            _write_lists(folder, vintage, bars)
            _write_features(folder / "features", bars)
    log.info("Qlib store of %s: %s instruments", vintage.data_version, vintage.instruments)
    return target


def init_qlib(settings: Settings, data_version: str, *, kernels: int = 1) -> Path:
    """Point Qlib at a vintage's store and return that folder.

    Its recorder, if anything uses it, writes to a database below `home`; loading is done by `kernels` threads,
    because a forked pool hangs inside a task's process.

    Raises
    ------
    StoreError
        The store was not written yet.
    """
    path = qlib_store_path(settings, data_version)
    if not (path / CALENDAR_FILE).is_file():
        raise StoreError(f"{path}: no Qlib store of {data_version}; run the stage data.write_qlib_store")
    load_vintage(settings, data_version)
    import qlib
    from qlib.constant import REG_US

    recorder = settings.home / "qlib"
    recorder.mkdir(parents=True, exist_ok=True)
    qlib.init(
        provider_uri=str(path),
        region=REG_US,
        trade_unit=1,
        limit_threshold=None,
        deal_price="close",
        kernels=kernels,
        joblib_backend="threading",
        expression_cache=None,
        dataset_cache=None,
        logging_level=logging.WARNING,
        instrument_provider={
            "class": "LocalInstrumentProvider",
            "kwargs": {
                "backend": {
                    "class": "NameKeepingInstrumentStorage",
                    "module_path": "mlops_tasks.data.qlib_instruments",
                }
            },
        },
        exp_manager={
            "class": "MLflowExpManager",
            "module_path": "qlib.workflow.expm",
            "kwargs": {"uri": f"sqlite:///{recorder / 'experiments.db'}", "default_exp_name": "qlib"},
        },
    )
    return path


def _write_lists(folder: Path, vintage: Vintage, bars: pd.DataFrame) -> None:
    (folder / "calendars").mkdir()
    (folder / "instruments").mkdir()
    days = np.unique(bars[DATETIME].to_numpy()).astype("datetime64[D]").astype(str)
    (folder / CALENDAR_FILE).write_text("".join(f"{day}\n" for day in days))
    (folder / "instruments" / "all.txt").write_text(format_membership(own_spans(bars)))
    (folder / "instruments" / "universe.txt").write_text(format_membership(vintage.members()))


def _write_features(folder: Path, bars: pd.DataFrame) -> None:
    """`bars` are adjusted and sorted by instrument and datetime."""
    days = bars[DATETIME].to_numpy()
    position = np.searchsorted(np.unique(days), days)
    codes, names = pd.factorize(bars[INSTRUMENT])
    bounds = np.append(np.flatnonzero(np.r_[True, codes[1:] != codes[:-1]]), len(bars))
    fields = {name: bars[name].to_numpy().astype("<f4") for name in BAR_FIELDS}
    if not np.isfinite(fields[VWAP]).any():
        del fields[VWAP]
    for name, first, last in zip(names, bounds[:-1], bounds[1:], strict=True):
        own = folder / feature_folder(name)
        own.mkdir(parents=True)
        start = position[first]
        slots = position[first:last] - start + 1
        for field, values in fields.items():
            _padded(start, slots, values[first:last]).tofile(own / f"{field}.day.bin")


def feature_folder(instrument: str) -> str:
    """The folder name that Qlib derives from an instrument: lower case, Windows' device names prefixed."""
    folder = instrument.lower()
    return f"_qlib_{folder}" if _DEVICE_NAME.fullmatch(folder) else folder


def _padded(start: int, slots: Any, values: Any) -> Any:
    content = np.full(slots[-1] + 1, np.nan, dtype="<f4")
    content[0] = start
    content[slots] = values
    return content
