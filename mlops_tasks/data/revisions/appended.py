"""The days that a vintage adds, compared with the last day of the one before: missing instruments, and changed units.

Every instrument that traded on the old last day is expected on each added day that is a session of its calendar.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from mlops_tasks.columns import CLOSE, VOLUME
from mlops_tasks.data.exchanges.calendars import instrument_calendars, sessions
from mlops_tasks.data.revisions.comparison import Booleans, Integers, Rows, common_places

MIN_INSTRUMENTS = 10
"""A median of fewer instruments says nothing about units."""
SHOWN = 10
"""Number of names and days that a summary lists."""


def appended_info(
    last: Rows, appended: Sequence[Rows], names: pd.Index, calendar: str, recent: Callable[[], Rows]
) -> dict[str, Any]:
    """Rows, days, the worst covered day and the change of scale; JSON-able.

    Parameters
    ----------
    last
        The old vintage's rows on its last day.
    appended
        Rows after that day.
    calendar, recent
        `settings.calendar.name`, and how to read the old rows that `auto` infers calendars from.
    """
    codes, days = (np.concatenate([getattr(rows, name) for rows in appended] or [[]]) for name in ("codes", "days"))
    info: dict[str, Any] = {"rows": len(codes), "instruments": len(np.unique(codes))}
    if not len(codes):
        return info | {"days": 0, "first_date": None, "last_date": None, "lowest_coverage": None, "scale": {}}
    added = np.unique(days)
    first = next(rows for rows in appended if len(rows.codes))
    return info | {
        "days": len(added),
        "first_date": date_text(added[0]),
        "last_date": date_text(added[-1]),
        "lowest_coverage": _lowest_coverage(last.codes, (codes, days), names, calendar, recent),
        "scale": {field: _scale(last, first, field) for field in (CLOSE, VOLUME)},
    }


def date_text(day: Any) -> str:
    """A day number as an ISO date."""
    return str(np.datetime64(int(day), "D"))


def _lowest_coverage(
    expected: Integers, rows: tuple[Integers, Integers], names: pd.Index, calendar: str, recent: Callable[[], Rows]
) -> dict[str, Any]:
    """The added day on which the smallest share of the expected instruments has a row."""
    codes, days = rows
    added = np.unique(days)
    known = np.flatnonzero(np.isin(codes, expected))
    present = np.zeros((len(added), len(expected)), dtype=bool)
    present[np.searchsorted(added, days[known]), np.searchsorted(expected, codes[known])] = True
    opened = np.ones_like(present) if present.all() else _sessions(expected, added, calendar, recent(), names)
    due = np.maximum(opened.sum(axis=1), 1)
    share = np.where(opened.any(axis=1), (present & opened).sum(axis=1) / due, 1.0)
    worst = int(np.argmin(share))
    missing = expected[opened[worst] & ~present[worst]]
    return {
        "date": date_text(added[worst]),
        "share": float(share[worst]),
        "expected": int(due[worst]),
        "missing": len(missing),
        "first": names[missing[:SHOWN]].tolist(),
    }


def _sessions(expected: Integers, added: Integers, calendar: str, recent: Rows, names: pd.Index) -> Booleans:
    """Whether each added day is a session of each expected instrument; shape (days, instruments)."""
    seen = recent.days.astype("datetime64[D]")
    found = instrument_calendars(calendar, recent.codes, seen, len(names), names.astype(str).tolist())
    own = np.array(found)[expected]
    days = added.astype("datetime64[D]")
    opened = np.zeros((len(added), len(expected)), dtype=bool)
    for name in np.unique(own):
        opened[:, own == name] = np.isin(days, sessions(str(name), days[0], days[-1]))[:, None]
    return opened


def _scale(last: Rows, appended: Rows, field: str) -> float | None:
    """Median over instruments of log10(first added / last old value): about k where the new unit is 10^-k old ones.

    None where fewer than `MIN_INSTRUMENTS` have both.
    """
    first = appended.at(np.flatnonzero(appended.days == appended.days.min()))
    old_at, new_at = common_places(last.codes, first.codes)
    before, after = last.fields[field][old_at], first.fields[field][new_at]
    usable = (before > 0) & (after > 0)
    if usable.sum() < MIN_INSTRUMENTS:
        return None
    return float(np.median(np.log10(after[usable] / before[usable])))
