"""Requests made from the scoring service's OpenAPI document, right and wrong ones: nothing breaks it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import schemathesis
from schemathesis import GenerationMode

from mlops_tasks.serving.guard import ROUTES
from mlops_tasks.serving.media_types import ARROW
from tests.openapi_requests import try_operations
from tests.registry.conftest import migrated_mlflow, vintage_template
from tests.security.served import Served, serve

__all__ = ["migrated_mlflow", "vintage_template"]

HEADERS = {"Authorization": "Bearer token-of-the-tests"}


@schemathesis.serializer(ARROW)
def arrow_body(context: schemathesis.SerializationContext, value: object) -> bytes:
    """Whatever was made, as the bytes of a stream: seldom one."""
    return value if isinstance(value, bytes) else str(value).encode()


@schemathesis.deserializer(ARROW)
def arrow_answer(context: schemathesis.DeserializationContext, answer: schemathesis.Response) -> bytes:
    """The bytes are a string in OpenAPI's words."""
    return answer.content


@pytest.fixture(scope="module")
def served(
    tmp_path_factory: pytest.TempPathFactory, migrated_mlflow: Path, vintage_template: tuple[Path, str, str]
) -> Iterator[Served]:
    """One service for all requests."""
    yield from serve(tmp_path_factory.mktemp("home"), migrated_mlflow, vintage_template)


@pytest.mark.slow  # each run makes other requests: what it finds is news, and not of the change at hand
@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
def test_no_request_that_the_document_suggests_breaks_the_service(served: Served, mode: GenerationMode) -> None:
    """Every route is in the document, and its answers are those of the document."""
    assert try_operations(f"http://127.0.0.1:{served.port}/openapi.json", HEADERS, mode) == ROUTES
