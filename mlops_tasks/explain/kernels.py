"""Shapley values of trees by quadrature.

A leaf's share of the game is v * prod_j (o_j inside, r_j outside the coalition) over the features of its path: o_j says
whether the row fulfils the path's conditions on feature j, r_j is the share of the training rows that do. Its
multilinear extension (Owen, "Multilinear extensions of games", Management Science 18, 1972) on the diagonal is
v * prod_j (t o_j + (1 - t) r_j), and the Shapley value of j is the integral over t in [0, 1] of its derivative by j. That
is a polynomial whose degree is below the number of a path's features, so that Gauss and Legendre's rule with half as
many points is exact (Wettenstein, Mitchell and Yu, "Quadrature-TreeSHAP", arXiv 2605.04497, 2026).

At a point t, a row takes a share s of each node's weight to the left and 1 - s to the right, and a node's value is
g = s g(left) + (1 - s) g(right). With the weight a of a node, the product of the shares on the way to it, the node adds
a c (g(left) - g(right)) to its feature, where c is the derivative of s. So each node takes a few operations, without a
branch, for many rows side by side: on the way down weights, on the way up values.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import types

from mlops_tasks.kernels import inner, kernel, record

ROWS_AT_ONCE = 64
"""Rows side by side: what is kept of a path for them stays in the processor's first cache."""

DESCEND, PAIR, RETURN = 0, 1, 2
"""Kinds of steps: down to the children, both ways of a node above two leaves, and up from the children."""


class Trees(NamedTuple):
    """Binary trees, node after node; a leaf has no children: -1.

    Attributes
    ----------
    columns
        Of the rows.
    feature, threshold, missing_left
        A row goes left where its value is at most the threshold, and with NaN where `missing_left` is 1; shape (nodes,).
    left, right
        Children; shape (nodes,).
    cover
        How many rows of the training, or how much weight, came to a node; positive, shape (nodes,).
    value
        Of a leaf; shape (nodes,).
    root
        Of a tree; shape (trees,).
    """

    columns: int
    feature: npt.NDArray[np.int32]
    threshold: npt.NDArray[np.float32]
    missing_left: npt.NDArray[np.int32]
    left: npt.NDArray[np.int32]
    right: npt.NDArray[np.int32]
    cover: npt.NDArray[np.float64]
    value: npt.NDArray[np.float64]
    root: npt.NDArray[np.int32]


class Steps(NamedTuple):
    """The way through all trees, node after node, as `add_contributions` goes it.

    Attributes
    ----------
    columns
        Of the rows.
    depth
        Levels of the deepest tree, at least one.
    points
        Of the rule that is exact for every path, at least one.
    base
        Sum over the trees of their mean, each leaf weighted by the shares of cover on the way to it.
    place
        Shape (steps, 5): kind, feature, slot, whether NaN goes left, and whether the feature is met for the first time
        on the path. A slot is twice the depth, plus one for a right child.
    number
        Shape (steps, 8): threshold, share of cover that goes left, values of the left and the right child where they are
        leaves (else NaN), and for a feature that was met before the bounds (low, high] that its conditions leave,
        whether NaN fulfils them, and their share of cover.
    """

    columns: int
    depth: int
    points: int
    base: float
    place: npt.NDArray[np.int32]
    number: npt.NDArray[np.float64]


_I4, _F4, _F8, _F8_2D = types.int32[::1], types.float32[::1], types.float64[::1], types.float64[:, ::1]
_TREES = record(Trees, types.int64, _I4, _F4, _I4, _I4, _I4, _F8, _F8, _I4)
_STEPS = record(Steps, types.int64, types.int64, types.int64, types.float64, types.int32[:, ::1], _F8_2D)


@inner
def _fill(row: Any, number: float) -> None:
    for place in range(len(row)):
        row[place] = number


@inner
def _copy(source: Any, target: Any) -> None:
    for place in range(len(source)):
        target[place] = source[place]


