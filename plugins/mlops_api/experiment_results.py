"""Routes about experiments: what is registered of them, their traffic, and what they have shown."""

from typing import Annotated

from airflow.api_fastapi.core_api.security import GetUserDep
from fastapi import APIRouter, Query

from mlops_api.access import needs
from mlops_api.dag_runs import DagRunsDep
from mlops_api.experiments import Name
from mlops_api.messages.dag_runs import StartedRun
from mlops_api.messages.experiment_results import (
    ExperimentResults,
    Layer,
    LayerAsked,
    LayerList,
    OverridesAsked,
    RampAsked,
    RefusedEvent,
    RefusedEventList,
)
from mlops_api.messages.experiments import Experiment
from mlops_api.paging import LARGEST_PAGE
from mlops_api.service import NO_SUCH, settings
from mlops_tasks.experiments.design import ExperimentDesign
from mlops_tasks.experiments.lifecycle import (
    create_experiment,
    create_layer,
    history_of,
    layers,
    override_units,
    ramp_experiment,
)
from mlops_tasks.experiments.recorded_results import recorded_results
from mlops_tasks.roles import AB_TEST_DAG, Right
from mlops_tasks.state.metric_events import refused_events
from mlops_tasks.state.model_index import indexed_versions

router = APIRouter(tags=["experiments"])


@router.get("/layers", **needs(Right.SEE))
def list_layers() -> LayerList:
    """The populations of units that experiments share."""
    return LayerList(layers=list(map(Layer.of, layers(settings()).values())))


@router.post("/layers", **needs(Right.TRAIN))
def register_layer(asked: LayerAsked, user: GetUserDep) -> Layer:
    """Register a population of units, or enlarge its holdout, under the user's name."""
    return Layer.of(create_layer(settings(), asked.name, asked.unit, asked.held_out, user.get_name()))


@router.post("/experiments", **needs(Right.TRAIN), status_code=201)
def register(design: ExperimentDesign, user: GetUserDep) -> Experiment:
    """Register an experiment as a draft, under the user's name; its design does not change any more."""
    registered = indexed_versions(settings()) if design.models else None
    return Experiment.of(create_experiment(settings(), design, user.get_name(), registered))


@router.post("/experiments/analyses", **needs(Right.OPERATE), status_code=202)
def analyse(dag_runs: DagRunsDep) -> StartedRun:
    """Analyse all running experiments now: starts a run of `analyze_ab_test`."""
    return dag_runs.start(AB_TEST_DAG, {})


@router.get("/experiments/{name}", **needs(Right.SEE), responses=NO_SUCH)
def show(name: Name) -> Experiment:
    """One experiment as it stands."""
    return Experiment.of(history_of(settings(), name)[-1])


@router.get("/experiments/{name}/results", **needs(Right.SEE), responses=NO_SUCH)
def show_results(name: Name) -> ExperimentResults:
    """Effect of each arm with its interval, at each look, as the last daily analysis has found."""
    planned = history_of(settings(), name)[-1].design.planned_days
    return ExperimentResults.of(name, planned, recorded_results(settings(), name))


@router.get("/experiments/{name}/refused", **needs(Right.SEE), responses=NO_SUCH)
def list_refused(name: Name, limit: Annotated[int, Query(ge=1, le=LARGEST_PAGE)] = 50) -> RefusedEventList:
    """The newest metric events that were refused, with their reasons."""
    history_of(settings(), name)
    return RefusedEventList(refused=list(map(RefusedEvent.of, refused_events(settings(), name, limit))))


@router.post("/experiments/{name}/ramp", **needs(Right.TRAIN), responses=NO_SUCH)
def ramp(name: Name, asked: RampAsked, user: GetUserDep) -> Experiment:
    """Expose a larger share of an experiment's units, under the user's name; nobody who takes part moves."""
    return Experiment.of(ramp_experiment(settings(), name, asked.exposure, asked.reason, user.get_name()))


@router.post("/experiments/{name}/overrides", **needs(Right.TRAIN), responses=NO_SUCH)
def override(name: Name, asked: OverridesAsked, user: GetUserDep) -> Experiment:
    """Choose the arms of units by hand, under the user's name."""
    return Experiment.of(override_units(settings(), name, asked.arms, asked.reason, user.get_name()))
