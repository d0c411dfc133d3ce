"""What changed between two vintages: instrument, field, date, old, new and relative change, and a summary.

`data/diffs/<old>_<new>/` holds changes.parquet (a line for each changed cell), universe.parquet, jumps.parquet,
summary.json and, where anything changed, changes.png. Years with equal digests are skipped, so the usual daily diff
reads one year of each vintage.
"""

import logging
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pandas.api.types import union_categoricals

from mlops_tasks.columns import DATETIME, INSTRUMENT
from mlops_tasks.config import Settings
from mlops_tasks.data.exchanges.calendars import AUTO
from mlops_tasks.data.revisions.appended import appended_info
from mlops_tasks.data.revisions.changes import ADDED, CLASSES, REMOVED, changes_frame, classify
from mlops_tasks.data.revisions.comparison import Part, Rows, cells_of, compare_part, no_cells, no_jumps
from mlops_tasks.data.revisions.diff_summary import Ends, Frames, summarise
from mlops_tasks.data.sources.membership import FIRST_DATE, LAST_DATE
from mlops_tasks.data.vintages import Vintage, day_numbers, load_vintage, own_spans
from mlops_tasks.files import folder_lock, new_folder, plain_name, read_json, write_json

log = logging.getLogger(__name__)

CHANGES_FILE = "changes.parquet"
UNIVERSE_FILE = "universe.parquet"
JUMPS_FILE = "jumps.parquet"
SUMMARY_FILE = "summary.json"
PLOT_FILE = "changes.png"
CHANGED = "changed"
SAME_MARKET = 0.5
"""Least share of the smaller vintage's instruments that both have; below it, they are different markets."""

_BEFORE = 400
"""Days of bars before the last one from which an instrument's calendar is inferred."""


@dataclass(frozen=True)
class VintageDiff:
    """The difference of two vintages.

    Attributes
    ----------
    changes
        A line for each changed cell of the past, sorted by instrument, date and field: instrument, field, date, old,
        new, relative_change (NaN where there is none) and class (`revisions.changes.CLASSES`). A row that was
        added or removed has a line for each of its values. Rows after the old last date are not listed.
    universe
        Membership spells up to the old last date that differ: instrument, old_first_date, old_last_date,
        new_first_date, new_last_date and class (added, removed, changed).
    jumps
        Moves of the adjusted close beyond 40%, from one bar to the next of the same year, that the old vintage did
        not have: instrument, date, old, new.
    """

    changes: pd.DataFrame
    universe: pd.DataFrame
    jumps: pd.DataFrame
    content: Mapping[str, Any]

    def summary(self) -> dict[str, Any]:
        """Counts, spans, the first and the largest changes: JSON-able; `diff_summary` says what is in it."""
        return dict(self.content)

    @property
    def append_only(self) -> bool:
        """Whether nothing up to the old last date differs in any bar."""
        return bool(self.content["append_only"])


def diff_bars(
    old: pd.DataFrame,
    new: pd.DataFrame,
    universes: tuple[pd.DataFrame, pd.DataFrame] | None = None,
    calendar: str = AUTO,
) -> VintageDiff:
    """The difference of two frames of canonical bars, keys unique.

    Parameters
    ----------
    old, new
        As `canonical_bars` gives them; neither is empty.
    universes
        Membership spells of both; default: each instrument's own span.
    calendar
        `settings.calendar.name`: when instruments are expected to trade.
    """
    spells = universes or (own_spans(old), own_spans(new))
    return _diff(_side_of_bars(old, spells[0]), _side_of_bars(new, spells[1]), ("", ""), calendar)


def diff_vintages(settings: Settings, old_version: str, new_version: str) -> VintageDiff:
    """The difference of two vintages, made and stored now if it does not exist yet.

    Raises
    ------
    StoreError
        One of the vintages is not on disk.
    """
    found = find_diff(settings, old_version, new_version)
    if found is not None:
        return found
    old, new = (load_vintage(settings, version) for version in (old_version, new_version))
    made = _diff(_side_of(old), _side_of(new), (old_version, new_version), settings.calendar.name)
    target = diff_path(settings, old_version, new_version)
    with folder_lock(settings.data_dir), new_folder(target) as folder:
        for name, frame in _tables(made):
            pq.write_table(pa.Table.from_pandas(frame, preserve_index=False), folder / name, compression="zstd")
        if len(made.changes):
            _draw(made, folder / PLOT_FILE)
        write_json(folder / SUMMARY_FILE, made.content)
    log.info("%s against %s: %s changed cells", new_version, old_version, len(made.changes))
    return replace(made, content=read_json(target / SUMMARY_FILE))


