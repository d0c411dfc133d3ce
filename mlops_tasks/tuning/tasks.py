"""Task entries of the tuning stage."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from mlops_tasks.config import Settings, load_settings
from mlops_tasks.data.vintages import current_vintage
from mlops_tasks.errors import ConfigError
from mlops_tasks.machine.admission import refuse_what_never_fits
from mlops_tasks.machine.queue_state import TUNING
from mlops_tasks.modeling.configuration import TrainingConfig
from mlops_tasks.modeling.dataset import LearningData, load_learning_data
from mlops_tasks.modeling.model_zoo.zoo import model_zoo
from mlops_tasks.stage_results import (
    ChosenAlgorithm,
    CreatedStudy,
    Features,
    FinishedStudy,
    PlannedRun,
    SearchPlan,
    Worked,
)
from mlops_tasks.training.checks import check_learning_data
from mlops_tasks.training.memory_need import memory_need
from mlops_tasks.training.plan import RunPlan, make_plan
from mlops_tasks.training.run_folder import FitRequest
from mlops_tasks.tuning.data_profile import ProfileConfig, profile_data
from mlops_tasks.tuning.optimizer import HyperparameterOptimizer, StudySubject
from mlops_tasks.tuning.recommendations import record_recommendation
from mlops_tasks.tuning.selector import Constraints, select_algorithm
from mlops_tasks.tuning.study import AUTO, StudyConfig, searched, study_config
from mlops_tasks.tuning.trial import without_test

log = logging.getLogger(__name__)

PLAN_FIELDS = ("feature_set", "horizon", "train", "valid", "test", "seed", "topk", "n_drop")
SEARCH_FIELDS = ("objectives", "sampler", "pruner", "folds", "trials", "time_s", "memory_mb", "seed", "topk", "fixed")


def plan_search_task(*, model: str, **form: Any) -> SearchPlan:
    """Resolve the trigger form and the vintage in use into a plan, and check the configuration of the search.

    `model` is one of the zoo or `auto`; the other keys are `PLAN_FIELDS` and `SEARCH_FIELDS`, None for the settings.
    The form's other fields concern what follows the search.

    Returns
    -------
    `plan` (its models: the one, or all that the selector may choose), its `data_version` and `feature_set`, and
    `search`: the configuration of the search without the model.

    Raises
    ------
    ConfigError
        A value is unknown or out of range; this is found before anything is loaded.
    """
    settings = load_settings()
    search = {name: form[name] for name in SEARCH_FIELDS if form.get(name) not in (None, "", [], {})}
    models = _possible(settings, search, list(model_zoo(settings)) if model == AUTO else [model])
    vintage = current_vintage(settings)
    given = {name: form.get(name) for name in PLAN_FIELDS}
    plan = make_plan(settings, vintage.data_version, vintage.calendar(), {**given, "models": models})
    return {
        "plan": plan.to_json(),
        "search": search,
        "data_version": plan.data_version,
        "feature_set": plan.feature_set,
    }


def choose_algorithm_task(*, plan: PlannedRun, features: Features, search: dict[str, Any]) -> ChosenAlgorithm:
    """Choose the model to search, by the training segment's profile if the plan leaves a choice.

    Returns
    -------
    `model`, `first` (overrides that are tried first), `fixed` (overrides that no trial varies, such as the days of a
    window) and `reasons`; the whole profile and ranking are written to
    `<home>/tuning/recommendations/<data_version>.json`.
    """
    models = list(plan["models"])
    if len(models) == 1:
        return {"model": models[0], "first": [], "fixed": {}, "reasons": ["the form names it"]}
    settings, run_plan = load_settings(), RunPlan.model_validate(plan)
    data = _data(settings, run_plan, features, run_plan.config(models[0], settings))
    limit = search.get("memory_mb")
    constraints = Constraints(memory_bytes=None if limit is None else int(limit * 1e6))
    about = ProfileConfig(horizon=run_plan.horizon, seed=run_plan.seed, threads=settings.training.threads)
    profile = profile_data(data, about)
    found = select_algorithm(profile, {name: model_zoo(settings)[name] for name in models}, constraints)
    best = found.ranking[0]
    content = {"profile": profile.to_json(), "recommendation": found.to_json()}
    record_recommendation(settings, run_plan.data_version, content)
    log.info("%s", found.summary)
    for reason in best.reasons:
        log.info("%s: %s", best.model, reason)
    free = searched(model_zoo(settings)[best.model], search.get("fixed", {}))
    first = {name: value for name, value in best.hyperparameters.items() if name in free}
    fixed = {name: value for name, value in best.hyperparameters.items() if name not in free}
    return {
        "model": best.model,
        "first": [first] if first else [],
        "fixed": fixed,
        "reasons": [found.summary, *best.reasons],
    }


def create_study_task(
    *, plan: PlannedRun, features: Features, search: dict[str, Any], choice: ChosenAlgorithm
) -> CreatedStudy:
    """Create the study, or find the same one; returns its name, whether it existed, and a number for each worker."""
    settings = load_settings()
    fixed = {**choice["fixed"], **search.get("fixed", {})}
    config = study_config(settings, {**search, "model": choice["model"], "first": choice["first"], "fixed": fixed})
    optimizer = HyperparameterOptimizer(settings, config, _subject(plan, features))
    begun = len(optimizer.study.get_trials(deepcopy=False))
    count = settings.tuning.workers if optimizer.shared else 1
    if not optimizer.shared and settings.tuning.workers > 1:
        log.warning("studies are in SQLite, which supports one worker; set tuning.storage_url to PostgreSQL for more")
    log.info("study %s: %d of %d trials begun, %d worker(s)", optimizer.name, begun, config.trials, count)
    return {"study": optimizer.name, "model": config.model, "workers": list(range(count))}


def run_worker_task(  # noqa: PLR0913 - as `train_model_task`
    *, plan: PlannedRun, features: Features, study: str, worker: int, owner: str = TUNING, priority: int = 0
) -> Worked:
    """Take trials until the study's budget is spent; returns how many this worker finished."""
    settings = load_settings()
    optimizer = HyperparameterOptimizer.load(settings, study)
    run_plan, folds = RunPlan.model_validate(plan), optimizer.config.folds
    data = _data(settings, run_plan, features, optimizer.base, folds=folds, window=optimizer.window)
    finished = optimizer.run(data, owner=owner, priority=priority)
    log.info("worker %d finished %d trials of study %s", worker, finished, study)
    return {"worker": worker, "finished": finished}


