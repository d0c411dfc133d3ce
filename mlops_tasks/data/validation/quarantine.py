"""What is in quarantine, and how a person releases it."""

from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq

from mlops_tasks.columns import DATETIME, INSTRUMENT
from mlops_tasks.config import Settings
from mlops_tasks.data.exchanges.calendars import CALENDAR
from mlops_tasks.data.sources.parsed import SOURCE_FILE, SOURCE_ROW
from mlops_tasks.data.validation import releases
from mlops_tasks.data.validation.expectations import (
    DROPPED,
    HISTORY,
    INSTRUMENT_WHOLE,
    INSTRUMENTS,
    ROW,
    SESSIONS,
    Rule,
    load_suites,
)
from mlops_tasks.data.validation.quarantine_columns import EVIDENCE_DATE, REASON, REMEDY, RULE, SEVERITY, VALUES
from mlops_tasks.data.validation.staging import DOCS_FOLDER, REPORT_FILE, ROWS_FILE, WARNINGS_FILE
from mlops_tasks.errors import ErrorKind, StoreError, first_few
from mlops_tasks.files import folder_lock, read_json

SHOWN = 5
"""Number of rows of each rule that are listed."""


class StaleQuarantineError(StoreError):
    """What a person has seen is no longer the newest quarantine."""

    kind = ErrorKind.DECIDED


def newest_quarantine(settings: Settings) -> Path:
    """The folder of the newest conclusion.

    Raises
    ------
    StoreError
        Nothing was validated yet.
    """
    reports = list((settings.data_dir / "quarantine").glob(f"[!.]*/{REPORT_FILE}"))
    if not reports:
        raise StoreError(f"{settings.data_dir / 'quarantine'}: nothing was validated yet; run sync_market_data")
    return max(reports, key=lambda path: (path.stat().st_mtime_ns, path.parent.name)).parent


def quarantine_info(settings: Settings) -> dict[str, Any]:
    """The newest report, the first rows of each rule and where everything is; plain JSON."""
    folder = newest_quarantine(settings)
    first = _quarantined(folder).groupby(RULE, sort=False, observed=True).head(SHOWN)
    rows = [
        {
            RULE: row[RULE],
            SEVERITY: row[SEVERITY],
            INSTRUMENT: None if pd.isna(row[INSTRUMENT]) else row[INSTRUMENT],
            "date": _iso(row[EVIDENCE_DATE]),
            "source": f"{row[SOURCE_FILE]}, row {row[SOURCE_ROW]}",
            REASON: row[REASON],
            REMEDY: row[REMEDY],
            "release": releases.release_command(row[RULE], row[INSTRUMENT], row[EVIDENCE_DATE], ""),
        }
        for row in first.to_dict("records")
    ]
    report: dict[str, Any] = read_json(folder / REPORT_FILE)
    return {
        "report": report,
        "rows": rows,
        "path": settings.relative(folder),
        "docs": settings.relative(folder / DOCS_FOLDER / "index.html"),
    }


def render_quarantine(info: Mapping[str, Any]) -> str:
    """The same as text for a terminal."""
    report = info["report"]
    lines = [
        f"{report['source']}: received {report['received']}, accepted {report['accepted']}, "
        f"quarantined {report['quarantined']}" + ("; the vintage was rejected" if report["rejected"] else "")
    ]
    lines += [f"  {rule:<24}{count:>10} quarantined" for rule, count in report["rules"].items()]
    lines += [f"  {rule:<24}{count:>10} warnings" for rule, count in report["warnings"].items()]
    lines += [f"  {rule:<24}{count:>10} released" for rule, count in report["released"].items()]
    lines += [
        f"  {name} is quarantined, whole or before a date: {', '.join(rules)}"
        for name, rules in report["instruments"].items()
    ]
    for row in info["rows"]:
        lines.append(f"{row[INSTRUMENT]} {row['date']} ({row['source']}): {row[RULE]}: {row[REASON]}")
        lines += [f"  if it is right: {row['release']}"] if row["release"] else []
    return "\n".join([*lines, f"all rows: {info['path']}; data docs: {info['docs']}"])


