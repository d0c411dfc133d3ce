"""The plan of a run: what a trigger asks for, resolved against the vintage into one checked, JSON-able object."""

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any, Literal, cast

import pandas as pd
from pydantic import Field, ValidationError, field_validator, model_validator

from mlops_tasks.columns import SEGMENTS
from mlops_tasks.config import DateRange, Section, Settings, check_segments
from mlops_tasks.errors import ConfigError, TrainingError, excerpt, hint
from mlops_tasks.features.sets import find_feature_set
from mlops_tasks.modeling.configuration import TrainingConfig, resolve_config
from mlops_tasks.modeling.learning_spec import LearningSpec
from mlops_tasks.modeling.model_zoo.overrides import checked_overrides, named_entry
from mlops_tasks.modeling.model_zoo.schema import check_value
from mlops_tasks.stage_results import PlannedRun
from mlops_tasks.states import Strategy
from mlops_tasks.training.checks import MIN_SEGMENT_DAYS, check_dates

FORM_KEYS = (
    *("feature_set", "models", "horizon", "seed", "topk", "n_drop", "deployment_strategy", *SEGMENTS),
    *("hyperparameters", "stopping"),
)
TRAIN_SHARE, VALID_SHARE = 0.6, 0.2
"""Shares of the labelled dates when no segments are given; the rest is the test segment."""


class RunPlan(Section):
    """Everything that the stages of one retraining need to know."""

    data_version: str
    last_date: date
    feature_set: str
    horizon: int = Field(ge=1, le=60, strict=True)
    models: tuple[str, ...] = Field(min_length=1)
    segments: dict[Literal["train", "valid", "test"], DateRange]
    seed: int = Field(ge=0, strict=True)
    topk: int = Field(ge=1, strict=True)
    n_drop: int = Field(ge=0, strict=True)
    deployment_strategy: Literal[Strategy.BLUE_GREEN, Strategy.CANARY, Strategy.SHADOW, Strategy.DIRECT] = (
        Strategy.BLUE_GREEN
    )
    hyperparameters: Mapping[str, Mapping[str, Any]] = {}
    """Overrides of the defaults by model; models that the run does not train may be named too."""
    stopping: Mapping[str, Mapping[str, Any]] = {}
    """Overrides of the entry's stopping rule, by model."""
    study: str | None = None
    """The search whose trials the hyper-parameters were chosen from; the gate deflates by them. It is no part of what
    is learned, so it does not change a training's key."""
    column_warnings: tuple[str, ...] = Field((), exclude=True)
    """Columns from which nothing can be learned, as far as known when the plan was made; no part of the plan's key."""

    @field_validator("models")
    @classmethod
    def _named_once(cls, models: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(models)) < len(models):
            raise ValueError(f"a model is named twice in {list(models)}; name each model once")
        return models

    @model_validator(mode="after")
    def _ordered(self) -> "RunPlan":
        if missing := [name for name in SEGMENTS if name not in self.segments]:
            raise ValueError(f"segments.{missing[0]} is missing; give train, valid and test")
        check_segments(self.segments["train"], self.segments["valid"], self.segments["test"])
        return self

    def to_json(self) -> PlannedRun:
        """As stages exchange it."""
        return cast("PlannedRun", self.model_dump(mode="json"))

    def learning_spec(self, feature_version: str) -> LearningSpec:
        """What this plan's models learn from, with features of this version of its set."""
        segments = {str(name): days for name, days in self.segments.items()}
        return LearningSpec(self.data_version, feature_version, self.horizon, segments)

    def config(self, model: str, settings: Settings | None = None) -> TrainingConfig:
        """How a model of this plan is trained.

        Raises
        ------
        ConfigError
            The model, or what the plan overrides of it, is unknown or out of range.
        """
        overrides, stopping = self.hyperparameters.get(model), self.stopping.get(model)
        return resolve_config(model, overrides, seed=self.seed, stopping=stopping, settings=settings)


