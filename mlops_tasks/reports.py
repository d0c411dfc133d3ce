"""The reports below `MLOPS_HOME`: which there are, what each says in a line, and the files that may be shown of them.

A report is a folder; its name is the report's. Nothing is shown but files of the names below, that lie in such a folder
themselves: no name leads elsewhere, and neither does a link.
"""

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Any

from mlops_tasks.config import Settings
from mlops_tasks.errors import DamagedFileError, ErrorKind, StoreError, excerpt
from mlops_tasks.files import plain_name, read_json


class ReportKind(StrEnum):
    """Kinds of reports, by the names that addresses have."""

    DRIFT = "drift"
    COMPARISON = "comparison"
    AB_TEST = "ab_test"
    MODEL_TABLE = "model_table"
    EXPLANATION = "explanation"
    DATA_DOCS = "data_docs"
    QUARANTINE = "quarantine"


class NoReportError(StoreError, LookupError):
    """There is no report, or no file of a report, of this name."""

    kind = ErrorKind.CONFIGURATION


@dataclass(frozen=True)
class Layout:
    """Where reports of a kind lie.

    Attributes
    ----------
    title
        As a heading.
    folder
        Of all of them, below `MLOPS_HOME`.
    summary
        The file that says what came out; a folder without it holds no report.
    files
        Names that may be shown, below the report's folder and `inner`, to their media types.
    inner
        Folder within the report's own.
    """

    title: str
    folder: str
    summary: str
    files: Mapping[str, str]
    inner: str = ""


JSON, PNG, HTML, MARKDOWN = "application/json", "image/png", "text/html", "text/markdown"
PARQUET = "application/vnd.apache.parquet"
_QUARANTINE = "data/quarantine"

LAYOUTS: Mapping[ReportKind, Layout] = {
    ReportKind.DRIFT: Layout(
        "Drift",
        "reports/drift",
        "report.json",
        {"report.json": JSON, "drift.png": PNG, "drift.parquet": PARQUET},
    ),
    ReportKind.COMPARISON: Layout(
        "Comparison of champion and challenger",
        "reports/comparison",
        "report.json",
        {"report.json": JSON, "comparison.png": PNG, "daily.parquet": PARQUET},
    ),
    ReportKind.AB_TEST: Layout(
        "A/B tests",
        "reports/ab_test",
        "report.json",
        {"report.json": JSON, **dict.fromkeys(("effect.png", "difference.png", "sample_ratio.png"), PNG)},
    ),
    ReportKind.MODEL_TABLE: Layout(
        "Table of models",
        "reports/model_table",
        "table.json",
        {"table.json": JSON, "table.md": MARKDOWN, "table.png": PNG},
    ),
    ReportKind.EXPLANATION: Layout(
        "Explanations",
        "reports/explanation",
        "report.json",
        {
            "explanation.html": HTML,
            **dict.fromkeys(("influence.png", "groups.png", "dependence.png"), PNG),
            "report.json": JSON,
            **dict.fromkeys(("features.parquet", "periods.parquet", "dependence.parquet"), PARQUET),
        },
    ),
    ReportKind.DATA_DOCS: Layout(
        "Data docs",
        _QUARANTINE,
        "report.json",
        {name: HTML for name in ("index.html", "bars.html", "instruments.html", "sessions.html")},
        inner="docs",
    ),
    ReportKind.QUARANTINE: Layout(
        "Quarantine",
        _QUARANTINE,
        "report.json",
        {"report.json": JSON, "rows.parquet": PARQUET, "warnings.parquet": PARQUET},
    ),
}


LARGEST_SUMMARY = 16_000_000
"""Bytes of a summary that is read; those that are written are some hundred times smaller."""


@dataclass(frozen=True)
class Report:
    """A report."""

    kind: ReportKind
    name: str
    folder: Path
    made_at: datetime
    """Aware, UTC."""

    @property
    def layout(self) -> Layout:
        """Of its kind."""
        return LAYOUTS[self.kind]

    @cached_property
    def content(self) -> dict[str, Any]:
        """What its summary says.

        Raises
        ------
        DamagedFileError
            The file cannot be read, is too large, or is no summary.
        """
        path = self.folder / self.layout.summary
        try:
            found = read_json(path) if path.stat().st_size <= LARGEST_SUMMARY else None
        except (OSError, ValueError) as error:
            raise DamagedFileError(f"{self._place} cannot be read ({type(error).__name__}); remove it") from None
        if not isinstance(found, dict):
            raise DamagedFileError(f"{self._place} is no summary of a report; remove it")
        return found

    @property
    def day(self) -> str:
        """The day that it is about, or on which it was made."""
        content = self.content if self.is_whole else {}
        return str(content.get("date") or content.get("last_date") or self.made_at.date())

    @property
    def said(self) -> str:
        """What came out, in a line."""
        try:
            return _SAID[self.kind](self.content)
        except _NOT_WHOLE:
            return f"unreadable: {self._place} is damaged, or of another version"

    @property
    def is_whole(self) -> bool:
        """Whether its summary can be read, and says what those of its kind say."""
        try:
            return bool(_SAID[self.kind](self.content))
        except _NOT_WHOLE:
            return False

    @property
    def files(self) -> list[str]:
        """Names of the files that are there, in the layout's order."""
        return [name for name in self.layout.files if self._shown(name).is_file()]

    def file(self, name: str) -> Path:
        """A file that may be shown.

        Raises
        ------
        NoReportError
            Files of this kind of report have no such name, it is not there, or it is a link.
        """
        path = self._shown(name) if name in self.layout.files else None
        if path is None or not path.is_file() or path.resolve() != self._real / self.layout.inner / name:
            known = ", ".join(self.files) or "none"
            raise NoReportError(f"{self.kind} {self.name} has no file {excerpt(name)}; its files: {known}")
        return path

    @property
    def _place(self) -> str:
        return f"{self.layout.folder}/{self.name}/{self.layout.summary}"

    @property
    def _real(self) -> Path:
        return self.folder.parent.resolve() / self.name

    def _shown(self, name: str) -> Path:
        return self.folder / self.layout.inner / name


