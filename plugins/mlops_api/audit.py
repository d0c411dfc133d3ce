"""Writes to Airflow's audit log who asked for what."""

import json

from airflow.api_fastapi.common.db.common import SessionDep
from airflow.api_fastapi.core_api.security import GetUserDep
from airflow.models import Log
from fastapi import Request

EVENT = "mlops."
LONGEST_EVENT = 60
"""Of Airflow's column."""
LONGEST_BODY = 2000
"""Of a batch of metric events, say, the beginning is enough: the state database has its content."""


async def record_write(request: Request, session: SessionDep, user: GetUserDep) -> None:
    """Record a request that changes something, before it is carried out, under the user's name.

    Its event is `mlops.` and the name of the route's function; `extra` has the method, the path and the body.
    """
    body = (await request.body())[:LONGEST_BODY].decode(errors="replace")
    told = {"method": request.method, "path": request.url.path, "query": request.url.query, "body": body}
    event = f"{EVENT}{request.scope['endpoint'].__name__}"[:LONGEST_EVENT]
    name = user.get_name()
    session.add(Log(event=event, owner=name, owner_display_name=name, extra=json.dumps(told)))
    session.commit()
