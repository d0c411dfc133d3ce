"""What the routes share: the settings, and the answer to each error of the library."""

import logging
from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any

from fastapi import FastAPI, HTTPException, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException as StarletteHTTPException

from mlops_api.messages.problem import PROBLEM_JSON, Problem
from mlops_tasks.config import Settings, load_settings
from mlops_tasks.errors import ExperimentError, MlopsError, NoExperimentError
from mlops_tasks.state.alerts.handling import NoEpisodeError
from mlops_tasks.state.database import reason_of, wait_at_most
from mlops_tasks.state.model_index import indexed_versions
from mlops_tasks.state.tables import TrainingRun
from mlops_tasks.state.training_runs import RunEndedError, find_training_run

log = logging.getLogger(__name__)

Answers = dict[int | str, dict[str, Any]]
"""Responses in an OpenAPI document: status to its description."""

NO_SUCH: Answers = {404: {"model": Problem, "description": "There is none with this name."}}
ENDED: Answers = {409: {"model": Problem, "description": "The run has ended."}}

REFUSED: Answers = {
    400: {"model": Problem, "description": "The body is not text."},
    **{code: {"model": Problem, "description": "Not signed in, or not allowed."} for code in (401, 403)},
    413: {"model": Problem, "description": "The body is too long."},
    422: {"model": Problem, "description": "The request is invalid; `detail` begins with the place."},
    503: {"model": Problem, "description": "Something that it needs is unavailable; `detail` says what."},
}

After = Annotated[int, Query(ge=0, le=2**63 - 1, description="Only events with larger numbers.")]
"""Where a page or a stream of events begins; no larger than the databases' integers."""

HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
"""Sent with every answer."""


PATIENCE_S = 20.0
"""How long a request may wait until it can write to the state database. Requests that wait keep threads from others."""


@cache
def settings() -> Settings:
    """Read once per process. A restart reads them again, as everywhere in the stack."""
    wait_at_most(PATIENCE_S)
    return load_settings()


def known_run(run_id: str) -> TrainingRun:
    """The run that a path names. 404 when there is none."""
    run = None if "\0" in run_id else find_training_run(settings(), run_id)  # what no database would take
    if run is None:
        raise HTTPException(404, f"there is no training run {run_id!r}; GET training/runs lists them")
    return run


def registered(version: int) -> int:
    """The version that a request names. 404 when the index does not have it."""
    if version not in indexed_versions(settings()):
        raise HTTPException(404, f"the index has no version {version}; GET versions lists them")
    return version


def answer_errors(app: FastAPI) -> None:
    """Answer errors as problems: invalid requests with 422, what is not there with 404, what has ended with 409, else
    503 with the remedy."""

    @app.exception_handler(StarletteHTTPException)
    def pass_on(request: Request, error: StarletteHTTPException) -> JSONResponse:
        return problem(error.status_code, str(error.detail), error.headers)

    @app.exception_handler(MlopsError)
    def answer(request: Request, error: MlopsError) -> JSONResponse:
        return problem(_status(error), str(error))

    @app.exception_handler(SQLAlchemyError)
    def unavailable(request: Request, error: SQLAlchemyError) -> JSONResponse:
        return problem(503, told_of_database(request, error))

    @app.exception_handler(RequestValidationError)
    def refuse(request: Request, error: RequestValidationError) -> JSONResponse:
        found = (f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
        return problem(422, "; ".join(found))


def told_of_database(request: Request, error: SQLAlchemyError) -> str:
    """What people are told when a database fails. What its driver says, which may name hosts, is only logged."""
    log.warning("%s: %s", request.url.path, reason_of(error))
    return (
        "a database does not answer as it should; `doctor` looks for what is wrong with it, and the log has the reason"
    )


def unexpected(request: Request, error: Exception) -> str:
    """What people are told of an error that nobody has foreseen; the log has it whole."""
    log.error("%s %s", request.method, request.url.path, exc_info=error)
    return "an unexpected error: the log of the API server names what was read, and where it failed"


def problem(status: int, detail: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """A refusal in the standard form."""
    content = Problem.of(status, detail).model_dump()
    return JSONResponse(content, status, {**HEADERS, **(headers or {})}, PROBLEM_JSON)


def _status(error: MlopsError) -> int:
    match error:
        case RunEndedError() | NoEpisodeError():
            return 409
        case NoExperimentError() | LookupError():
            return 404
        case ExperimentError():
            return 422
    return 503
