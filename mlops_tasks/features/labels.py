"""Realised forward returns."""

import numpy as np
import pandas as pd

from mlops_tasks.columns import CLOSE, DATETIME, INSTRUMENT, LABEL
from mlops_tasks.data.vintages import Vintage
from mlops_tasks.errors import ConfigError


def label_expression(horizon: int) -> str:
    """Qlib's text of the label: the return from the close of day t+1 to that of day t+1+horizon."""
    if horizon < 1:
        raise ConfigError(f"training.horizon: {horizon} trading days; it must be 1 or more")
    return f"Ref($close, -{horizon + 1})/Ref($close, -1)-1"


def forward_return(vintage: Vintage, horizon: int) -> pd.Series:
    """close(t+1+horizon) / close(t+1) - 1 on adjusted closes, days counted on the vintage's calendar.

    Returns
    -------
    float32 Series named `label`, a return (0.01 is one percent), indexed by (datetime, instrument) in that order: one
    value for each bar of the vintage. NaN where one of the two closes is missing: the instrument has no bar on that
    day, or the day is not there yet.

    Raises
    ------
    ConfigError
        `horizon` is below 1.
    """
    from mlops_tasks.features.engine import evaluate, make_plan
    from mlops_tasks.features.expressions import parse
    from mlops_tasks.features.panel import build_panel

    plan = make_plan({LABEL: parse(label_expression(horizon))})
    bars = vintage.adjusted_bars()
    panel = build_panel(bars, pd.DatetimeIndex(np.unique(bars[DATETIME])), [CLOSE])
    order = panel.bar_order()
    index = pd.MultiIndex(
        levels=[panel.calendar, panel.instruments],
        codes=[panel.rows[order], panel.codes[order]],
        names=[DATETIME, INSTRUMENT],
        verify_integrity=False,
    )
    values = evaluate(plan, panel, panel.positions(order))
    return pd.Series(np.asarray(values[0]), index=index, name=LABEL)
