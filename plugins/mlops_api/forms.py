"""Checks what a form asks for before a run is made. Airflow itself checks only the types of its fields."""

from fastapi import APIRouter, HTTPException

from mlops_api.access import needs
from mlops_api.messages.zoo import Overrides, OverridesText
from mlops_api.service import settings
from mlops_tasks.errors import ConfigError
from mlops_tasks.modeling.model_zoo.overrides import checked_overrides
from mlops_tasks.roles import Right

router = APIRouter(prefix="/overrides", tags=["models"])


@router.post("", **needs(Right.SEE))
def check_overrides(given: OverridesText) -> Overrides:
    """Parse and check the overrides of models in a form, as `plan_run` will. Nothing is stored."""
    try:
        return Overrides.model_validate(checked_overrides(settings(), given.model_dump()))
    except ConfigError as error:
        raise HTTPException(422, str(error)) from None