def release(  # noqa: PLR0913 - what of several findings is meant
    settings: Settings,
    *,
    rule: str,
    reason: str,
    instrument: str | None = None,
    day: date | None = None,
    calendar: str | None = None,
    source_row: int | None = None,
    by: str = "",
    staging: str = "",
    wait_s: float | None = None,
) -> releases.Release:
    """Let a row of the newest conclusion through its rule, an instrument through a rule about it, or a session.

    Parameters
    ----------
    instrument
        What a rule about rows or instruments names.
    day
        The date of the row or session (not needed where there is only one), or the last date whose evidence against
        the instrument is covered (None: that of the present evidence).
    calendar
        The calendar of the session (not needed where there is only one).
    source_row
        Which of several rows of one day is meant.
    by
        Who releases it; default: the system's user.
    staging
        The conclusion that the person has seen; default: whichever is the newest.
    wait_s
        How long to wait for a sync that is at work; default: until it is done.

    Raises
    ------
    BusyFolderError
        A sync was at work for that long.
    StaleQuarantineError
        The newest conclusion is another one than the person has seen.
    StoreError
        The rule is unknown, or nothing can be released from it. The newest conclusion has no such finding, or several.
        No reason is given.
    """
    suite, meaning = _releasable(rule)
    with folder_lock(settings.data_dir, wait_s):
        folder = newest_quarantine(settings)
        if staging not in ("", folder.name):
            raise StaleQuarantineError(
                f"a sync has concluded since: the newest quarantine is {folder.name}, not {staging}; look at that one"
            )
        found = _evidence(folder, rule, meaning.severity)
        by_session, whole = suite == SESSIONS, suite == INSTRUMENTS
        name = CALENDAR if by_session else INSTRUMENT
        wanted = calendar if by_session else instrument
        if wanted is not None or not by_session:
            found = found[found[name] == wanted]
        if day is not None and not whole:
            found = found[found[EVIDENCE_DATE] == pd.Timestamp(day)]
        if source_row is not None:
            found = found[found[SOURCE_ROW] == source_row]
        if found.empty:
            raise StoreError(
                f"{folder}: no {'session' if by_session else 'row'} of {wanted or ''} {day or ''} is quarantined or "
                f"warned about by rule {rule}; `alphaops quarantine` lists what is"
            )
        row = _only_one(rule, found, name, whole)
        until = day if day is not None and whole else pd.Timestamp(row[EVIDENCE_DATE]).date()
        made = releases.make_release(
            rule=rule, name=row[name], day=until, values=row[VALUES] or "", reason=reason, by=by
        )
        return releases.write_release(settings, made)


def _only_one(rule: str, found: pd.DataFrame, name: str, whole: bool) -> dict[Any, Any]:
    """The finding that is meant. StoreError where several may be."""
    names, dates = sorted(set(found[name])), sorted({str(_iso(moment)) for moment in found[EVIDENCE_DATE]})
    if len(names) > 1:
        raise StoreError(f"rule {rule} is broken by {first_few(names)}; say which with --{name}")
    if len(dates) > 1:
        raise StoreError(f"rule {rule} is broken by {names[0]} on {first_few(dates)}; say which with --date")
    if not whole and found[VALUES].nunique() > 1:
        rows = first_few(str(number) for number in found[SOURCE_ROW])
        raise StoreError(f"rule {rule} is broken by {names[0]} on {dates[0]} in rows {rows}; say which with --row")
    row: dict[Any, Any] = found.iloc[0].to_dict()
    return row


def _evidence(folder: Path, rule: str, severity: str) -> pd.DataFrame:
    """What broke a rule: instrument, calendar, evidence_date, values and source_row (missing where there is none)."""
    if severity in (DROPPED, ROW, HISTORY, INSTRUMENT_WHOLE):
        rows = _quarantined(folder)
        rows = rows[rows[RULE] == rule]
        whole = severity in (HISTORY, INSTRUMENT_WHOLE)
        values = ["" if whole else releases.row_digest(row) for row in rows.to_dict("records")]
        return rows.assign(**{VALUES: values, CALENDAR: None})
    notes = pq.read_table(folder / WARNINGS_FILE).to_pandas()
    notes = notes[notes[RULE] == rule].rename(columns={DATETIME: EVIDENCE_DATE})
    return notes.assign(**{SOURCE_ROW: None, VALUES: notes[VALUES].astype(object).where(notes[VALUES].notna(), "")})


def _releasable(name: str) -> tuple[str, Rule]:
    """The suite of a rule, and the rule."""
    suites = load_suites()
    known = {e.rule.rule: (suite.name, e.rule) for suite in suites for e in suite.expectations}
    if name not in known:
        told = ", ".join(rule for rule in known if rule not in releases.NEVER)
        raise StoreError(f"rule {name!r} is unknown; rules that can be released from: {told}")
    if name in releases.NEVER:
        raise StoreError(f"nothing can be released from rule {name}: {releases.NEVER[name]}")
    return known[name]


def _quarantined(folder: Path) -> pd.DataFrame:
    frame = pq.read_table(folder / ROWS_FILE).to_pandas()
    return frame.astype({RULE: "str", SEVERITY: "str", REMEDY: "str"})


def _iso(moment: Any) -> str | None:
    return None if pd.isna(moment) else pd.Timestamp(moment).date().isoformat()
