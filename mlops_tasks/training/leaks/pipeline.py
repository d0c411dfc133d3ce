"""The steps from bars to what a model sees, part by part, so that each can be run again on less data."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import pandas as pd

from mlops_tasks.columns import DATETIME
from mlops_tasks.config import Settings
from mlops_tasks.data.vintages import BoolArray, Vintage
from mlops_tasks.features.labels import forward_return
from mlops_tasks.features.sets import FeatureSet
from mlops_tasks.features.store import FeatureStore
from mlops_tasks.modeling.dataset import LearningData, fit_processors, learned_labels, learning_data
from mlops_tasks.modeling.learning_spec import LearningSpec
from mlops_tasks.modeling.processors import FittedProcessors

FeatureReader: TypeAlias = Callable[[pd.Timestamp, pd.Timestamp], pd.DataFrame]
"""Features of all rows from a first to a last day: index (datetime, instrument), sorted."""


@dataclass(frozen=True)
class Pipeline:
    """The parts of a pipeline; none may know more than the data that it is given holds.

    Attributes
    ----------
    stored
        The features that models will learn from.
    features
        The features of a vintage, computed from its bars.
    universe
        Whether each row is a member of a vintage's universe.
    label
        The label of each row of a vintage, NaN while it is not known.
    learning_data
        Features of members and the labels that may be learned from, given the spec and the trading days.
    fit
        The named feature processors, fitted.
    learned
        The labels as a model learns them, after the named label processor: the rows that it learns from, one column.
    seen
        The inputs from which a model predicts the rows at some positions of the learning data.
    """

    stored: FeatureReader
    features: Callable[[Vintage], FeatureReader]
    universe: Callable[[Vintage, pd.MultiIndex], BoolArray]
    label: Callable[[Vintage], pd.Series]
    learning_data: Callable[[pd.DataFrame, pd.Series, LearningSpec, pd.DatetimeIndex], LearningData]
    fit: Callable[[LearningData, Sequence[str]], FittedProcessors]
    learned: Callable[[LearningData, str], pd.DataFrame]
    seen: Callable[[LearningData, FittedProcessors, slice], pd.DataFrame]


def production(settings: Settings, spec: LearningSpec, definition: FeatureSet) -> Pipeline:
    """The pipeline of the daily chain, made of the functions that it trains and scores with."""
    store = FeatureStore(settings)
    return Pipeline(
        stored=lambda first, last: store.load(spec.feature_version, start=first, end=last),
        features=lambda vintage: compute_features(definition, vintage),
        universe=lambda vintage, index: vintage.membership_mask(index),
        label=lambda vintage: forward_return(vintage, spec.horizon),
        learning_data=learning_data,
        fit=fit_processors,
        learned=learned_labels,
        seen=seen_features,
    )


def compute_features(definition: FeatureSet, vintage: Vintage) -> FeatureReader:
    """A feature set over one panel of all bars of a vintage, without the store."""
    from mlops_tasks.features.panel import build_panel
    from mlops_tasks.features.values import compute_values

    bars = vintage.adjusted_bars(fields=definition.fields)
    panel = build_panel(bars, pd.DatetimeIndex(np.unique(bars[DATETIME])), definition.fields)
    if definition.is_cross_sectional:
        everything = panel.index(np.arange(int(panel.offsets[-1])))
        panel = replace(panel, member=vintage.membership_mask(everything))
    by_day = panel.bar_order()
    rows = panel.rows[by_day]

    def read(first: pd.Timestamp, last: pd.Timestamp) -> pd.DataFrame:
        begin, end = panel.calendar.searchsorted(first), panel.calendar.searchsorted(last, "right")
        order = by_day[np.searchsorted(rows, begin) : np.searchsorted(rows, end)]
        values = compute_values(definition, panel, panel.positions(order))
        return pd.DataFrame(values.T, index=panel.index(order), columns=list(definition.names), copy=False)

    return read


def seen_features(data: LearningData, processors: FittedProcessors, rows: slice) -> pd.DataFrame:
    """The processed features of some rows."""
    features = data.features.iloc[rows]
    return pd.DataFrame(
        processors.transform(features.to_numpy()), index=features.index, columns=features.columns, copy=False
    )
