"""Finds the pages of MLflow for this project's names: over REST, without importing MLflow.

The account comes from the environment (MLFLOW_TRACKING_USERNAME, MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN).
"""

import os
from typing import Any

import httpx

from mlops_tasks.authorities import trusted_authorities
from mlops_tasks.config import Settings
from mlops_tasks.errors import ErrorKind, RegistryError, StoreError, excerpt
from mlops_tasks.files import plain_name
from mlops_tasks.links import MlflowPages
from mlops_tasks.roles import AB_TEST_DAG, CHAIN_DAG

EXPERIMENT = CHAIN_DAG
"""The experiment has the name of its DAG."""
AB_TEST_TAG = "ab_test"
"""Of the run of an A/B test: its name."""
_API = "/api/2.0/mlflow"
_TIMEOUT_S = 10.0


class NoRunError(RegistryError, LookupError):
    """MLflow has no such experiment or run."""

    kind = ErrorKind.CONFIGURATION


def runs_page(settings: Settings) -> str:
    """The page of the runs of the daily retraining.

    Raises
    ------
    NoRunError
        There is none yet.
    RegistryError
        MLflow does not answer.
    """
    with _client(settings) as client:
        return MlflowPages.of(settings).runs(_experiment(client))


def training_page(settings: Settings, training_key: str) -> str:
    """The page of a training's run. Errors as for `runs_page`."""
    try:
        key = plain_name(training_key, "training key")
    except StoreError as error:
        raise NoRunError(str(error)) from None
    with _client(settings) as client:
        experiment = _experiment(client)
        asked = {"experiment_ids": [experiment], "filter": f"tags.training_key = '{key}'", "max_results": 1}
        found = _answer(client, "POST", "/runs/search", json=asked).get("runs", [])
    if not found:
        raise NoRunError(f"MLflow has no run of training {excerpt(key)} yet: the task log_run creates it")
    return MlflowPages.of(settings).run(experiment, found[0]["info"]["run_id"])


def ab_test_page(settings: Settings, name: str) -> str:
    """The page of an A/B test's run. Errors as for `runs_page`."""
    try:
        known = plain_name(name, "name of an experiment")
    except StoreError as error:
        raise NoRunError(str(error)) from None
    with _client(settings) as client:
        experiment = _experiment(client, AB_TEST_DAG)
        asked = {"experiment_ids": [experiment], "filter": f"tags.{AB_TEST_TAG} = '{known}'", "max_results": 1}
        found = _answer(client, "POST", "/runs/search", json=asked).get("runs", [])
    if not found:
        raise NoRunError(f"MLflow has no run of experiment {excerpt(known)} yet: analyze_ab_test creates it")
    return MlflowPages.of(settings).run(experiment, found[0]["info"]["run_id"])


def _experiment(client: httpx.Client, name: str = EXPERIMENT) -> str:
    asked = {"experiment_name": name}
    return str(_answer(client, "GET", "/experiments/get-by-name", params=asked)["experiment"]["experiment_id"])


def _client(settings: Settings) -> httpx.Client:
    user, password = (os.environ.get(f"MLFLOW_TRACKING_{name}") for name in ("USERNAME", "PASSWORD"))
    token = os.environ.get("MLFLOW_TRACKING_TOKEN")
    return httpx.Client(
        base_url=settings.mlflow_server.rstrip("/") + _API,
        timeout=_TIMEOUT_S,
        verify=trusted_authorities(),
        auth=(user, password) if user and password else None,
        headers={"Authorization": f"Bearer {token}"} if token and not user else {},
    )


def _answer(client: httpx.Client, method: str, path: str, **request: Any) -> dict[str, Any]:
    try:
        response = client.request(method, path, **request)
    except httpx.HTTPError as error:
        raise RegistryError(
            f"MLflow at {client.base_url.host}:{client.base_url.port} does not answer: {type(error).__name__}; start it"
        ) from None
    if response.status_code == httpx.codes.NOT_FOUND:
        raise NoRunError(f"MLflow has no such experiment yet: a run of {EXPERIMENT}, or of {AB_TEST_DAG}, creates it")
    if not response.is_success:
        raise RegistryError(f"MLflow answered {path} with status {response.status_code}; check user and password")
    found: dict[str, Any] = response.json()
    return found
