"""Who may do what in MLflow: the stack's own account may write, everybody else may only read.

MLflow's server imports this module (`authorization_function` of its configuration) and asks it before its own rules.
Those let any account create experiments and models, list the users, change its password and start the server's
assistant. So this module lists the requests that only read, and refuses the rest.
"""

import re

from flask import Response, request
from mlflow.server.auth import auth_config, authenticate_request_basic_auth, store
from werkzeug.datastructures import Authorization

_API = r"/(?:ajax-)?api/\d\.\d/"
_LOOKED_AT = (
    r"experiments/(?:get|get-by-name|search)",
    r"runs/get",
    r"artifacts/list",
    r"metrics/get-history(?:-bulk(?:-interval)?)?",
    r"logged-models/[^/]+(?:/artifacts/(?:directories|files))?",
    r"registered-models/(?:alias|get|get-latest-versions|search)",
    r"model-versions/(?:get|get-download-uri|search)",
    r"datasets/(?:search|[^/]+|[^/]+/(?:experiment-ids|records))",
    r"traces(?:/.*)?|unified-traces|get-trace-artifact|get-online-trace-details",
    r"scorers/(?:list|get|versions)|label-schemas/(?:list|get|get-by-name)",
    r"users/current(?:/permissions)?|server-info|ui-telemetry",
)
_SEARCHED = (
    r"experiments/(?:search|search-datasets)",
    r"runs/search",
    r"logged-models/search",
    r"registered-models/get-latest-versions",
    r"datasets/search",
    r"traces/(?:search|batchGetInfos)",
)
_PAGES = r"/|/version|/get-artifact|/model-versions/get-artifact"
_FILES = r"mlflow-artifacts/artifacts(?:/.*)?"

GET = re.compile(rf"{_PAGES}|{_API}(?:{_FILES}|mlflow/(?:{'|'.join(_LOOKED_AT)}))", re.DOTALL)
POST = re.compile(rf"/graphql|{_API}mlflow/(?:{'|'.join(_SEARCHED)})")
"""Searches use POST; MLflow's GraphQL has no mutation except an echo."""


def authorize() -> Authorization | Response:
    """The account of the present request, or a refusal: 401 for a wrong password, 403 for writing without the right."""
    found = authenticate_request_basic_auth()
    if not isinstance(found, Authorization) or _writes(found.username) or is_look(request.method, request.path):
        return found
    return Response(f"{found.username} may look, and not {request.method} {request.path}\n", 403, mimetype="text/plain")


def is_look(method: str, path: str) -> bool:
    """Whether a request changes nothing, and shows nothing of other accounts."""
    pattern = {"GET": GET, "HEAD": GET, "POST": POST}.get(method)
    return pattern is not None and pattern.fullmatch(path) is not None


def _writes(username: str | None) -> bool:
    return username == auth_config.admin_username or bool(store.get_user(username).is_admin)
