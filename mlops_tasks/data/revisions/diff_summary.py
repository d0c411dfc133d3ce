"""The summary of a vintage diff as plain JSON, which the policy judges and the command line prints."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from mlops_tasks.columns import INSTRUMENT, PRICES, VOLUME
from mlops_tasks.data.revisions.appended import SHOWN
from mlops_tasks.data.revisions.changes import ADDED, CLASSES, HISTORY, REMOVED, RESTATED
from mlops_tasks.data.revisions.comparison import Integers, Part
from mlops_tasks.files import finite_or_none

SHARED_SHARE, SHARED_CELLS = 0.9, 20
"""An instrument shares its restated series if it has so many cells and this share of them equals another's that day."""


@dataclass(frozen=True)
class Ends:
    """The two vintages, each pair (old, new)."""

    versions: tuple[str, str]
    spans: tuple[tuple[np.datetime64, np.datetime64], tuple[np.datetime64, np.datetime64]]
    names: tuple[list[str], list[str]]
    rows: tuple[int, int]
    same_market: bool
    """False: too few common instruments; their bars were not compared."""
    equal_rows: int
    """Rows of the years that were not read because their digests are equal."""


@dataclass(frozen=True)
class Frames:
    """The tables of a diff."""

    changes: pd.DataFrame
    universe: pd.DataFrame
    jumps: pd.DataFrame


def summarise(ends: Ends, parts: Sequence[Part], frames: Frames, appended: dict[str, Any]) -> dict[str, Any]:
    """Everything about a diff in one JSON-able dict.

    Shares are of the common rows, dates ISO, `first` lists the first few. `append_only` says that no bar up to
    `old_last_date` differs; `appended_from` is the first day after it, or None.
    """
    changes = frames.changes
    common = ends.equal_rows + sum(int(part.common.sum()) for part in parts)
    counts = {name: sum(len(getattr(part, name).codes) for part in parts) for name in (ADDED, REMOVED)}
    old_names, new_names = map(set, ends.names)
    history = changes[changes["class"].isin(HISTORY)]
    gone = _rows(changes[(changes["class"] == REMOVED) & changes[INSTRUMENT].isin(old_names - new_names)])
    restated_rows = _rows(history)
    (old_first, old_last), (new_first, new_last) = ends.spans
    return {
        "old": ends.versions[0],
        "new": ends.versions[1],
        "same_market": ends.same_market,
        "append_only": ends.same_market and changes.empty,
        "appended_from": appended["first_date"],
        "old_first_date": str(old_first),
        "old_last_date": str(old_last),
        "new_first_date": str(new_first),
        "new_last_date": str(new_last),
        "rows": {
            "old": ends.rows[0],
            "new": ends.rows[1],
            "common": common,
            **counts,
            "removed_with_instrument": gone,
            "appended": appended["rows"],
        },
        "instruments": {
            "old": len(old_names),
            "new": len(new_names),
            "common": len(old_names & new_names),
            ADDED: _listed(sorted(new_names - old_names)),
            REMOVED: _listed(sorted(old_names - new_names)),
        },
        "changes": {kind: _class_info(changes[changes["class"] == kind]) for kind in CLASSES},
        "restated_rows": restated_rows,
        "restated_share": restated_rows / common if common else 0.0,
        "largest": {
            "price": _largest(history[history["field"] != VOLUME]),
            "volume": _largest(history[history["field"] == VOLUME]),
        },
        "shared_series": {field: _shared_series(changes, field) for field in (*PRICES, VOLUME)},
        "jumps": _jump_info(frames.jumps),
        "calendar": _calendar_changes(parts, max(old_first, new_first), min(old_last, new_last)),
        "universe": _universe_info(frames.universe),
        "appended": appended,
    }


def _listed(items: Sequence[Any]) -> dict[str, Any]:
    return {"count": len(items), "first": list(items[:SHOWN])}


def _rows(cells: pd.DataFrame) -> int:
    """How many bars the cells belong to."""
    return int((~cells.duplicated([INSTRUMENT, "date"])).sum())


def _class_info(cells: pd.DataFrame) -> dict[str, Any]:
    fields = cells["field"].value_counts()
    return {
        "cells": len(cells),
        "rows": _rows(cells),
        "instruments": int(cells[INSTRUMENT].nunique()),
        "fields": {str(name): int(count) for name, count in fields.sort_index().items() if count},
        "first_date": None if cells.empty else _day(cells["date"].min()),
        "last_date": None if cells.empty else _day(cells["date"].max()),
        "first": _listed(list(dict.fromkeys(cells[INSTRUMENT])))["first"],
    }


def _largest(cells: pd.DataFrame) -> list[dict[str, Any]]:
    """The cells with the largest relative change, the largest first."""
    known = cells[np.isfinite(cells["relative_change"])]
    size = known["relative_change"].abs()
    return [
        {
            INSTRUMENT: str(cell[INSTRUMENT]),
            "field": str(cell["field"]),
            "date": _day(cell["date"]),
            "old": float(cell["old"]),
            "new": float(cell["new"]),
            "relative_change": float(cell["relative_change"]),
        }
        for cell in known.loc[size.nlargest(SHOWN).index].to_dict("records")
    ]


def _shared_series(changes: pd.DataFrame, field: str) -> dict[str, Any]:
    """Instruments whose restated values are, day by day, shared by at least half of all restated instruments."""
    cells = changes.loc[(changes["class"] == RESTATED) & (changes["field"] == field), [INSTRUMENT, "date", "new"]]
    same = cells.groupby(["date", "new"])["new"].transform("size")
    all_of_day = cells.groupby("date")["new"].transform("size")
    shared = (same >= 2) & (2 * same >= all_of_day)
    share = shared.groupby(cells[INSTRUMENT], observed=True).agg(["mean", "size"])
    sharing = share[(share["mean"] >= SHARED_SHARE) & (share["size"] >= SHARED_CELLS)]
    return _listed([str(name) for name in sharing.index])


def _jump_info(jumps: pd.DataFrame) -> dict[str, Any]:
    days = jumps["date"].value_counts(sort=True)
    return {
        "rows": len(jumps),
        "instruments": int(jumps[INSTRUMENT].nunique()),
        "days": [
            {
                "date": _day(day),
                "instruments": int(count),
                "median_move": finite_or_none(jumps.loc[jumps["date"] == day, "new"].median()),
            }
            for day, count in sorted(days.items(), key=lambda item: (-item[1], item[0]))[:SHOWN]
        ],
    }


def _calendar_changes(parts: Sequence[Part], first: np.datetime64, last: np.datetime64) -> dict[str, Any]:
    """Days within both spans on which some instrument has a bar in one of the two only."""
    none: Integers = np.empty(0, dtype=np.int64)
    old, new = (np.concatenate([none, *(getattr(part, name) for part in parts)]) for name in ("old_days", "new_days"))

    def listed(days: Integers) -> dict[str, Any]:
        dates = days.astype("datetime64[D]")
        return _listed([str(day) for day in dates[(dates >= first) & (dates <= last)]])

    return {ADDED: listed(np.setdiff1d(new, old)), REMOVED: listed(np.setdiff1d(old, new))}


def _universe_info(universe: pd.DataFrame) -> dict[str, Any]:
    counts = universe["class"].value_counts()
    names = list(dict.fromkeys(map(str, universe[INSTRUMENT])))
    return {str(kind): int(count) for kind, count in counts.items()} | _listed(names) | {"spells": len(universe)}


def _day(moment: Any) -> str:
    return str(pd.Timestamp(moment).date())
