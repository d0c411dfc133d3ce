"""HyperparameterOptimizer: a budget of trials, shared by several workers, with no trial lost and none run twice."""

import logging
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

import optuna
import pandas as pd
from optuna.exceptions import StorageInternalError
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from mlops_tasks.config import Settings
from mlops_tasks.errors import CapacityError, MlopsError, StoreError, TrainingError
from mlops_tasks.files import finite_or_none
from mlops_tasks.machine.admission import Admission
from mlops_tasks.machine.queue_state import TUNING
from mlops_tasks.modeling.configuration import TrainingConfig, resolve_config
from mlops_tasks.modeling.dataset import LearningData
from mlops_tasks.modeling.fitting import Prepared
from mlops_tasks.modeling.model_zoo.zoo import zoo_entry
from mlops_tasks.modeling.session import Observer
from mlops_tasks.state.tables import Trial as TrialRow
from mlops_tasks.state.trials import DAILY_RANK_IC, record_trial, trials_of
from mlops_tasks.states import TrialOutcome
from mlops_tasks.tuning.objectives import TrialResult, trial_result
from mlops_tasks.tuning.samplers import pruner_of, sampler_of
from mlops_tasks.tuning.space import largest, search_space, within
from mlops_tasks.tuning.storage import StudyStore, study_store
from mlops_tasks.tuning.study import DIRECTIONS, StudyConfig, study_config
from mlops_tasks.tuning.trial import (
    estimated_mb,
    fit_and_score,
    folds_of,
    iteration_observer,
    joined,
    override,
    trial_need,
    unwatched,
    weekly_means,
)

log = logging.getLogger(__name__)

CONFIG, SUBJECT = "config", "subject"
"""User attributes of a study."""
WORKER, RETRY_OF, RESULT, REASON, WAITED = "worker", "retry_of", "result", "reason", "waited_s"
"""User attributes of a trial: the worker that runs it, the lost trial that it repeats, its metrics and daily rank IC,
why it failed, and how long it waited for its turn on the machine."""
PASSING = (CapacityError, StoreError, SQLAlchemyError, StorageInternalError)
"""Errors that say nothing about a configuration: the machine is full, or a database does not answer."""
MAX_FAILURES = 5
"""A worker ends if its first trials, as many as this, all fail: the configurations are not the cause."""
POLL_S = 0.5
OUTCOMES = {
    TrialState.COMPLETE: TrialOutcome.COMPLETE,
    TrialState.PRUNED: TrialOutcome.PRUNED,
    TrialState.FAIL: TrialOutcome.FAILED,
}


@dataclass(frozen=True)
class StudySubject:
    """What a study is about: a vintage, its features and a horizon, on given train and validation days."""

    data_version: str
    feature_version: str
    horizon: int
    segments: Mapping[str, Sequence[str]]
    """ISO dates of the first and last day of train and valid; a study has no test segment."""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        segments = {name: [str(day) for day in days] for name, days in sorted(self.segments.items())}
        return {
            "data_version": self.data_version,
            "feature_version": self.feature_version,
            "horizon": self.horizon,
            "segments": {name: days for name, days in segments.items() if name != "test"},
        }


