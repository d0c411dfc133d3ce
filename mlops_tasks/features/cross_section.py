"""Operators across the members of a day: their rank and their z-score among those that have a value.

The engine runs over one instrument at a time. So what an operator across instruments reads is first computed for all of
them, its result takes the place of a bar field, and the rest is computed as usual. Nested operators are resolved one
layer after the other.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from mlops_tasks.errors import StoreError
from mlops_tasks.features.engine import evaluate, plan_computation
from mlops_tasks.features.expressions import CROSS_SECTIONAL, FIELD, Node, walk
from mlops_tasks.features.kernels import FloatArray, IntArray
from mlops_tasks.features.panel import Panel


def resolve(nodes: Mapping[str, Node], panel: Panel, threads: int | None = None) -> tuple[dict[str, Node], Panel]:
    """Expressions without operators across instruments, and the panel with the results of these as further fields.

    Parameters
    ----------
    panel
        All instruments that are members on any of its days, with `member`.

    Raises
    ------
    StoreError
        The panel does not say who is a member.
    """
    left = dict(nodes)
    while layer := _innermost(left):
        if panel.member is None:
            raise StoreError(f"{layer[0].op}: the panel does not say who is a member of the universe")
        everything = np.arange(int(panel.offsets[-1]))
        plan = plan_computation({str(number): node.children[0] for number, node in enumerate(layer)})
        values = evaluate(plan, panel, everything, threads)
        fields: dict[str, FloatArray] = {}
        names: dict[Node, Node] = {}
        for node, series in zip(layer, values, strict=True):
            name = f"{node.op} {len(panel.fields) + len(fields)}"
            fields[name] = across(node.op, series.astype(np.float64), panel)
            names[node] = Node(FIELD, (), (name,))
        left = {column: _with(node, names) for column, node in left.items()}
        panel = replace(panel, fields={**panel.fields, **fields})
    return left, panel


def across(op: str, values: FloatArray, panel: Panel) -> FloatArray:
    """An operator over the members of each day that have a bar and a finite value; NaN for all others.

    `CSRank`: the rank from 1/n to 1 of n members, for equal values the mean of their places (pandas' `rank(pct=True)`).
    `CSZscore`: the value less the mean of the day, divided by its standard deviation (n - 1); NaN where that is 0, or
    there is one member.
    """
    member = panel.member
    assert member is not None
    places = np.flatnonzero(member & panel.has_bar & np.isfinite(values))
    result = np.full(len(values), np.nan)
    if len(places):
        result[places] = _OPERATORS[op](values[places], panel.rows[places])
    # Rounded like all fields, so that it does not matter whether it is stored in between.
    return result.astype(np.float32).astype(np.float64)


def _rank(values: FloatArray, days: IntArray) -> FloatArray:
    order = np.lexsort((values, days))
    ordered, day = values[order], days[order]
    new_day = np.append(True, day[1:] != day[:-1])
    tied = np.cumsum(new_day | np.append(True, ordered[1:] != ordered[:-1])) - 1
    begins = np.flatnonzero(new_day)
    group = np.cumsum(new_day) - 1
    place = np.arange(len(order)) - begins[group] + 1.0
    first = np.flatnonzero(np.append(True, tied[1:] != tied[:-1]))
    last = np.append(first[1:], len(order)) - 1
    mean_place = (place[first] + place[last]) / 2
    counts = np.diff(begins, append=len(order))
    ranks = np.empty(len(order))
    ranks[order] = mean_place[tied] / counts[group]
    return ranks


def _zscore(values: FloatArray, days: IntArray) -> FloatArray:
    order = np.argsort(days, kind="stable")  # by instrument within a day, whatever else is in the panel
    ordered, day = values[order], days[order]
    begins = np.flatnonzero(np.append(True, day[1:] != day[:-1]))
    counts = np.diff(begins, append=len(order))
    scores = np.empty(len(order))
    for begin, count in zip(begins.tolist(), counts.tolist(), strict=True):
        some = ordered[begin : begin + count]
        spread = some.std(ddof=1) if count > 1 else 0.0
        scores[order[begin : begin + count]] = (some - some.mean()) / spread if spread > 0 else np.nan
    return scores


_OPERATORS = {"CSRank": _rank, "CSZscore": _zscore}


def _innermost(nodes: Mapping[str, Node]) -> list[Node]:
    """The distinct operators across instruments that contain no other one."""
    found = dict.fromkeys(part for node in nodes.values() for part in walk(node) if part.op in CROSS_SECTIONAL)
    return [node for node in found if not any(part.op in CROSS_SECTIONAL for part in walk(node.children[0]))]


def _with(node: Node, names: Mapping[Node, Node]) -> Node:
    """A tree with some nodes replaced."""
    if node in names:
        return names[node]
    args = tuple(_with(arg, names) if isinstance(arg, Node) else arg for arg in node.args)
    return Node(node.op, args, node.params, node.column)