def finish_study_task(*, plan: PlannedRun, study: str) -> FinishedStudy:
    """Record all trials, write the report, and make the plan of the best trial.

    Returns
    -------
    `plan`: the plan of that one model with the best trial's hyper-parameters and the study's name, by which the gate
    finds the trials; `study`, `model`, `best` (number), `hyperparameters`, `path` of the report's folder, relative to
    the home folder.
    """
    from mlops_tasks.tuning.report import write_study  # imports Matplotlib, which the other stages here do not need

    settings = load_settings()
    optimizer = HyperparameterOptimizer.load(settings, study)
    recorded = optimizer.record()
    folder = write_study(settings, optimizer)
    best = optimizer.best()[0]
    model, overrides = optimizer.config.model, optimizer.hyperparameters(best)
    log.info("study %s: %d trials, the best is %d with %s: %s", study, recorded, best.number, best.values, overrides)
    tuned = tuned_plan(RunPlan.model_validate(plan), optimizer.config, study, overrides)
    return {
        "plan": tuned.to_json(),
        "study": study,
        "model": model,
        "best": best.number,
        "hyperparameters": overrides,
        "path": settings.relative(folder),
    }


def tuned_plan(plan: RunPlan, config: StudyConfig, study: str, overrides: Mapping[str, Any]) -> RunPlan:
    """The plan that trains a study's best configuration as its trials were: same seed, train days and watched days."""
    changed = {
        "models": (config.model,),
        "hyperparameters": {config.model: overrides},
        "stopping": {config.model: config.stopping},
        "study": study,
    }
    return RunPlan.model_validate({**plan.model_dump(), **changed, "seed": config.seed})


def _possible(settings: Settings, search: Mapping[str, Any], models: Sequence[str]) -> list[str]:
    """The models that can be searched as configured; ConfigError if there is none."""
    possible, refused = [], ConfigError("the zoo has no model")
    for name in models:
        try:
            possible.append(study_config(settings, {**search, "model": name}).model)
        except ConfigError as error:
            refused = error
    if not possible:
        raise refused
    return possible


def _subject(plan: PlannedRun, features: Features) -> StudySubject:
    return StudySubject(plan["data_version"], features["feature_version"], plan["horizon"], plan["segments"])


def _data(  # noqa: PLR0913 - what to load, and who works on it
    settings: Settings,
    plan: RunPlan,
    features: Features,
    config: TrainingConfig,
    *,
    folds: int = 1,
    window: int = 1,
) -> LearningData:
    """Learning data without the test segment, if memory allows them and a training of `config` on each fold."""
    need = memory_need(settings, FitRequest(plan, features["feature_version"], config))
    refuse_what_never_fits(settings, need.with_more_copies(folds - 1))
    spec = plan.learning_spec(features["feature_version"])
    data = load_learning_data(settings, spec, window)
    check_learning_data(settings, spec, data)
    return without_test(data)
