"""A model trained and tested on many splits of the vintage in use, over several seeds: how good, how stable, how lucky.

Every fold's result is kept as a file, so an interrupted validation continues where it stopped. Nothing is registered,
and no model is kept.
"""

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from mlops_tasks.config import Section, Settings, load_settings
from mlops_tasks.data.vintages import current_vintage, load_vintage
from mlops_tasks.errors import ConfigError
from mlops_tasks.evaluation.splits import CombinatorialPurged, Gap, WalkForward
from mlops_tasks.experiments.cross_validation_report import fold_file, run_of, write_report
from mlops_tasks.features.store import FeatureStore
from mlops_tasks.files import digest_of, finite_or_none, folder_lock, read_json, write_json
from mlops_tasks.machine.admission import Admission
from mlops_tasks.modeling.configuration import TrainingConfig
from mlops_tasks.modeling.cross_validation import FoldResult, cross_validate, load_panel
from mlops_tasks.modeling.dataset import LearningData
from mlops_tasks.process import run_stage
from mlops_tasks.registry.cross_validation_run import log_cross_validation
from mlops_tasks.stage_output import StageLine
from mlops_tasks.training.memory_need import fold_need
from mlops_tasks.training.plan import make_plan

log = logging.getLogger(__name__)

VALIDATION = "validation"
"""Owner of the trainings of a cross-validation in the machine's queue."""
STAGE = "mlops_tasks.experiments.cross_validation:cross_validate_task"
REQUEST = "request.json"

LEARNED_SHARE, TESTED_SHARE, WATCHED_SHARE = 0.4, 0.1, 0.08
"""Default shares of the calendar's days for a walk-forward's days and for early stopping."""


class SplitRequest(Section):
    """How the calendar is divided."""

    method: Literal["combinatorial", "walk_forward"] = "combinatorial"
    groups: int = Field(6, ge=2, le=20)
    test_groups: int = Field(2, ge=1)
    train_days: int | None = Field(None, ge=1)
    test_days: int | None = Field(None, ge=1)
    expanding: bool = True
    valid_days: int | None = Field(None, ge=1)
    """For early stopping."""
    embargo_days: int = Field(5, ge=0)

    def splitter(self, n_days: int, horizon: int) -> CombinatorialPurged | WalkForward:
        """The splitter of a calendar with this many days."""
        gap = Gap(horizon, self.embargo_days)
        valid = self.valid_days or max(1, round(WATCHED_SHARE * n_days))
        if self.method == "combinatorial":
            return CombinatorialPurged(self.groups, self.test_groups, valid, gap)
        train = self.train_days or max(1, round(LEARNED_SHARE * n_days))
        tested = self.test_days or max(1, round(TESTED_SHARE * n_days))
        return WalkForward(train, tested, valid, self.expanding, gap)


def split_request(*, walk_forward: bool, expanding: bool, **given: int) -> SplitRequest:
    """A person's request, checked.

    Raises
    ------
    ConfigError
        A value is out of range, or belongs to the other method.
    """
    combinatorial = sorted(given.keys() & {"groups", "test_groups"})
    steps = [*sorted(given.keys() & {"train_days", "test_days"}), *([] if expanding else ["rolling"])]
    if walk_forward and combinatorial:
        raise ConfigError(f"{combinatorial[0]}: a walk-forward has no groups; leave this out, or walk_forward")
    if steps and not walk_forward:
        raise ConfigError(f"{steps[0]}: only a walk-forward steps through time; leave this out, or set walk_forward")
    method = "walk_forward" if walk_forward else "combinatorial"
    try:
        return SplitRequest.model_validate({"method": method, "expanding": expanding, **given})
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors()]
        raise ConfigError("; ".join(lines)) from None


@dataclass(frozen=True)
class ValidationRequest:
    """What to validate; seeds are consecutive, starting with the settings' seed."""

    model: str
    splits: SplitRequest = field(default_factory=SplitRequest)
    seeds: int = 3
    hyperparameters: Mapping[str, Any] | None = None
    """Overrides of the model's defaults."""


