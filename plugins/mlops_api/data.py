"""Routes about data: vintages, their diffs and approvals, what is in quarantine and what was released from it."""

from typing import Annotated

from airflow.api_fastapi.core_api.security import GetUserDep
from fastapi import APIRouter, Depends, HTTPException, Path, Query

from mlops_api.access import needs
from mlops_api.dag_runs import DagRunsDep
from mlops_api.messages.dag_runs import StartedRun
from mlops_api.messages.data import (
    VERSION,
    ApprovalAsked,
    ChangedCell,
    ChangedCells,
    DiffList,
    DiffShown,
    DiffSummary,
    SourceList,
    SyncAsked,
    Vintage,
    VintageList,
    VintageShown,
)
from mlops_api.messages.problem import Problem
from mlops_api.messages.quarantine import (
    Quarantine,
    QuarantinedRow,
    QuarantinedRows,
    QuarantineList,
    QuarantineShown,
    Release,
    ReleaseAsked,
    ReleaseList,
)
from mlops_api.paging import Page, paged
from mlops_api.service import NO_SUCH, Answers, settings
from mlops_tasks.config import SYNTHETIC
from mlops_tasks.data.revisions.stored import cell_page, find_stored_diff, stored_diffs
from mlops_tasks.data.validation.quarantine import StaleQuarantineError, release
from mlops_tasks.data.validation.quarantine_pages import quarantine_page
from mlops_tasks.data.validation.releases import load_releases
from mlops_tasks.data.vintage_list import find_vintage, vintage_page
from mlops_tasks.data.vintages import current_version
from mlops_tasks.errors import BusyFolderError, StoreError, hint
from mlops_tasks.reports import ReportKind, count_reports, find_report, find_whole_report, newest_reports
from mlops_tasks.roles import Right

router = APIRouter(prefix="/data", tags=["data"])

DataVersion = Annotated[str, Path(pattern=VERSION)]
Paged = Annotated[Page, Depends(paged)]
SYNC_DAG = "sync_market_data"
WAIT_S = 5.0
"""How long a release waits for a sync that is at work."""
CONFLICT: Answers = {409: {"model": Problem, "description": "It is not so any more; `detail` says how it is."}}


@router.get("/vintages", **needs(Right.SEE))
def list_vintages(page: Paged) -> VintageList:
    """The vintages that are on disk or in DVC, the newest first."""
    found = vintage_page(settings(), page.first, page.size)
    return VintageList(total=found.total, vintages=[Vintage.model_validate(each) for each in found.vintages])


@router.get("/vintages/{data_version}", **needs(Right.SEE), responses=NO_SUCH)
def show_vintage(data_version: DataVersion) -> VintageShown:
    """A vintage: its extent, what it was read from, and by which approvals it may follow others."""
    return VintageShown.of(find_vintage(settings(), data_version))


@router.get("/diffs", **needs(Right.SEE))
def list_diffs(page: Paged, version: Annotated[str, Query(pattern=r"^([0-9a-f]{16})?$")] = "") -> DiffList:
    """The diffs that were made, the newest first; `version`: those of this vintage."""
    found = stored_diffs(settings(), page.first, page.size, version)
    return DiffList(total=found.total, diffs=[DiffSummary.of(each) for each in found.diffs])


@router.get("/diffs/{old}/{new}", **needs(Right.SEE), responses=NO_SUCH)
def show_diff(old: DataVersion, new: DataVersion) -> DiffShown:
    """What changed of the past between two vintages, and what the policy says of it."""
    return DiffShown.of(find_stored_diff(settings(), old, new))


@router.get("/diffs/{old}/{new}/cells", **needs(Right.SEE), responses=NO_SUCH)
def list_cells(old: DataVersion, new: DataVersion, page: Paged) -> ChangedCells:
    """The cells that differ."""
    found = cell_page(settings(), old, new, page.first, page.size)
    return ChangedCells(total=found.total, cells=[ChangedCell.model_validate(each) for each in found.cells])


@router.get("/quarantine", **needs(Right.SEE))
def list_quarantines(page: Paged) -> QuarantineList:
    """What validations concluded, the newest first."""
    kind = ReportKind.QUARANTINE
    found = page.of(newest_reports(settings(), kind, page.first + page.size))
    total = count_reports(settings(), kind)
    return QuarantineList(total=total, quarantines=[Quarantine.of(each) for each in found if each.is_whole])


