"""The pages of reports below `/mlops/ui/reports`, and the files that they show.

The content of a report is not trusted: its texts are escaped, its HTML pages are shown in a sandbox without scripts
and with a policy that lets them load nothing, and everything else is a picture or a download.
"""

from collections.abc import Callable, Mapping
from typing import Annotated, Any

from airflow.api_fastapi.core_api.security import GetUserDep
from fastapi import APIRouter, Query, Request
from fastapi.responses import FileResponse, HTMLResponse

from mlops_api.access import SEE, may
from mlops_api.service import settings
from mlops_tasks.data.validation.quarantine_pages import quarantine_page
from mlops_tasks.errors import StoreError
from mlops_tasks.experiments.table_columns import table_cells
from mlops_tasks.reports import (
    HTML,
    LAYOUTS,
    PNG,
    NoReportError,
    Report,
    ReportKind,
    find_report,
    find_whole_report,
    newest_reports,
    verdict_of,
)
from mlops_tasks.roles import Right
from mlops_ui.rendering import render

router = APIRouter(prefix="/reports", dependencies=SEE, default_response_class=HTMLResponse)

SHOWN = 30
"""Number of reports of each kind in the list."""
MADE_BY: Mapping[ReportKind, str] = {
    ReportKind.DRIFT: "the task check_drift of daily_retraining makes one every day, once there is a champion",
    ReportKind.COMPARISON: "the task compare_models of daily_retraining makes one once two models can be compared",
    ReportKind.AB_TEST: "analyze_ab_test makes one of each experiment, and brings it up to date every day",
    ReportKind.MODEL_TABLE: "alphaops models table makes one",
    ReportKind.EXPLANATION: "the task explain_model of daily_retraining and alphaops explain --report make them",
    ReportKind.DATA_DOCS: "the tasks validate_bars and render_docs of sync_market_data make them",
    ReportKind.QUARANTINE: "the task validate_bars of sync_market_data makes it",
}
COUNTED = {
    "rules": "rows quarantined",
    "fatal": "rejects the vintage",
    "warnings": "warns",
    "released": "released by hand",
}
"""The counts in a validation report, and the consequence that each one counts."""
GUEST_POLICY = "; ".join(
    [
        "sandbox allow-same-origin",
        "default-src 'none'",
        "style-src 'unsafe-inline'",
        "img-src data:",
        "form-action 'none'",
        "frame-ancestors 'self'",
        "base-uri 'none'",
    ]
)
"""For a report's own files: no scripts, forms, windows or loaded resources. They keep this server's origin, without
which a browser would not send its cookie for the link from one page of the data docs to the next."""


@router.get("")
def list_reports(request: Request) -> str:
    """The newest reports of each kind."""
    kinds = [
        ({"kind": kind, "title": layout.title, "made_by": MADE_BY[kind]}, newest_reports(settings(), kind, SHOWN))
        for kind, layout in LAYOUTS.items()
    ]
    return render(request, "reports.html", kinds=kinds)


@router.get("/{kind}/{name}")
def show_report(
    request: Request, kind: str, name: str, user: GetUserDep, page: Annotated[str, Query(max_length=40)] = ""
) -> str:
    """One report. `page` is the number of a page of the quarantine, or the name of a page of the data docs."""
    report = find_whole_report(settings(), kind, name)
    content = report.content
    more = _MORE[report.kind](report, content, page)
    if report.kind is ReportKind.QUARANTINE:
        more["releasable"] = _is_newest(report) and may(user, Right.OPERATE)
    return render(request, f"report_{report.kind}.html", report=report, content=content, **more)


@router.get("/{kind}/{name}/files/{file}")
def show_file(kind: str, name: str, file: str) -> FileResponse:
    """One file of a report."""
    report = find_report(settings(), kind, name)
    path, media_type = report.file(file), report.layout.files[file]
    disposition = "inline" if media_type in (HTML, PNG) else "attachment"
    headers = {"Content-Security-Policy": GUEST_POLICY}
    download = f"{report.kind}_{report.name}_{file}"
    return FileResponse(path, 200, headers, media_type, filename=download, content_disposition_type=disposition)


def _nothing_more(report: Report, content: Mapping[str, Any], page: str) -> dict[str, Any]:
    return {}


def _table(report: Report, content: Mapping[str, Any], page: str) -> dict[str, Any]:
    titles, rows = table_cells(content)
    return {"titles": titles, "rows": rows}


def _docs(report: Report, content: Mapping[str, Any], page: str) -> dict[str, Any]:
    shown = page or next(iter(report.files), "")
    if shown:
        report.file(shown)
    return {"verdict": verdict_of(content), "shown": shown}


def _quarantine(report: Report, content: Mapping[str, Any], page: str) -> dict[str, Any]:
    number = int(page) if page.isascii() and page.isdigit() else 1
    try:
        shown = quarantine_page(report.file("rows.parquet"), number)
    except StoreError as error:
        raise NoReportError(str(error)) from None
    rules = [(rule, what, count) for name, what in COUNTED.items() for rule, count in content[name].items()]
    return {"verdict": verdict_of(content), "page": shown, "rules": rules}


def _is_newest(report: Report) -> bool:
    """Whether it is the conclusion that releases are about."""
    return [each.name for each in newest_reports(settings(), report.kind, 1)] == [report.name]


_MORE: Mapping[ReportKind, Callable[[Report, Mapping[str, Any], str], dict[str, Any]]] = {
    ReportKind.DRIFT: _nothing_more,
    ReportKind.COMPARISON: _nothing_more,
    ReportKind.AB_TEST: _nothing_more,
    ReportKind.MODEL_TABLE: _table,
    ReportKind.EXPLANATION: _nothing_more,
    ReportKind.DATA_DOCS: _docs,
    ReportKind.QUARANTINE: _quarantine,
}
