"""Whether drift asks for a retraining: by a rule, not again before a cool-down is over, and never beside a rollout.

A retraining is recorded first, with the identifier that Airflow's run will have, and asked for again until that run has
begun. Airflow has one run of an identifier, so a kill at any point neither loses a retraining nor makes two.
"""

import logging
from collections.abc import Sequence

import pandas as pd

from mlops_tasks.config import DriftRetrainingRules, Settings
from mlops_tasks.state.deployments import recorded_champion
from mlops_tasks.state.history import drift_reports
from mlops_tasks.state.retrainings import ask_for_retraining, retraining_to_start, run_id_of
from mlops_tasks.state.rollouts import undecided_rollouts
from mlops_tasks.state.tables import DriftReport, DriftRetraining
from mlops_tasks.states import RetrainingStep

log = logging.getLogger(__name__)


def wanted_retraining(settings: Settings, data_version: str, days: pd.DatetimeIndex) -> DriftRetraining | None:
    """The retraining that is to be started now; None: drift asks for none, or may not.

    While a candidate's rollout is undecided it asks for none: the candidate may be the answer already, and nothing may
    push it aside.

    Parameters
    ----------
    data_version, days
        Of the vintage in use: its version, and its market days, ascending.
    """
    rules = settings.drift.retraining
    if undecided_rollouts(settings):
        return None
    since = days[-rules.cooldown_days :][0].date()
    waiting, version = retraining_to_start(settings, since), recorded_champion(settings)
    if waiting is not None or version is None:
        return waiting
    reason = confirmed(drift_reports(settings, version, days[0].date()), days, rules)
    if reason is None:
        return None
    day = days[-1].date()
    asked = DriftRetraining(
        run_id=run_id_of(day, version),
        step=RetrainingStep.ASKED,
        date=day,
        model_version=version,
        data_version=data_version,
        reason=reason,
        form=dict(rules.form),
    )
    if not ask_for_retraining(settings, asked, since):
        return retraining_to_start(settings, since)  # another process was quicker, or the cool-down is not over
    log.warning("retraining %s: %s", asked.run_id, reason)
    return asked


def confirmed(reports: Sequence[DriftReport], days: pd.DatetimeIndex, rules: DriftRetrainingRules) -> str | None:
    """Why drift is confirmed: the rule held on each of the last `confirmed_days` market days. None: it is not.

    Parameters
    ----------
    reports
        Of one version, in the order in which they were recorded: of a day's reports the last one counts.
    days
        Market days, ascending. Without a report of the newest one, or of one of those that count, nothing is confirmed.
    """
    by_day = {report.date: report for report in reports}
    last = [by_day.get(day.date()) for day in days[-rules.confirmed_days :]]
    if len(last) < rules.confirmed_days or not all(report and _counts(report, rules) for report in last):
        return None
    newest = by_day[days[-1].date()]
    share = "an unknown share" if newest.at_stake is None else f"{newest.at_stake:.0%}"
    return (
        f"version {newest.model_version} has drifted on {len(last)} market days up to {newest.date}; now "
        f"{newest.n_alert} columns with {share} of the score's importance are beyond the limit"
    )


def _counts(report: DriftReport, rules: DriftRetrainingRules) -> bool:
    return report.n_alert > 0 and (report.at_stake is None or report.at_stake >= rules.min_importance)
