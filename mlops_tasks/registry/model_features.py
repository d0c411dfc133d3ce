"""The features that a registered model scores: those of the set that it was trained on, over any vintage."""

from mlops_tasks.config import Settings
from mlops_tasks.data.vintages import Vintage
from mlops_tasks.errors import ConfigError, RegistryError, StoreError, first_few
from mlops_tasks.features.sets import FeatureSet, find_feature_set
from mlops_tasks.features.store import FeatureStore
from mlops_tasks.registry.models import LoadedModel


def feature_set_of(settings: Settings, model: LoadedModel) -> FeatureSet:
    """The definition that a model was trained on, also where the set of that name is another one by now.

    Without the features of its training it is the set of that name, if that still has the model's columns.

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
        raise RegistryError(f"version {model.version}: {error}; and {remedy}") from None
    missing = [name for name in model.artefact.feature_names if name not in set(definition.names)]
    if missing:
        raise RegistryError(
            f"version {model.version} needs {len(missing)} features that {definition.name} lacks "
            f"({first_few(missing)}), and {remedy}"
        )
    return definition


def features_of(settings: Settings, model: LoadedModel, vintage: Vintage) -> str:
    """The feature version of a vintage by a model's set; computed when it is not there.

    Raises
    ------
    RegistryError
        As `feature_set_of`.
    """
    definition, store = feature_set_of(settings, model), FeatureStore(settings)
    found = store.find(vintage.data_version, definition.digest)
    return found or store.compute(vintage, definition).feature_version
