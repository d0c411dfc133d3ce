"""The raw rows: the bars that a score looks back on as its vintage has them, and what is known of each.

Which row of which source file a bar came from is found by reading the source once more, where its files are still those
that the vintage was made from. Only files and the synthetic market are read: a database or a vendor is not asked again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from math import isinf
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from mlops_tasks.columns import BAR_FIELDS, DATETIME, INSTRUMENT
from mlops_tasks.config import SYNTHETIC, Settings, TableSource
from mlops_tasks.data.revisions.diff import CHANGES_FILE
from mlops_tasks.data.sources.parsed import SOURCE_FILE, SOURCE_ROW
from mlops_tasks.data.sources.reader import open_source
from mlops_tasks.data.validation.quarantine_columns import REASON, REMEDY, RULE, SEVERITY
from mlops_tasks.data.validation.releases import load_releases
from mlops_tasks.data.validation.staging import REPORT_FILE, ROWS_FILE, WARNINGS_FILE
from mlops_tasks.data.vintages import Vintage, canonical_bars
from mlops_tasks.errors import LineageError
from mlops_tasks.features.sets import FeatureSet
from mlops_tasks.files import digest_of_file, finite_or_none, read_json
from mlops_tasks.provenance.evidence import EvidenceBook


@dataclass(frozen=True)
class TracedBar:
    """One bar as a vintage has it: raw prices, volume in shares."""

    date: date
    values: Mapping[str, float | None]
    source_file: str | None = None
    source_row: int | None = None
    """Its row in the file, from 1, the header not counted; None: not known any more."""


@dataclass(frozen=True)
class Revision:
    """A cell that two vintages have differently."""

    old_version: str
    new_version: str
    date: date
    field: str
    old: float | None
    new: float | None
    kind: str
    """As `revisions.changes.CLASSES`."""


@dataclass(frozen=True)
class Kept:
    """A row of the instrument that a rule kept back, or warned about, when the vintage was made."""

    rule: str
    severity: str
    date: date | None
    source_file: str | None
    source_row: int | None
    reason: str
    remedy: str


@dataclass(frozen=True)
class TracedBars:
    """The look-back window of one instrument."""

    first: date
    last: date
    bars: tuple[TracedBar, ...]
    """Ascending."""
    revisions: tuple[Revision, ...]
    """That led to the vintage, or came after it; of the vintages whose comparison is kept."""
    kept: tuple[Kept, ...]
    released: tuple[str, ...]
    """What a person let through a rule, in words."""
    also_read: tuple[str, ...] = ()
    """Other instruments whose bars the features read; `*`: all of the universe's members."""


def find_bars(
    settings: Settings, vintage: Vintage, instrument: str, window: tuple[date, date], book: EvidenceBook
) -> TracedBars:
    """The bars of an instrument in a window of days, and what touched them.

    Raises
    ------
    DamagedFileError
        A file of the vintage is not what was written.
    """
    first, last = window
    frame = vintage.bars(BAR_FIELDS, first, last)
    frame = frame[frame[INSTRUMENT] == instrument].reset_index(drop=True)
    book.proven("bars", f"the files of vintage {vintage.data_version} have the digests that it is named by")
    bars = tuple(_bar(row) for row in frame.to_dict("records"))
    with book.verifying("source rows"):
        rows = _source_rows(settings, vintage, instrument)
        found = [_located(bar, frame.loc[[place]], rows) for place, bar in enumerate(bars)]
        if lost := [str(each.date) for each in found if each.source_row is None]:
            raise LineageError(
                f"the source has no row of {instrument} that gives the bar of {lost[0]} ({len(lost)} in all); the "
                "settings of the source have changed since: compare `alphaops diff`"
            )
        bars = tuple(found)
        book.proven("source rows", "the files have the SHA-256 of then, and each row gives its bar bit for bit")
    return TracedBars(
        first=first,
        last=last,
        bars=bars,
        revisions=tuple(_revisions(settings, vintage.data_version, instrument, window)),
        kept=tuple(_kept(settings, vintage.data_version, instrument, window)),
        released=tuple(
            f"rule {each.rule}, {each.date}, by {each.released_by} at {each.released_at}: {each.reason}"
            for each in load_releases(settings)
            if each.instrument == instrument
        ),
    )


def window_of(
    vintage: Vintage, definition: FeatureSet, columns: Sequence[str], days: int, day: date
) -> tuple[date, date]:
    """First and last day of the bars that a model's columns of a day read, if it sees this number of trading days."""
    reaches = [rows for name in columns for rows in definition.dependencies[name].values()]
    calendar = vintage.calendar()
    place = int(calendar.searchsorted(pd.Timestamp(day)))
    reach = max(reaches, default=0.0)
    first = 0 if isinf(reach) else max(0, place - int(reach) - (days - 1))
    return calendar[first].date(), day


def _bar(row: Mapping[Any, Any]) -> TracedBar:
    return TracedBar(pd.Timestamp(row[DATETIME]).date(), {name: finite_or_none(row[name]) for name in BAR_FIELDS})


