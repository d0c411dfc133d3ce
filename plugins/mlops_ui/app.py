"""The app below `/mlops/ui`."""

from pathlib import Path

from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import FileResponse
from starlette.middleware.base import RequestResponseEndpoint
from starlette.responses import Response

from mlops_api.access import SEE
from mlops_api.service import HEADERS, answer_errors
from mlops_ui import pages

STATIC = Path(__file__).parent / "static"
ASSETS = {path.name: path for path in STATIC.iterdir()}

POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "frame-ancestors 'self'",
        "base-uri 'none'",
    ]
)
"""Nothing is loaded from elsewhere, no script or style stands in a page, and no foreign page frames one."""


def create_app() -> FastAPI:
    """A new app; Airflow mounts it."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.include_router(pages.router)
    answer_errors(app)

    @app.get("/assets/{name}", dependencies=SEE)
    def asset(name: str) -> FileResponse:
        """A script or a style sheet."""
        if name not in ASSETS:
            raise HTTPException(404, f"there is no asset {name!r}")
        return FileResponse(ASSETS[name])

    @app.middleware("http")
    async def add_headers(request: Request, call_next: RequestResponseEndpoint) -> Response:
        response = await call_next(request)
        response.headers.update({**HEADERS, "Content-Security-Policy": POLICY, "Referrer-Policy": "no-referrer"})
        return response

    return app
