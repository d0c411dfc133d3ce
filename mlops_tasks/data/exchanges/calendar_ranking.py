"""Which calendars are worth computing for days that follow an unknown one.

exchange_calendars takes a tenth of a second for a calendar, and ten seconds for all of them.
`include/calendars/exceptions.json` lists for each the days from 1990 to 2027 on which it differs from Monday to Friday,
so that all can be compared with given days at once. It only decides which calendars are then computed: an error or a
gap in it costs time and nothing else. `calendar_table.py` makes it.
"""

import json
from functools import lru_cache
from itertools import accumulate
from typing import Any

import numpy as np

from mlops_tasks.config import PROJECT

TABLE = PROJECT / "include" / "calendars" / "exceptions.json"
FIRST, LAST = np.datetime64("1990-01-01", "D"), np.datetime64("2027-12-31", "D")

Booleans = np.ndarray[Any, np.dtype[np.bool_]]


def ranked(has_row: Booleans, days: Any) -> list[str]:
    """The best-fitting calendar of each instrument, without repeats, those of the most instruments first.

    Fit is measured as in `calendars.followed_calendars`: days off-session, then sessions without a row between an
    instrument's first and last day; for sessions and for the days before them.

    Parameters
    ----------
    has_row
        (instruments, days) whether an instrument has a row on a day.
    days
        (days,) `datetime64[D]`, ascending.
    """
    inside = (days >= FIRST) & (days < LAST)
    has_row, days = has_row[:, inside], days[inside]
    has_row = has_row[has_row.any(axis=1)]
    if not len(has_row):
        return []
    names, marks = known_sessions()
    votes = dict.fromkeys(names, 0)
    places = (days - FIRST).astype(np.int64)
    first, last = (places[index] for index in (has_row.argmax(axis=1), -1 - has_row[:, ::-1].argmax(axis=1)))
    rows = has_row.sum(axis=1)[:, np.newaxis]
    misfits = []
    for early in (0, 1):
        on_session = has_row.astype(np.float32) @ marks[:, places + early].T.astype(np.float32)
        until = np.concatenate([np.zeros((len(names), 1)), np.cumsum(marks, axis=1)], axis=1)
        expected = until[:, last + 1 + early].T - until[:, first + early].T
        misfits.append(np.stack([rows - on_session, expected - on_session]))
    strange, absent = np.concatenate(misfits, axis=2)
    for off, lacking in zip(strange, absent, strict=True):
        votes[names[np.lexsort((lacking, off))[0] % len(names)]] += 1
    return sorted((name for name in names if votes[name]), key=lambda name: -votes[name])


def unranked() -> list[str]:
    """The library's calendars that the table lacks: they cannot be computed for its years, or came with an upgrade."""
    import exchange_calendars

    names, _ = known_sessions()
    return sorted({*exchange_calendars.get_calendar_names(include_aliases=False)} - {*names})


@lru_cache(maxsize=1)
def known_sessions() -> tuple[list[str], Booleans]:
    """Names, and (calendars, days from `FIRST` to `LAST`) whether each day is a session as far as the table knows."""
    table = json.loads(TABLE.read_text())
    marks = np.tile(np.is_busday(np.arange(FIRST, LAST + 1)), (len(table), 1))
    for place, steps in enumerate(table.values()):
        marks[place, list(accumulate(steps))] ^= True
    return list(table), marks