def _source_rows(settings: Settings, vintage: Vintage, instrument: str) -> pd.DataFrame:
    """The instrument's rows as the source has them.

    Raises
    ------
    LineageError
        They are not what the vintage was made from, or are not read again.
    """
    name, raw = vintage.manifest.get("source"), vintage.manifest.get("raw", [])
    if not name or not raw:
        raise LineageError(f"vintage {vintage.data_version} does not record its source; sync it again to have that")
    spec = settings.data.sources.get(name, TableSource(kind="table", path=name))
    if name != SYNTHETIC and not isinstance(spec, TableSource):
        answers = ", ".join(f"{each['name']} ({each['sha256'][:16]})" for each in raw if instrument in each["name"])
        raise LineageError(
            f"{name} is a {spec.kind} source, which is not asked again: what it answered is "
            f"{answers or f'recorded in {len(raw)} parts'} by its SHA-256; compare it with the vendor's own record"
        )
    for each in raw if name != SYNTHETIC else ():
        path = Path(each["name"])
        if not path.is_file() or digest_of_file(path) != each["sha256"]:
            what = "has changed since" if path.is_file() else "is gone"
            raise LineageError(
                f"{path} {what}: the vintage was made from the file with SHA-256 {each['sha256']}; bring that back to "
                "see the rows"
            )
    parsed = open_source(settings, name).read()
    if [each.sha256 for each in parsed.raw] != [each["sha256"] for each in raw]:
        raise LineageError(f"{name} is read otherwise than then, since its settings have changed; restore them")
    rows: pd.DataFrame = parsed.frame[(parsed.frame[INSTRUMENT] == instrument) & parsed.frame[DATETIME].notna()]
    return rows


def _located(bar: TracedBar, held: pd.DataFrame, rows: pd.DataFrame) -> TracedBar:
    """A bar with the source's row that gives exactly it."""
    of_day = rows[rows[DATETIME] == pd.Timestamp(bar.date)]
    for place in range(len(of_day)):
        given = canonical_bars(of_day.iloc[[place]])
        same = all(np.array_equal(given[name].to_numpy(), held[name].to_numpy(), equal_nan=True) for name in BAR_FIELDS)
        if same:
            row = of_day.iloc[place]
            return replace(bar, source_file=str(row[SOURCE_FILE]), source_row=int(row[SOURCE_ROW]))
    return bar


def _revisions(settings: Settings, data_version: str, instrument: str, window: tuple[date, date]) -> list[Revision]:
    """Changed cells of the comparisons that are on disk, of vintages before and after this one, oldest first."""
    pairs = [tuple(path.parent.name.split("_")) for path in settings.data_dir.glob(f"diffs/[!.]*/{CHANGES_FILE}")]
    related, found = {data_version}, list[Revision]()
    while more := {v for pair in pairs if related & set(pair) for v in pair} - related:
        related |= more
    for old, new in sorted(pair for pair in pairs if len(pair) == 2 and set(pair) <= related):
        path = settings.data_dir / "diffs" / f"{old}_{new}" / CHANGES_FILE
        changes = pq.read_table(path, filters=[(INSTRUMENT, "==", instrument)]).to_pandas()
        days = pd.to_datetime(changes["date"])
        inside = (days >= pd.Timestamp(window[0])) & (days <= pd.Timestamp(window[1]))
        for row in changes[inside].to_dict("records"):
            day, values = pd.Timestamp(row["date"]).date(), (finite_or_none(row["old"]), finite_or_none(row["new"]))
            found.append(Revision(old, new, day, str(row["field"]), *values, str(row["class"])))
    return found


def _kept(settings: Settings, data_version: str, instrument: str, window: tuple[date, date]) -> list[Kept]:
    """What the validations of a vintage said of the instrument's rows in a window."""
    found: list[Kept] = []
    for report in sorted(settings.data_dir.glob(f"quarantine/[!.]*/{REPORT_FILE}")):
        if read_json(report).get("data_version") != data_version:
            continue
        for name in (ROWS_FILE, WARNINGS_FILE):
            rows = pq.read_table(report.parent / name).to_pandas()
            rows = rows[rows[INSTRUMENT].astype(object) == instrument]
            for row in rows.to_dict("records"):
                day = None if pd.isna(row[DATETIME]) else pd.Timestamp(row[DATETIME]).date()
                if day is None or window[0] <= day <= window[1]:
                    found.append(_kept_row(row, day))
    return found


def _kept_row(row: Mapping[Any, Any], day: date | None) -> Kept:
    number, file = row.get(SOURCE_ROW), row.get(SOURCE_FILE)
    return Kept(
        rule=str(row[RULE]),
        severity=str(row.get(SEVERITY, "")),
        date=day,
        source_file=None if pd.isna(file) else str(file),
        source_row=None if number is None or pd.isna(number) else int(number),
        reason=str(row.get(REASON, "")),
        remedy=str(row.get(REMEDY, "")),
    )
