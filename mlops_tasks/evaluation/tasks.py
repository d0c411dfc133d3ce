"""Task entry of the evaluation stage."""

import logging

from mlops_tasks.config import load_settings
from mlops_tasks.evaluation.report import evaluate, is_current, write_evaluation
from mlops_tasks.files import new_folder, retire_folder
from mlops_tasks.stage_results import Evaluated
from mlops_tasks.training_folder import EvaluationFolder, TrainingFolder

log = logging.getLogger(__name__)


def evaluate_model_task(*, training_key: str, topk: int | None = None, n_drop: int | None = None) -> Evaluated:
    """Evaluate a finished training; returns at once if that was done with the same portfolio and code.

    Parameters
    ----------
    topk, n_drop
        How many names the portfolio holds and replaces per day; None: the settings.

    Returns
    -------
    `training_key`, `model`, `metrics` (name to number, or None where it is undefined) and `path` of the evaluation's
    folder, relative to the home folder.

    Raises
    ------
    StoreError
        The training, its vintage or its Qlib store is missing or incomplete.
    """
    settings = load_settings()
    training = TrainingFolder.of(settings, training_key)
    target = training.evaluation.path
    portfolio = settings.portfolio.holding(topk, n_drop)
    if is_current(settings, training, portfolio):
        log.info("%s: already evaluated", training_key)
    else:
        evaluation = evaluate(settings, training, portfolio)
        with new_folder(target) as folder:
            write_evaluation(EvaluationFolder(folder), evaluation, training)
            retire_folder(target)
    training.share_evaluation(settings)
    record = training.evaluation.read()
    for name, value in record.metrics.items():
        log.info("%s %s: %s", record.model, name, "undefined" if value is None else f"{value:.5f}")
    return {
        "training_key": training_key,
        "model": record.model,
        "metrics": record.metrics,
        "path": settings.relative(target),
    }
