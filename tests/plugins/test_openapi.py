"""Requests made from the API's OpenAPI document, right and wrong ones, to a real Airflow: nothing breaks it."""

import pytest
from schemathesis import GenerationMode

from tests.openapi_requests import try_operations
from tests.plugins.api_server import Airflow
from tests.plugins.runs import Runs

API = "/mlops/v1"


@pytest.mark.timeout(3600)
@pytest.mark.slow  # each run makes other requests: what it finds is news, and not of the change at hand
@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
def test_no_request_that_the_document_suggests_breaks_the_api(
    airflow: Airflow, runs: Runs, mode: GenerationMode
) -> None:
    """Every route but the WebSockets is in the document, and its answers are those of the document."""
    runs.finished()
    headers = {"Authorization": f"Bearer {airflow.token('admin')}"}
    paths = try_operations(f"{airflow.url}{API}/openapi.json", headers, mode)
    plain = {path.removeprefix(API) for method, path in airflow.routes if method != "APIWebSocketRoute"}
    assert paths == {path for path in plain if not path.startswith("/mlops/ui")} - {"/openapi.json"}
