"""The results of a study: trials, best, importance and plots, in `<home>/tuning/<study>/`."""

import logging
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from mlops_tasks.config import Settings
from mlops_tasks.files import finite_or_none, write_json
from mlops_tasks.plots.figure import write_png
from mlops_tasks.plots.tuning import (
    history_info,
    parallel_info,
    pareto_info,
    plot_history,
    plot_parallel,
    plot_parameter_importance,
    plot_pareto,
)
from mlops_tasks.state.trials import DAILY_RANK_IC
from mlops_tasks.tuning.optimizer import (
    CONFIG,
    OUTCOMES,
    REASON,
    RESULT,
    RETRY_OF,
    HyperparameterOptimizer,
    pareto_front,
    seconds_of,
)
from mlops_tasks.tuning.storage import study_store
from mlops_tasks.tuning.study import DIRECTIONS, REPORT

log = logging.getLogger(__name__)

MIN_TRIALS = 5
"""Fewer complete trials show nothing about importance."""


def study_report(optimizer: HyperparameterOptimizer) -> dict[str, Any]:
    """Everything about a study as plain JSON.

    `trials` by number (number, state, params, values by objective, metrics, seconds, reason, retry_of); `best` and
    `front`: numbers; `hyperparameters`: overrides that repeat the best trial; `importance`: share of the first
    objective's variance by hyper-parameter, by functional ANOVA over a random forest (Hutter, Hoos and Leyton-Brown,
    ICML 2014), empty below five complete trials or where all are alike.

    Raises
    ------
    TrainingError
        No trial is complete.
    """
    front = optimizer.best()
    return {
        "study": optimizer.name,
        "config": optimizer.config.model_dump(mode="json"),
        "subject": optimizer.subject.to_json(),
        "trials": [_trial(each) for each in optimizer.study.get_trials(deepcopy=False) if each.state in OUTCOMES],
        "best": front[0].number,
        "front": [each.number for each in front],
        "hyperparameters": optimizer.hyperparameters(front[0]),
        "importance": parameter_importance(optimizer),
    }


def parameter_importance(optimizer: HyperparameterOptimizer) -> dict[str, float]:
    """As in `study_report`; equal studies give equal numbers."""
    complete = optimizer.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    values = {each.values[0] for each in complete}
    if len(complete) < MIN_TRIALS or len(values) < 2:
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=optimizer.config.seed)
        found = optuna.importance.get_param_importances(
            optimizer.study, evaluator=evaluator, target=lambda trial: trial.values[0]
        )
    return {name: float(share) for name, share in found.items()}


def write_study(settings: Settings, optimizer: HyperparameterOptimizer) -> Path:
    """Write report.json and plots/*.png of a study; returns its folder."""
    report, folder = study_report(optimizer), settings.tuning_dir / optimizer.name
    objectives = optimizer.config.objectives
    minimised = DIRECTIONS[objectives[0]] == "minimize"
    logarithmic = [
        name
        for name, each in optimizer.space.items()
        if isinstance(each, FloatDistribution | IntDistribution) and each.log
    ]
    trials = report["trials"]
    figures = {
        "history": plot_history(history_info(trials, objectives[0], minimised)),
        "parallel": plot_parallel(parallel_info(trials, minimised, logarithmic)),
        "importance": plot_parameter_importance(report["importance"]),
    }
    if len(objectives) > 1:
        figures["pareto"] = plot_pareto(pareto_info(trials, objectives, report["front"]))
    for name, figure in figures.items():
        write_png(figure, folder / "plots" / f"{name}.png")
    write_json(folder / REPORT, report)
    return folder


def list_studies(settings: Settings) -> list[dict[str, Any]]:
    """Every study, even if its model has left the zoo: model, objectives, number of configurations and best values."""
    storage = study_store(settings).storage()
    names = optuna.get_all_study_names(storage)
    studies = [optuna.load_study(study_name=name, storage=storage) for name in sorted(names)]
    return [_summary(study) for study in studies if CONFIG in study.user_attrs]


def _summary(study: optuna.Study) -> dict[str, Any]:
    asked, trials = study.user_attrs[CONFIG], study.get_trials(deepcopy=False)
    best = pareto_front(study)
    return {
        "study": study.study_name,
        "model": asked["model"],
        "objectives": asked["objectives"],
        "trials": sum(trial.state in OUTCOMES and RETRY_OF not in trial.user_attrs for trial in trials),
        "budget": asked["trials"],
        "best": best[0].values if best else None,
    }


def _trial(trial: FrozenTrial) -> dict[str, Any]:
    metrics: Mapping[str, Any] = trial.user_attrs.get(RESULT, {})
    return {
        "number": trial.number,
        "state": OUTCOMES[trial.state].value,
        "params": dict(trial.params),
        "values": [finite_or_none(value) for value in trial.values or ()],
        "metrics": {name: value for name, value in metrics.items() if name != DAILY_RANK_IC},
        "seconds": seconds_of(trial),
        "reason": trial.user_attrs.get(REASON),
        "retry_of": trial.user_attrs.get(RETRY_OF),
    }