def diff_path(settings: Settings, old_version: str, new_version: str) -> Path:
    """The folder of a diff."""
    return (
        settings.data_dir / "diffs" / "_".join(plain_name(each, "data version") for each in (old_version, new_version))
    )


def read_diff(settings: Settings, old_version: str, new_version: str) -> dict[str, Any] | None:
    """The summary of a diff that was made before, or None."""
    path = diff_path(settings, old_version, new_version) / SUMMARY_FILE
    return dict(read_json(path)) if path.is_file() else None


def find_diff(settings: Settings, old_version: str, new_version: str) -> VintageDiff | None:
    """A diff that was made before, or None."""
    summary = read_diff(settings, old_version, new_version)
    if summary is None:
        return None
    folder = diff_path(settings, old_version, new_version)
    changes, universe, jumps = (
        pq.read_table(folder / name).to_pandas() for name in (CHANGES_FILE, UNIVERSE_FILE, JUMPS_FILE)
    )
    return VintageDiff(changes, universe, jumps, summary)


def _draw(diff: VintageDiff, path: Path) -> None:
    from mlops_tasks.plots.figure import write_png
    from mlops_tasks.plots.vintage_diff import plot_vintage_diff, vintage_diff_info

    title = f"Changes of the past: {diff.content['old']} to {diff.content['new']}"
    write_png(plot_vintage_diff(vintage_diff_info(diff.changes, title)), path)


def _tables(diff: VintageDiff) -> list[tuple[str, pd.DataFrame]]:
    return [(CHANGES_FILE, diff.changes), (UNIVERSE_FILE, diff.universe), (JUMPS_FILE, diff.jumps)]


@dataclass(frozen=True)
class _Side:
    """One of the two, read by stretches of days."""

    names: list[str]
    years: Mapping[str, Any]
    """Year to a value that is equal where its bars are."""
    rows: int
    span: tuple[np.datetime64, np.datetime64]
    spells: pd.DataFrame
    read: Callable[[np.datetime64, np.datetime64], pd.DataFrame]


def _side_of(vintage: Vintage) -> _Side:
    def read(first: np.datetime64, last: np.datetime64) -> pd.DataFrame:
        return vintage.bars(start=str(first), end=str(last))

    span = np.datetime64(vintage.first_date, "D"), np.datetime64(vintage.last_date, "D")
    names = vintage.instrument_names()
    return _Side(names, vintage.manifest["years"], vintage.rows, span, vintage.members(), read)


def _side_of_bars(bars: pd.DataFrame, spells: pd.DataFrame) -> _Side:
    days = bars[DATETIME].to_numpy().astype("datetime64[D]")

    def read(first: np.datetime64, last: np.datetime64) -> pd.DataFrame:
        return bars[(days >= first) & (days <= last)]

    years = {str(year): object() for year in np.unique(days.astype("datetime64[Y]"))}
    names = sorted(bars[INSTRUMENT].unique())
    return _Side(names, years, len(bars), (days.min(), days.max()), spells, read)


def _diff(old: _Side, new: _Side, versions: tuple[str, str], calendar: str) -> VintageDiff:
    names = pd.Index(sorted({*old.names, *new.names}), dtype="str")
    common = len(old.names) + len(new.names) - len(names)
    same_market = common >= SAME_MARKET * min(len(old.names), len(new.names))
    last_day = int(day_numbers(old.span[1]))
    parts: dict[str, Part | None] = {}
    for year in sorted({*old.years, *new.years}) if same_market else []:
        equal = old.years.get(year) == new.years.get(year)
        parts[year] = None if equal else _compare_year((old, new), year, names, last_day)
    unequal = [part for part in parts.values() if part is not None]
    changes = _changes(parts, names, old)
    universe = _universe_changes(old.spells, new.spells, old.span[1])
    jumps = _jumps(unequal, names)
    last = next((part.last for part in unequal if len(part.last.codes)), None)
    appended = appended_info(
        last or Rows.of(old.read(old.span[1], old.span[1]), names),
        [part.appended for part in unequal],
        names,
        calendar,
        lambda: Rows.of(old.read(old.span[1] - _BEFORE, old.span[1]), names),
    )
    equal_rows = sum(int(old.years[year]["rows"]) for year, part in parts.items() if part is None)
    ends = Ends(versions, (old.span, new.span), (old.names, new.names), (old.rows, new.rows), same_market, equal_rows)
    content = summarise(ends, unequal, Frames(changes, universe, jumps), appended)
    return VintageDiff(changes, universe, jumps, content)