class HyperparameterOptimizer:
    """Searches the hyper-parameters of one model of the zoo with Optuna, on the validation segment alone.

    A study is defined by a model, a way of searching and the data; the same request continues the same study. Its
    budget counts configurations. The trial of a worker that died is marked as failed, and its configuration is tried
    once more by the next worker that takes a trial; both together count once.
    """

    def __init__(self, settings: Settings, config: StudyConfig, subject: StudySubject) -> None:
        self.settings = settings
        self.config = config
        self.subject = subject
        self.name = config.name(subject.to_json())
        entry = zoo_entry(config.model, settings)
        self.space = search_space(config.model, entry, config.fixed)
        self.base: TrainingConfig = resolve_config(
            config.model, config.fixed, seed=config.seed, stopping=config.stopping, settings=settings
        )
        self._store: StudyStore = study_store(settings)
        optuna.logging.set_verbosity(optuna.logging.WARNING)

    @classmethod
    def load(cls, settings: Settings, name: str) -> "HyperparameterOptimizer":
        """An existing study as it is, with the budget that it was last given.

        Raises
        ------
        StoreError
            There is no study with this name.
        ConfigError
            Its model is no longer in the zoo, or no longer takes what the study fixes.
        """
        try:
            study = optuna.load_study(study_name=name, storage=study_store(settings).storage())
            asked, subject = study.user_attrs[CONFIG], StudySubject(**study.user_attrs[SUBJECT])
        except KeyError:
            raise StoreError(f"no study {name}; `alphaops tune list` lists them") from None
        found = cls(settings, study_config(settings, asked), subject)
        study.pruner = pruner_of(found.config)
        found.name, found.study = name, study
        return found

    @property
    def window(self) -> int:
        """The most trading days that the study's models see: how far a trial's data must reach back."""
        return largest(self.space, "window", otherwise=self.base.window)

    @property
    def shared(self) -> bool:
        """Whether the storage supports several workers."""
        return self._store.shared

    @cached_property
    def study(self) -> optuna.Study:
        """Optuna's study; created, with the trials that come first, if it does not exist."""
        storage = self._store.storage()
        with self._store.exclusive(self.name):
            study = optuna.create_study(
                storage=storage,
                study_name=self.name,
                directions=[DIRECTIONS[name] for name in self.config.objectives],
                pruner=pruner_of(self.config),
                sampler=sampler_of(self.config, 0),
                load_if_exists=True,
            )
            study.set_user_attr(CONFIG, self.config.model_dump(mode="json"))
            study.set_user_attr(SUBJECT, self.subject.to_json())
            for overrides in ({}, *self.config.first)[: self.config.trials]:
                values = within(self.space, {**self.base.hyperparameters, **overrides})
                study.enqueue_trial(values, skip_if_exists=True)
        return study

    def run(self, data: LearningData, stop_after: int | None = None, *, owner: str = TUNING, priority: int = 0) -> int:
        """Work as one worker until the budget is spent and no trial is under way; returns how many it finished.

        Parameters
        ----------
        data
            Of the study's subject. Rows of a test segment are cut off before anything is computed.
        stop_after
            Trials after which this worker ends, whatever is left of the budget.
        owner, priority
            How each trial shares the machine with other trainings, as for `UnifiedQlibTrainingEngine.start`.

        Raises
        ------
        StoreError
            The storage is SQLite, and another worker is using it.
        TrainingError
            The first `MAX_FAILURES` configurations that this worker tried all failed.
        CapacityError, SQLAlchemyError, StorageInternalError
            The machine is full, or a database does not answer; the next worker tries the configuration once more.
        """
        finished, study = 0, self.study
        with self._store.lease(self.name) as worker:
            self.record()
            folds = folds_of(data, self.base, self.config.folds, self.subject.horizon)
            while stop_after is None or finished < stop_after:
                trial = self._next(study, worker)
                if trial is None:
                    break
                admission = Admission(self.settings, f"{self.name}-{trial.number}", owner, priority)
                self._run_trial(study, trial, folds, admission)
                finished += 1
        return finished

    def record(self) -> int:
        """Copy the finished trials into the state database, for the gate; returns how many it holds now."""
        known = {row.number for row in trials_of(self.settings, self.name)}
        finished = [trial for trial in self.study.get_trials(deepcopy=False) if trial.state in OUTCOMES]
        for trial in finished:
            if trial.number not in known:
                record_trial(self.settings, self._row(trial))
        return len(finished)

    def best(self) -> list[FrozenTrial]:
        """As `pareto_front`.

        Raises
        ------
        TrainingError
            No trial is complete.
        """
        front = pareto_front(self.study)
        if not front:
            reasons = {str(trial.user_attrs.get(REASON)) for trial in self.study.trials if REASON in trial.user_attrs}
            raise TrainingError(
                f"no trial of study {self.name} is complete: {'; '.join(sorted(reasons)) or 'none ran'}"
            )
        return front

    def hyperparameters(self, trial: FrozenTrial) -> dict[str, Any]:
        """Overrides of the model's defaults that repeat a trial."""
        return {**self.config.fixed, **trial.params}

    def _next(self, study: optuna.Study, worker: int) -> optuna.Trial | None:
        """A trial to run; None when the budget is spent and no trial of another worker is under way."""
        while True:
            with self._store.exclusive(self.name):
                self._fail_lost(study, worker)
                trials = study.get_trials(deepcopy=False)
                distinct = [trial for trial in trials if RETRY_OF not in trial.user_attrs]
                begun = [trial for trial in distinct if trial.state != TrialState.WAITING]
                retries = [t for t in trials if t.state == TrialState.WAITING and RETRY_OF in t.user_attrs]
                if retries or (len(begun) < self.config.trials and self._seconds_left(trials) > 0):
                    self._check_failures(trials, worker)
                    study.sampler = sampler_of(self.config, len(begun))
                    with warnings.catch_warnings():
                        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                        trial = study.ask(self.space)
                    trial.set_user_attr(WORKER, worker)
                    return trial
                if not any(trial.state == TrialState.RUNNING for trial in trials):
                    return None
            time.sleep(POLL_S)

    def _fail_lost(self, study: optuna.Study, worker: int) -> None:
        """Mark running trials whose worker is gone as failed, and queue their configurations once more."""
        for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            owner = trial.user_attrs.get(WORKER)
            # Without a worker, it was killed between its creation and its naming, both in this exclusive section.
            if owner is not None and (owner == worker or self._store.is_alive(self.name, owner)):
                continue
            study.tell(trial.number, state=TrialState.FAIL)
            if RETRY_OF in trial.user_attrs:
                log.warning("trial %d was lost with its worker a second time; it stays failed", trial.number)
                continue
            log.warning("trial %d was lost with its worker; its configuration is tried again", trial.number)
            study.enqueue_trial(trial.params, user_attrs={RETRY_OF: trial.number})

    def _seconds_left(self, trials: Sequence[FrozenTrial]) -> float:
        if self.config.time_s is None:
            return float("inf")
        return self.config.time_s - sum(seconds_of(trial) for trial in trials)

    def _check_failures(self, trials: Sequence[FrozenTrial], worker: int) -> None:
        first = [trial for trial in trials if trial.user_attrs.get(WORKER) == worker][:MAX_FAILURES]
        if len(first) == MAX_FAILURES and all(REASON in trial.user_attrs for trial in first):
            raise TrainingError(
                f"the first {MAX_FAILURES} trials of a worker of study {self.name} all failed, the last one with: "
                f"{first[-1].user_attrs[REASON]}"
            )

    def _run_trial(
        self, study: optuna.Study, trial: optuna.Trial, folds: Sequence[Prepared], admission: Admission
    ) -> None:
        log.info("trial %d: %s", trial.number, trial.params)
        values: list[float] | None = None
        try:
            result = self._measure(study, trial, folds, admission)
            values = [result.metrics[name] for name in self.config.objectives]
            state = TrialState.COMPLETE
            daily = {day.date().isoformat(): finite_or_none(value) for day, value in result.rank_ic.items()}
            trial.set_user_attr(RESULT, {**result.metrics, DAILY_RANK_IC: daily})
            log.info("trial %d: %s", trial.number, {n: round(v, 5) for n, v in result.metrics.items()})
        except optuna.TrialPruned as reason:
            state = TrialState.PRUNED
            log.info("trial %d is pruned: %s", trial.number, reason)
        except Exception as error:  # an error that a configuration causes in a library ends that trial, not the study
            if isinstance(error, PASSING) and RETRY_OF not in trial.user_attrs:
                raise  # the trial stays as a killed worker would leave it
            state = TrialState.FAIL
            trial.set_user_attr(REASON, f"{type(error).__name__}: {error}")
            log.warning("trial %d failed: %s", trial.number, error, exc_info=not isinstance(error, MlopsError))
        finally:
            admission.leave()
        try:
            study.tell(trial, values, state)
        except (ValueError, optuna.exceptions.UpdateFinishedTrialError):
            log.warning("trial %d was given to another worker in the meantime; its result is dropped", trial.number)
            return
        record_trial(self.settings, self._row(study.get_trials(deepcopy=False)[trial.number]))

    def _measure(
        self, study: optuna.Study, trial: optuna.Trial, folds: Sequence[Prepared], admission: Admission
    ) -> TrialResult:
        config = override(self.base, trial.params)
        self._check_memory(folds, config)
        asked = time.monotonic()
        try:
            admission.wait(
                trial_need(folds, config), lambda place: log.info("trial %d waits: %s", trial.number, place.reason)
            )
        finally:
            trial.set_user_attr(WAITED, round(time.monotonic() - asked, 3))
        observers = self._observers(trial, self._seconds_left(study.get_trials(deepcopy=False)))
        parts, weeks = [], 0
        for fold in folds:
            part = fit_and_score(fold, config, self.settings, observers)
            part = unwatched(fold, config, part, self.subject.horizon)
            parts.append(part)
            if self.config.pruner == "wilcoxon":
                weeks = self._report_weeks(trial, part, weeks)
        scored = joined(parts)
        return trial_result(scored["score"], scored["label"], self.config.topk, self.subject.horizon)

    def _check_memory(self, folds: Sequence[Prepared], config: TrainingConfig) -> None:
        limits = {
            "memory_mb": self.config.memory_mb,
            "training.memory_limit_mb": self.settings.training.memory_limit_mb,
        }
        needed = estimated_mb(folds, config)
        for name, limit in limits.items():
            if limit is not None and needed > limit:
                raise TrainingError(
                    f"this configuration needs about {needed:,.0f} MB, and {name} allows {limit:,.0f}; raise it or "
                    "narrow the search"
                )

    def _observers(self, trial: optuna.Trial, seconds_left: float) -> list[Observer]:
        ends = time.monotonic() + seconds_left

        def report(value: float, step: int) -> None:
            trial.report(value, step)
            if trial.should_prune():
                raise optuna.TrialPruned(f"{self._daily} {value:.5f} at iteration {step}")

        def watch_time(done: int, metrics: Mapping[str, float]) -> None:
            if time.monotonic() > ends:
                raise optuna.TrialPruned(f"time_s is spent at iteration {done}")

        observers: list[Observer] = [watch_time]
        if self.config.pruner in ("median", "hyperband"):
            observers.append(iteration_observer(self._daily, report))
        return observers

    @property
    def _daily(self) -> str:
        """The IC that pruners compare."""
        return "rank_ic" if self.config.objectives[0].startswith("rank") else "ic"

    def _report_weeks(self, trial: optuna.Trial, part: pd.DataFrame, weeks: int) -> int:
        result = trial_result(part["score"], part["label"], self.config.topk, self.subject.horizon)
        for value in weekly_means(result.rank_ic):
            trial.report(value, weeks)
            weeks += 1
        if trial.should_prune():
            raise optuna.TrialPruned(f"worse than the best trial after {weeks} weeks")
        return weeks

    def _row(self, trial: FrozenTrial) -> TrialRow:
        result = dict(trial.user_attrs.get(RESULT, {}))
        if REASON in trial.user_attrs:
            result[REASON] = trial.user_attrs[REASON]
        return TrialRow(
            study=self.name,
            number=trial.number,
            model=self.config.model,
            data_version=self.subject.data_version,
            horizon=self.subject.horizon,
            state=OUTCOMES[trial.state],
            configuration=self.hyperparameters(trial),
            result=result,
        )