@kernel(_TREES)
def steps_of(trees: Trees) -> Steps:
    """Plan the way through the trees, depth first, with the constants of each step."""
    left, right, feature = trees.left, trees.right, trees.feature
    nodes = len(left)
    place: Any = np.zeros((2 * nodes, 5), np.int32)
    number: Any = np.zeros((2 * nodes, 8))
    levels = nodes // 2 + 2
    # By depth: the node, how far its children are done, the weight of its path and the path's distinct features; then
    # the conditions on its feature above it, and below it on the side that is under way.
    at, done, distinct = np.zeros(levels, np.int32), np.zeros(levels, np.int32), np.zeros(levels, np.int32)
    weight: Any = np.ones(levels)
    above, below = np.zeros((levels, 4)), np.zeros((levels, 4))
    count, deepest, features, base = 0, 1, 1, 0.0
    for root in trees.root:
        if left[root] < 0:
            base += trees.value[root]
            continue
        depth, side = 0, 0
        at[0], done[0], weight[0] = root, 0, 1.0
        while depth >= 0:
            node = at[depth]
            is_low_leaf, is_high_leaf = left[left[node]] < 0, left[right[node]] < 0
            cover = trees.cover[left[node]]
            share = cover / (cover + trees.cover[right[node]])
            side = 0 if depth == 0 or done[depth - 1] == 1 else 1
            if done[depth] == 0:
                first = 1
                above[depth, 0], above[depth, 1], above[depth, 2], above[depth, 3] = -np.inf, np.inf, 1.0, 1.0
                for earlier in range(depth - 1, -1, -1):
                    if feature[at[earlier]] == feature[node]:
                        _copy(below[earlier], above[depth])
                        first = 0
                        break
                distinct[depth] = first + (distinct[depth - 1] if depth else 0)
                deepest, features = max(deepest, depth + 1), max(features, distinct[depth])
                if is_low_leaf:
                    base += weight[depth] * share * trees.value[left[node]]
                if is_high_leaf:
                    base += weight[depth] * (1 - share) * trees.value[right[node]]
                is_pair = is_low_leaf and is_high_leaf and first == 1
            if done[depth] == 0 or done[depth] == 2:
                place[count, 0] = RETURN if done[depth] == 2 else PAIR if is_pair else DESCEND
                place[count, 1], place[count, 2] = feature[node], 2 * depth + side
                place[count, 3], place[count, 4] = trees.missing_left[node], distinct[depth]
                if depth:
                    place[count, 4] -= distinct[depth - 1]
                number[count, 0], number[count, 1] = trees.threshold[node], share
                number[count, 2] = trees.value[left[node]] if is_low_leaf else np.nan
                number[count, 3] = trees.value[right[node]] if is_high_leaf else np.nan
                _copy(above[depth], number[count, 4:])
                if place[count, 0] != DESCEND:
                    done[depth] = 3
                count += 1
            if done[depth] == 3:
                depth -= 1
                continue
            # To the left first, then to the right.
            threshold, missing = trees.threshold[node], trees.missing_left[node]
            _copy(above[depth], below[depth])
            if done[depth] == 0:
                child, part = left[node], share
                below[depth, 1] = min(above[depth, 1], threshold)
            else:
                child, part, missing = right[node], 1 - share, 1 - missing
                below[depth, 0] = max(above[depth, 0], threshold)
            below[depth, 2] *= missing
            below[depth, 3] *= part
            done[depth] += 1
            if left[child] >= 0:
                depth += 1
                at[depth], done[depth], weight[depth] = child, 0, weight[depth - 1] * part
    return Steps(trees.columns, deepest, (features + 1) // 2, base, place[:count].copy(), number[:count].copy())


@inner
def _goes_left(values: Any, threshold: Any, missing_left: int, left: Any) -> None:
    """1.0 where a row goes left, else 0.0."""
    if missing_left:
        for row in range(ROWS_AT_ONCE):
            left[row] = 0.0 if values[row] > threshold else 1.0
    else:
        for row in range(ROWS_AT_ONCE):
            left[row] = 1.0 if values[row] <= threshold else 0.0


@inner
def _within(values: Any, low: Any, high: Any, missing: float, within: Any) -> None:
    """1.0 where a row fulfils the conditions above on its feature, else 0.0."""
    if missing > 0:
        for row in range(ROWS_AT_ONCE):
            within[row] = 0.0 if (values[row] <= low) | (values[row] > high) else 1.0
    else:
        for row in range(ROWS_AT_ONCE):
            within[row] = 1.0 if (values[row] > low) & (values[row] <= high) else 0.0


@inner
def _share_first(base: float, rise: float, left: Any, share: Any) -> None:
    for row in range(ROWS_AT_ONCE):
        share[row] = base + rise * left[row]


@inner
def _share_again(outside: float, base: float, rise: float, left: Any, within: Any, share: Any) -> None:  # noqa: PLR0913
    """The share of a feature that was met before; rows that have left its conditions follow the cover."""
    for row in range(ROWS_AT_ONCE):
        share[row] = outside + within[row] * (base - outside + rise * left[row])


@inner
def _split(weight: Any, share: Any, low: Any, high: Any) -> None:
    for row in range(ROWS_AT_ONCE):
        part = weight[row] * share[row]
        low[row] = part
        high[row] = weight[row] - part


@kernel(_STEPS, _F8, _F8, types.float32[:, ::1], _F8_2D)
def add_contributions(  # noqa: PLR0912, PLR0915
    steps: Steps,
    points: npt.NDArray[np.float64],
    weights: npt.NDArray[np.float64],
    features: npt.NDArray[np.float32],
    contributions: npt.NDArray[np.float64],
) -> None:
    """Write the Shapley values of rows.

    Parameters
    ----------
    points, weights
        Of the Gauss-Legendre rule on [0, 1]; shape (steps.points,).
    features, contributions
        Shape (n, columns).
    """
    count, slots = steps.points, 2 * steps.depth + 2
    values: Any = np.zeros((steps.columns, ROWS_AT_ONCE), np.float32)
    added: Any = np.zeros((steps.columns, ROWS_AT_ONCE))
    # By slot and point: weight of a node and its value; by depth and point: the share that goes left.
    weight: Any = np.zeros((slots * count, ROWS_AT_ONCE))
    value: Any = np.zeros((slots * count, ROWS_AT_ONCE))
    share: Any = np.zeros((steps.depth * count, ROWS_AT_ONCE))
    lefts: Any = np.zeros((steps.depth, ROWS_AT_ONCE))
    withins: Any = np.zeros((steps.depth, ROWS_AT_ONCE))
    total: Any = np.zeros(ROWS_AT_ONCE)
    for point in range(count):
        _fill(weight[point], weights[point])
    for begin in range(0, len(features), ROWS_AT_ONCE):
        rows = min(ROWS_AT_ONCE, len(features) - begin)
        for row in range(rows):
            for column in range(steps.columns):
                values[column, row] = features[begin + row, column]
        for column in range(steps.columns):
            _fill(added[column], 0.0)
        for step in range(len(steps.place)):
            place, number = steps.place[step], steps.number[step]
            kind, slot, is_first = place[0], place[2], place[4]
            depth = slot // 2
            child = 2 * depth + 2
            given, sums = values[place[1]], added[place[1]]
            covered = number[1]
            left, within = lefts[depth], withins[depth]
            if kind != RETURN:
                _goes_left(given, np.float32(number[0]), place[3], left)
            if kind == PAIR:
                difference, high = number[2] - number[3], number[3]
                _fill(total, 0.0)
                for point in range(count):
                    parent, found = weight[slot * count + point], value[slot * count + point]
                    base = high + difference * covered * (1 - points[point])
                    rise = difference * points[point]
                    for row in range(ROWS_AT_ONCE):
                        found[row] = base + rise * left[row]
                        total[row] += parent[row]
                for row in range(ROWS_AT_ONCE):
                    sums[row] += (left[row] - covered) * difference * total[row]
            elif kind == DESCEND:
                if not is_first:
                    _within(given, np.float32(number[4]), np.float32(number[5]), number[6], within)
                for point in range(count):
                    t, part = points[point], share[depth * count + point]
                    if is_first:
                        _share_first(covered * (1 - t), t, left, part)
                    else:
                        before = t + (1 - t) * number[7]
                        _share_again(covered, (1 - t) * number[7] * covered / before, t / before, left, within, part)
                    low, after = child * count + point, (child + 1) * count + point
                    _split(weight[slot * count + point], part, weight[low], weight[after])
                    if not np.isnan(number[2]):
                        _fill(value[low], number[2])
                    if not np.isnan(number[3]):
                        _fill(value[after], number[3])
            else:
                _fill(total, 0.0)
                for point in range(count):
                    parent, part = weight[slot * count + point], share[depth * count + point]
                    low_value, high_value = value[child * count + point], value[(child + 1) * count + point]
                    found = value[slot * count + point]
                    if is_first:
                        for row in range(ROWS_AT_ONCE):
                            difference = low_value[row] - high_value[row]
                            total[row] += parent[row] * difference
                            found[row] = high_value[row] + part[row] * difference
                    else:
                        t, held = points[point], number[7]
                        before = t + (1 - t) * held
                        for row in range(ROWS_AT_ONCE):
                            difference = low_value[row] - high_value[row]
                            slope = within[row] * (left[row] - held * covered - (1 - held) * part[row]) / before
                            total[row] += parent[row] * slope * difference
                            found[row] = high_value[row] + part[row] * difference
                if is_first:
                    for row in range(ROWS_AT_ONCE):
                        sums[row] += (left[row] - covered) * total[row]
                else:
                    for row in range(ROWS_AT_ONCE):
                        sums[row] += total[row]
        for row in range(rows):
            for column in range(steps.columns):
                contributions[begin + row, column] = added[column, row]
