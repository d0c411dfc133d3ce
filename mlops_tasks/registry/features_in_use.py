"""Which feature versions registered models need: pruning the feature store leaves them alone."""

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from mlflow.entities.model_registry import ModelVersion

from mlops_tasks.config import Settings
from mlops_tasks.errors import RegistryError
from mlops_tasks.registry.client import MODEL_NAME, SQLITE, connect, registry_errors

FEATURE_VERSION_TAG = "feature_version"


@registry_errors
def needed_feature_versions(settings: Settings) -> Mapping[str, tuple[str, ...]]:
    """Each feature version that a registered model was trained on, with the names of these models.

    Every version of every model counts for as long as it is registered, whatever its state: an archived one may be
    restored, and any may be replayed. Delete a version in MLflow to release its features.

    Raises
    ------
    RegistryError
        There is no registry, it does not answer, or a version of this project's model does not say what it needs.
        Nothing may be removed then.
    """
    uri = settings.registry_uri
    if uri.startswith(SQLITE) and not Path(uri.removeprefix(SQLITE)).is_file():
        raise RegistryError(
            f"MLflow at {uri}: no such database, so it is unknown which features models need; check the address"
        )
    needed = defaultdict(list)
    for version in _all_versions(settings):
        name = f"{version.name} version {version.version}"
        feature_version = version.tags.get(FEATURE_VERSION_TAG)
        if feature_version is not None:
            needed[feature_version].append(name)
        elif version.name == MODEL_NAME:
            raise RegistryError(f"{name} has no tag {FEATURE_VERSION_TAG!r}; set it in MLflow, or delete the version")
    return {feature_version: tuple(names) for feature_version, names in needed.items()}


def _all_versions(settings: Settings) -> list[ModelVersion]:
    client, found, token = connect(settings), [], None
    while True:
        page = client.search_model_versions(order_by=["name", "version_number"], page_token=token)
        found += page
        token = page.token
        if not token:
            return found
