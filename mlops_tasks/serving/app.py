"""The scoring service's HTTP face."""

import logging
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import ValidationError
from pydantic_core import to_json

from mlops_tasks.config import Settings
from mlops_tasks.errors import MlopsError
from mlops_tasks.serving.guard import Guard
from mlops_tasks.serving.market import UnknownDateError
from mlops_tasks.serving.messages import ScoreRequest
from mlops_tasks.serving.secret import scoring_token
from mlops_tasks.serving.service import BadFeaturesError, NotReadyError, Scored, ScoringService

log = logging.getLogger(__name__)

STATUS = {UnknownDateError: 404, BadFeaturesError: 422, NotReadyError: 503}
BODY = {"required": True, "content": {"application/json": {"schema": ScoreRequest.model_json_schema()}}}


def create_app(settings: Settings) -> FastAPI:
    """The application; it follows the champion alias while it runs.

    Raises
    ------
    ConfigError
        There is no token.
    """
    service = ScoringService(settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        stop = threading.Event()
        poller = threading.Thread(target=_poll, args=(service, stop), name="alias poller", daemon=True)
        poller.start()
        yield
        stop.set()

    app = FastAPI(title="AlphaOps scoring", version="1", lifespan=lifespan)
    app.state.service = service
    app.add_middleware(Guard, token=scoring_token(settings), metrics=service.metrics)
    app.add_exception_handler(MlopsError, _answer_error)
    _add_routes(app, service)
    return app


def _poll(service: ScoringService, stop: threading.Event) -> None:
    while not stop.is_set():
        try:
            service.refresh()
        except Exception:
            # The thread must not end: with it the service would stop following the champion, without a word.
            log.exception("the look at champion and vintage failed")
        stop.wait(service.settings.serving.poll_s)


def _add_routes(app: FastAPI, service: ScoringService) -> None:
    @app.post("/v1/score", openapi_extra={"requestBody": BODY})
    async def score(request: Request) -> Response:
        """Scores of instruments on a date, or of given features."""
        body = await request.body()
        return await run_in_threadpool(_score, service, body)

    @app.post("/v1/refresh")
    def refresh() -> dict[str, Any]:
        """Look at the champion alias and at the vintage in use, now; returns what /health does."""
        service.refresh()
        return service.health()

    @app.get("/health")
    def health() -> JSONResponse:
        """What is in service; 503 while nothing is."""
        content = service.health()
        return JSONResponse(content, 503 if content["status"] == "no_model" else 200)

    @app.get("/metrics")
    def metrics() -> Response:
        """Prometheus metrics."""
        return Response(service.metrics.render(), media_type=CONTENT_TYPE_LATEST)


def _score(service: ScoringService, body: bytes) -> Response:
    # Parsed by pydantic's own JSON reader: 500 rows x 158 features take milliseconds, not tens of them.
    try:
        asked = ScoreRequest.model_validate_json(body or b"{}")
    except ValidationError as error:
        return JSONResponse({"detail": [_readable(e) for e in error.errors(include_url=False)[:10]]}, 422)
    return Response(to_json(_scored(service, asked).to_json()), media_type="application/json")


def _scored(service: ScoringService, asked: ScoreRequest) -> Scored:
    if asked.rows is not None:
        return service.score_rows(asked.rows)
    if asked.table is not None:
        return service.score_table(asked.table)
    return service.score_date(asked.instruments, asked.date)


def _readable(error: Any) -> str:
    return f"{'.'.join(map(str, error['loc'])) or 'body'}: {error['msg']}"


async def _answer_error(request: Request, error: Exception) -> JSONResponse:
    status = next((code for kind, code in STATUS.items() if isinstance(error, kind)), 500)
    if status == 500:
        log.error("%s: %s", type(error).__name__, error)
    return JSONResponse({"detail": str(error)}, status)
