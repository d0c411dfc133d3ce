"""The HTTP interface of the scoring service.

The newest day's scores are in memory and returned where the request arrives. Anything that takes longer goes to a
thread, and only a limited number at once.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic.json_schema import models_json_schema
from pydantic_core import to_json
from starlette.background import BackgroundTask

from mlops_tasks.config import Settings
from mlops_tasks.errors import MlopsError
from mlops_tasks.serving.arrow_answers import write_arrow
from mlops_tasks.serving.caller import SCOPE, Caller
from mlops_tasks.serving.day_answers import DayAnswers
from mlops_tasks.serving.docs_page import add_docs
from mlops_tasks.serving.gates import RETRY_AFTER_S, BusyError, Gate, Places
from mlops_tasks.serving.guard import LIVE, Guard, failure_of
from mlops_tasks.serving.keys import Rates, ScopeError
from mlops_tasks.serving.market import UnknownDateError
from mlops_tasks.serving.media_types import ARROW, JSON, is_arrow, wants_arrow
from mlops_tasks.serving.messages import Refusal, ScoreRequest
from mlops_tasks.serving.poller import Poller
from mlops_tasks.serving.reader import LARGE_BYTES, RequestReader
from mlops_tasks.serving.reading import BadRequestError, DayAsked, FeaturesGiven, RequestLimits
from mlops_tasks.serving.scored import Scored
from mlops_tasks.serving.service import BadFeaturesError, NotReadyError, ScoringService
from mlops_tasks.serving.workers import ALONE, InStep, Worker
from mlops_tasks.states import Scope

log = logging.getLogger(__name__)

STATUS = {ScopeError: 403, UnknownDateError: 404, BadFeaturesError: 422, NotReadyError: 503, BusyError: 503}
_PLACE = "#/components/schemas/{model}"
SCHEMAS = models_json_schema([(ScoreRequest, "validation")], ref_template=_PLACE)[1]["$defs"]
NEWEST = {"instruments": None, "date": None}
_CONTENT = {"schema": {"$ref": _PLACE.format(model=ScoreRequest.__name__)}, "example": NEWEST}
_STREAM = {"schema": {"type": "string", "format": "binary"}}
BODY = {"required": True, "content": {JSON: _CONTENT, ARROW: _STREAM}}
Answers = dict[int | str, dict[str, Any]]
"""Of the OpenAPI document: status to what is said about it."""
REFUSED: Answers = {
    401: {"model": Refusal, "description": "No valid key."},
    403: {"model": Refusal, "description": "The key lacks the scope."},
    413: {"model": Refusal, "description": "More than the limits allow."},
    429: {"model": Refusal, "description": "The key has asked too often; Retry-After says when to ask again."},
    503: {"model": Refusal, "description": "Busy, or nothing is in service yet; with Retry-After where that helps."},
}
"""By any route that wants a key."""
SCORED: Answers = {
    200: {"content": {ARROW: _STREAM}},
    404: {"model": Refusal, "description": "The date is no trading day of the vintage."},
    422: {"model": Refusal, "description": "Each fault of the body with its place."},
}
MEASURED: Answers = {200: {"content": {"text/plain": {"schema": {"type": "string"}}}}}
STATE: Answers = {503: {"description": "The same, while the service cannot score."}}
REFRESHES_AT_ONCE = 4

Result = TypeVar("Result")


def create_app(settings: Settings, worker: Worker = ALONE) -> FastAPI:
    """The application; it follows the champion alias while it runs.

    Parameters
    ----------
    worker
        Which of several workers this process is; its settings have its part of the limits.

    Raises
    ------
    ConfigError
        There is no token.
    """
    service = ScoringService(settings, worker)
    step = None if worker.board is None else InStep(worker, worker.board, service.state, service.refresh)
    reader = RequestReader(RequestLimits(settings.serving.max_rows, settings.serving.max_names))

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        _log_candidates(service, asyncio.get_running_loop())
        # Keys are looked at beside: a revoked one must not stay valid for as long as a model takes to load. So are
        # candidates: whatever one of them takes, the champion is followed.
        looks = (service.keys.follow, service.follow, service.candidates.follow)
        pollers = [Poller(look, settings.serving.poll_s) for look in looks]
        for poller in pollers:
            poller.start()
        reader.start()
        service.predictions.start()
        keeping = None if step is None else asyncio.create_task(step.run(pollers[-1].wake))
        yield
        if keeping is not None:
            keeping.cancel()
        for poller in pollers:
            poller.stop()
        service.day_scores.stop()
        service.candidates.stop()
        reader.stop()
        service.predictions.stop()

    app = FastAPI(
        title="AlphaOps scoring",
        version="1",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        responses=REFUSED,
        redirect_slashes=False,  # a client would send its key to where the request's Host says, in clear text
    )
    app.state.service, app.state.step = service, step
    rates = Rates(buckets=worker.board)
    app.add_middleware(Guard, keys=service.keys, rates=rates, metrics=service.metrics, limits=settings.serving)
    app.add_exception_handler(MlopsError, _answer_error)
    _add_score(app, service, reader)
    _add_state(app, service, step)
    add_docs(app, SCHEMAS)
    return app


def _log_candidates(service: ScoringService, loop: asyncio.AbstractEventLoop) -> None:
    """Pass the log records of a candidate's thread to the event loop, which does all logging."""

    def log_scores(scored: Scored, caller: Caller) -> None:
        loop.call_soon_threadsafe(service.predictions.add, scored, caller)

    service.candidates.log = log_scores


