"""Qlib's binary layout, and how bars are added to it.

calendars/day.txt, instruments/all.txt and features/<instrument>/<field>.day.bin. A `.bin` file is float32
little-endian: the start index in the calendar, then one value per calendar day from the instrument's first bar to its
last, NaN where there is no bar.

`change` serves price limits: close / previous close of the instrument - 1, from the closes as they are stored. It is
NaN for an instrument's first bar. Days without a bar in between do not count.

Writing a store and appending to one are the same: bars later than everything there (at first nothing) are added at the
end of each file. So a store that grew day by day equals one written at once, byte for byte.
"""

import os
import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mlops_tasks.columns import BAR_FIELDS, CHANGE, CLOSE, DATETIME, INSTRUMENT, VWAP
from mlops_tasks.errors import StoreError

LAYOUT = 2
"""Number of this layout. It changes whenever the same bars give other files. Stores of another layout are not used."""
CALENDAR_FILE = "calendars/day.txt"
ALL_FILE = "instruments/all.txt"
UNIVERSE_FILE = "instruments/universe.txt"
FEATURES = "features"

_DEVICE_NAME = re.compile(r"con|prn|aux|nul|com\d|lpt\d")
_ITEM = 4
"""Bytes of a float32."""
_THREADS = 2

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class _Chunks:
    """What is added to each instrument's files: `content[start:stop]` of every field, after `size` bytes."""

    folders: list[str]
    sizes: list[int]
    starts: list[int]
    stops: list[int]
    slots: Array
    """Where in `content` each bar goes."""
    headers: tuple[Array, Array]
    """Where in `content` new files' start indexes go, and what they are."""


def feature_folder(instrument: str) -> str:
    """The folder name that Qlib derives from an instrument: lower case, Windows' device names prefixed."""
    folder = instrument.lower()
    return f"_qlib_{folder}" if _DEVICE_NAME.fullmatch(folder) else folder


def has_vwap(bars: pd.DataFrame) -> bool:
    """Whether any bar has a vwap; a store without one has no such field."""
    return bool(np.isfinite(bars[VWAP].to_numpy()).any())


def stores_vwap(folder: Path) -> bool:
    """Whether the store in `folder` has vwap; every store has the other fields."""
    if not (folder / FEATURES).is_dir():
        return False
    with os.scandir(folder / FEATURES) as own:
        return any(os.access(f"{entry.path}/{VWAP}.day.bin", os.F_OK) for entry in own)


def add_bars(folder: Path, bars: pd.DataFrame) -> None:
    """Add bars to the store in `folder`, or begin one in an empty folder.

    `bars` are adjusted, sorted by instrument and datetime, and all later than the store's calendar. An error leaves the
    store incomplete, so the caller works on a folder that nobody sees yet.

    Raises
    ------
    StoreError
        A file is not as long as its instrument's span says, or two instruments have the same folder.
    """
    for name in ("calendars", "instruments", FEATURES):
        (folder / name).mkdir(exist_ok=True)
    calendar, spans = _read_lists(folder)
    with_vwap = stores_vwap(folder) if spans else has_vwap(bars)
    fields = [*(name for name in BAR_FIELDS if name != VWAP or with_vwap), CHANGE]
    day_codes, days = pd.factorize(bars[DATETIME], sort=True)
    positions = day_codes + len(calendar)
    calendar = np.append(calendar, days.to_numpy().astype("datetime64[D]"))
    codes, uniques = pd.factorize(bars[INSTRUMENT])
    names = uniques.tolist()
    bounds = np.append(np.flatnonzero(np.diff(codes, prepend=-1)), len(bars))
    chunks = _chunks(names, positions, bounds, spans)
    ends = zip(names, positions[bounds[:-1]].tolist(), positions[bounds[1:] - 1].tolist(), strict=True)
    spans |= {name: (spans.get(name, (first,))[0], last) for name, first, last in ends}
    _check_folders(spans)
    for own, size in zip(chunks.folders, chunks.sizes, strict=True):
        if not size:
            (folder / FEATURES / own).mkdir()

    bars = bars.assign(**{CHANGE: _changes(folder / FEATURES, bars, bounds, chunks)})

    def write(field: str) -> None:
        content = np.full(chunks.stops[-1], np.nan, dtype="<f4")
        content[chunks.slots] = bars[field].to_numpy()
        content[chunks.headers[0]] = chunks.headers[1]
        _append(folder / FEATURES, f"{field}.day.bin", content, chunks)

    with ThreadPoolExecutor(_THREADS) as pool:
        list(pool.map(write, fields))
    _write_lists(folder, calendar, spans)


