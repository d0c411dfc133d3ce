"""The command line for hyper-parameter searches: `alphaops tune ...`."""

import argparse
import json
from collections.abc import Iterator, Mapping
from typing import Any

from mlops_tasks.cli.answers import progress, tell
from mlops_tasks.config import load_settings
from mlops_tasks.tuning.study import AUTO, OBJECTIVES, PRUNERS, SAMPLERS


def add_tune_verb(verbs: Any, shared: argparse.ArgumentParser) -> None:
    """Add the verb `tune` with its own verbs; `shared` has the options that all of them take."""
    tune = verbs.add_parser("tune", help="search a model's hyper-parameters on the vintage in use")
    own = tune.add_subparsers(required=True, metavar="action", dest="action")

    run = own.add_parser(
        "run", parents=[shared], help="search as one worker; running the command again continues the search"
    )
    run.add_argument("--model", default=AUTO, help="a model of the zoo; auto: the selector's recommendation")
    run.add_argument("--trials", type=int, help="total number of configurations")
    run.add_argument("--objectives", help=f"separated by commas: {', '.join(OBJECTIVES)}")
    run.add_argument("--sampler", choices=SAMPLERS)
    run.add_argument("--pruner", choices=PRUNERS)
    run.add_argument("--folds", type=int, help="walk-forward blocks of the validation segment")
    run.add_argument("--seed", type=int)
    run.add_argument("--time-s", type=float, help="seconds of training for all trials together")
    run.add_argument("--memory-mb", type=float, help="largest estimated peak memory of one trial")
    run.set_defaults(verb_function=_run)

    listed = own.add_parser("list", parents=[shared], help="all studies")
    listed.set_defaults(verb_function=_list)

    shown = own.add_parser(
        "show", parents=[shared], help="the trials of a study, the best one, and which parameters mattered"
    )
    shown.add_argument("study")
    shown.set_defaults(verb_function=_show)


def _run(arguments: argparse.Namespace) -> int:
    from mlops_tasks.features.tasks import compute_features_task
    from mlops_tasks.tuning.tasks import (
        choose_algorithm_task,
        create_study_task,
        finish_study_task,
        plan_search_task,
        run_worker_task,
    )

    names = ("trials", "sampler", "pruner", "folds", "seed", "time_s", "memory_mb")
    form = {name: getattr(arguments, name) for name in names}
    objectives = arguments.objectives.split(",") if arguments.objectives else None
    asked = plan_search_task(model=arguments.model, objectives=objectives, **form)
    plan, search = asked["plan"], asked["search"]
    features = compute_features_task(data_version=plan["data_version"], feature_set=plan["feature_set"])
    choice = choose_algorithm_task(plan=plan, features=features, search=search)
    study = create_study_task(plan=plan, features=features, search=search, choice=choice)["study"]
    progress(arguments)(f"study {study}")
    run_worker_task(plan=plan, features=features, study=study, worker=0)
    return _answer(arguments, finish_study_task(plan=plan, study=study)["study"])


def _list(arguments: argparse.Namespace) -> int:
    from mlops_tasks.tuning.report import list_studies

    found = list_studies(load_settings())
    return tell(arguments, found, map(_line, found))


def _line(study: Mapping[str, Any]) -> str:
    best = "none complete" if study["best"] is None else ", ".join(f"{value:.5f}" for value in study["best"])
    objectives = ", ".join(study["objectives"])
    return f"{study['study']:<32}{study['trials']:>5} of {study['budget']:<5} {objectives}: {best}"


def _show(arguments: argparse.Namespace) -> int:
    return _answer(arguments, arguments.study)


def _answer(arguments: argparse.Namespace, study: str) -> int:
    from mlops_tasks.tuning.optimizer import HyperparameterOptimizer
    from mlops_tasks.tuning.report import study_report

    report = study_report(HyperparameterOptimizer.load(load_settings(), study))
    return tell(arguments, report, _lines(report))


def _lines(report: Mapping[str, Any]) -> Iterator[str]:
    for trial in report["trials"]:
        values = ", ".join(f"{value:.5f}" for value in trial["values"])
        mark = "*" if trial["number"] in report["front"] else " "
        yield f"{mark} {trial['number']:>4} {trial['state']:<9}{values or trial['reason'] or ''}"
    yield f"best: trial {report['best']}, {json.dumps(report['hyperparameters'])}"
    for name, share in report["importance"].items():
        yield f"  {share:>6.1%} {name}"
