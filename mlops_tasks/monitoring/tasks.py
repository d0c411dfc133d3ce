"""Task entries of the monitoring stage."""

import logging
from datetime import date

from mlops_tasks.config import Settings, load_settings
from mlops_tasks.data.vintages import Vintage, load_vintage
from mlops_tasks.errors import MlopsError
from mlops_tasks.files import new_folder, read_json
from mlops_tasks.monitoring.monitor import monitor
from mlops_tasks.monitoring.report import (
    REPORT,
    DriftInput,
    drift_input,
    drift_message,
    make_reference,
    write_drift_report,
)
from mlops_tasks.registry.approvals import load_champion
from mlops_tasks.registry.models import load_version
from mlops_tasks.registry.report_artifacts import log_report
from mlops_tasks.reports import ReportKind
from mlops_tasks.serving.catch_up import missed
from mlops_tasks.stage_results import DriftFound, Judged, Monitored, ProfiledTraining, Skipped
from mlops_tasks.state.alerts import raise_daily_alert
from mlops_tasks.state.history import drift_checked_days, record_drift_report
from mlops_tasks.state.tables import DriftReport
from mlops_tasks.states import Outcome

log = logging.getLogger(__name__)


def monitor_task() -> Monitored:
    """Judge champion and candidates, lead the rollouts, see how answers turned out, evaluate the rules of alerts.

    Raises
    ------
    StageError
        As `monitor.monitor`.
    """
    return monitor(load_settings())


def profile_training_task(*, gate: Judged) -> ProfiledTraining | Skipped:
    """Profile the training of a model that the gate promotes, for `check_drift_task`, which does it otherwise.

    Returns
    -------
    `training_key`, and `path` of the profile's folder relative to the home folder; or `skipped` with a reason if the
    model is not promoted.

    Raises
    ------
    StoreError, RegistryError
        The vintage or the features of the training are missing, or the version is gone.
    """
    if gate["decision"] != Outcome.PROMOTE:
        reason = f"the gate's decision is {gate['decision']} (rule {gate['rule']})"
        log.info("version %s is not profiled: %s", gate["version"], reason)
        return {"skipped": reason}
    settings = load_settings()
    folder = make_reference(settings, load_version(settings, gate["version"]))
    return {"training_key": gate["training_key"], "path": settings.relative(folder)}


def check_drift_task(*, data_version: str) -> DriftFound | Skipped:
    """Compare the champion's training segment with the newest trading days, and record the report.

    Days that were missed come first, in their order, by the champion of their day (`serving/catch_up.py`). Only the
    newest day raises an alert.

    Returns
    -------
    The report: date, model_version, the day's `verdict` (quiet or drift), the columns `beyond` the limit with what they
    may cost, n_alert and n_warn (columns beyond the limit, and near it), psi_max, score_psi, the ten columns of largest
    PSI, and `path` of its folder relative to the home folder; or `skipped` with a reason if there is no champion.

    Raises
    ------
    StoreError, RegistryError
        The vintage or the features of the training are missing, or the champion's feature set is gone.
    """
    settings = load_settings()
    champion = load_champion(settings)
    if champion is None:
        reason = "there is no champion yet"
        log.info("drift check skipped: %s", reason)
        return {"skipped": reason}
    vintage = load_vintage(settings, data_version)
    _check_missed_days(settings, vintage)
    report = _check(settings, drift_input(settings, champion, vintage))
    if report["n_alert"]:
        cause, message = f"version {champion.version}", drift_message(report)
        raise_daily_alert(settings, kind="drift_found", cause=cause, message=message)
    return report


def _check_missed_days(settings: Settings, vintage: Vintage) -> None:
    """An error is logged and ends it: the newest day must not wait for an old one, and the next run tries again."""
    try:
        for each in missed(settings, vintage, drift_checked_days(settings)):
            log.warning("%s was missed: its drift is checked now, for version %d", each.date, each.model.version)
            _check(settings, drift_input(settings, each.model, vintage, each.date))
    except MlopsError as error:
        log.error("the drift of not all missed days was checked, the next run tries again: %s", error)


def _check(settings: Settings, given: DriftInput) -> DriftFound:
    """Write and record a report, where it is missing."""
    day, version = str(given.last_date.date()), given.champion.version
    target = settings.reports_dir / "drift" / f"{day}-v{version}-{given.digest}"
    if not (target / REPORT).is_file():
        with new_folder(target) as folder:
            write_drift_report(folder, settings, given)
    report: DriftFound = read_json(target / REPORT) | {"path": settings.relative(target)}
    row = DriftReport(
        date=date.fromisoformat(day),
        model_version=version,
        data_version=given.vintage.data_version,
        psi_max=report["psi_max"],
        n_warn=report["n_warn"],
        n_alert=report["n_alert"],
        path=report["path"],
        at_stake=1.0 if report["scores_beyond"] else report["importance_beyond"],
    )
    record_drift_report(settings, row)
    log_report(settings, version, ReportKind.DRIFT, target.name)
    told = (
        f"drift on {day}: {report['verdict']}; {row.n_alert} columns beyond the limit, {row.n_warn} near it, of "
        f"{report['columns']}"
    )
    if row.n_alert:
        log.warning("%s: %s", told, drift_message(report))
    else:
        log.info("%s", told)
    return report
