"""Who may do what. Each route names the right that it needs (`mlops_tasks/roles.py`), and Airflow's auth manager
decides who has it: a right is access to runs of a DAG.

Airflow's own dependencies take a bearer token or the cookie of Airflow's pages. A browser sends that cookie whichever
page asks. Whatever the cookie permits, beyond reading an answer that the browser withholds from foreign pages anyway,
therefore requires our own Origin. It is also written to Airflow's audit log.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from airflow.api_fastapi.auth.managers.base_auth_manager import COOKIE_NAME_JWT_TOKEN
from airflow.api_fastapi.auth.managers.models.base_user import BaseUser
from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
from airflow.api_fastapi.core_api.security import requires_access_dag, resolve_user_from_token
from airflow.configuration import conf
from fastapi import Depends, HTTPException, status
from fastapi.concurrency import run_in_threadpool
from starlette.exceptions import WebSocketException
from starlette.requests import HTTPConnection
from starlette.websockets import WebSocket

from mlops_api.audit import record_write
from mlops_tasks.roles import CHAIN_DAG, SEARCH_DAG, Right

RIGHT = "x-right"
"""Names the right of a route in the OpenAPI document."""

Check = Callable[[None, BaseUser], None]
"""One of Airflow's dependencies, called without a request: 403 for a user who may not."""

_CHECKS: Mapping[Right, Check] = {
    Right.SEE: requires_access_dag("GET", DagAccessEntity.RUN, CHAIN_DAG),
    Right.SEARCH: requires_access_dag("POST", DagAccessEntity.RUN, SEARCH_DAG),
    Right.TRAIN: requires_access_dag("PUT", DagAccessEntity.RUN, SEARCH_DAG),
    Right.OPERATE: requires_access_dag("POST", DagAccessEntity.RUN, CHAIN_DAG),
}


def refuse_foreign_page(connection: HTTPConnection) -> None:
    """Refuse a request that rests on the cookie and does not come from a page of this server.

    Raises
    ------
    HTTPException
        403: no bearer token is given, and the Origin is missing or another one.
    """
    if _bearer(connection) is not None:
        return
    ours = {connection.headers.get("host"), urlsplit(conf.get("api", "base_url", fallback="")).netloc}
    origin = urlsplit(connection.headers.get("origin", ""))
    if origin.scheme not in ("http", "https") or origin.netloc not in ours - {None, ""}:
        raise HTTPException(
            status.HTTP_403_FORBIDDEN, "the request comes from a page of another origin; use this server's, or a token"
        )


def needs(right: Right, *further: Any) -> dict[str, Any]:
    """The keyword arguments of a route that needs a right, and `further` dependencies, which come after it.

    A right other than to see also refuses foreign pages and writes the request to the audit log.
    """
    check = Depends(_CHECKS[right])
    guards = (check,) if right is Right.SEE else (Depends(refuse_foreign_page), check, Depends(record_write))
    return {"dependencies": [*guards, *further], "openapi_extra": {RIGHT: right.name.lower()}}


def may(user: BaseUser, right: Right) -> bool:
    """Whether a user has a right; for pages that show what a person can do."""
    try:
        _CHECKS[right](None, user)
    except HTTPException:
        return False
    return True


def refuse_foreign_stream(websocket: WebSocket) -> None:
    """The same as `refuse_foreign_page`, for a WebSocket: code 1008."""
    with _as_policy_violation():
        refuse_foreign_page(websocket)


async def user_who_may_see(token: str | None) -> str:
    """The id of the user whom a stream's token names.

    Raises
    ------
    WebSocketException
        1008: the token is not valid, or its user may not see runs.
    """
    with _as_policy_violation():
        user = await resolve_user_from_token(token)
        await run_in_threadpool(_CHECKS[Right.SEE], None, user)
    return str(user.get_id())


@contextmanager
def _as_policy_violation() -> Iterator[None]:
    try:
        yield
    except HTTPException as error:
        raise WebSocketException(status.WS_1008_POLICY_VIOLATION, str(error.detail)) from None


def token_of(connection: HTTPConnection) -> str | None:
    """The bearer token, or else the one in the cookie."""
    return _bearer(connection) or connection.cookies.get(COOKIE_NAME_JWT_TOKEN)


def _bearer(connection: HTTPConnection) -> str | None:
    scheme, _, token = connection.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" and token.strip() else None


SEE = (Depends(_CHECKS[Right.SEE]),)
"""For pages, and for what no OpenAPI document describes."""
