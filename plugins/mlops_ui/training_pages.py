"""The pages of trainings: the latest ones, one while it runs, and what came of it. The library has what they show."""

from collections.abc import Mapping
from typing import Annotated, Any

from airflow.api_fastapi.core_api.security import GetUserDep
from fastapi import APIRouter, Depends, HTTPException, Request
from fastapi.responses import FileResponse, HTMLResponse

from mlops_api.access import SEE, may
from mlops_api.service import known_run, settings
from mlops_api.training import TrainingKey
from mlops_tasks.registry.training_evidence import training_evidence
from mlops_tasks.reports import PNG, Report
from mlops_tasks.roles import Right
from mlops_tasks.state.tables import TrainingRun
from mlops_tasks.state.training_runs import last_training_events, newest_training_event
from mlops_tasks.training.events import run_progress, runs, trainings_of
from mlops_tasks.training.run_details import run_details
from mlops_tasks.training.supervision import end_lost_runs
from mlops_tasks.training_folder import EvaluationRecord, TrainingFolder
from mlops_ui.lineage_drawing import WIDTH, draw_lineage
from mlops_ui.rendering import figure_text, render

of_dag_runs = APIRouter(dependencies=SEE, default_response_class=HTMLResponse)
router = APIRouter(prefix="/training", dependencies=SEE, default_response_class=HTMLResponse)

SHOWN = 50
"""Number of runs in the list."""
LOGGED = 100
"""Newest events of a run in its log; the page adds those that come."""
QUIET = ("iteration", "resources")
"""Kinds of events that are drawn instead."""

MEASURES = {
    "ic_mean": "IC",
    "icir": "ICIR",
    "rank_ic_mean": "Rank IC",
    "rank_icir": "Rank ICIR",
    "rank_ic_p_value": "p",
    "coverage": "Coverage",
    "annual_return": "Return a year",
    "excess_return_after_cost": "Excess a year",
    "information_ratio": "Information ratio",
    "max_drawdown": "Largest drawdown",
    "turnover": "Turnover a day",
}
"""Metrics of an evaluation that the report has, and their titles."""

Run = Annotated[TrainingRun, Depends(known_run)]


@router.get("")
def show_runs(request: Request, user: GetUserDep) -> str:
    """The latest runs."""
    end_lost_runs(settings())
    may_start = may(user, Right.OPERATE) or may(user, Right.SEARCH)
    return render(request, "training.html", runs=runs(settings(), SHOWN), may_start=may_start)


@router.get("/{run_id}/report")
def show_report(request: Request, run: Run, key: TrainingKey) -> str:
    """What came of a finished run; its script fetches the series that it draws."""
    known = training_evidence(settings(), key)
    return render(
        request,
        "training_report.html",
        run=run,
        key=key,
        known=known,
        dag_run=run_details(settings(), run.run_id).dag_run,
        curves=list(TrainingFolder.of(settings(), key).curves()),
        titles=list(MEASURES.values()),
        measures=_measures(known.evaluation),
        explained=_explained(known.explanation),
        drawing=None if known.lineage is None else draw_lineage(known.lineage),
        width=WIDTH,
    )


@router.get("/{run_id}/plots/{name}")
def show_plot(key: TrainingKey, name: str) -> FileResponse:
    """A picture of a training's evaluation."""
    known = {path.name: path for path in TrainingFolder.of(settings(), key).evaluation.plot_files()}
    if name not in known or known[name].is_symlink():
        raise HTTPException(404, f"the training {key} has no such picture; it has {', '.join(known) or 'none'}")
    return FileResponse(known[name], media_type=PNG)


@of_dag_runs.get("/dag-run/{dag_id}/{dag_run_id}")
def show_dag_run(request: Request, dag_id: str, dag_run_id: str) -> str:
    """The trainings that a run of a DAG has started, for Airflow's page of that run."""
    end_lost_runs(settings())
    plain = "\0" not in dag_id + dag_run_id  # what no database would take
    found = trainings_of(settings(), dag_id, dag_run_id) if plain else []
    return render(request, "dag_run.html", dag_id=dag_id, dag_run_id=dag_run_id, runs=found)


@router.get("/{run_id}")
def show_run(request: Request, run: Run, user: GetUserDep) -> str:
    """One run: its progress, its curves, and what was asked for. The page goes on from the newest event by then."""
    end_lost_runs(settings())
    newest = newest_training_event(settings(), run.run_id)
    after = newest.sequence if newest else 0
    return render(
        request,
        "run.html",
        run=run_progress(settings(), run.run_id),
        asked=run_details(settings(), run.run_id),
        after=after,
        log=last_training_events(settings(), run.run_id, after, LOGGED, QUIET),
        sampled=newest_training_event(settings(), run.run_id, ("resources",)) is not None,
        commands=may(user, Right.TRAIN),
    )


def _measures(evaluation: EvaluationRecord | None) -> list[tuple[str, list[str]]]:
    """A row of `MEASURES` for each segment, as text."""
    metrics = {} if evaluation is None else evaluation.metrics
    return [
        (segment, [figure_text(metrics.get(f"{segment}_{name}")) for name in MEASURES]) for segment in ("valid", "test")
    ]


def _explained(report: Report | None) -> dict[str, Any] | None:
    """What an explanation says of features and groups, for the page's script."""
    if report is None:
        return None
    content = report.content
    groups = {name: each["share"] for name, each in content.get("groups", {}).items()}
    return {
        "method": content.get("method", "by an earlier version"),
        "features": _shares(content["features"]),
        "groups": _shares(groups),
    }


def _shares(found: Mapping[str, float | None]) -> list[dict[str, Any]]:
    """The largest first."""
    known = sorted(((share or 0.0, name) for name, share in found.items()), key=lambda each: (-each[0], each[1]))
    return [{"name": name, "share": share} for share, name in known]