def make_plan(settings: Settings, data_version: str, calendar: pd.DatetimeIndex, form: Mapping[str, Any]) -> RunPlan:
    """Resolve a trigger form against a vintage's calendar.

    Parameters
    ----------
    calendar
        Trading days of the vintage, ascending.
    form
        The DAG's form, with keys of `FORM_KEYS`: segments are `first:last`, hyper-parameters and stopping are what
        `read_overrides` takes. None, empty or absent: the setting.

    Raises
    ------
    ConfigError
        A key is unknown, a value is of the wrong type, unknown or out of range, the feature set's definition is wrong,
        segments overlap, only some are given, or they cannot hold what they are for (`checks.check_dates`).
    TrainingError
        The vintage is too short for segments of its own.
    """
    for key in form:
        if key not in FORM_KEYS:
            raise ConfigError(f"{key}: unknown; {hint(str(key), FORM_KEYS)}")
    single = _single_values(settings, form)
    given = {name: _given(form, name, getattr(settings.training, name)) for name in SEGMENTS}
    content = {
        **single,
        "data_version": data_version,
        "last_date": calendar[-1].date(),
        "feature_set": find_feature_set(single["feature_set"], settings).name,
        "models": _given(form, "models", settings.training.models),
        "segments": _segments(given, calendar, single["horizon"]),
        **checked_overrides(settings, form),
    }
    try:
        plan = RunPlan.model_validate(content)
    except ValidationError as error:
        lines = [_reason(e["loc"], e["msg"], e["input"]) for e in error.errors()]
        raise ConfigError("bad run parameters; correct the form or the settings: " + "; ".join(lines)) from None
    for model in plan.models:
        named_entry("models", model, settings)
    for model in dict.fromkeys([*plan.models, *plan.hyperparameters, *plan.stopping]):
        plan.config(model, settings)
    check_dates({str(name): days for name, days in plan.segments.items()}, plan.horizon, calendar)
    return plan


def _single_values(settings: Settings, form: Mapping[str, Any]) -> dict[str, Any]:
    """The single values of the form, or else of the settings, checked."""
    defaults = {
        "feature_set": settings.features.feature_set,
        "horizon": settings.training.horizon,
        "seed": settings.training.seed,
        "topk": settings.portfolio.topk,
        "n_drop": settings.portfolio.n_drop,
        "deployment_strategy": settings.deployment.strategy.value,
    }
    schemas = RunPlan.model_json_schema()["properties"]
    return {key: check_value(key, schemas[key], _given(form, key, default)) for key, default in defaults.items()}


def _reason(place: Sequence[int | str], message: str, value: Any) -> str:
    return f"{'.'.join(map(str, place))}: {message}, got {value!r}" if place else f"segments: {message}"


def _given(form: Mapping[str, Any], key: str, default: Any) -> Any:
    value = form.get(key)
    return default if value is None or value in ("", []) else value


def _segments(given: Mapping[str, Any], calendar: pd.DatetimeIndex, horizon: int) -> dict[str, Any]:
    present = [name for name, value in given.items() if value is not None]
    if not present:
        return rolling_segments(calendar, horizon)
    if len(present) < len(given):
        raise ConfigError(f"only {', '.join(present)} given; give train, valid and test together, or none of them")
    return {name: _days(name, value) if isinstance(value, str) else value for name, value in given.items()}


def _days(name: str, text: str) -> list[str]:
    """First and last day of `first:last`."""
    days = [day.strip() for day in text.split(":")]
    try:
        if len(list(map(date.fromisoformat, days))) == 2:
            return days
    except ValueError:
        pass
    raise ConfigError(f"{name}: expected first:last, such as 2017-01-01:2020-08-31, got {excerpt(text)}; correct it")


def rolling_segments(calendar: pd.DatetimeIndex, horizon: int) -> dict[str, tuple[date, date]]:
    """The default segments: 60% train, 20% validation, and all the rest up to the newest day as test.

    Shares are of the days that have a label; the newest `horizon + 1` days have none yet and are in the test segment.
    """
    labelled = len(calendar) - horizon - 1
    if labelled < 3 * MIN_SEGMENT_DAYS:
        raise TrainingError(
            f"{len(calendar)} trading days are too few for three segments of {MIN_SEGMENT_DAYS} labelled days; "
            "sync more history"
        )
    valid_start, test_start = int(labelled * TRAIN_SHARE), int(labelled * (TRAIN_SHARE + VALID_SHARE))
    days: Sequence[date] = [day.date() for day in calendar]
    return {
        "train": (days[0], days[valid_start - 1]),
        "valid": (days[valid_start], days[test_start - 1]),
        "test": (days[test_start], days[-1]),
    }
