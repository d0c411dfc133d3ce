"""Routes that start trainings and searches, each as a run of its DAG, and those that a form asks before."""

from fastapi import APIRouter, HTTPException

from mlops_api.access import needs
from mlops_api.dag_runs import DagRunsDep
from mlops_api.messages.dag_runs import StartedRun
from mlops_api.messages.new_training import Estimate, EstimateAsked, Recommendation, SearchAsked, TrainingAsked
from mlops_api.service import NO_SUCH, settings
from mlops_tasks.errors import ConfigError
from mlops_tasks.modeling.model_zoo.overrides import checked_overrides
from mlops_tasks.roles import CHAIN_DAG, SEARCH_DAG, Right
from mlops_tasks.training.estimates import training_estimate
from mlops_tasks.tuning.recommendations import newest_recommendation

router = APIRouter(prefix="/training", tags=["training"])


@router.post("/runs", status_code=202, **needs(Right.OPERATE))
def start_training(asked: TrainingAsked, dag_runs: DagRunsDep) -> StartedRun:
    """Train models as `daily_retraining` does; its form checks what is asked for."""
    form = asked.model_dump(exclude_none=True)
    _check(form)
    return dag_runs.start(CHAIN_DAG, form)


@router.post("/searches", status_code=202, **needs(Right.SEARCH))
def start_search(asked: SearchAsked, dag_runs: DagRunsDep) -> StartedRun:
    """Search a model's hyper-parameters as `tune_models` does; its form checks what is asked for."""
    return dag_runs.start(SEARCH_DAG, asked.model_dump(exclude_none=True))


@router.post("/estimate", **needs(Right.SEE))
def estimate(asked: EstimateAsked) -> Estimate:
    """Memory and time of a training with these hyper-parameters on the vintage in use. Nothing is stored."""
    overrides = _check({"hyperparameters": asked.hyperparameters})["hyperparameters"]
    try:
        found = training_estimate(settings(), asked.model, overrides.get(asked.model), asked.feature_set)
    except ConfigError as error:
        raise HTTPException(422, str(error)) from None
    return Estimate.model_validate(found)


@router.get("/recommendation", **needs(Right.SEE), responses=NO_SUCH)
def show_recommendation() -> Recommendation:
    """The newest recommendation of the algorithm selector, which a search with model `auto` asks for."""
    found = newest_recommendation(settings())
    if found is None:
        raise HTTPException(404, "there is none yet; a search with the model auto makes one")
    return Recommendation.model_validate(found)


def _check(form: dict[str, object]) -> dict[str, dict[str, dict[str, object]]]:
    """The overrides of a form, parsed. 422 where they are invalid."""
    try:
        return checked_overrides(settings(), form)
    except ConfigError as error:
        raise HTTPException(422, str(error)) from None
