"""Routes about features: their sets, what is stored of them, some of their values, and the list of indicators."""

from datetime import date
from typing import Annotated

from fastapi import APIRouter, Depends, HTTPException, Path, Query

from mlops_api.access import needs
from mlops_api.dag_runs import DagRunsDep
from mlops_api.messages.dag_runs import StartedRun
from mlops_api.messages.features import (
    NAME,
    VERSION,
    ComputationAsked,
    ConfiguredIndicator,
    FeatureColumn,
    FeatureRows,
    FeatureSet,
    FeatureSetList,
    FeatureSetShown,
    FeatureVersion,
    FeatureVersionList,
    FeatureVersionShown,
    Indicator,
    IndicatorList,
)
from mlops_api.paging import Page, paged
from mlops_api.service import NO_SUCH, settings
from mlops_tasks.data.vintages import current_version
from mlops_tasks.errors import ConfigError, StoreError, hint
from mlops_tasks.features.catalogue import FeatureCatalogue
from mlops_tasks.features.indicators.definitions import CATALOGUE
from mlops_tasks.features.indicators.specs import load_indicators
from mlops_tasks.features.query import FeatureQuery, query_features
from mlops_tasks.features.set_list import NoFeatureSetError, feature_set_detail, feature_sets
from mlops_tasks.features.sets import feature_set_names
from mlops_tasks.roles import Right

router = APIRouter(prefix="/features", tags=["features"])

COMPUTE_DAG = "compute_features"
Version = Annotated[str, Path(pattern=VERSION)]
Word = Annotated[str, Query(min_length=1, max_length=100, pattern=r"^[^\x00]*$")]


@router.get("/sets", **needs(Right.SEE))
def list_sets() -> FeatureSetList:
    """The feature sets: built in, shipped, and those of your feature_sets.yaml in MLOPS_HOME, right or wrong."""
    return FeatureSetList(sets=[FeatureSet.model_validate(each) for each in feature_sets(settings())])


@router.get("/sets/{name}", **needs(Right.SEE), responses=NO_SUCH)
def show_set(name: Annotated[str, Path(pattern=NAME)]) -> FeatureSetShown:
    """A set with its columns: expressions, the fields that they read, and how far back."""
    try:
        found = feature_set_detail(settings(), name)
    except NoFeatureSetError:
        raise
    except ConfigError as error:
        raise HTTPException(422, str(error)) from None
    columns = [FeatureColumn.model_validate(each) for each in found.columns]
    return FeatureSetShown(listed=FeatureSet.model_validate(found.listed), columns=columns)


@router.get("/versions", **needs(Right.SEE))
def list_versions(
    page: Annotated[Page, Depends(paged)],
    feature_set: Annotated[str, Query(max_length=100, pattern=r"^[\w-]*$")] = "",
) -> FeatureVersionList:
    """What is stored, the newest first; `feature_set`: of this set alone."""
    found = FeatureCatalogue(settings()).versions(feature_set or None)[::-1]
    in_use = current_version(settings())
    return FeatureVersionList(total=len(found), versions=[FeatureVersion.of(each, in_use) for each in page.of(found)])


@router.get("/versions/{version}", **needs(Right.SEE), responses=NO_SUCH)
def show_version(version: Version) -> FeatureVersionShown:
    """A stored version with the statistics of its columns."""
    try:
        info = FeatureCatalogue(settings()).info(version)
    except StoreError:
        raise HTTPException(404, f"no features of version {version!r} are stored; GET features/versions") from None
    return FeatureVersionShown.described(info, current_version(settings()))


@router.get("/versions/{version}/values", **needs(Right.SEE), responses=NO_SUCH)
def query(
    version: Version,
    instrument: Annotated[list[Word], Query(min_length=1, max_length=200)],
    first: date,
    last: date,
    column: Annotated[list[Word] | None, Query(max_length=500)] = None,
) -> FeatureRows:
    """Values of some instruments from the first day to the last one; `column`: of these alone. A year and 20,000 values
    at most."""
    asked = FeatureQuery(version, tuple(instrument), first, last, tuple(column or ()))
    try:
        return FeatureRows.model_validate(query_features(settings(), asked))
    except ConfigError as error:
        raise HTTPException(422, f"query: {error}") from None


@router.post("/computations", status_code=202, **needs(Right.OPERATE))
def start_computation(asked: ComputationAsked, dag_runs: DagRunsDep) -> StartedRun:
    """Compute and store a set of a vintage, by a run of `compute_features`. What is stored is not computed again."""
    known = feature_set_names(settings())
    if asked.feature_set is not None and asked.feature_set not in known:
        raise HTTPException(422, f"body.feature_set: {hint(asked.feature_set, known)}")
    return dag_runs.start(COMPUTE_DAG, asked.model_dump(exclude_none=True))


@router.get("/indicators", **needs(Right.SEE))
def list_indicators() -> IndicatorList:
    """The catalogue of indicators with their parameters, and the list of include/config/indicators.yaml."""
    return IndicatorList(
        indicators=[Indicator.of(name, definition) for name, definition in CATALOGUE.items()],
        configured=[ConfiguredIndicator.of(spec) for spec in load_indicators()],
    )