@router.get("/quarantine/{staging}", **needs(Right.SEE), responses=NO_SUCH)
def show_quarantine(staging: DataVersion) -> QuarantineShown:
    """What a validation concluded, and how often each rule was broken."""
    return QuarantineShown.of(find_whole_report(settings(), ReportKind.QUARANTINE, staging))


@router.get("/quarantine/{staging}/rows", **needs(Right.SEE), responses=NO_SUCH)
def list_quarantined(staging: DataVersion, page: Annotated[int, Query(ge=1, le=10**6)] = 1) -> QuarantinedRows:
    """The rules that rows break, a hundred at a time."""
    path = find_report(settings(), ReportKind.QUARANTINE, staging).file("rows.parquet")
    try:
        found = quarantine_page(path, page)
    except StoreError as error:
        raise HTTPException(404, str(error)) from None
    rows = [QuarantinedRow.model_validate(row) for row in found.rows]
    return QuarantinedRows(total=found.total, pages=found.pages, rows=rows)


@router.get("/releases", **needs(Right.SEE))
def list_releases(page: Paged) -> ReleaseList:
    """What people have let through rules, the newest first."""
    found = sorted(load_releases(settings()), key=lambda each: each.released_at, reverse=True)
    return ReleaseList(total=len(found), releases=[Release.model_validate(each) for each in page.of(found)])


@router.post("/releases", status_code=201, **needs(Right.OPERATE), responses=CONFLICT)
def release_finding(asked: ReleaseAsked, user: GetUserDep) -> Release:
    """Let a row, an instrument or a session of the newest quarantine through a rule, under the user's name. The next
    sync of the same content is judged again."""
    try:
        made = release(
            settings(),
            rule=asked.rule,
            reason=asked.reason,
            instrument=asked.instrument,
            day=asked.date,
            calendar=asked.calendar,
            source_row=asked.row,
            by=user.get_name(),
            staging=asked.staging,
            wait_s=WAIT_S,
        )
    except BusyFolderError:
        raise
    except StaleQuarantineError as error:
        raise HTTPException(409, str(error)) from None
    except StoreError as error:
        raise HTTPException(422, str(error)) from None
    return Release.model_validate(made)


@router.get("/sources", **needs(Right.SEE))
def list_sources() -> SourceList:
    """The sources that a sync can be given by name."""
    configured = str(settings().data.source).rpartition("/")[2]
    return SourceList(configured=configured, sources=[SYNTHETIC, *settings().data.sources])


@router.post("/syncs", status_code=202, **needs(Right.OPERATE))
def start_sync(asked: SyncAsked, dag_runs: DagRunsDep) -> StartedRun:
    """Start a sync: bars are read, validated, versioned, compared and published by a run of `sync_market_data`."""
    return dag_runs.start(SYNC_DAG, _source(asked))


@router.post("/approvals", status_code=202, **needs(Right.OPERATE), responses={**NO_SUCH, **CONFLICT})
def approve_vintage(asked: ApprovalAsked, dag_runs: DagRunsDep) -> StartedRun:
    """Let a blocked vintage follow the one in use, under the user's name: a run of `sync_market_data` records the
    approval if the source still yields exactly this version, and brings it into use."""
    find_vintage(settings(), asked.data_version)
    in_use = current_version(settings())
    if in_use is None or in_use == asked.data_version:
        raise HTTPException(409, f"{asked.data_version} is in use already, or nothing is that it could follow")
    if not find_stored_diff(settings(), in_use, asked.data_version).is_waiting:
        raise HTTPException(
            409, f"{asked.data_version} needs no approval after {in_use}: the policy does not block it, or it has one"
        )
    form = {"approve_version": asked.data_version, "approve_reason": asked.reason}
    return dag_runs.start(SYNC_DAG, {**_source(asked), **form})


def _source(asked: SyncAsked) -> dict[str, str]:
    """The form's field, empty for the configured source. Only names are taken: no request names a file."""
    if asked.source is None:
        return {}
    known = [SYNTHETIC, *settings().data.sources]
    if asked.source not in known:
        raise HTTPException(422, f"body.source: {hint(asked.source, known)}")
    return {"source": asked.source}
