"""The feature sets as pages and the API show them: which there are, what is wrong, and what a column is made of."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isinf

from mlops_tasks.config import Settings
from mlops_tasks.errors import ConfigError, excerpt, hint
from mlops_tasks.features.sets import FeatureSet, feature_set_names, find_feature_set
from mlops_tasks.features.store import FeatureStore


class NoFeatureSetError(ConfigError, LookupError):
    """There is no feature set of this name."""


@dataclass(frozen=True)
class ListedSet:
    """A feature set, or the reason why it cannot be computed.

    Attributes
    ----------
    columns
        Their number; 0 where `error` says what is wrong.
    is_default
        It is what the chain computes unless a form says otherwise.
    """

    name: str
    version: int
    owner: str
    description: str
    columns: int
    is_default: bool
    error: str = ""


@dataclass(frozen=True)
class SetColumn:
    """A column of a set.

    Attributes
    ----------
    expression
        Empty: an indicator gives it.
    inputs
        Fields of the bars that it reads.
    rows_back
        Calendar rows before the current one that it reaches; None: back to the instrument's first.
    """

    name: str
    expression: str
    inputs: Sequence[str]
    rows_back: int | None


@dataclass(frozen=True)
class SetDetail:
    """A feature set with its columns, in order."""

    listed: ListedSet
    columns: Sequence[SetColumn]


def feature_sets(settings: Settings) -> list[ListedSet]:
    """All sets, right or wrong."""
    return [_listed(settings, name) for name in feature_set_names(settings)]


def feature_set_detail(settings: Settings, name: str) -> SetDetail:
    """A set with its columns.

    Raises
    ------
    NoFeatureSetError
        There is none of this name.
    ConfigError
        Its definition is wrong.
    """
    names = feature_set_names(settings)
    if name not in names:
        raise NoFeatureSetError(f"unknown feature set {excerpt(name)}; {hint(name, names)}")
    found = find_feature_set(name, settings)
    columns = [_column(found, column, reach) for column, reach in found.dependencies.items()]
    return SetDetail(_described(settings, found), columns)


def feature_version_of(settings: Settings, data_version: str, feature_set: str) -> str:
    """The stored version of a set's current definition for a vintage.

    Raises
    ------
    NoFeatureSetError
        It was not computed, or there is no such set.
    """
    if feature_set not in feature_set_names(settings):
        raise NoFeatureSetError(f"unknown feature set {excerpt(feature_set)}")
    found = FeatureStore(settings).find(data_version, feature_set)
    if found is None:
        raise NoFeatureSetError(f"no features {feature_set} of vintage {data_version} are stored; compute them first")
    return found


def _listed(settings: Settings, name: str) -> ListedSet:
    try:
        return _described(settings, find_feature_set(name, settings))
    except ConfigError as error:
        return ListedSet(name, 0, "", "", 0, name == settings.features.feature_set, str(error))


def _described(settings: Settings, found: FeatureSet) -> ListedSet:
    is_default = found.name == settings.features.feature_set
    return ListedSet(found.name, found.version, found.owner, found.description, len(found.names), is_default)


def _column(found: FeatureSet, name: str, reach: Mapping[str, float]) -> SetColumn:
    most = max(reach.values(), default=0.0)
    return SetColumn(name, found.expressions.get(name, ""), list(reach), None if isinf(most) else int(most))