def validate_model(settings: Settings, request: ValidationRequest, say: Callable[[str], None] = log.info) -> Path:
    """Cross-validate a model on the vintage in use, write the report and log it to MLflow.

    Parameters
    ----------
    say
        Called with a line for each fold when it ends.

    Returns
    -------
    The folder `<home>/reports/cross_validation/<model>-<digest>/`: report.json, report.md, report.png, and folds/ with
    a file for each seed and split. An equal request on the same vintage continues with the folds that already exist.

    Raises
    ------
    ConfigError, TrainingError, StoreError
        The model, its hyper-parameters or the splits are wrong, or there is no vintage.
    StageError, StageTimeoutError
        The process died, or exceeded `training.time_limit_s` per fold plus `training.wait_limit_s` for its turns.
    """
    if request.seeds < 1:
        raise ConfigError(
            f"seeds: {request.seeds} trainings a fold measure nothing; ask for 1 or more, or 3 for a band"
        )
    vintage = current_vintage(settings)
    calendar = vintage.calendar()
    form = {"models": [request.model], "hyperparameters": {request.model: dict(request.hyperparameters or {})}}
    plan = make_plan(settings, vintage.data_version, calendar, form)
    seeds = [plan.seed + number for number in range(request.seeds)]
    splitter = request.splits.splitter(len(calendar), plan.horizon)
    splits = list(splitter.splits(len(calendar)))
    content = {
        "model": request.model,
        "config": plan.config(request.model, settings).model_dump(mode="json", exclude={"seed"}),
        "seeds": seeds,
        "splits": request.splits.model_dump(mode="json"),
        "horizon": plan.horizon,
        "data_version": vintage.data_version,
        "feature_version": FeatureStore(settings).compute(vintage, plan.feature_set).feature_version,
        "feature_set": plan.feature_set,
    }
    name = f"{re.sub(r'[^A-Za-z0-9_-]', '_', request.model)}-{digest_of(content, length=8)}"
    folder = settings.reports_dir / "cross_validation" / name
    with folder_lock(folder):
        write_json(folder / REQUEST, content)
        missing = missing_folds(folder, seeds, len(splits))
        if missing:
            limit = settings.training.time_limit_s * len(missing) + settings.training.wait_limit_s
            run_stage(STAGE, {"folder": str(folder)}, time_limit_s=limit, on_line=lambda line: _tell(line, say))
        write_report(folder, {"name": name, **content}, splitter, calendar)
        log_cross_validation(settings, run_of(folder))
    return folder


def _tell(line: StageLine, say: Callable[[str], None]) -> None:
    """Pass on what this module logs in its process; other lines, such as Qlib's timings, go to the log."""
    if line.logger == __name__:
        say(line.text)
    else:
        log.debug("%s", line.text)


def cross_validate_task(*, folder: str) -> dict[str, Any]:
    """Train and test the folds of a request that have no result yet; runs in the process of `validate_model`."""
    settings, path = load_settings(), Path(folder)
    content = read_json(path / REQUEST)
    vintage = load_vintage(settings, content["data_version"])
    n_days = len(vintage.calendar())
    splitter = SplitRequest.model_validate(content["splits"]).splitter(n_days, content["horizon"])
    splits = list(splitter.splits(n_days))
    missing, count = missing_folds(path, content["seeds"], len(splits)), len(content["seeds"]) * len(splits)
    log.info("%d of %d folds are done", count - len(missing), count)
    panel: LearningData | None = None
    for seed, number in missing:
        config = TrainingConfig.model_validate({**content["config"], "seed": seed})
        admission = Admission(settings, f"{path.name}-{seed}-{number}", VALIDATION)
        try:
            need = fold_need(settings, vintage, content["feature_version"], config, is_loaded=panel is not None)
            admission.wait(need, lambda place: log.info("waits: %s", place.reason))
            if panel is None:
                panel = load_panel(settings, vintage, content["feature_version"], content["horizon"], config.window)
            (fold,) = cross_validate(panel, [splits[number]], config, settings)
        finally:
            admission.leave()
        write_json(fold_file(path, seed, number), fold_json(fold))
        mean = fold.daily["rank_ic"].mean()
        log.info("seed %d, fold %d of %d: rank IC %+.4f", seed, number + 1, len(splits), mean)
    return {"folds": count, "trained": len(missing)}


def missing_folds(folder: Path, seeds: Sequence[int], splits: int) -> list[tuple[int, int]]:
    """Seed and split of the folds without a result."""
    return [(seed, i) for seed in seeds for i in range(splits) if not fold_file(folder, seed, i).is_file()]


def fold_json(fold: FoldResult) -> dict[str, Any]:
    """What is kept of a fold: the daily ICs of its test days, in order, and how its training went."""
    daily = {name: [finite_or_none(value) for value in fold.daily[name]] for name in ("ic", "rank_ic")}
    return {"daily": daily, "train_days": len(fold.split.train), **fold.conclusion.to_json()}
