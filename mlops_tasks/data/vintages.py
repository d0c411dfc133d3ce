"""Vintages: immutable, content-addressed snapshots of raw bars and membership.

`data/vintages/<data_version>/` is written under another name and renamed, pinned in DVC
(`data/vintages/<data_version>.dvc`), and comes into use in one step, when `data/current.json` is replaced.
"""

import hashlib
import logging
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from mlops_tasks.columns import BAR_FIELDS, DATETIME, FACTOR, INSTRUMENT, PRICES, VOLUME, VWAP
from mlops_tasks.config import Settings
from mlops_tasks.data.bar_files import digest_years, sorted_frame, write_bars
from mlops_tasks.data.sources.membership import (
    FIRST_DATE,
    LAST_DATE,
    canonical_membership,
    format_membership,
    read_membership,
)
from mlops_tasks.data.vintage_files import BARS, INSTRUMENTS, MANIFEST, UNIVERSE, VintageFiles, seal, version_of
from mlops_tasks.errors import DamagedFileError, OvertakenVintageError, StoreError
from mlops_tasks.files import new_folder, plain_name, read_json, write_json, write_text
from mlops_tasks.shared_store import Kind, fetch, pull, replace
from mlops_tasks.shared_store import publish as share
from mlops_tasks.verified import verified_files

log = logging.getLogger(__name__)

Day = date | str
WHICHEVER = "*"
"""In place of a data version: whatever is in use."""
BoolArray = np.ndarray[Any, np.dtype[np.bool_]]


@dataclass(frozen=True)
class Vintage:
    """One data version on disk. Reading is lazy, and gives raw prices unless a method says otherwise.

    Every method raises DamagedFileError where a file is not what was written, before reading any of it.
    """

    data_version: str
    path: Path
    rows: int
    instruments: int
    first_date: str
    last_date: str
    manifest: dict[str, Any]
    files: VintageFiles = field(repr=False)

    def bars(
        self, fields: Sequence[str] = BAR_FIELDS, start: Day | None = None, end: Day | None = None
    ) -> pd.DataFrame:
        """Columns datetime, instrument and `fields` (float64, raw prices, volume in shares), both ends included.

        Sorted by instrument and datetime, RangeIndex. NaN: volume or vwap that the source did not have.
        """
        tables = list(self.tables(fields, start, end))
        if not tables:
            columns: dict[str, Any] = {DATETIME: np.empty(0, "datetime64[ns]"), INSTRUMENT: pd.array([], dtype="str")}
            return pd.DataFrame(columns | {field: np.empty(0) for field in fields})
        return sorted_frame(pa.concat_tables(tables), fields)

    def tables(
        self, fields: Sequence[str] = BAR_FIELDS, start: Day | None = None, end: Day | None = None
    ) -> Iterator[pa.Table]:
        """The bars of each year as they are on disk, day after day, columns as `bars`; instruments as a dictionary."""
        first, last = pd.Timestamp(start or self.first_date), pd.Timestamp(end or self.last_date)
        for year in self.manifest["years"]:
            if first.year <= int(year) <= last.year:
                whole = first <= pd.Timestamp(int(year), 1, 1) and pd.Timestamp(int(year), 12, 31) <= last
                yield pq.read_table(
                    self.files.bars(year),
                    columns=[DATETIME, INSTRUMENT, *fields],
                    read_dictionary=[INSTRUMENT],
                    filters=None if whole else _between(first, last),
                )

    def adjusted_bars(
        self, start: Day | None = None, end: Day | None = None, fields: Sequence[str] = BAR_FIELDS
    ) -> pd.DataFrame:
        """`bars` in Qlib's convention: open, high, low, close, vwap times factor; volume divided by factor."""
        bars = self.bars(tuple(dict.fromkeys((*fields, FACTOR))), start, end)
        scaled = {name: adjusted(name, bars[name], bars[FACTOR]) for name in fields}
        return bars.assign(**scaled)[[DATETIME, INSTRUMENT, *fields]]

    def members(self) -> pd.DataFrame:
        """Membership spells (instrument, first_date, last_date) of instruments that have bars; both days included."""
        return self._members

    @cached_property
    def _members(self) -> pd.DataFrame:
        spells = read_membership(self.files.universe())
        known = spells[INSTRUMENT].isin(self.instrument_names())
        if not known.all():
            without = spells.loc[~known, INSTRUMENT].nunique()
            log.info("universe of %s: %s instruments have no bars", self.data_version, without)
        return spells[known].reset_index(drop=True)

    def instrument_names(self) -> list[str]:
        """Names that have bars, sorted."""
        names: list[str] = self.files.instruments().read_text().splitlines()
        return names

    def membership_mask(self, index: pd.MultiIndex) -> BoolArray:
        """Whether each (datetime, instrument) of `index` is a member on that day; shape (len(index),)."""
        spells = self.members()
        names = pd.Index(spells[INSTRUMENT].unique())
        level = index.names.index(INSTRUMENT) if INSTRUMENT in index.names else 1
        codes = names.get_indexer(index.levels[level])[index.codes[level]]
        days = day_numbers(index.levels[1 - level])[index.codes[1 - level]]
        # Spells of one instrument may overlap in a source, so they count as opened minus closed, not as one interval.
        owner = names.get_indexer(spells[INSTRUMENT])
        opened = row_keys(owner, day_numbers(pd.DatetimeIndex(spells[FIRST_DATE])))
        closed = row_keys(owner, day_numbers(pd.DatetimeIndex(spells[LAST_DATE])))
        asked = row_keys(codes, days)
        inside = np.searchsorted(np.sort(opened), asked, "right") - np.searchsorted(np.sort(closed), asked, "left")
        mask: BoolArray = (inside > 0) & (codes >= 0)
        return mask

    def calendar(self) -> pd.DatetimeIndex:
        """Days on which any instrument has a bar, sorted."""
        return self._calendar

    @cached_property
    def _calendar(self) -> pd.DatetimeIndex:
        days = [_runs(table[DATETIME].to_numpy()) for table in self.tables(())]
        return pd.DatetimeIndex(np.unique(np.concatenate([np.empty(0, "datetime64[ns]"), *days])), name=DATETIME)

    def member_days(self, first: Day, last: Day) -> int:
        """Trading days of all members together, both ends included: no fewer than bars of members.

        A day that lies in two different spells of an instrument counts twice.
        """
        calendar, spells = self.calendar(), self.members()
        low, high = calendar.searchsorted(pd.Timestamp(first)), calendar.searchsorted(pd.Timestamp(last), "right")
        opened = calendar.searchsorted(pd.DatetimeIndex(spells[FIRST_DATE])).clip(low, high)
        closed = calendar.searchsorted(pd.DatetimeIndex(spells[LAST_DATE]), "right").clip(low, high)
        return int((closed - opened).sum())


