"""The features that a score was made from, and the score made once more from them by the registered artefact."""

from collections.abc import Mapping
from dataclasses import dataclass

from mlops_tasks.config import Settings
from mlops_tasks.data.vintages import Vintage
from mlops_tasks.errors import LineageError, StoreError
from mlops_tasks.features.sets import FeatureSet
from mlops_tasks.features.store import FeatureStore
from mlops_tasks.files import finite_or_none
from mlops_tasks.provenance.evidence import EvidenceBook
from mlops_tasks.provenance.score import TracedScore
from mlops_tasks.registry.model_features import feature_set_of, features_of
from mlops_tasks.registry.models import LoadedModel
from mlops_tasks.serving.model_day import ModelDay


@dataclass(frozen=True)
class TracedFeatures:
    """What the model saw of the instrument on the day itself."""

    feature_version: str
    feature_set: str
    definition: FeatureSet
    values: Mapping[str, float | None]
    """By feature, in the model's order; None: it has no value."""


def find_features(
    settings: Settings, score: TracedScore, model: LoadedModel, vintage: Vintage, book: EvidenceBook
) -> TracedFeatures:
    """The feature values behind a score; and the score, made once more from them.

    Raises
    ------
    LineageError
        The vintage has no bar of the instrument on the day.
    StoreError, RegistryError
        The features cannot be read, or made again.
    """
    store, definition = FeatureStore(settings), feature_set_of(settings, model)
    feature_version = score.feature_version or features_of(settings, model, vintage)
    if score.feature_version is not None and not _is_stored(store, score.feature_version):
        feature_version = features_of(settings, model, vintage)
        if feature_version != score.feature_version:
            raise LineageError(
                f"the features {score.feature_version} that were scored are gone, and vintage {vintage.data_version} "
                f"gives {feature_version} now; restore the set's definition, or the features from a backup"
            )
        book.proven("features", "they were gone, and came out the same when they were computed again")
    day = ModelDay.read(store, (vintage, feature_version), model, score.date, members=False)
    if score.instrument not in day.features.index:
        raise LineageError(
            f"vintage {vintage.data_version} has no bar of {score.instrument} on {score.date}, so it is not what was "
            "scored; `alphaops vintages` lists the others"
        )
    row = day.features.loc[score.instrument, model.artefact.feature_names]
    book.proven("features", f"the partitions of {feature_version} have the checksums that they were written with")
    again = float(day.scores()[score.instrument])
    difference, limit = abs(again - score.score), settings.serving.probe_max_abs_diff
    if difference <= limit:
        book.proven("rescored", f"the artefact gives {again!r} for these features; difference {difference:g}")
    else:
        book.unproven(
            "rescored",
            f"the artefact gives {again!r} for these features, {difference:g} from the score, limit {limit:g}; the "
            "libraries or the vintage are others than then: see `alphaops compatibility` and the data version above",
        )
    values = {str(name): finite_or_none(value) for name, value in row.items()}
    return TracedFeatures(feature_version, definition.name, definition, values)


def _is_stored(store: FeatureStore, feature_version: str) -> bool:
    try:
        store.get(feature_version)
    except StoreError:
        return False
    return True
