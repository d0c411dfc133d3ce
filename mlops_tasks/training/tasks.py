"""Task entries of the training stage."""

import logging
from typing import Any

from mlops_tasks.config import load_settings
from mlops_tasks.data.vintages import current_vintage
from mlops_tasks.files import read_json
from mlops_tasks.training.engine import UnifiedQlibTrainingEngine
from mlops_tasks.training.plan import RunPlan, make_plan

log = logging.getLogger(__name__)


def plan_run_task(**form: Any) -> dict[str, Any]:
    """Resolve the trigger form and the vintage in use into a plan; keys of the form as in `make_plan`."""
    settings = load_settings()
    vintage = current_vintage(settings)
    plan = make_plan(settings, vintage.data_version, vintage.calendar(), form)
    for name, (first, last) in plan.segments.items():
        log.info("%s: %s to %s", name, first, last)
    return plan.model_dump(mode="json")


def train_model_task(*, plan: dict[str, Any], features: dict[str, Any], model: str) -> dict[str, Any]:
    """Train one model of the plan; returns its training key and folder, relative to the home folder."""
    settings = load_settings()
    folder = UnifiedQlibTrainingEngine(settings).train(RunPlan.model_validate(plan), features["feature_version"], model)
    return {
        "training_key": folder.name,
        "model": model,
        "path": settings.relative(folder),
        **read_json(folder / "metrics.json"),
    }