def _compare_year(sides: tuple[_Side, _Side], year: str, names: pd.Index, last_day: int) -> Part:
    with ThreadPoolExecutor(2) as pool:
        old, new = pool.map(lambda side: _rows_of_year(side, year, names), sides)
    return compare_part(old, new, len(names), last_day)


def _rows_of_year(side: _Side, year: str, names: pd.Index) -> Rows:
    first, last = np.datetime64(f"{year}-01-01", "D"), np.datetime64(f"{year}-12-31", "D")
    return Rows.of(side.read(first, last), names)


def _changes(parts: Mapping[str, Part | None], names: pd.Index, old: _Side) -> pd.DataFrame:
    """The cells of all years with their classes; rows are numbered consecutively, equal years (None) included."""
    unequal = [part for part in parts.values() if part is not None]
    any_change = any(len(part.cells) for part in unequal)
    before = np.zeros(len(names), dtype=np.int64)
    cells = []
    for year, part in parts.items():
        if part is not None:
            cells.append(part.cells.assign(place=part.cells["place"] + before[part.cells["code"]]))
            before += part.common
        elif any_change:
            before += np.bincount(_rows_of_year(old, year, names).codes, minlength=len(names))
    changed = pd.concat([no_cells(), *cells], ignore_index=True)
    rows = [(ADDED, cells_of(part.added, "new")) for part in unequal]
    rows += [(REMOVED, cells_of(part.removed, "old")) for part in unequal]
    kinds = [classify(changed, before), *(pd.Categorical([kind] * len(own), list(CLASSES)) for kind, own in rows)]
    whole = pd.concat([changed, *(own for _, own in rows)], ignore_index=True)
    return changes_frame(whole, union_categoricals(kinds), names)


def _universe_changes(old: pd.DataFrame, new: pd.DataFrame, last: np.datetime64) -> pd.DataFrame:
    """Spells up to the old last date, cut there, that only one of the two has; of one instrument paired in order."""
    before, after = (
        spells[spells[FIRST_DATE] <= last].assign(**{LAST_DATE: spells[LAST_DATE].clip(upper=pd.Timestamp(last))})
        for spells in (old, new)
    )
    keys = [INSTRUMENT, FIRST_DATE, LAST_DATE]
    both = before.merge(after, on=keys, how="outer", indicator="side")
    gone, came = (
        both.loc[both["side"] == side, keys].assign(turn=lambda spells: spells.groupby(INSTRUMENT).cumcount())
        for side in ("left_only", "right_only")
    )
    pairs = gone.merge(came, on=[INSTRUMENT, "turn"], how="outer", suffixes=("_old", "_new")).drop(columns="turn")
    kinds = np.select([pairs[f"{FIRST_DATE}_old"].isna(), pairs[f"{FIRST_DATE}_new"].isna()], [ADDED, REMOVED], CHANGED)
    names = {f"{name}_{side}": f"{side}_{name}" for name in (FIRST_DATE, LAST_DATE) for side in ("old", "new")}
    return pairs.rename(columns=names).assign(**{"class": kinds.astype(object)})


def _jumps(parts: list[Part], names: pd.Index) -> pd.DataFrame:
    jumps = pd.concat([no_jumps(), *(part.jumps for part in parts)], ignore_index=True)
    return pd.DataFrame(
        {
            INSTRUMENT: names.take(jumps["code"]),
            "date": jumps["day"].to_numpy().astype("datetime64[D]").astype("datetime64[s]"),
            "old": jumps["old"],
            "new": jumps["new"],
        }
    )
