"""Fills the index of versions from MLflow, and gives versions people's tags."""

import getpass
import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from math import isfinite

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from mlops_tasks.config import Settings
from mlops_tasks.registry.client import EXPERIMENT, MODEL_NAME, connect, quoted, registry_errors
from mlops_tasks.registry.lifecycle import STATE_TAG, try_to_show_history
from mlops_tasks.registry.models import NOT_FOUND
from mlops_tasks.state.model_index import (
    FoundVersion,
    RegisteredVersion,
    index_versions,
    indexed_versions,
    tag_version,
)
from mlops_tasks.state.version_search import VersionPage, VersionSearch, search_versions

log = logging.getLogger(__name__)

_PAGE = 1000


def search_models(settings: Settings, wanted: VersionSearch) -> VersionPage:
    """`search_versions`; the index is made first if it is empty.

    Raises
    ------
    ConfigError
        As `search_versions`.
    RegistryError
        MLflow does not answer, and the index is empty.
    """
    if not indexed_versions(settings):
        index_models(settings)
    return search_versions(settings, wanted)


@registry_errors
def index_models(settings: Settings, *, anew: bool = False) -> int:
    """Index the versions that the index lacks, all of them if `anew`, and remove those that MLflow no longer has.

    Returns
    -------
    Number of versions that were read from MLflow.
    """
    registered = {int(each.version): each for each in _versions(settings)}
    known = frozenset[int]() if anew else indexed_versions(settings)
    missing = [each for version, each in sorted(registered.items()) if version not in known]
    runs = _runs(settings, missing)
    index_versions(settings, [_described(each, runs.get(each.run_id)) for each in missing], sorted(registered))
    log.info("index of versions: %d of %d read from MLflow", len(missing), len(registered))
    return len(missing)


@registry_errors
def index_model(settings: Settings, version: int) -> None:
    """Index a version again, since its tags or its run have changed."""
    found = connect(settings).get_model_version(MODEL_NAME, str(version))
    index_versions(settings, [_described(found, _runs(settings, [found]).get(found.run_id))])


def tag_model(settings: Settings, version: int, tags: Mapping[str, str], by: str = "") -> FoundVersion | None:
    """Give a version tags of a person's; an empty value takes one away. MLflow has them as `user.<name>`.

    Returns
    -------
    The version with its tags; None: no tag was given.

    Raises
    ------
    ConfigError, StoreError
        As `tag_version`.
    """
    if version not in indexed_versions(settings):
        index_models(settings)
    found = None
    for name, value in tags.items():
        found = tag_version(settings, version, name, value, by or getpass.getuser())
    try_to_show_history(settings)
    return found


def _versions(settings: Settings) -> list[ModelVersion]:
    client, found, token = connect(settings), list[ModelVersion](), None
    while True:
        page = client.search_model_versions(f"name = {quoted(MODEL_NAME)}", page_token=token)
        found += page
        token = page.token
        if not token:
            return found


def _runs(settings: Settings, versions: list[ModelVersion]) -> dict[str, Run]:
    """The runs of versions, by their ids."""
    client = connect(settings)
    if len(versions) < _PAGE // 10:
        few = {each.run_id: _find_run(client, each.run_id) for each in versions if each.run_id}
        return {run_id: run for run_id, run in few.items() if run is not None}
    experiment, found, token = client.get_experiment_by_name(EXPERIMENT), dict[str, Run](), None
    while experiment is not None:
        page = client.search_runs([experiment.experiment_id], max_results=_PAGE, page_token=token)
        found |= {run.info.run_id: run for run in page}
        token = page.token
        if not token:
            break
    return found


def _find_run(client: MlflowClient, run_id: str) -> Run | None:
    """None: it was removed."""
    try:
        return client.get_run(run_id)
    except MlflowException as error:
        if error.error_code in NOT_FOUND:
            return None
        raise


def _described(version: ModelVersion, run: Run | None) -> RegisteredVersion:
    """What the index has of a version; metrics of single iterations, whose names have a dot, are left out."""
    tags = {name: value for name, value in version.tags.items() if name != STATE_TAG}  # the index has the state itself
    metrics = {} if run is None else run.data.metrics
    params = {} if run is None else run.data.params
    return RegisteredVersion(
        version=int(version.version),
        training_key=tags.get("training_key", ""),
        family=params.get("model.family") or tags.get("model", ""),
        data_version=tags.get("data_version", ""),
        feature_version=tags.get("feature_version", ""),
        run_id=version.run_id or "",
        description=version.description or "",
        registered_at=datetime.fromtimestamp(version.creation_timestamp / 1000, UTC),
        metrics={name: value for name, value in metrics.items() if "." not in name and isfinite(value)},
        tags=tags,
    )
