"""Task entries of the training stage. Each imports what it needs itself: a plan is made without an engine."""

import logging
from typing import Any

from mlops_tasks.config import load_settings
from mlops_tasks.data.vintages import current_vintage
from mlops_tasks.errors import LeakError
from mlops_tasks.files import read_json
from mlops_tasks.machine.queue_state import DAILY
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


def certify_learning_data_task(*, plan: dict[str, Any], features: dict[str, Any]) -> dict[str, Any]:
    """Certify that a plan's models will learn and see nothing of later days; a second call finds the certificate.

    Returns
    -------
    `key`, `path` relative to the home folder, `passed`, `checks` and `values` that were compared, and the `cuts`.

    Raises
    ------
    LeakError
        Something knows of later days; an alert says so too.
    """
    from mlops_tasks.training.certificate import certificate_path, certify

    settings = load_settings()
    try:
        certificate = certify(settings, RunPlan.model_validate(plan), features["feature_version"])
    except LeakError as error:
        from mlops_tasks.state.alerts import raise_alert

        raise_alert(settings, kind="leak_found", subject=features["feature_version"], message=str(error))
        raise
    return {
        "key": certificate.key,
        "path": settings.relative(certificate_path(settings, certificate.key)),
        "passed": certificate.passed,
        "checks": len(certificate.checks),
        "values": certificate.values,
        "cuts": list(certificate.subject.cuts),
    }


def train_model_task(
    *,
    plan: dict[str, Any],
    features: dict[str, Any],
    model: str,
    owner: str = DAILY,
    priority: int = 0,
) -> dict[str, Any]:
    """Train one model of the plan, and certify its scores.

    Returns
    -------
    `training_key`, `model`, `path` of the folder relative to the home, `topk` and `n_drop` of the portfolio that the
    plan asks for, and what metrics.json says.

    Raises
    ------
    LeakError
        The model sees later days; an alert says so too.
    """
    from mlops_tasks.state.alerts import raise_alert
    from mlops_tasks.training.certificate import certify_model, subject_of
    from mlops_tasks.training.engine import UnifiedQlibTrainingEngine

    settings = load_settings()
    engine, own_plan = UnifiedQlibTrainingEngine(settings), RunPlan.model_validate(plan)
    folder = engine.train(own_plan, features["feature_version"], model, owner=owner, priority=priority)
    try:
        certify_model(settings, folder, subject_of(settings, own_plan, features["feature_version"]))
    except LeakError as error:
        raise_alert(settings, kind="leak_found", subject=folder.name, message=str(error))
        raise
    return {
        "training_key": folder.name,
        "model": model,
        "path": settings.relative(folder),
        "topk": own_plan.topk,
        "n_drop": own_plan.n_drop,
        **read_json(folder / "metrics.json"),
    }
