"""The features that a registered model scores: those of the feature set that it was trained on, for any vintage."""

from mlops_tasks.config import Settings
from mlops_tasks.data.vintages import Vintage
from mlops_tasks.errors import ConfigError, RegistryError, StoreError, first_few
from mlops_tasks.features.sets import FeatureSet, find_feature_set
from mlops_tasks.features.store import FeatureStore
from mlops_tasks.registry.models import LoadedModel


def feature_set_of(settings: Settings, model: LoadedModel) -> FeatureSet:
    """The definition that a model was trained on, even if the set of that name has changed since.

    If the features of its training are gone, it is the set of that name, if that still has the model's columns.

    Raises
    ------
    RegistryError
        The features of its training are gone, and the set of that name is gone or has other columns.
    """
    manifest = model.artefact.manifest
    try:
        return FeatureStore(settings).definition(manifest["feature_version"])
    except StoreError:
        remedy = (
            f"the features of its training ({manifest['feature_version']}) are gone: train and deploy another model"
        )
    try:
        definition = find_feature_set(manifest["feature_set"], settings)
    except ConfigError as error:
        raise RegistryError(f"version {model.version}: {error}; {remedy}") from None
    missing = [name for name in model.artefact.feature_names if name not in set(definition.names)]
    if missing:
        raise RegistryError(
            f"version {model.version} needs {len(missing)} features that {definition.name} lacks "
            f"({first_few(missing)}), and {remedy}"
        )
    return definition


def features_of(settings: Settings, model: LoadedModel, vintage: Vintage) -> str:
    """The version of a vintage's features by a model's feature set; computed if it is missing.

    Raises
    ------
    RegistryError
        As `feature_set_of`.
    """
    definition, store = feature_set_of(settings, model), FeatureStore(settings)
    found = store.find(vintage.data_version, definition.digest)
    return found or store.compute(vintage, definition).feature_version