def adjusted(field: str, values: Any, factor: Any) -> Any:
    """Raw values of one field in Qlib's convention: a price times its factor, a volume divided by it."""
    if field in (*PRICES, VWAP):
        return values * factor
    return values / factor if field == VOLUME else values


def canonical_bars(frame: pd.DataFrame) -> pd.DataFrame:
    """Columns datetime, instrument, `BAR_FIELDS`, sorted by instrument and datetime; -0.0 is 0.0, NaNs are one."""
    fields = {name: np.where(frame[name].isna(), np.nan, frame[name].astype("float64") + 0.0) for name in BAR_FIELDS}
    codes, names = pd.factorize(frame[INSTRUMENT], sort=True)
    days = frame[DATETIME].to_numpy().astype("datetime64[ns]")
    order = np.lexsort((days, codes))
    columns = {
        DATETIME: days[order],
        INSTRUMENT: pd.array(np.asarray(names, dtype=object), dtype="str").take(codes[order]),
    }
    return pd.DataFrame(columns | {name: values[order] for name, values in fields.items()})


def own_spans(bars: pd.DataFrame) -> pd.DataFrame:
    """The membership of a source without one: each instrument from its first to its last bar."""
    spans = bars.groupby(INSTRUMENT, sort=True)[DATETIME].agg(["min", "max"]).reset_index()
    return canonical_membership(spans.set_axis([INSTRUMENT, FIRST_DATE, LAST_DATE], axis=1))


def write_vintage(
    settings: Settings, bars: pd.DataFrame, universe: pd.DataFrame | None, provenance: dict[str, Any]
) -> Vintage:
    """Write a vintage of canonical bars, or find it there, and return it. It is not in use yet.

    `provenance` (source, received, quarantined) is recorded in the manifest and not part of the version. The caller
    holds the data folder's lock.
    """
    spells = own_spans(bars) if universe is None else canonical_membership(universe)
    years, universe_text = digest_years(bars), format_membership(spells)
    universe_digest = hashlib.sha256(universe_text.encode()).hexdigest()[:16]
    version = version_of(years, universe_digest)
    names = sorted(bars[INSTRUMENT].unique())
    manifest = provenance | {
        "data_version": version,
        "rows": len(bars),
        "instruments": len(names),
        "first_date": str(bars[DATETIME].min().date()),
        "last_date": str(bars[DATETIME].max().date()),
        "years": years,
        "universe_digest": universe_digest,
    }
    target = vintage_path(settings, version)
    if not is_whole(settings, version):
        shutil.rmtree(target, ignore_errors=True)
        with new_folder(target) as folder:
            write_text(folder / UNIVERSE, universe_text)
            write_text(folder / INSTRUMENTS, "".join(f"{name}\n" for name in names))
            write_bars(folder / BARS, bars)
            write_json(folder / MANIFEST, seal(folder, manifest))
        log.info("vintage %s: %s rows, %s instruments", version, len(bars), len(names))
    return load_vintage(settings, version)


