"""Routes about the model zoo."""

import asyncio
from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Query
from fastapi.concurrency import run_in_threadpool

from mlops_api.access import needs
from mlops_api.messages.problem import Problem
from mlops_api.messages.zoo import HyperParameter, MemoryEstimate, ModelDetail, ModelList, ModelSummary, WrongModel
from mlops_api.service import NO_SUCH, Answers, settings
from mlops_tasks.modeling.model_zoo.description import describe_zoo
from mlops_tasks.modeling.model_zoo.estimates import family_estimates
from mlops_tasks.modeling.model_zoo.forms import searched_text
from mlops_tasks.modeling.model_zoo.schema import allowed
from mlops_tasks.roles import Right

router = APIRouter(prefix="/models", tags=["models"])

_one_estimate = asyncio.Lock()
"""Each estimate takes seconds in a child process, one at a time. Who waits here keeps no thread from other requests."""

NO_USABLE: Answers = {**NO_SUCH, 409: {"model": Problem, "description": "Its entry is wrong."}}

Rows = Annotated[int | None, Query(ge=1, le=10**10, description="Rows with a label, in train and valid together.")]
Features = Annotated[int | None, Query(ge=1, le=10**6, description="Columns of the feature set.")]


@router.get("", **needs(Right.SEE))
def list_models() -> ModelList:
    """The models that can be trained, and the entries of your models.yaml that cannot."""
    described = describe_zoo(settings())
    return ModelList(
        models=[ModelSummary.model_validate(model) for model in described if model["error"] is None],
        wrong=[WrongModel.model_validate(model) for model in described if model["error"] is not None],
    )


@router.get(
    "/{name}", **needs(Right.SEE), responses={**NO_SUCH, 409: {"model": Problem, "description": "Its entry is wrong."}}
)
async def show_model(name: str, rows: Rows = None, features: Features = None) -> ModelDetail:
    """A model's description, its hyper-parameters, and the memory that a training of this size takes."""
    model, memory = await run_in_threadpool(find_model, name), None
    if rows is not None and features is not None:
        async with _one_estimate:
            memory = await run_in_threadpool(estimate_memory, model, rows, features)
    fields = hyperparameters(model)
    return ModelDetail(
        **ModelSummary.model_validate(model).model_dump(),
        json_schema=model["json_schema"],
        defaults={field.name: field.default for field in fields},
        advanced=[field.name for field in fields if field.advanced],
        hyperparameters=fields,
        memory=memory,
    )


def find_model(name: str) -> dict[str, Any]:
    """What `describe_zoo` says about one model. 404 when there is none, 409 when its entry is wrong."""
    known = {model["name"]: model for model in describe_zoo(settings())}
    if name not in known:
        raise HTTPException(404, f"unknown model {name!r}; there are {', '.join(known)}")
    if known[name]["error"] is not None:
        raise HTTPException(409, known[name]["error"])
    return known[name]


def estimate_memory(model: Mapping[str, Any], rows: int, features: int) -> MemoryEstimate:
    """A model's memory. 409 when its class cannot be asked."""
    name = model["name"]
    estimates = family_estimates(settings(), model["family"], rows, features)
    if name not in estimates.memory_bytes:
        raise HTTPException(409, estimates.errors[name])
    return MemoryEstimate(rows=rows, features=features, bytes=estimates.memory_bytes[name])


def hyperparameters(model: Mapping[str, Any]) -> list[HyperParameter]:
    """The hyper-parameters of a model as `describe_model` has them, in the order of the form."""
    return [
        HyperParameter.model_validate({**field, "values": allowed(field), "searched": searched_text(field)})
        for field in model["hyperparameters"]
    ]
