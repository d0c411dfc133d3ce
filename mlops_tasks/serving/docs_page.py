"""`/docs`: the service's OpenAPI document, to be read and tried in a browser, with nothing from elsewhere.

Swagger UI comes from Flask-AppBuilder, which Airflow's accounts depend on. A browser signs in by HTTP basic
authentication (`guard.py`). The credentials that it sends by itself open only these pages, so that another site's page
cannot use them; a request is tried with the token that a person enters under *Authorize*.
"""

from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.responses import Response

from mlops_tasks.errors import StackError

PAGE, DOCUMENT = "/docs", "/openapi.json"
SCRIPT, STYLE, START = f"{PAGE}/swagger-ui.js", f"{PAGE}/swagger-ui.css", f"{PAGE}/start.js"
BROWSED = frozenset({PAGE, DOCUMENT, SCRIPT, STYLE, START})
"""What a browser may get with HTTP basic authentication."""

_HTML = f"""\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>AlphaOps scoring</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="{STYLE}">
</head>
<body>
<div id="docs"></div>
<script src="{SCRIPT}"></script>
<script src="{START}"></script>
</body>
</html>
"""
_JAVASCRIPT = f"""\
SwaggerUIBundle({{
  url: "{DOCUMENT}",
  dom_id: "#docs",
  deepLinking: true,
  tryItOutEnabled: true,
  validatorUrl: null,
}});
"""
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def add_docs(app: FastAPI, schemas: Mapping[str, Any]) -> None:
    """Add the page to an app that was created without FastAPI's own pages, which load files from elsewhere.

    `schemas` are those of bodies that the app reads itself, by name.
    """

    def answer(path: str, media_type: str, content: str | Path) -> None:
        async def get() -> Response:
            given = content if isinstance(content, str) else _library_file(content)
            return Response(given, media_type=media_type, headers=_HEADERS)

        app.add_api_route(path, get, include_in_schema=False)

    answer(PAGE, "text/html", _HTML)
    answer(START, "text/javascript", _JAVASCRIPT)
    answer(SCRIPT, "text/javascript", Path("js", "swagger-ui-bundle.js"))
    answer(STYLE, "text/css", Path("css", "swagger", "swagger-ui.css"))
    document = _document(app, schemas)
    app.openapi = lambda: document  # type: ignore[method-assign]


def _document(app: FastAPI, schemas: Mapping[str, Any]) -> dict[str, Any]:
    """The document with those schemas, and the token that every route except `/live` requires."""
    document = get_openapi(title=app.title, version=app.version, routes=app.routes)
    every_schema = {**document["components"]["schemas"], **schemas}
    components = {"schemas": every_schema, "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}}
    return {**document, "components": components, "security": [{"token": []}]}


@cache
def _library_file(path: Path) -> str:
    """A file of Swagger UI.

    Raises
    ------
    StackError
        Flask-AppBuilder is not installed, or no longer contains it.
    """
    spec = find_spec("flask_appbuilder")  # located, not imported
    found = Path((spec and spec.origin) or "nowhere").parent / "static" / "appbuilder" / path
    if not found.is_file():
        raise StackError(f"{found}: Swagger UI is not installed; run make env. {DOCUMENT} has the same as JSON")
    return found.read_text(encoding="utf-8")
