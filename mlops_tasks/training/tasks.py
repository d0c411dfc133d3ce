"""Task entries of the training stage. Each imports what it needs itself: a plan is made without an engine."""

import logging
from typing import Any, cast

from mlops_tasks.config import Settings, load_settings
from mlops_tasks.dag_run import DRIFT_RUN, DagRun
from mlops_tasks.data.vintages import current_vintage
from mlops_tasks.errors import ErrorKind, LeakError, MlopsError
from mlops_tasks.machine.queue_state import DAILY
from mlops_tasks.stage_results import Certified, Features, PlannedRun, Trained
from mlops_tasks.training.plan import RunPlan, make_plan
from mlops_tasks.training_folder import TrainingFolder

log = logging.getLogger(__name__)


def plan_run_task(**form: Any) -> PlannedRun:
    """Resolve the trigger form and the vintage in use into a plan; keys of the form as in `make_plan`.

    Warnings name columns from which nothing can be learned, from the statistics of stored features, if there are any:
    over whole years and all instruments. The certificate names them for the rows that are learned from.
    """
    settings = load_settings()
    _record_begun(settings, DagRun.of_environment())
    vintage = current_vintage(settings)
    plan = make_plan(settings, vintage.data_version, vintage.calendar(), form)
    for name, (first, last) in plan.segments.items():
        log.info("%s: %s to %s", name, first, last)
    told = column_warnings(settings, plan)
    for said in told:
        log.warning("%s", said)
    return {**plan.to_json(), "column_warnings": told}


def _record_begun(settings: Settings, run: DagRun | None) -> None:
    """Where drift has asked for this run, it need not ask again."""
    if run is None or not run.run_id.startswith(DRIFT_RUN):
        return
    from mlops_tasks.state.retrainings import record_begun

    record_begun(settings, run.run_id)


def column_warnings(settings: Settings, plan: RunPlan) -> list[str]:
    """What statistics of stored features say about the years of the training segment; nothing while there are none."""
    from mlops_tasks.features.store import FeatureStore
    from mlops_tasks.modeling.column_health import ColumnHealth

    store = FeatureStore(settings)
    first, last = plan.segments["train"]
    try:
        name = store.find(plan.data_version, plan.feature_set)
        version = store.newest(plan.feature_set) if name is None else store.get(name)
        columns = version and store.statistics(version.partitions, first, last)
    except (MlopsError, OSError, ValueError, KeyError) as error:  # damage that features.compute mends
        log.info("no warnings about columns: %s: %s", type(error).__name__, error)
        return []
    if not version or not columns:
        return []
    of = "" if name else f", by the features of vintage {version.data_version}"
    return ColumnHealth.of_statistics(columns).warnings(f"the years {first.year} to {last.year}, all instruments{of}")


def certify_learning_data_task(*, plan: PlannedRun, features: Features) -> Certified:
    """Certify that a plan's models will learn and see nothing of later days; a second call reuses the certificate.

    Returns
    -------
    `key`, `path` relative to the home folder, `passed`, `checks` and `values` that were compared, and the `cuts`.

    Raises
    ------
    LeakError
        Something depends on later days. This error, and any other that a retry cannot mend, raises an alert: the
        trainings beside it continue, but none of them will be promoted.
    """
    from mlops_tasks.training.certificate import certificate_path, certify

    settings = load_settings()
    try:
        certificate = certify(settings, RunPlan.model_validate(plan), features["feature_version"])
    except MlopsError as error:
        from mlops_tasks.state.alerts import raise_alert

        if error.kind is not ErrorKind.TRANSIENT:
            kind = "leak_found" if isinstance(error, LeakError) else "not_certified"
            raise_alert(settings, kind=kind, subject=features["feature_version"], message=str(error))
        raise
    return {
        "key": certificate.key,
        "path": settings.relative(certificate_path(settings, certificate.key)),
        "passed": certificate.passed,
        "checks": len(certificate.checks),
        "values": certificate.values,
        "cuts": list(certificate.subject.cuts),
    }


def train_model_task(  # noqa: PLR0913 - results of earlier tasks, and what the form says of the machine
    *,
    plan: PlannedRun,
    features: Features,
    model: str,
    certificate: Certified | None = None,
    owner: str = DAILY,
    priority: int = 0,
) -> Trained:
    """Train one model of the plan, and certify its scores.

    The training is recorded under the certificate of its plan's learning data, which may be made at the same time, or
    under the given one, of a plan that includes this one.

    Returns
    -------
    `training_key`, `model`, `path` of the folder relative to the home, `topk` and `n_drop` of the portfolio that the
    plan asks for, and what metrics.json says.

    Raises
    ------
    LeakError
        The model sees later days; an alert says so too.
    StoreError
        The given certificate is missing.
    """
    from mlops_tasks.state.alerts import raise_alert
    from mlops_tasks.training.certificate import certificate_subject, certify_model, subject_of
    from mlops_tasks.training.engine import UnifiedQlibTrainingEngine

    settings = load_settings()
    engine, own_plan = UnifiedQlibTrainingEngine(settings), RunPlan.model_validate(plan)
    if certificate is None:
        subject = subject_of(settings, own_plan, features["feature_version"])
    else:
        subject = certificate_subject(settings, certificate["key"])
    folder = TrainingFolder(engine.train(own_plan, features["feature_version"], model, owner=owner, priority=priority))
    try:
        certify_model(settings, folder, subject)
    except LeakError as error:
        raise_alert(settings, kind="leak_found", subject=folder.key, message=str(error))
        raise
    result = {
        "training_key": folder.key,
        "model": model,
        "path": settings.relative(folder.path),
        "topk": own_plan.topk,
        "n_drop": own_plan.n_drop,
        **folder.metrics().to_json(),
    }
    return cast("Trained", result)