def reports_of_version(settings: Settings, kind: ReportKind, version: int, limit: int) -> list[Report]:
    """The last reports of a kind that are about a version, as their names say, the newest first."""
    return newest_reports(settings, kind, limit, about=f"-v{version}-")


def newest_reports(settings: Settings, kind: ReportKind, limit: int, about: str = "") -> list[Report]:
    """The last reports of a kind whose names have `about`, the newest first."""
    base = settings.home / LAYOUTS[kind].folder
    named = (each for each in _reports(settings, kind) if about in each[0])
    found = sorted(named, key=lambda each: (each[1], each[0]), reverse=True)
    return [Report(kind, name, base / name, datetime.fromtimestamp(made / 1e9, UTC)) for name, made in found[:limit]]


def count_reports(settings: Settings, kind: ReportKind) -> int:
    """The number of reports of a kind."""
    return sum(1 for _ in _reports(settings, kind))


def _reports(settings: Settings, kind: ReportKind) -> Iterator[tuple[str, int]]:
    """Name of each report of a kind, and when it was made, in nanoseconds since the epoch."""
    layout = LAYOUTS[kind]
    base = settings.home / layout.folder
    for entry in os.scandir(base) if base.is_dir() else ():
        if entry.is_dir(follow_symlinks=False) and not entry.name.startswith("."):
            made = _made(Path(entry.path), layout)
            if made is not None:
                yield entry.name, made


def find_report(settings: Settings, kind: str, name: str) -> Report:
    """A report by the names that an address has.

    Raises
    ------
    NoReportError
        There is none.
    """
    if kind not in LAYOUTS:
        raise NoReportError(f"{excerpt(kind)} is no kind of report; there are {', '.join(LAYOUTS)}")
    layout = LAYOUTS[ReportKind(kind)]
    base = settings.home / layout.folder
    try:
        folder = base / plain_name(name, "name of a report")
    except StoreError as error:
        raise NoReportError(str(error)) from None
    made = _made(folder, layout)
    if made is None or folder.resolve() != base.resolve() / name:
        raise NoReportError(
            f"there is no report {excerpt(name)} of {layout.title.lower()}; the list has those that are"
        )
    return Report(ReportKind(kind), name, folder, datetime.fromtimestamp(made / 1e9, UTC))


def find_whole_report(settings: Settings, kind: str, name: str) -> Report:
    """`find_report`, of what is about to be shown.

    Raises
    ------
    NoReportError
        There is none.
    DamagedFileError
        Its summary cannot be read, or does not say what those of its kind say.
    """
    report = find_report(settings, kind, name)
    if not report.is_whole:
        raise DamagedFileError(report.said)
    return report


def validation_of(settings: Settings, data_version: str) -> Report | None:
    """The newest validation that a vintage came from; None where it is not kept."""
    found = newest_reports(settings, ReportKind.QUARANTINE, limit=sys.maxsize)
    return next((report for report in found if report.content["data_version"] == data_version), None)


def _made(folder: Path, layout: Layout) -> int | None:
    """When a report was made, in nanoseconds since the epoch; None where there is none."""
    try:
        return (folder / layout.summary).stat().st_mtime_ns
    except (OSError, ValueError):
        return None


def _said_of_drift(report: Mapping[str, Any]) -> str:
    return (
        f"version {report['model_version']}: {report['verdict']}, {report['n_alert']} columns beyond the limit, "
        f"{report['n_warn']} near it"
    )


def _said_of_table(content: Mapping[str, Any]) -> str:
    return f"{len(content['rows'])} models, {len(content['seeds'])} seeds"


def _said_of_explanation(report: Mapping[str, Any]) -> str:
    first = ", ".join(f"{name} {share:.0%}" for name, share in list(report["features"].items())[:3] if share)
    return f"version {report['model_version']}: {first or 'nothing moves the scores'}"


def _said_of_validation(report: Mapping[str, Any]) -> str:
    warned = f", {len(report['warnings'])} rules warn" if report["warnings"] else ""
    return (
        f"{Path(report['source']).name}: {verdict_of(report)}; {report['received']:,} rows received, "
        f"{report['quarantined']:,} quarantined{warned}"
    )


def verdict_of(report: Mapping[str, Any]) -> str:
    """What a validation concluded of a vintage."""
    return "rejected" if report["rejected"] else "accepted"


_NOT_WHOLE = (DamagedFileError, AttributeError, LookupError, TypeError, ValueError)
"""What reading a summary raises that is not as those of its kind are."""
_SAID: Mapping[ReportKind, Callable[[Mapping[str, Any]], str]] = {
    ReportKind.DRIFT: _said_of_drift,
    ReportKind.COMPARISON: lambda report: str(report["conclusion"]),
    ReportKind.AB_TEST: lambda report: f"{report['state']}; {report['lines'][0]}",
    ReportKind.MODEL_TABLE: _said_of_table,
    ReportKind.EXPLANATION: _said_of_explanation,
    ReportKind.DATA_DOCS: _said_of_validation,
    ReportKind.QUARANTINE: _said_of_validation,
}
