"""Refuses what cannot work before a training, naming the path of the key, the rule and the remedy.

`check_dates` and `check_start` need only the vintage's calendar and membership, and run before a training process is
started. `check_learning_data` finds what only the loaded data show, before any family's code runs.
"""

import importlib.util
from collections.abc import Mapping
from datetime import date
from typing import Any

import numpy as np
import pandas as pd

from mlops_tasks.columns import DATETIME, INSTRUMENT
from mlops_tasks.config import Settings
from mlops_tasks.data.sources.membership import FIRST_DATE, LAST_DATE
from mlops_tasks.data.vintages import Vintage, load_vintage
from mlops_tasks.errors import ConfigError, first_few
from mlops_tasks.modeling.column_health import ColumnHealth, with_shares
from mlops_tasks.modeling.configuration import TrainingConfig
from mlops_tasks.modeling.dataset import LearningData
from mlops_tasks.modeling.learning_spec import LearningSpec
from mlops_tasks.modeling.model_zoo.families import ALWAYS_RUN_CODE, NO_INFINITE_VALUE, NO_MISSING_COLUMN
from mlops_tasks.modeling.model_zoo.zoo import check_family, check_unpickling, read_zoo

MIN_SEGMENT_DAYS = 20
MIN_LABELLED_DAYS = 5
"""Trading days of a segment that must have a label after purging."""
MIN_INSTRUMENTS = 2
"""Labels that a day needs in order to be ranked."""
MIN_RANKED_SHARE = 0.5
"""Of a segment's days with labels, the share on which they must rank the instruments."""


def check_dates(segments: Mapping[str, tuple[date, date]], horizon: int, calendar: pd.DatetimeIndex) -> None:
    """Check segments and horizon against the trading days of a vintage.

    Raises
    ------
    ConfigError
        A segment is too short, ends after the last known day, or has too few days whose labels are known within it, so
        that there would be no validation rows, for example.
    """
    known = f"({calendar[0].date()} to {calendar[-1].date()})"
    for name, (first, last) in segments.items():
        inside = _inside(calendar, first, last)
        span = f"segments.{name} ({first} to {last}): holds {len(inside)} trading days of the vintage {known}"
        if len(inside) < MIN_SEGMENT_DAYS:
            raise ConfigError(f"{span}, fewer than {MIN_SEGMENT_DAYS}; choose other dates")
        if pd.Timestamp(last) > calendar[-1]:
            raise ConfigError(
                f"segments.{name}: ends {last}, after the vintage's last day {calendar[-1].date()}, and later labels "
                "are not known yet; end it there, or give no segments, so that they follow the newest day"
            )
        end = len(calendar) - 1 if name == "test" else inside[-1]
        labelled = int((inside + horizon + 1 <= end).sum())
        if labelled < MIN_LABELLED_DAYS:
            raise ConfigError(
                f"{span}, and the labels of horizon {horizon} reach {horizon + 1} days ahead, so that "
                f"{labelled} days have one, fewer than {MIN_LABELLED_DAYS}; lower horizon, or lengthen segments.{name}"
            )


def check_start(settings: Settings, spec: LearningSpec, config: TrainingConfig) -> None:
    """Check the request for a training before its process is started.

    Raises
    ------
    ConfigError
        As `check_dates`; a whole configuration's family is unknown, lacks a class path, or stores code that the
        settings do not let run; a hyper-parameter is not one that its entry in the zoo allows; the package of a class
        path is not installed; or a segment's universe has fewer than two instruments.
    StoreError
        The vintage is missing.
    """
    vintage = load_vintage(settings, spec.data_version)
    check_family(f"models.{config.model}", config.family, config.class_path)
    if config.family in ALWAYS_RUN_CODE:
        check_unpickling(settings.models, config.family, f"models.{config.model}.family")
    entry = read_zoo(settings).entries.get(config.model)
    if entry is not None and (entry.family, entry.class_path) == (config.family, config.class_path):
        entry.resolve(config.model, config.hyperparameters)
    package = (config.class_path or __name__).partition(":")[0].partition(".")[0]
    if importlib.util.find_spec(package) is None:
        raise ConfigError(
            f"models.{config.model}.class_path: {config.class_path}: no package {package!r}; install it, or put it on "
            "the path, for every process that trains or scores"
        )
    check_dates(spec.segments, spec.horizon, vintage.calendar())
    _check_universe(spec, vintage)


