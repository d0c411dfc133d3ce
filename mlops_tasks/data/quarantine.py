"""What lies in quarantine, and how a person lets it out."""

from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq

from mlops_tasks.columns import DATETIME, INSTRUMENT
from mlops_tasks.config import Settings
from mlops_tasks.data import releases
from mlops_tasks.data.expectations import HISTORY, INSTRUMENT_WHOLE, ROW, Rule, load_suites
from mlops_tasks.data.quarantine_columns import EVIDENCE_DATE, REASON, REMEDY, RULE, SEVERITY
from mlops_tasks.data.sources.parsed import SOURCE_FILE, SOURCE_ROW
from mlops_tasks.data.staging import DOCS_FOLDER, REPORT_FILE, ROWS_FILE
from mlops_tasks.errors import StoreError
from mlops_tasks.files import folder_lock, read_json

SHOWN = 5
"""Rows of each rule that are listed."""


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
    """The same for a reader."""
    report = info["report"]
    lines = [
        f"{report['source']}: received {report['received']}, accepted {report['accepted']}, "
        f"quarantined {report['quarantined']}" + ("; the vintage was rejected" if report["rejected"] else "")
    ]
    lines += [f"  {rule:<24}{count:>10} quarantined" for rule, count in report["rules"].items()]
    lines += [f"  {rule:<24}{count:>10} warnings" for rule, count in report["warnings"].items()]
    lines += [f"  {rule:<24}{count:>10} released" for rule, count in report["released"].items()]
    lines += [f"  {name} is quarantined whole: {', '.join(rules)}" for name, rules in report["instruments"].items()]
    lines += [f"{row[INSTRUMENT]} {row['date']} ({row['source']}): {row[RULE]}: {row[REASON]}" for row in info["rows"]]
    return "\n".join([*lines, f"all rows: {info['path']}; data docs: {info['docs']}"])


def release(settings: Settings, *, rule: str, instrument: str, day: date | None, reason: str) -> releases.Release:
    """Let a row of the newest quarantine through its rule, or an instrument through a rule about it.

    `day` is the row's date (not needed where there is one row only), or the last date whose evidence against the
    instrument is covered (None: that of the present one).

    Raises
    ------
    StoreError
        The rule is unknown, rejects vintages, or is a warning; no such row is in the newest quarantine; no reason.
    """
    meaning = _releasable(rule)
    with folder_lock(settings.data_dir):
        folder = newest_quarantine(settings)
        rows = _quarantined(folder)
        rows = rows[(rows[RULE] == rule) & (rows[INSTRUMENT] == instrument)]
        if day is not None and meaning.severity == ROW:
            rows = rows[rows[DATETIME] == pd.Timestamp(day)]
        if rows.empty:
            raise StoreError(
                f"{folder}: no row of {instrument} {day or ''} is quarantined by rule {rule}; `alphaops "
                "quarantine` lists what is"
            )
        dates = sorted({str(_iso(moment)) for moment in rows[EVIDENCE_DATE]})
        if len(dates) > 1:
            raise StoreError(f"rule {rule} quarantines {instrument} on {', '.join(dates)}; say which with --date")
        row = rows.iloc[0].to_dict()
        if day is not None:
            row[EVIDENCE_DATE] = pd.Timestamp(day)
        made = releases.make_release(row, whole_instrument=meaning.severity != ROW, reason=reason)
        return releases.write_release(settings, made)


def _releasable(name: str) -> Rule:
    suites = load_suites()
    rule = suites.find_rule(name)
    releasable = (ROW, HISTORY, INSTRUMENT_WHOLE)
    known = [e.rule.rule for suite in suites for e in suite.expectations if e.rule.severity in releasable]
    if rule is None:
        raise StoreError(f"rule {name!r} is unknown; rules that can be released from: {', '.join(known)}")
    if rule.rule not in known:
        why = (
            "it warns and quarantines nothing"
            if rule.severity == "warning"
            else f"it rejects the whole vintage and no row makes that good: {rule.remedy}"
        )
        raise StoreError(f"nothing can be released from rule {name}: {why}")
    return rule


def _quarantined(folder: Path) -> pd.DataFrame:
    frame = pq.read_table(folder / ROWS_FILE).to_pandas()
    return frame.astype({RULE: "str", SEVERITY: "str", REMEDY: "str"})


def _iso(moment: Any) -> str | None:
    return None if pd.isna(moment) else pd.Timestamp(moment).date().isoformat()
