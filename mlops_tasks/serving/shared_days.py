"""Features of the newest days, which the workers of one service share: one reads them from the store, all map them.

A day's features lie in files that are named by the feature version, the day and how many days a model looks back on. So
a new vintage has files of its own, and who still scores the one before is not disturbed.
"""

import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd

from mlops_tasks.columns import DATETIME, INSTRUMENT
from mlops_tasks.errors import StoreError
from mlops_tasks.files import folder_lock, new_folder, read_json, write_json
from mlops_tasks.modeling.scoring import ScoringRows
from mlops_tasks.modeling.windows import history_start

log = logging.getLogger(__name__)

KEPT = 4
"""Of the last that were read: two models, each on a vintage and the one before."""
_VALUES, _ROWS, _NAMES, _WANTED = "values.npy", "rows.parquet", "names.json", "wanted"


@dataclass(frozen=True)
class DayOfFeatures:
    """What a day's rows depend on."""

    feature_version: str
    date: date
    window: int
    """Trading days that a model sees, the day itself included."""


class SharedDays:
    """Files below a folder; a process that is killed leaves none of them half-written."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def rows(self, day: DayOfFeatures, calendar: pd.DatetimeIndex, read: Callable[[], ScoringRows]) -> ScoringRows:
        """Rows of a day, in memory that all workers share; `read` has them from the store, whose errors it raises.

        Where the disk takes them not, they are this process's own.
        """
        place = self.folder / f"{day.feature_version}.{day.date}.{day.window}"
        with folder_lock(self.folder):
            if not place.is_dir():
                found = read()
                try:
                    self._keep(place, found)
                except (OSError, StoreError) as error:
                    log.warning("features of %s are not shared between the workers: %s", day.date, error)
                    return found
            return _mapped(place, day, calendar)

    def _keep(self, place: Path, rows: ScoringRows) -> None:
        with new_folder(place) as folder:
            np.save(folder / _VALUES, rows.features.to_numpy())
            index = rows.features.index.to_frame(index=False).assign(**{_WANTED: rows.wanted})
            index.to_parquet(folder / _ROWS)
            write_json(folder / _NAMES, list(rows.features.columns))
        kept = sorted(self.folder.glob("[!.]*"), key=lambda each: each.stat().st_mtime_ns)
        for old in kept[:-KEPT]:
            shutil.rmtree(old, ignore_errors=True)  # who has it mapped keeps it


def _mapped(place: Path, day: DayOfFeatures, calendar: pd.DatetimeIndex) -> ScoringRows:
    values = np.asarray(np.load(place / _VALUES, mmap_mode="c"))  # a page that is written to becomes a process's own
    rows = pd.read_parquet(place / _ROWS)
    index = pd.MultiIndex.from_frame(rows[[DATETIME, INSTRUMENT]])
    features = pd.DataFrame(values, index, read_json(place / _NAMES), copy=False)
    since = history_start(calendar, pd.Timestamp(day.date), day.window)
    return ScoringRows(features, rows[_WANTED].to_numpy(), calendar, since)
