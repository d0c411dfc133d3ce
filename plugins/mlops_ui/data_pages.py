"""The pages about data: vintages, what changed between two of them, quarantine, releases and features."""

from typing import Annotated

from airflow.api_fastapi.core_api.security import GetUserDep
from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import FileResponse, HTMLResponse

from mlops_api.access import SEE, may
from mlops_api.data import list_sources
from mlops_api.messages.data import VERSION
from mlops_api.messages.features import NAME
from mlops_api.service import settings
from mlops_tasks.data.revisions.changes import CLASSES
from mlops_tasks.data.revisions.diff import CHANGES_FILE, PLOT_FILE
from mlops_tasks.data.revisions.stored import cell_page, diff_file, find_stored_diff, stored_diffs
from mlops_tasks.data.validation.releases import load_releases
from mlops_tasks.data.vintage_list import find_vintage, vintage_page
from mlops_tasks.data.vintages import current_version
from mlops_tasks.features.catalogue import FeatureCatalogue
from mlops_tasks.features.set_list import feature_set_detail, feature_sets
from mlops_tasks.reports import ReportKind, newest_reports, verdict_of
from mlops_tasks.roles import Right
from mlops_ui.rendering import render
from mlops_ui.report_pages import GUEST_POLICY

router = APIRouter(prefix="/data", dependencies=SEE, default_response_class=HTMLResponse)

DataVersion = Annotated[str, Path(pattern=VERSION)]
PageNumber = Annotated[int, Query(ge=1, le=10**6)]
SHOWN = 20
"""Number of vintages of a page, and of diffs, validations and releases that are listed."""
CELLS = 50
"""Number of cells of a page."""
MEDIA = {PLOT_FILE: "image/png", CHANGES_FILE: "application/vnd.apache.parquet"}
"""Files of a diff that are shown or downloaded."""


@router.get("")
def show_data(request: Request, user: GetUserDep, page: PageNumber = 1) -> str:
    """The vintages, the newest diffs, validations and releases, and the form of a sync."""
    vintages = vintage_page(settings(), (page - 1) * SHOWN, SHOWN)
    return render(
        request,
        "data.html",
        vintages=vintages,
        page=page,
        pages=_pages(vintages.total, SHOWN),
        diffs=stored_diffs(settings(), 0, SHOWN).diffs,
        validations=[
            (each, verdict_of(each.content))
            for each in newest_reports(settings(), ReportKind.QUARANTINE, SHOWN)
            if each.is_whole
        ],
        releases=sorted(load_releases(settings()), key=lambda each: each.released_at, reverse=True)[:SHOWN],
        sources=list_sources(),
        operate=may(user, Right.OPERATE),
    )


@router.get("/features")
def show_features(request: Request, user: GetUserDep, page: PageNumber = 1) -> str:
    """The feature sets, what is stored of them, and the form of a computation."""
    versions = FeatureCatalogue(settings()).versions()[::-1]
    return render(
        request,
        "features.html",
        sets=feature_sets(settings()),
        versions=versions[(page - 1) * SHOWN : page * SHOWN],
        total=len(versions),
        in_use=current_version(settings()),
        page=page,
        pages=_pages(len(versions), SHOWN),
        operate=may(user, Right.OPERATE),
    )


@router.get("/features/{name}")
def show_feature_set(request: Request, name: Annotated[str, Path(pattern=NAME)]) -> str:
    """A feature set: its columns, what they are made of, and how far back they read."""
    return render(request, "feature_set.html", found=feature_set_detail(settings(), name))


@router.get("/{data_version}")
def show_vintage(request: Request, data_version: DataVersion, user: GetUserDep) -> str:
    """A vintage: its bars, what it was read from, its diffs, and the approval that it may need."""
    found = find_vintage(settings(), data_version)
    diffs = stored_diffs(settings(), 0, SHOWN, data_version).diffs
    in_use = current_version(settings())
    return render(
        request,
        "data_vintage.html",
        found=found,
        diffs=diffs,
        blocked=next(
            (each for each in diffs if (each.old, each.new) == (in_use, data_version) and each.is_waiting), None
        ),
        sources=list_sources(),
        operate=may(user, Right.OPERATE),
    )


@router.get("/diffs/{old}/{new}")
def show_diff(request: Request, old: DataVersion, new: DataVersion, user: GetUserDep, page: PageNumber = 1) -> str:
    """What changed of the past, what the policy says of it, and every cell."""
    found = find_stored_diff(settings(), old, new)
    cells = cell_page(settings(), old, new, (page - 1) * CELLS, CELLS)
    return render(
        request,
        "data_diff.html",
        found=found,
        cells=cells,
        page=page,
        pages=_pages(cells.total, CELLS),
        classes=CLASSES,
        largest=[cell for group in found.summary["largest"].values() for cell in group],
        sources=list_sources(),
        operate=may(user, Right.OPERATE) and old == current_version(settings()),
    )


@router.get("/diffs/{old}/{new}/files/{file}")
def show_file(old: DataVersion, new: DataVersion, file: str) -> FileResponse:
    """The plot of a diff, or the table of all its cells as a download."""
    path = diff_file(settings(), old, new, file)
    disposition = "inline" if file == PLOT_FILE else "attachment"
    headers = {"Content-Security-Policy": GUEST_POLICY}
    name = f"{old}_{new}_{file}"
    return FileResponse(path, 200, headers, MEDIA[file], filename=name, content_disposition_type=disposition)


def _pages(total: int, size: int) -> int:
    return max(1, -(-total // size))