def seconds_of(trial: FrozenTrial) -> float:
    """How long a trial has trained since its turn came; 0 for a lost one, whose worker's end is not known."""
    is_lost = trial.state == TrialState.FAIL and REASON not in trial.user_attrs
    if trial.datetime_start is None or WAITED not in trial.user_attrs or is_lost:
        return 0.0
    ends = trial.datetime_complete or datetime.now()
    return round((ends - trial.datetime_start).total_seconds() - trial.user_attrs[WAITED], 3)


def pareto_front(study: optuna.Study) -> list[FrozenTrial]:
    """The complete trials that no other one beats, sorted by the first objective; the best alone for one objective."""
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    signs = [1.0 if direction == StudyDirection.MINIMIZE else -1.0 for direction in study.directions]
    order = {trial.number: [s * v for s, v in zip(signs, trial.values, strict=True)] for trial in complete}
    front = [trial for trial in complete if not any(_dominates(v, order[trial.number]) for v in order.values())]
    front.sort(key=lambda trial: (*order[trial.number], trial.number))
    return front if len(signs) > 1 else front[:1]


def _dominates(a: Sequence[float], b: Sequence[float]) -> bool:
    """Whether values to be minimised are nowhere worse and somewhere better."""
    return all(x <= y for x, y in zip(a, b, strict=True)) and any(x < y for x, y in zip(a, b, strict=True))
