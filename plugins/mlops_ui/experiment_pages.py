"""The pages of experiments: all of them, and one with its results."""

from airflow.api_fastapi.core_api.security import GetUserDep
from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from mlops_api.access import SEE, may
from mlops_api.experiments import Name
from mlops_api.messages.experiment_results import ExperimentResults, Look
from mlops_api.service import settings
from mlops_tasks.experiments.design import Direction, MetricSource
from mlops_tasks.experiments.inference.offers import Looks
from mlops_tasks.experiments.lifecycle import HOLDS_UNITS, experiments, history_of, layers
from mlops_tasks.experiments.recorded_results import recorded_results
from mlops_tasks.reports import LAYOUTS, PNG, ReportKind
from mlops_tasks.roles import Right
from mlops_tasks.state.metric_events import refused_events
from mlops_tasks.states import EXPERIMENT_TRANSITIONS, UnitKind
from mlops_ui.intervals import Drawn, Scale
from mlops_ui.rendering import render

router = APIRouter(prefix="/experiments", dependencies=SEE, default_response_class=HTMLResponse)

SHOWN, SHOWN_REFUSED = 200, 20
"""Experiments of the list, the newest first; refused events of a page."""
DrawnLook = tuple[Look, Drawn | None]


@router.get("")
def show_experiments(request: Request, user: GetUserDep) -> str:
    """All experiments as they stand, and a form for another one."""
    found = sorted(experiments(settings()).values(), key=lambda each: each.at, reverse=True)
    return render(
        request,
        "experiments.html",
        experiments=found[:SHOWN],
        total=len(found),
        layers=layers(settings()),
        kinds=[*UnitKind],
        looks=[*Looks],
        sources=[*MetricSource],
        directions=[*Direction],
        commands=may(user, Right.TRAIN),
        operates=may(user, Right.OPERATE),
    )


@router.get("/{name}")
def show_experiment(request: Request, name: Name, user: GetUserDep) -> str:
    """One experiment: its question, its arms, what it has shown at each look, and its steps."""
    history = history_of(settings(), name)
    newest = history[-1]
    recorded = recorded_results(settings(), name)
    results = ExperimentResults.of(name, newest.design.planned_days, recorded)
    return render(
        request,
        "experiment.html",
        experiment=newest,
        history=history,
        results=results,
        drawn={(each.metric, each.arm): _drawn(results, each.metric, each.arm) for each in results.findings},
        report=None if recorded is None else recorded.report,
        pictures=[name for name, kind in LAYOUTS[ReportKind.AB_TEST].files.items() if kind == PNG],
        moves=sorted(EXPERIMENT_TRANSITIONS[newest.state]),
        reroutable=newest.state in HOLDS_UNITS and newest.design.switchback is None,
        refused=refused_events(settings(), name, SHOWN_REFUSED),
        commands=may(user, Right.TRAIN),
    )


def _drawn(results: ExperimentResults, metric: str, arm: str) -> tuple[Scale, list[DrawnLook]]:
    """The looks at a metric of an arm, and where their intervals lie."""
    looks = [each for each in results.looks if (each.metric, each.arm) == (metric, arm)]
    scale = Scale.over([end for each in looks for end in (each.lower, each.effect, each.upper)])
    return scale, [(each, scale.drawn(each.lower, each.effect, each.upper)) for each in looks]
