"""Requests made from an OpenAPI document, right and wrong ones, to the server that gives it."""

from collections.abc import Mapping
from urllib.parse import unquote

import schemathesis
from hypothesis import HealthCheck, assume, given, settings
from schemathesis import GenerationMode
from schemathesis.specs.openapi import checks

BODIES, PARAMETERS = 100, 10
"""Requests to an operation with a body, and to one without."""
PATIENCE_S = 240
"""Before an answer is given up; ten seconds, which Schemathesis waits by itself, are no sign of a fault there."""
PATIENT = settings(deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow])
"""A machine that is busy with other things makes requests slowly, too."""


def try_operations(url: str, headers: Mapping[str, str], mode: GenerationMode) -> set[str]:
    """Send requests to every operation; returns the paths.

    Raises where an answer is 500 or more, where its status, type or shape is none that the document names, where
    something is answered without `headers`, or where a wrong request is accepted.
    """
    document = schemathesis.openapi.from_url(url, headers=dict(headers), timeout=PATIENCE_S)
    operations = [found.ok() for found in document.get_all_operations()]
    for operation in operations:
        if mode is GenerationMode.POSITIVE or operation.body or list(operation.iter_parameters()):
            _try(operation, headers, mode)
    return {operation.path for operation in operations}


def _try(operation: schemathesis.APIOperation, headers: Mapping[str, str], mode: GenerationMode) -> None:
    @given(case=operation.as_strategy(generation_mode=mode))
    @settings(PATIENT, max_examples=BODIES if operation.body else PARAMETERS)
    def send(case: schemathesis.Case) -> None:
        # Airflow finds no app for a path with a line break, and answers it itself.
        assume(not any("\n" in unquote(str(each)) for each in case.path_parameters.values()))
        # What is right by its shape may name what is not there: a date, a feature, a run.
        unjudged = [checks.positive_data_acceptance]
        if not operation.body:
            # A query has only texts: what is meant as null, or as a list of one, is a text like any other.
            unjudged.append(checks.negative_data_rejection)
        case.call_and_validate(headers=dict(headers), excluded_checks=unjudged, timeout=PATIENCE_S)

    send()
