"""Task entry of the daily analysis of experiments."""

import logging

from mlops_tasks.config import Settings, load_settings
from mlops_tasks.experiments.ab_test_report import AbTestReport, publish_report, published_state
from mlops_tasks.experiments.daily_analysis import Advice, ExperimentAnalysis, analyse_experiment
from mlops_tasks.experiments.lifecycle import experiments, move_experiment, settle_experiment
from mlops_tasks.stage_results import Analyzed
from mlops_tasks.state.alerts import raise_alert
from mlops_tasks.state.experiments import record_analysis
from mlops_tasks.state.tables import ExperimentAnalysis as AnalysisRow
from mlops_tasks.states import ExperimentState

log = logging.getLogger(__name__)

_ALERTS = {
    Advice.DISTRUST: "experiment_distrusted",
    Advice.STOP_HARM: "experiment_harmful",
    Advice.STOP_WINNER: "experiment_due",
    Advice.STOP_END: "experiment_due",
}
_ACTS = {Advice.DISTRUST: ExperimentState.PAUSED, Advice.STOP_HARM: ExperimentState.STOPPED}
"""Done at once, without a person: units are kept out of harm. Whether to follow a winner is for a person to say, or
for the gate, where the arms are models."""


def analyze_experiments_task() -> Analyzed:
    """Analyse every running experiment and record what was found; stop what does harm, pause what cannot be trusted.

    An experiment with models that has a winner is stopped and decided, and `judge_winners_task` hands it to the gate.
    Then write the reports, also of experiments that ended or paused since their last one.

    Raises
    ------
    StoreError
        The state database does not answer.
    RegistryError
        MLflow does not; everything but the reports is done.
    """
    settings = load_settings()
    told: Analyzed = {"advice": {}, "stopped": [], "paused": [], "decided": [], "runs": {}}
    analyses: dict[str, ExperimentAnalysis] = {}
    for name, experiment in experiments(settings).items():
        if experiment.state != ExperimentState.RUNNING:
            continue
        found = analyses[name] = analyse_experiment(settings, name)
        for line in found.lines():
            log.info("%s", line)
        record_analysis(settings, AnalysisRow(experiment=name, days=found.days, result=found.to_json()))
        told["advice"][name] = found.advice
        if found.advice == Advice.STOP_WINNER and found.arm is not None and experiment.design.models:
            said = next(each.said() for each in found.findings if each.arm == found.arm and not each.guard)
            settle_experiment(settings, name, found.arm, f"{found.lines()[0]}; {said}")
            told["decided"].append(name)
        else:
            _follow(settings, found, told)
    for name, experiment in experiments(settings).items():
        if name not in analyses and published_state(settings, name) in (None, experiment.state):
            continue
        found = analyses[name] if name in analyses else analyse_experiment(settings, name)
        logged = publish_report(AbTestReport(settings, experiment, found))
        told["runs"][name] = logged.run_id
        told["experiment_id"] = logged.experiment_id
    return told


def _follow(settings: Settings, found: ExperimentAnalysis, told: Analyzed) -> None:
    if (kind := _ALERTS.get(found.advice)) is None:
        return
    reason = "; ".join(found.lines()[:2])
    if (to := _ACTS.get(found.advice)) is not None:
        move_experiment(settings, found.experiment, to, reason)
        told["stopped" if to == ExperimentState.STOPPED else "paused"].append(found.experiment)
    raise_alert(settings, kind=kind, subject=found.experiment, message=reason)