def vintage_path(settings: Settings, data_version: str) -> Path:
    """The folder of a data version."""
    return settings.data_dir / "vintages" / plain_name(data_version, "data version")


def is_complete(path: Path) -> bool:
    """Whether every file of a vintage is there: an interrupted checkout or link leaves only some of them."""
    try:
        years = [*read_json(path / MANIFEST)["years"]]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    files = [UNIVERSE, INSTRUMENTS, *(f"{BARS}/{year}.parquet" for year in years)]
    return all((path / name).is_file() for name in files)


def is_whole(settings: Settings, data_version: str) -> bool:
    """Whether a vintage is on disk as it was written. Every file that changed since it was last verified is read."""
    try:
        _on_disk(settings, data_version).files.verify()
    except DamagedFileError as error:
        log.warning("%s", error)
    except StoreError:
        pass
    else:
        return True
    return False


def load_vintage(settings: Settings, data_version: str) -> Vintage:
    """A vintage on disk, fetched from the shared store where this machine does not have it.

    Raises
    ------
    StoreError
        There is none of that version.
    DamagedFileError
        Its manifest is not what was written, or there is a file that it does not name. The others are verified when
        they are read (`files.verify` reads all of them).
    """
    path = vintage_path(settings, data_version)
    if not is_complete(path):
        fetch(settings, Kind.VINTAGES, data_version, path)
    return _on_disk(settings, data_version)


def _on_disk(settings: Settings, data_version: str) -> Vintage:
    path = vintage_path(settings, data_version)
    if not is_complete(path):
        raise StoreError(
            f"{path}: no complete vintage {data_version}; restore it with alphaops checkout "
            f"{data_version}, or run sync_market_data on its source"
        )
    files = VintageFiles.open(path, data_version, verified_files(settings.home))
    manifest = files.manifest
    return Vintage(
        data_version=data_version,
        path=path,
        rows=manifest["rows"],
        instruments=manifest["instruments"],
        first_date=manifest["first_date"],
        last_date=manifest["last_date"],
        manifest=manifest,
        files=files,
    )


def current_version(settings: Settings) -> str | None:
    """The data version in use, or None before the first publication."""
    path = _current(settings)
    pull(settings, path)
    return str(read_json(path)["data_version"]) if path.is_file() else None


def _current(settings: Settings) -> Path:
    return settings.data_dir / "current.json"


def current_vintage(settings: Settings) -> Vintage:
    """The vintage in use.

    Raises
    ------
    StoreError
        None was published yet, or its folder is gone.
    """
    version = current_version(settings)
    if version is None:
        raise StoreError(f"{settings.data_dir}: no vintage is in use yet; run sync_market_data")
    return load_vintage(settings, version)


def publish(settings: Settings, data_version: str, instead_of: str | None = WHICHEVER) -> bool:
    """Bring a vintage into use in one step, on all machines that share it; return whether that changed anything.

    Parameters
    ----------
    instead_of
        The vintage that it was compared with; None: with none, as nothing was in use.

    Raises
    ------
    StoreError
        There is no such vintage, or a file of it is not what was written (DamagedFileError).
    OvertakenVintageError
        Another machine has brought another vintage into use meanwhile.
    """
    vintage = load_vintage(settings, data_version)
    vintage.files.verify()
    share(settings, Kind.VINTAGES, data_version, vintage.path)
    in_use = current_version(settings)
    content = {"data_version": data_version, "last_date": vintage.last_date}
    expected = {in_use if instead_of == WHICHEVER else instead_of, data_version}
    if not replace(settings, _current(settings), content, lambda found: not found or found["data_version"] in expected):
        raise OvertakenVintageError(
            f"another machine has brought a vintage into use meanwhile; compare {data_version} with that one, and "
            "publish it again"
        )
    if in_use == data_version:
        return False
    write_json(_current(settings), content)
    log.info("vintage %s is in use, last date %s", data_version, vintage.last_date)
    return True


def _between(first: pd.Timestamp, last: pd.Timestamp) -> list[tuple[str, str, Any]]:
    return [(DATETIME, ">=", first.as_unit("ns")), (DATETIME, "<=", last.as_unit("ns"))]


def _runs(days: Any) -> Any:
    """The first of each run of equal days: all of them, in a table sorted by day."""
    return days[np.append(True, days[1:] != days[:-1])[: len(days)]]


def day_numbers(days: Any) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Days since 1970, of an index, an array or one day."""
    numbers: np.ndarray[Any, np.dtype[np.int64]] = np.asarray(days).astype("datetime64[D]").astype(np.int64)
    return numbers


def row_keys(codes: Any, days: Any) -> Any:
    """One sortable integer per pair (instrument code, day number)."""
    return np.asarray(codes, dtype=np.int64) * (1 << 32) + np.asarray(days, dtype=np.int64)
