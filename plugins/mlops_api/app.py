"""The app below `/mlops/v1`."""

from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import JSONResponse
from starlette.middleware.base import RequestResponseEndpoint
from starlette.responses import Response

from mlops_api import (
    alerts,
    data,
    deployments,
    experiment_results,
    experiments,
    features,
    forms,
    models,
    monitoring,
    new_training,
    overview,
    stream,
    training,
    version_details,
    versions,
)
from mlops_api.access import SEE
from mlops_api.body_limit import BodyLimit
from mlops_api.messages.problem import PROBLEM_JSON
from mlops_api.service import HEADERS, REFUSED, answer_errors, problem, unexpected

ROUTERS: tuple[APIRouter, ...] = (
    models.router,
    forms.router,
    new_training.router,
    training.router,
    stream.router,
    alerts.router,
    versions.router,
    version_details.router,
    deployments.router,
    experiments.router,
    experiment_results.router,
    overview.router,
    data.router,
    monitoring.router,
    features.router,
)


def create_app() -> FastAPI:
    """Make the app, which Airflow mounts."""
    # FastAPI's own document and pages would be open to everybody, and the pages load scripts from elsewhere.
    app = FastAPI(title="AlphaOps", version="1", docs_url=None, redoc_url=None, openapi_url=None, responses=REFUSED)
    for router in ROUTERS:
        app.include_router(router)
    answer_errors(app)
    app.add_middleware(BodyLimit)

    @app.get("/openapi.json", include_in_schema=False, dependencies=SEE)
    def document(request: Request) -> JSONResponse:
        return JSONResponse({**openapi(app), "servers": [{"url": request.scope["root_path"]}]})

    @app.middleware("http")
    async def add_headers(request: Request, call_next: RequestResponseEndpoint) -> Response:
        try:
            response = await call_next(request)
        except Exception as error:
            response = problem(500, unexpected(request, error))
        response.headers.update(HEADERS)
        return response

    return app


def openapi(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document, whose refusals are problems by their media type, too."""
    document = app.openapi()
    for path in document["paths"].values():
        for operation in path.values():
            for status, answer in operation["responses"].items():
                if status >= "400" and "application/json" in answer.get("content", {}):
                    answer["content"] = {PROBLEM_JSON: answer["content"]["application/json"]}
    return document