def _chunks(names: list[str], positions: Array, bounds: Array, spans: dict[str, tuple[int, int]]) -> _Chunks:
    """`positions` of the bars in the calendar; those of `names[i]` are `bounds[i]:bounds[i + 1]`."""
    unknown = (0, -1)
    before = np.array([spans.get(name, unknown) for name in names], dtype=np.int64)
    first, last = positions[bounds[:-1]], positions[bounds[1:] - 1]
    is_new = before[:, 1] < 0
    # Calendar position of a chunk's first slot: a new file's is its start index, an old one's the day after its end.
    origin = np.where(is_new, first - 1, before[:, 1] + 1)
    stops = np.cumsum(last - origin + 1)
    starts = stops - (last - origin + 1)
    sizes = np.where(is_new, 0, before[:, 1] - before[:, 0] + 2) * _ITEM
    return _Chunks(
        folders=[feature_folder(name) for name in names],
        sizes=sizes.tolist(),
        starts=starts.tolist(),
        stops=stops.tolist(),
        slots=positions + np.repeat(starts - origin, np.diff(bounds)),
        headers=(starts[is_new], first[is_new]),
    )


def _changes(folder: Path, bars: pd.DataFrame, bounds: Array, chunks: _Chunks) -> Array:
    """Each bar's move since the previous bar, in this chunk or in the store; NaN where there is none."""
    close = bars[CLOSE].to_numpy().astype("<f4").astype(np.float64)
    before = np.roll(close, 1)
    before[bounds[:-1]] = _last_closes(folder, chunks)
    with np.errstate(divide="ignore", invalid="ignore"):
        change = close / before - 1
    return np.where(np.isfinite(change), change, np.nan)


def _last_closes(folder: Path, chunks: _Chunks) -> Array:
    """The last close of each instrument that the store in `folder` has; NaN for new ones."""
    found = np.full(len(chunks.folders), np.nan)
    root = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for number, (own, size) in enumerate(zip(chunks.folders, chunks.sizes, strict=True)):
            if size:
                name = f"{own}/{CLOSE}.day.bin"
                file = os.open(name, os.O_RDONLY, dir_fd=root)
                try:
                    content = os.pread(file, _ITEM, size - _ITEM)
                finally:
                    os.close(file)
                if len(content) < _ITEM:
                    raise StoreError(f"{folder / name}: not the {size} bytes that its span says; remove the store")
                found[number] = np.frombuffer(content, "<f4")[0]
    finally:
        os.close(root)
    return found


def _append(folder: Path, file_name: str, content: Array, chunks: _Chunks) -> None:
    """Append each instrument's chunk to its file, with relative names and bare calls: there are many files."""
    view = content.data
    root = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for own, size, start, stop in zip(chunks.folders, chunks.sizes, chunks.starts, chunks.stops, strict=True):
            name = f"{own}/{file_name}"
            flags = os.O_WRONLY if size else os.O_WRONLY | os.O_CREAT | os.O_EXCL
            file = os.open(name, flags, 0o666, dir_fd=root)
            try:
                if os.lseek(file, 0, os.SEEK_END) != size:
                    raise StoreError(f"{folder / name}: not the {size} bytes that its span says; remove the store")
                left = view[start:stop].cast("B")
                while left:
                    left = left[os.write(file, left) :]
            finally:
                os.close(file)
    finally:
        os.close(root)


def _check_folders(names: Iterable[str]) -> None:
    owners: dict[str, str] = {}
    for name in names:
        other = owners.setdefault(feature_folder(name), name)
        if other != name:
            raise StoreError(
                f"instruments {other} and {name} are the same folder to Qlib ({feature_folder(name)}): "
                "rename one of them in the source"
            )


def _read_lists(folder: Path) -> tuple[Array, dict[str, tuple[int, int]]]:
    """The calendar as datetime64[D], and each instrument's first and last position in it; both empty at first."""
    if not (folder / CALENDAR_FILE).is_file():
        return np.empty(0, "datetime64[D]"), {}
    days = (folder / CALENDAR_FILE).read_text().split()
    position = {day: i for i, day in enumerate(days)}
    lines = (line.split("\t") for line in (folder / ALL_FILE).read_text().splitlines())
    try:
        spans = {name: (position[first], position[last]) for name, first, last in lines}
    except (KeyError, ValueError) as error:
        raise StoreError(f"{folder / ALL_FILE}: {error} does not fit the calendar; remove the store") from error
    return np.array(days, "datetime64[D]"), spans


def _write_lists(folder: Path, calendar: Array, spans: dict[str, tuple[int, int]]) -> None:
    days = calendar.astype(str).tolist()
    (folder / CALENDAR_FILE).write_text("".join(f"{day}\n" for day in days))
    spells = (f"{name}\t{days[first]}\t{days[last]}\n" for name, (first, last) in sorted(spans.items()))
    (folder / ALL_FILE).write_text("".join(spells))
