"""The plan of a run: what a trigger asks for, resolved against the vintage into one checked, JSON-able dict."""

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any, Literal

import pandas as pd
from pydantic import Field, ValidationError, field_validator, model_validator

from mlops_tasks.config import DateRange, Section, Settings, check_segments
from mlops_tasks.errors import ConfigError, TrainingError
from mlops_tasks.features.sets import find_feature_set
from mlops_tasks.training.checks import MIN_SEGMENT_DAYS, check_plan
from mlops_tasks.training.configuration import TrainingConfig, resolve_config
from mlops_tasks.training.model_zoo.forms import merge_overrides

TRAIN_SHARE, VALID_SHARE = 0.6, 0.2
"""Shares of the labelled dates when no segments are given; the rest is the test segment."""


class RunPlan(Section):
    """Everything that the stages of one retraining need to know."""

    data_version: str
    last_date: date
    feature_set: str
    horizon: int = Field(ge=1, le=60)
    models: tuple[str, ...] = Field(min_length=1)
    segments: dict[Literal["train", "valid", "test"], DateRange]
    seed: int = Field(ge=0)
    topk: int = Field(ge=1)
    n_drop: int = Field(ge=0)
    deployment_strategy: Literal["blue_green", "shadow"] = "blue_green"
    hyperparameters: Mapping[str, Mapping[str, Any]] = {}
    """Overrides of the defaults by model; models that the run does not train may be named too."""
    stopping: Mapping[str, Mapping[str, Any]] = {}
    """When training stops, in place of the entry's own values, by model."""
    study: str | None = None
    """The search whose trials the hyper-parameters were chosen from; the gate deflates by them. No part of what is
    learned, so it does not change a training's key."""

    @field_validator("models")
    @classmethod
    def _named_once(cls, models: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(models)) < len(models):
            raise ValueError(f"a model is named twice in {list(models)}; name each once")
        return models

    @model_validator(mode="after")
    def _ordered(self) -> "RunPlan":
        if missing := [name for name in ("train", "valid", "test") if name not in self.segments]:
            raise ValueError(f"segments.{missing[0]} is missing; give train, valid and test")
        check_segments(self.segments["train"], self.segments["valid"], self.segments["test"])
        return self

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
        Keys as in the DAG's form: feature_set, models, horizon, train, valid, test (`first:last`), seed, topk, n_drop,
        deployment_strategy, hyperparameters, advanced_hyperparameters and stopping (overrides by model). None or
        absent: the setting.

    Raises
    ------
    ConfigError
        A value is unknown or out of range, the feature set's definition is wrong, segments overlap, only some are
        given, or they cannot hold what they are for (`checks.check_plan`).
    TrainingError
        The vintage is too short for segments of its own.
    """
    defaults = settings.training
    horizon = int(_given(form, "horizon", defaults.horizon))
    given = {name: _given(form, name, getattr(defaults, name)) for name in ("train", "valid", "test")}
    content = {
        "data_version": data_version,
        "last_date": calendar[-1].date(),
        "feature_set": find_feature_set(_given(form, "feature_set", settings.features.feature_set), settings).name,
        "horizon": horizon,
        "models": _given(form, "models", defaults.models),
        "segments": _segments(given, calendar, horizon),
        "seed": _given(form, "seed", defaults.seed),
        "topk": _given(form, "topk", settings.portfolio.topk),
        "n_drop": _given(form, "n_drop", settings.portfolio.n_drop),
        "deployment_strategy": _given(form, "deployment_strategy", "blue_green"),
        "hyperparameters": merge_overrides(
            _given(form, "hyperparameters", {}), _given(form, "advanced_hyperparameters", {})
        ),
        "stopping": _given(form, "stopping", {}),
    }
    try:
        plan = RunPlan.model_validate(content)
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, e['loc'])) or 'segments'}: {e['msg']}" for e in error.errors()]
        raise ConfigError("bad run parameters; correct the form or the settings: " + "; ".join(lines)) from None
    for model in dict.fromkeys([*plan.models, *plan.hyperparameters, *plan.stopping]):
        plan.config(model, settings)
    check_plan(plan, calendar)
    return plan


def _given(form: Mapping[str, Any], key: str, default: Any) -> Any:
    value = form.get(key)
    return default if value is None or value in ("", []) else value


def _segments(given: Mapping[str, Any], calendar: pd.DatetimeIndex, horizon: int) -> dict[str, Any]:
    present = [name for name, value in given.items() if value is not None]
    if not present:
        return rolling_segments(calendar, horizon)
    if len(present) < len(given):
        raise ConfigError(f"only {', '.join(present)} given; give train, valid and test together, or none of them")
    return {name: value.split(":") if isinstance(value, str) else value for name, value in given.items()}


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
