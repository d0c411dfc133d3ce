"""The diffs that were made, as they are on disk: their list, the verdict of one, and its cells page by page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from mlops_tasks.columns import INSTRUMENT
from mlops_tasks.config import Settings
from mlops_tasks.data.revisions.approvals import Approval, find_approval
from mlops_tasks.data.revisions.diff import CHANGES_FILE, PLOT_FILE, SUMMARY_FILE, diff_path
from mlops_tasks.data.revisions.policy import Verdict, judge
from mlops_tasks.errors import ErrorKind, StoreError, excerpt
from mlops_tasks.files import finite_or_none, read_json
from mlops_tasks.parquet_pages import rows_of

_CELL = (INSTRUMENT, "field", "date", "old", "new", "relative_change", "class")


class NoDiffError(StoreError, LookupError):
    """No diff of these two vintages was made."""

    kind = ErrorKind.CONFIGURATION


@dataclass(frozen=True)
class StoredDiff:
    """A diff, with the verdict of the policy as it is now.

    Attributes
    ----------
    summary
        As `diff_summary.summarise` has it.
    approval
        The newest approval of this pair.
    """

    old: str
    new: str
    made_at: datetime
    summary: Mapping[str, Any]
    verdict: Verdict
    approval: Approval | None
    has_plot: bool

    @property
    def restated_rows(self) -> int:
        """Rows of the past whose price or volume is another one."""
        return int(self.summary["restated_rows"])

    @property
    def is_waiting(self) -> bool:
        """Whether only an approval would let the new vintage follow the old one."""
        return self.verdict.decision == "block" and self.approval is None


@dataclass(frozen=True)
class DiffPage:
    """Some diffs, the newest first, of `total`."""

    total: int
    diffs: Sequence[StoredDiff]


@dataclass(frozen=True)
class ChangedCell:
    """A cell of the past that differs; None where there is no value, or no change relative to it."""

    instrument: str
    field: str
    date: date
    old: float | None
    new: float | None
    relative_change: float | None
    kind: str
    """A key of `changes.CLASSES`."""


@dataclass(frozen=True)
class CellPage:
    """Some cells of a diff, of `total`, in the order of instruments, dates and fields."""

    total: int
    cells: Sequence[ChangedCell]


def stored_diffs(settings: Settings, first: int, count: int, version: str = "") -> DiffPage:
    """Some of the diffs, the newest first; with `version`: those in which this vintage is one of the two."""
    folder = settings.data_dir / "diffs"
    found = [
        (path.stat().st_mtime_ns, path.parent.name)
        for path in folder.glob(f"[!.]*/{SUMMARY_FILE}")
        if version in ("", *path.parent.name.split("_"))
    ]
    found.sort(reverse=True)
    pairs = [name.partition("_") for _, name in found[first : first + count]]
    return DiffPage(len(found), [find_stored_diff(settings, old, new) for old, _, new in pairs])


def find_stored_diff(settings: Settings, old: str, new: str) -> StoredDiff:
    """A diff that was made.

    Raises
    ------
    NoDiffError
        It was not.
    """
    folder = _folder(settings, old, new)
    summary = read_json(folder / SUMMARY_FILE)
    return StoredDiff(
        old=old,
        new=new,
        made_at=datetime.fromtimestamp((folder / SUMMARY_FILE).stat().st_mtime, UTC),
        summary=summary,
        verdict=judge(summary, settings.vintage_policy),
        approval=find_approval(settings, old, new),
        has_plot=(folder / PLOT_FILE).is_file(),
    )


def cell_page(settings: Settings, old: str, new: str, first: int, count: int) -> CellPage:
    """Some of the cells that differ. Errors as for `find_stored_diff`."""
    found = rows_of(_folder(settings, old, new) / CHANGES_FILE, first, count, _CELL)
    return CellPage(found.total, [_cell(row) for row in found.frame.to_dict("records")])


def diff_file(settings: Settings, old: str, new: str, name: str) -> Path:
    """The plot (`PLOT_FILE`) or the table (`CHANGES_FILE`) of a diff.

    Raises
    ------
    NoDiffError
        There is no such diff, or it has no such file.
    """
    folder = _folder(settings, old, new)
    if name not in (PLOT_FILE, CHANGES_FILE) or not (folder / name).is_file():
        raise NoDiffError(f"the diff of {old} and {new} has no file {excerpt(name)}")
    return folder / name


def _folder(settings: Settings, old: str, new: str) -> Path:
    folder = diff_path(settings, old, new)
    if not (folder / SUMMARY_FILE).is_file():
        raise NoDiffError(
            f"no diff of {excerpt(old)} and {excerpt(new)} was made; a sync makes that of the vintage in use and its "
            "own, and `alphaops diff` any other"
        )
    return folder


def _cell(row: Mapping[Any, Any]) -> ChangedCell:
    return ChangedCell(
        instrument=str(row[INSTRUMENT]),
        field=str(row["field"]),
        date=row["date"].date(),
        old=finite_or_none(row["old"]),
        new=finite_or_none(row["new"]),
        relative_change=finite_or_none(row["relative_change"]),
        kind=str(row["class"]),
    )
