"""Which features can differ between two vintages, derived from their bars.

A feature of an instrument on a day is a function of what its window shows: the calendar rows back to the reach of the
feature, or to the beginning of the instrument's series if that comes first, and in each row the bar's values, or that
there is no bar. So it can differ only where

- a value in the window differs, for each field as far back as that field is read,
- a bar in the window was added or removed,
- the series' beginning moved, and the window reaches between the old and the new one,
- a day in the window entered the market's calendar or left it: windows count its rows,
- one of these holds for another instrument that the expressions read.

Values are compared as the engine takes them, adjusted and rounded to float32, bit by bit: what rounding removes is not
a difference. Reaches are those of the feature set's dependencies; an infinite one reaches to the end of the series.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from mlops_tasks.features.bars import NEVER, BarGrid, BoolArray
from mlops_tasks.features.kernels import IntArray

Reach = Mapping[str, float]
"""Field to how many of its calendar rows before the current one are read."""

_Spans = tuple[IntArray, IntArray, IntArray]
"""Instruments, each with a first and a last row."""


def affected_rows(old: BarGrid, new: BarGrid, own: Reach, foreign: Mapping[str, Reach]) -> BoolArray:
    """The rows of a vintage whose features can differ from those over an older one.

    Parameters
    ----------
    old, new
        Bars of the same instruments, each on the trading days of its vintage, from the first day on that the windows
        of the rows in question reach.
    own
        What is read from an instrument itself.
    foreign
        What is read from other instruments, for all.

    Returns
    -------
    bool (instruments, days of `new`); false where there is no bar. Rows whose windows reach further than the grids are
    judged by what these show.
    """
    affected = _covered(_spans(old, new, own), new.has_bar.shape)
    for name, reach in foreign.items():
        if name in new.names:
            place = [new.names.get_loc(name)]
            affected |= _covered(_spans(old.at(place), new.at(place), reach), (1, len(new.days)))
    return affected & new.has_bar


def rows_of_other_cross_sections(old: BarGrid, new: BarGrid, market: Reach) -> BoolArray:
    """The rows of a vintage that depend, by operators across instruments, on another cross-section than before.

    Parameters
    ----------
    old, new
        As for `affected_rows`, with `member`.
    market
        What is read from all instruments.

    Returns
    -------
    As `affected_rows`: all instruments of the days on which the windows of any of them differ or others are members.
    """
    assert old.member is not None and new.member is not None
    _, old_rows, new_rows = np.intersect1d(old.days, new.days, assume_unique=True, return_indices=True)
    others = new_rows[(old.member[:, old_rows] != new.member[:, new_rows]).any(axis=0)]
    spans = iter([(np.zeros(len(others), np.int64), others, _plus(others, max(market.values())))])
    days = _covered(spans, (1, len(new.days)))[0] | _covered(_spans(old, new, market), new.has_bar.shape).any(axis=0)
    return days & new.has_bar


def _spans(old: BarGrid, new: BarGrid, reach: Reach) -> Iterator[_Spans]:
    """Stretches of rows of `new` whose windows see a difference."""
    _, old_rows, new_rows = np.intersect1d(old.days, new.days, assume_unique=True, return_indices=True)
    old_at, new_at = _columns(old_rows, old), _columns(new_rows, new)
    for field, rows in reach.items():
        before, after = (grid.values[field].view(np.uint32)[:, at] for grid, at in ((old, old_at), (new, new_at)))
        codes, places = np.nonzero(before != after)
        yield codes, new_rows[places], _plus(new_rows[places], rows)
    longest = max(reach.values(), default=0.0)
    codes, places = np.nonzero(old.has_bar[:, old_at] != new.has_bar[:, new_at])
    yield codes, new_rows[places], _plus(new_rows[places], longest)
    yield _of_moved_beginnings(old, new, longest)
    yield from _of_calendar_days(old, new, longest)


def _of_moved_beginnings(old: BarGrid, new: BarGrid, reach: float) -> _Spans:
    floor = min(grid.days[0] for grid in (old, new) if len(grid.days))
    before, after = np.maximum(old.begins, floor), np.maximum(new.begins, floor)
    codes = np.flatnonzero((before != after) & (before != NEVER) & (after != NEVER))
    earlier, later = np.sort([before[codes], after[codes]], axis=0)
    first, last = np.searchsorted(new.days, earlier), np.searchsorted(new.days, later) - 1
    return codes, first, _plus(last, reach)


def _of_calendar_days(old: BarGrid, new: BarGrid, reach: float) -> Iterator[_Spans]:
    added = np.flatnonzero(~np.isin(new.days, old.days, assume_unique=True))
    codes, places = np.nonzero(new.begins[:, None] <= new.days[added])
    yield codes, added[places], _plus(added[places], reach)
    # A row that saw a removed day is found by its day: it has another number in the new calendar.
    removed = np.flatnonzero(~np.isin(old.days, new.days, assume_unique=True))
    ends = np.append(old.days, NEVER)[np.minimum(_plus(removed, reach), len(old.days))]
    first, last = np.searchsorted(new.days, old.days[removed]), np.searchsorted(new.days, ends, "right") - 1
    codes, places = np.nonzero(old.begins[:, None] < old.days[removed])
    yield codes, first[places], last[places]


def _covered(spans: Iterator[_Spans], shape: Sequence[int]) -> BoolArray:
    """The rows that lie in any of the spans, (instruments, rows)."""
    instruments, rows = shape
    steps = np.zeros(instruments * (rows + 1), np.int64)
    for codes, first, last in spans:
        steps += np.bincount(codes * (rows + 1) + first, minlength=len(steps))
        steps -= np.bincount(codes * (rows + 1) + np.clip(last + 1, first, rows), minlength=len(steps))
    covered: BoolArray = np.cumsum(steps.reshape(instruments, rows + 1), axis=1)[:, :-1] > 0
    return covered


def _columns(rows: IntArray, grid: BarGrid) -> IntArray | slice:
    """An index of the grid's days; a slice where it is all of them, so that nothing is copied."""
    return slice(None) if len(rows) == len(grid.days) else rows


def _plus(rows: IntArray, reach: float) -> IntArray:
    return rows + int(min(reach, 2**31))
