"""What the command line shows about vintages: which exist, and what differs between two of them."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from mlops_tasks.columns import BAR_FIELDS, DATETIME, INSTRUMENT
from mlops_tasks.config import SYNTHETIC, Settings
from mlops_tasks.data.revisions.diff import VintageDiff, diff_bars, diff_vintages
from mlops_tasks.data.revisions.policy import judge
from mlops_tasks.data.snapshots import checkout_vintage, pointer_path
from mlops_tasks.data.sources import read_source
from mlops_tasks.data.vintage_files import MANIFEST
from mlops_tasks.data.vintages import canonical_bars, current_version, is_complete, vintage_path
from mlops_tasks.errors import SourceError, StoreError, first_few
from mlops_tasks.files import read_json

_SHOWN = ("rows", "instruments", "first_date", "last_date", "source")


def list_vintages(settings: Settings) -> list[dict[str, Any]]:
    """Every vintage that is on disk or in DVC, the oldest first.

    Each with data_version, in_use, on_disk, created (ISO time, UTC), rows, instruments, first_date, last_date and
    source. The last five are None where the folder is gone (`checkout` restores it).
    """
    folder = settings.data_dir / "vintages"
    versions = {path.name.removesuffix(".dvc") for path in folder.glob("[!.]*") if path.suffix in ("", ".dvc")}
    found = [_vintage_info(settings, version) for version in versions]
    return sorted(found, key=lambda info: (info["created"], info["data_version"]))


def _vintage_info(settings: Settings, data_version: str) -> dict[str, Any]:
    path = vintage_path(settings, data_version)
    manifest = read_json(path / MANIFEST) if is_complete(path) else {}
    written = next(each for each in (path / MANIFEST, pointer_path(settings, data_version), path) if each.exists())
    created = datetime.fromtimestamp(written.stat().st_mtime, UTC)
    return {
        "data_version": data_version,
        "in_use": data_version == current_version(settings),
        "on_disk": bool(manifest),
        "created": created.isoformat(timespec="seconds"),
        **{name: manifest.get(name) for name in _SHOWN},
    }


def render_vintages(vintages: list[dict[str, Any]]) -> str:
    """The list as text for a terminal."""
    if not vintages:
        return "there is no vintage yet; run `make up`, or sync_market_data in Airflow"
    return "\n".join(
        f"{info['data_version']}  {'in use' if info['in_use'] else '':<7} {info['created'][:16]}  "
        + (
            f"{info['rows']:>11,} bars of {info['instruments']:>6,} instruments, {info['first_date']} to "
            f"{info['last_date']}, {info['source']}"
            if info["on_disk"]
            else f"in DVC only: alphaops checkout {info['data_version']}"
        )
        for info in vintages
    )


def difference(settings: Settings, old: str, new: str) -> VintageDiff:
    """The difference of two data versions, files, folders or named sources of bars.

    Sources are read as they are, without validation: a row without instrument or date is left out, and of rows with
    the same key the first counts.

    Raises
    ------
    StoreError, SourceError
        One of the two is neither, or cannot be read.
    """
    if _is_version(settings, old) and _is_version(settings, new):
        for version in (old, new):
            checkout_vintage(settings, version)
        return diff_vintages(settings, old, new)
    return diff_bars(_bars(settings, old), _bars(settings, new), calendar=settings.calendar.name)


def _is_version(settings: Settings, text: str) -> bool:
    """Whether there is such a vintage, on disk or in DVC."""
    plain = text.isalnum()
    return plain and (is_complete(vintage_path(settings, text)) or pointer_path(settings, text).is_file())


def _bars(settings: Settings, text: str) -> pd.DataFrame:
    if _is_version(settings, text):
        return checkout_vintage(settings, text).bars()
    if text != SYNTHETIC and text not in settings.data.sources and not Path(text).expanduser().exists():
        raise StoreError(
            f"{text}: no such data version, source, file or folder; `alphaops vintages` lists the versions"
        )
    # Whoever has a shell chooses the source, as with `make up`.
    chosen = settings.model_copy(update={"data": settings.data.model_copy(update={"source": text})})
    frame = read_source(chosen, text, None).frame
    keyed = frame[frame[INSTRUMENT].notna() & frame[DATETIME].notna()].drop_duplicates([INSTRUMENT, DATETIME])
    if keyed.empty:
        raise SourceError(f"{text}: no row has an instrument and a date; correct the file")
    return canonical_bars(keyed)


def render_difference(settings: Settings, diff: VintageDiff) -> str:
    """A diff as text for a terminal: counts, the largest changes, and what the policy says."""
    summary = diff.summary()
    verdict = judge(summary, settings.vintage_policy)
    told = verdict.text(summary["new"] or "<version>")
    return "\n".join([*_lines(summary), f"policy      {verdict.decision}", *([f"  {told}"] if told else [])])


def _lines(summary: Mapping[str, Any]) -> Iterator[str]:
    rows, instruments, appended = summary["rows"], summary["instruments"], summary["appended"]
    for side in ("old", "new"):
        yield (
            f"{side:<12}{summary[side] or 'as read'}: {rows[side]:,} bars of {instruments[side]:,} instruments, "
            f"{summary[f'{side}_first_date']} to {summary[f'{side}_last_date']}"
        )
    if not summary["same_market"]:
        yield f"            another market: {instruments['common']} instruments are in both, bars were not compared"
        return
    yield (
        f"rows        {rows['common']:,} common, {rows['added']:,} added, {rows['removed']:,} removed, "
        f"{rows['appended']:,} appended; {summary['restated_rows']:,} restated ({summary['restated_share']:.3%})"
    )
    for kind in ("added", "removed"):
        if instruments[kind]["count"]:
            yield f"instruments {instruments[kind]['count']} {kind}: {_some(instruments[kind])}"
        if summary["calendar"][kind]["count"]:
            yield f"calendar    {summary['calendar'][kind]['count']} days {kind}: {_some(summary['calendar'][kind])}"
    if summary["universe"]["spells"]:
        yield f"universe    {summary['universe']['spells']} membership spells of the past changed"
    if appended["rows"]:
        yield (
            f"appended    {appended['days']} days of {appended['instruments']} instruments, "
            f"{appended['first_date']} to {appended['last_date']}, "
            f"lowest coverage {appended['lowest_coverage']['share']:.1%}"
        )
    yield from _change_lines(summary)


def _change_lines(summary: Mapping[str, Any]) -> Iterator[str]:
    for kind, info in summary["changes"].items():
        if info["cells"]:
            fields = ", ".join(f"{name} {info['fields'][name]:,}" for name in BAR_FIELDS if name in info["fields"])
            yield (
                f"{kind:<12}{info['rows']:,} rows of {info['instruments']:,} instruments, {info['first_date']} to "
                f"{info['last_date']}; cells: {fields}"
            )
    for field in BAR_FIELDS:
        info = summary["shared_series"].get(field, {"count": 0})
        if info["count"]:
            yield f"shared      {info['count']} instruments have one identical new series of {field}: {_some(info)}"
    for day in summary["jumps"]["days"][:3]:
        yield f"jumps       {day['instruments']} instruments on {day['date']}, {day['median_move']:+.1%} at the median"
    largest = [cell for cells in summary["largest"].values() for cell in cells[:5]]
    if largest:
        yield f"{'largest':<12}{'instrument':<14}{'field':<8}{'date':<12}{'old':>16}{'new':>16}{'change':>20}"
    for cell in largest:
        yield (
            f"{'':<12}{cell[INSTRUMENT]:<14}{cell['field']:<8}{cell['date']:<12}{cell['old']:>16,.4f}"
            f"{cell['new']:>16,.4f}{cell['relative_change']:>+20,.2%}"
        )


def _some(info: Mapping[str, Any]) -> str:
    return first_few(info["first"], len(info["first"]), of=info["count"])
