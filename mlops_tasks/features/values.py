"""The values of a feature set over a panel: expressions by their engine, indicators by theirs."""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from mlops_tasks.features.cross_section import resolve
from mlops_tasks.features.engine import Plan, evaluate, plan_computation
from mlops_tasks.features.indicators.state import compute_on_panel
from mlops_tasks.features.kernels import IntArray
from mlops_tasks.features.panel import Panel
from mlops_tasks.features.sets import FeatureSet


def compute_values(
    definition: FeatureSet, panel: Panel, positions: IntArray, threads: int | None = None
) -> NDArray[np.float32]:
    """Values of all columns of a feature set.

    Parameters
    ----------
    definition
        What to compute.
    panel
        Adjusted bars with `definition.fields`, from `definition.lookback_rows` calendar rows before the first wanted
        row on, or from each instrument's first bar where that is infinite. For a set with operators across the members
        of a day: the bars of all of them, with `member`.
    positions
        For each value of the panel its column in the result, or a negative number to leave it out; int64.
    threads
        Default: one per processor. Results do not depend on it.

    Returns
    -------
    float32 array (len(definition.names), largest position + 1), expressions first; NaN where a column has no value.
    Indicators have values only on rows with a bar, since they read no others.
    """
    parts = []
    if definition.nodes:
        if definition.is_cross_sectional:
            nodes, panel = resolve(definition.nodes, panel, threads)
            parts.append(evaluate(plan_computation(nodes), panel, positions, threads))
        else:
            parts.append(evaluate(_plan(definition), panel, positions, threads))
    if definition.indicators:
        parts.append(compute_on_panel(definition.indicators, panel, positions, threads))
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


@lru_cache(maxsize=16)
def _plan(definition: FeatureSet) -> Plan:
    return plan_computation(definition.nodes)
