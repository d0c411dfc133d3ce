"""The app below `/mlops/ui`."""

from pathlib import Path

from fastapi import APIRouter, FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, HTMLResponse
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.middleware.base import RequestResponseEndpoint
from starlette.responses import Response

from mlops_api.access import SEE
from mlops_api.service import HEADERS, told_of_database, unexpected
from mlops_tasks.errors import MlopsError
from mlops_ui import (
    data_pages,
    deployment_pages,
    experiment_pages,
    mlflow_pages,
    monitoring_pages,
    new_training_pages,
    pages,
    report_pages,
    today_pages,
    training_pages,
    version_pages,
)
from mlops_ui.rendering import render

ROUTERS: tuple[APIRouter, ...] = (
    today_pages.router,
    data_pages.router,
    monitoring_pages.router,
    pages.router,
    new_training_pages.router,
    training_pages.router,
    training_pages.of_dag_runs,
    version_pages.router,
    deployment_pages.router,
    experiment_pages.router,
    report_pages.router,
    mlflow_pages.router,
)
STATIC = Path(__file__).parent / "static"
ASSETS = {path.name: path for path in STATIC.iterdir()}

POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "img-src 'self'",
        "frame-src 'self'",
        "form-action 'self'",
        "frame-ancestors 'self'",
        "base-uri 'none'",
    ]
)
"""Nothing is loaded from elsewhere, no page has inline scripts or styles, and no foreign page may frame one."""

TITLES = {
    401: ("You are not signed in", "Sign in to Airflow and reload this page."),
    403: ("Not allowed", "Ask whoever keeps the accounts for a role that may see this (docs/users.md)."),
    404: ("There is no such page", "Training, Models and Reports above list what there is."),
    422: ("This address is not valid", "Correct what comes after the question mark, or leave it out."),
    503: ("Not available now", "Reload this page in a moment; `doctor` looks for what is wrong."),
}
OTHER = ("That did not work", "Go back and try again.")


def create_app() -> FastAPI:
    """Make the app, which Airflow mounts."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    for router in ROUTERS:
        app.include_router(router)
    show_errors(app)

    @app.get("/assets/{name}", dependencies=SEE)
    def asset(name: str) -> FileResponse:
        """A script or a style sheet."""
        if name not in ASSETS:
            raise HTTPException(404, f"there is no asset {name!r}")
        return FileResponse(ASSETS[name])

    @app.middleware("http")
    async def add_headers(request: Request, call_next: RequestResponseEndpoint) -> Response:
        try:
            response = await call_next(request)
        except Exception as error:
            response = _error_page(request, 500, unexpected(request, error))
        response.headers.update({**HEADERS, "Referrer-Policy": "no-referrer"})
        response.headers.setdefault("Content-Security-Policy", POLICY)
        return response

    return app


def show_errors(app: FastAPI) -> None:
    """Turn every error into a page of ours that says what to do."""

    @app.exception_handler(StarletteHTTPException)
    def refused(request: Request, error: StarletteHTTPException) -> HTMLResponse:
        detail = f"{request.url.path} is not one of these pages." if error.detail == "Not Found" else str(error.detail)
        return _error_page(request, error.status_code, detail)

    @app.exception_handler(RequestValidationError)
    def unreadable(request: Request, error: RequestValidationError) -> HTMLResponse:
        told = [f"{'.'.join(map(str, each['loc'][1:]))}: {each['msg']}" for each in error.errors()]
        return _error_page(request, 422, "; ".join(told))

    @app.exception_handler(MlopsError)
    def failed(request: Request, error: MlopsError) -> HTMLResponse:
        return _error_page(request, 404 if isinstance(error, LookupError) else 503, str(error))

    @app.exception_handler(SQLAlchemyError)
    def unavailable(request: Request, error: SQLAlchemyError) -> HTMLResponse:
        return _error_page(request, 503, told_of_database(request, error))


def _error_page(request: Request, status: int, detail: str) -> HTMLResponse:
    title, advice = TITLES.get(status, OTHER)
    page = render(request, "error.html", title=title, detail=detail, advice=advice)
    return HTMLResponse(page, status, {**HEADERS, "Content-Security-Policy": POLICY})
