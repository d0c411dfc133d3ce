"""Realised forward returns: labels of any horizon, as expressions of one plan.

A score of day t is known after that day's close, so the first close to trade at is that of t+1. The label of horizon h
is the return from there to the close of t+1+h, which is the day on which it is known. It needs no other instrument and
no statistics, and days are counted on the calendar of all instruments.
"""

from collections.abc import Iterable

import numpy as np
import pandas as pd

from mlops_tasks.columns import CLOSE, DATETIME, LABEL
from mlops_tasks.data.vintages import Vintage
from mlops_tasks.errors import ConfigError

TRADABLE_AFTER = 1
"""Trading days from a score's day to the first close to trade at."""


def label_expression(horizon: int) -> str:
    """Qlib's text of the label: the return from the close of day t+1 to that of day t+1+horizon."""
    if horizon < 1:
        raise ConfigError(f"training.horizon: {horizon} trading days; it must be 1 or more")
    return f"Ref($close, -{horizon + TRADABLE_AFTER})/Ref($close, -{TRADABLE_AFTER})-1"


def label_expressions(horizons: Iterable[int]) -> dict[str, str]:
    """Name (`label_<horizon>`) to expression, in the order of `horizons`."""
    return {f"{LABEL}_{horizon}": label_expression(horizon) for horizon in horizons}


def label_dates(calendar: pd.DatetimeIndex, horizon: int) -> pd.DataFrame:
    """When the label of each day of `calendar` (ascending) begins and when it is known.

    Returns
    -------
    Indexed by the calendar: `first_tradable`, the day at whose close the return begins, and `known`, the day at whose
    close it ends; NaT where that day is not in the calendar yet.
    """
    days = calendar.to_series()
    dates = {"first_tradable": days.shift(-TRADABLE_AFTER), "known": days.shift(-TRADABLE_AFTER - horizon)}
    return pd.DataFrame(dates, index=calendar)


def forward_returns(vintage: Vintage, horizons: Iterable[int]) -> pd.DataFrame:
    """close(t+1+h) / close(t+1) - 1 on adjusted closes for each horizon h, days counted on the vintage's calendar.

    Returns
    -------
    float32 columns `label_<h>`, returns (0.01 is one percent), indexed by (datetime, instrument) in that order: one row
    for each bar of the vintage. NaN where one of the two closes is missing: the instrument has no bar on that day, or
    the day is still to come.

    Raises
    ------
    ConfigError
        A horizon is below 1.
    """
    from mlops_tasks.features.engine import evaluate, plan_computation
    from mlops_tasks.features.expressions import parse
    from mlops_tasks.features.panel import build_panel

    plan = plan_computation({name: parse(text) for name, text in label_expressions(horizons).items()})
    bars = vintage.adjusted_bars(fields=(CLOSE,))
    panel = build_panel(bars, pd.DatetimeIndex(np.unique(bars[DATETIME])), [CLOSE])
    order = panel.bar_order()
    values = evaluate(plan, panel, panel.positions(order))
    return pd.DataFrame(values.T, index=panel.index(order), columns=list(plan.names))


def forward_return(vintage: Vintage, horizon: int) -> pd.Series:
    """The label of one horizon, as in `forward_returns`; float32 Series named `label`."""
    label: pd.Series = forward_returns(vintage, [horizon]).iloc[:, 0]
    return label.rename(LABEL)