def _check_universe(spec: LearningSpec, vintage: Vintage) -> None:
    spells = vintage.members()
    for name, (first, last) in spec.segments.items():
        overlaps = (spells[FIRST_DATE] <= pd.Timestamp(last)) & (spells[LAST_DATE] >= pd.Timestamp(first))
        count = spells.loc[overlaps, INSTRUMENT].nunique()
        if count < MIN_INSTRUMENTS:
            raise ConfigError(
                f"data.universe: has {count} instruments in segments.{name} ({first} to {last}); a cross-section that "
                f"can be ranked has {MIN_INSTRUMENTS} or more; widen the universe, or choose other dates"
            )


def check_columns(config: TrainingConfig, health: ColumnHealth) -> None:
    """Check that a model can take the columns that it would learn from.

    Raises
    ------
    ConfigError
        It cannot take columns without a value, or infinite values, and its processors leave them as they are.
    """
    if config.feature_processors:
        return
    found = []
    if health.missing and config.family in NO_MISSING_COLUMN:
        found.append(f"columns without a value: {first_few(health.missing)}")
    if health.infinite and config.family in NO_INFINITE_VALUE:
        found.append(f"infinite values: {first_few(with_shares(health.infinite))}")
    if found:
        raise ConfigError(
            f"models.{config.model}.feature_processors: its family {config.family} cannot learn from "
            f"{', nor from '.join(found)}; set [robust_zscore_fill_zero], or leave these columns out of the feature set"
        )


def check_learning_data(settings: Settings, spec: LearningSpec, data: LearningData) -> None:
    """Check the labels that a training is about to learn from; see `check_labels`."""
    check_labels(data, spec.horizon, load_vintage(settings, spec.data_version).calendar())


def check_labels(data: LearningData, horizon: int, calendar: pd.DatetimeIndex) -> None:
    """Check that labels exist, belong to their own segment, and rank the instruments.

    A model learns to rank a day's instruments. It cannot do so where, on most days of a segment, a single instrument
    has a label, or all have the same one, as share classes of one company do. A constant label is the extreme case.

    Parameters
    ----------
    calendar
        Trading days, ascending; the label of day t is known at the close of t + 1 + `horizon`.

    Raises
    ------
    ConfigError
        A segment has no label, or one that is not known before the next segment begins or by the calendar's last day,
        or its labels cannot be ranked; names the segment's key.
    """
    names = sorted(data.segments, key=lambda name: data.segments[name])
    for name, following in zip(names, [*names[1:], None], strict=True):
        path = f"segments.{name} ({data.segments[name][0]} to {data.segments[name][1]})"
        label = data.label.iloc[data.rows(name)]
        label = label[np.isfinite(label.to_numpy())]
        if label.empty:
            raise ConfigError(f"{path}: no row has a label; choose dates on which the universe's members have bars")
        days = label.index.get_level_values(DATETIME)
        end = len(calendar) if following is None else calendar.searchsorted(pd.Timestamp(data.segments[following][0]))
        known = calendar.get_indexer(days) + horizon + 1
        if (known >= end).any():
            limit = "known" if following is None else f"before segments.{following} begins"
            raise ConfigError(
                f"{path}: {int((known >= end).sum())} labels, the last of {days[-1].date()}, need a close "
                f"{horizon + 1} trading days later, which is not {limit}: labels from the future; purge the segment's "
                "last days"
            )
        _check_ranked(path, label)


def _check_ranked(path: str, label: pd.Series) -> None:
    daily = label.groupby(level=DATETIME).agg(["size", "min", "max"])
    crowded = daily["size"] >= MIN_INSTRUMENTS
    if crowded.mean() < MIN_RANKED_SHARE:
        raise ConfigError(
            f"{path}: on {int((~crowded).sum())} of {len(daily)} days a single instrument has a label, and one class "
            "of instrument cannot be ranked; widen data.universe, or choose other dates"
        )
    constant = daily["min"] == daily["max"]
    if (crowded & ~constant).mean() < MIN_RANKED_SHARE:
        raise ConfigError(
            f"{path}: the label is constant on {int(constant.sum())} of {len(daily)} days: all instruments have the "
            "same one, so there is nothing to learn; look for frozen prices, or for copies of one instrument in "
            "data.universe"
        )


def _inside(calendar: pd.DatetimeIndex, first: Any, last: Any) -> Any:
    """Positions of a segment's trading days, ascending."""
    return np.flatnonzero((calendar >= pd.Timestamp(first)) & (calendar <= pd.Timestamp(last)))
