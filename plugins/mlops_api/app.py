"""The app below `/mlops/v1`."""

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from starlette.middleware.base import RequestResponseEndpoint
from starlette.responses import Response

from mlops_api import alerts, experiments, forms, models, stream, training, versions
from mlops_api.access import SEE
from mlops_api.service import HEADERS, REFUSED, answer_errors


def create_app() -> FastAPI:
    """Make the app, which Airflow mounts."""
    # FastAPI's own document and pages would be open to everybody, and the pages load scripts from elsewhere.
    app = FastAPI(title="AlphaOps", version="1", docs_url=None, redoc_url=None, openapi_url=None, responses=REFUSED)
    app.include_router(models.router)
    app.include_router(forms.router)
    app.include_router(training.router)
    app.include_router(stream.router)
    app.include_router(alerts.router)
    app.include_router(versions.router)
    app.include_router(experiments.router)
    answer_errors(app)

    @app.get("/openapi.json", include_in_schema=False, dependencies=SEE)
    def document(request: Request) -> JSONResponse:
        return JSONResponse({**app.openapi(), "servers": [{"url": request.scope["root_path"]}]})

    @app.middleware("http")
    async def add_headers(request: Request, call_next: RequestResponseEndpoint) -> Response:
        response = await call_next(request)
        response.headers.update(HEADERS)
        return response

    return app
