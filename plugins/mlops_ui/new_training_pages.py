"""The page on which a training or a search is started."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from airflow.api_fastapi.core_api.security import GetUserDep
from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse

from mlops_api.access import SEE, may
from mlops_api.service import settings
from mlops_tasks.data.vintages import current_version
from mlops_tasks.features.sets import feature_set_names
from mlops_tasks.modeling.model_zoo.description import describe_zoo
from mlops_tasks.modeling.model_zoo.schema import allowed, types_of
from mlops_tasks.roles import Right
from mlops_tasks.states import Strategy
from mlops_tasks.tuning.recommendations import newest_recommendation
from mlops_tasks.tuning.study import PRUNERS, SAMPLERS
from mlops_ui.rendering import render

router = APIRouter(prefix="/training", dependencies=SEE, default_response_class=HTMLResponse)


@dataclass(frozen=True)
class Widget:
    """A field for one hyper-parameter."""

    name: str
    default: Any
    allowed: str
    """In words."""
    description: str
    advanced: bool
    choices: Sequence[Any] | None
    """All values there are, where they are few."""
    number: str
    """`integer` or `number` where it is one and nothing else; else empty, and the field takes text."""
    schema: Mapping[str, Any]

    @classmethod
    def of(cls, field: Mapping[str, Any]) -> "Widget":
        """From a hyper-parameter as `describe_model` has it."""
        types = types_of(field)
        choices = field.get("enum", [True, False] if types == ["boolean"] else None)
        number = types[0] if len(types) == 1 and types[0] in ("integer", "number") else ""
        return cls(
            field["name"],
            field["default"],
            allowed(field),
            field["description"],
            field["advanced"],
            choices,
            number,
            field,
        )


@dataclass(frozen=True)
class Choice:
    """A model that can be chosen."""

    name: str
    family: str
    own: bool
    window: int
    description: str
    recommended_for: Sequence[str]
    fields: Sequence[Widget]

    @classmethod
    def of(cls, model: Mapping[str, Any]) -> "Choice":
        """From what `describe_zoo` says."""
        names = ("name", "family", "own", "window", "description", "recommended_for")
        fields = [Widget.of(field) for field in model["hyperparameters"]]
        return cls(**{name: model[name] for name in names}, fields=fields)


@router.get("/new")
def show_form(
    request: Request, user: GetUserDep, model: Annotated[list[str] | None, Query(max_length=50)] = None
) -> str:
    """The form; `model` names those that are chosen at first."""
    known = settings()
    return render(
        request,
        "training_new.html",
        models=[Choice.of(each) for each in describe_zoo(known) if each["error"] is None],
        chosen=model or list(known.training.models),
        suggestion=newest_recommendation(known),
        data_version=current_version(known),
        feature_sets=list(dict.fromkeys([known.features.feature_set, *feature_set_names(known)])),
        chosen_set=known.features.feature_set,
        training=known.training,
        trials=known.tuning.trials,
        samplers=SAMPLERS,
        pruners=PRUNERS,
        strategies=[each.value for each in Strategy],
        strategy=known.deployment.strategy.value,
        may_train=may(user, Right.OPERATE),
        may_search=may(user, Right.SEARCH),
    )