def _add_score(app: FastAPI, service: ScoringService, reader: RequestReader) -> None:
    limits = service.settings.serving
    answers = DayAnswers(service)
    features = Gate("features", Places(limits.requests_at_once, limits.key_share), service.metrics.busy)

    def read(body: bytes, kind: str, caller: Caller) -> DayAsked | FeaturesGiven:
        asked = reader.read(body, kind)
        caller.holder.need(Scope.SCORE if isinstance(asked, DayAsked) else Scope.SCORE_ROWS)
        return asked

    def read_and_score(body: bytes, kind: str, caller: Caller) -> DayAsked | Scored:
        asked = read(body, kind, caller)
        return asked if isinstance(asked, DayAsked) else service.score_features(asked, caller.unit)

    async def in_thread(caller: Caller, function: Callable[..., Result], *given: Any) -> Result:
        with features.passing(caller.holder):
            return await run_in_threadpool(function, *given)

    @app.post("/v1/score", openapi_extra={"requestBody": BODY}, responses=SCORED)
    async def score(request: Request) -> Response:
        """Scores of instruments on a date, or of given features; as JSON, or both ways as an Arrow stream."""
        body, caller = await request.body(), request.scope[SCOPE]
        kind = ARROW if body and is_arrow(request.headers.get("content-type", "")) else JSON
        small = kind == JSON and len(body) <= LARGE_BYTES
        asked = read(body, kind, caller) if small else await in_thread(caller, read_and_score, body, kind, caller)
        if isinstance(asked, FeaturesGiven):
            if service.scores_at_once(asked, caller.unit):
                asked = service.score_features(asked, caller.unit)
            else:
                asked = await in_thread(caller, service.score_features, asked, caller.unit)
        scored = await answers.score(asked, caller) if isinstance(asked, DayAsked) else asked
        if scored.error is not None:
            service.predictions.add(scored, caller)
            raise scored.error
        answered_as = ARROW if wants_arrow(request.headers.get("accept", "")) else JSON
        content = write_arrow(scored) if answered_as == ARROW else to_json(scored.to_json())
        service.predictions.add(scored, caller)
        after = None
        if isinstance(asked, DayAsked) and service.candidates.current is not None:
            after = BackgroundTask(answers.score_as_shadow, scored, asked, caller)
        return Response(content, media_type=answered_as, background=after)


def _add_state(app: FastAPI, service: ScoringService, step: InStep | None) -> None:
    at_once = max(1, REFRESHES_AT_ONCE // service.settings.serving.workers)
    refreshes = Gate("refresh", Places(at_once, 1.0), service.metrics.busy)

    @app.post("/v1/refresh")
    async def refresh(request: Request) -> dict[str, Any]:
        """Look at keys, champion alias and vintage in use, now, in every worker; returns what /health does.

        Scope: admin.
        """
        with refreshes.passing(request.scope[SCOPE].holder):
            await (run_in_threadpool(service.refresh) if step is None else step.refresh())
        return service.health()

    @app.get("/v1/environment")
    async def environment() -> dict[str, Any]:
        """The interpreter, the packages that score, and the lock of this process. Scope: admin."""
        return service.environment.to_json()

    @app.get("/health", responses=STATE)
    async def health() -> JSONResponse:
        """What is in service; 503 if nothing is."""
        content = service.health()
        return JSONResponse(content, 503 if content["status"] == "no_model" else 200)

    @app.get(LIVE, openapi_extra={"security": []})
    async def live() -> dict[str, str]:
        """Shows that the process answers; if it does not, it may be restarted. Needs no key."""
        return {"status": "alive"}

    @app.get("/ready", responses=STATE)
    async def ready() -> JSONResponse:
        """Whether the newest day's scores are available; until then 503 with what is missing."""
        lacking = service.lacking()
        return JSONResponse({"status": lacking or "ready"}, 503 if lacking else 200)

    @app.get("/metrics", response_class=Response, responses=MEASURED)
    async def metrics() -> Response:
        """Prometheus metrics, of all workers together."""
        service.predictions.count_backlog()
        return Response(service.metrics.render(), media_type=CONTENT_TYPE_LATEST)


async def _answer_error(request: Request, error: Exception) -> JSONResponse:
    if isinstance(error, BadRequestError):
        return JSONResponse({"detail": list(error.problems)}, error.status)
    status = next((code for kind, code in STATUS.items() if isinstance(error, kind)), 500)
    detail = str(error)
    if status == 500:
        caller: Caller = request.scope[SCOPE]
        log.error("request %s failed: %s: %s", caller.request_id, type(error).__name__, error)
        detail = failure_of(caller)
    headers = {"Retry-After": str(RETRY_AFTER_S)} if isinstance(error, BusyError) else None
    return JSONResponse({"detail": detail}, status, headers)
