"""Shapley values of trees by quadrature.

A leaf's share of the game is v * prod_j (o_j inside, r_j outside the coalition) over the features of its path: o_j says
whether the row fulfils the path's conditions on feature j, r_j is the share of the training rows that do. Its
multilinear extension (Owen, "Multilinear extensions of games", Management Science 18, 1972) on the diagonal is
v * prod_j (t o_j + (1 - t) r_j), and the Shapley value of j is the integral over t in [0, 1] of its derivative by j.
That is a polynomial whose degree is below the number of a path's features, so that Gauss and Legendre's rule with half
as many points is exact (Wettenstein, Mitchell and Yu, "Quadrature-TreeSHAP", arXiv 2605.04497, 2026).

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


KIND, FEATURE, SLOT, MISSING_LEFT, IS_FIRST = range(5)
THRESHOLD, COVERED, LOW_LEAF, HIGH_LEAF, HELD = range(5)
"""Columns of `Steps`; from `HELD` on there are four."""
HELD_LOW, HELD_HIGH, HELD_MISSING, HELD_SHARE = range(4)


class Trees(NamedTuple):
    """Binary trees, node after node; a leaf has no children: -1.

    Attributes
    ----------
    columns
        Of the rows.
    feature, threshold, missing_left
        A row goes left where its value is at most the threshold, or NaN and `missing_left` is 1; shape (nodes,).
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
    """The way through all trees, node after node, as `write_contributions` goes it.

    Attributes
    ----------
    columns
        Of the rows.
    depth
        Inner nodes on the longest path, at least one.
    points
        Of the rule that is exact for every path, at least one.
    base
        Sum over the trees of their mean, each leaf weighted by the shares of cover on the way to it.
    place
        Shape (steps, 5), by `KIND` to `IS_FIRST`. A slot is twice the depth, plus one for a right child. The last says
        whether the feature is met for the first time on the path.
    number
        Shape (steps, 8), by `THRESHOLD` to `HELD`: where a row goes left, the share of cover that does, the values
        of those children that are leaves (else NaN); for a feature that was met before, what its conditions leave of
        it (`HELD_LOW` to `HELD_SHARE`): values above the first, NaN being no bound, up to the second, missing ones (1)
        or not (0), and their share of cover.
    """

    columns: int
    depth: int
    points: int
    base: float
    place: npt.NDArray[np.int32]
    number: npt.NDArray[np.float64]


class _Path(NamedTuple):
    """The nodes from a root down to the one that is looked at, by depth.

    Attributes
    ----------
    node, distinct
        Which, and how many features were met down to it; shape (depths,).
    state
        What is done of it: `NEW` to `DONE`; shape (depths,).
    weight
        Share of the root's cover; shape (depths,).
    above, below
        What is held of its feature (`HELD_LOW` to `HELD_SHARE`) before it, and on the side that is being visited; shape
        (depths, 4).
    """

    node: npt.NDArray[np.int32]
    distinct: npt.NDArray[np.int32]
    state: npt.NDArray[np.int32]
    weight: npt.NDArray[np.float64]
    above: npt.NDArray[np.float64]
    below: npt.NDArray[np.float64]


class _Block(NamedTuple):
    """What is known of some rows side by side; the last axis is the row.

    Attributes
    ----------
    values, added
        Features and contributions; shape (columns, rows).
    weight, value
        Of a node at a point of the rule; shape (slots * points, rows).
    share
        That goes left of a node at a point; shape (depth * points, rows).
    left, within
        1.0 where a row goes left, and where it fulfils the conditions on the feature above; shape (depth, rows).
    total
        A sum over the points.
    """

    values: npt.NDArray[np.float32]
    added: npt.NDArray[np.float64]
    weight: npt.NDArray[np.float64]
    value: npt.NDArray[np.float64]
    share: npt.NDArray[np.float64]
    left: npt.NDArray[np.float64]
    within: npt.NDArray[np.float64]
    total: npt.NDArray[np.float64]


NEW, LEFT_DONE, BOTH_DONE, DONE = 0, 1, 2, 3
"""States of a node of a path."""

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


@inner
def _meet(trees: Trees, path: _Path, depth: int) -> None:
    """Look up what the path holds of a node's feature, and count the features."""
    feature, above = trees.feature[path.node[depth]], path.above[depth]
    above[HELD_LOW], above[HELD_HIGH], above[HELD_MISSING], above[HELD_SHARE] = np.nan, np.inf, 1.0, 1.0
    met = 1
    for earlier in range(depth - 1, -1, -1):
        if trees.feature[path.node[earlier]] == feature:
            _copy(path.below[earlier], above)
            met = 0
            break
    path.distinct[depth] = met + (path.distinct[depth - 1] if depth else 0)


@inner
def _covered(trees: Trees, node: int) -> Any:
    """Share of a node's cover that goes left."""
    cover = trees.cover[trees.left[node]]
    return cover / (cover + trees.cover[trees.right[node]])


@inner
def _write_step(trees: Trees, path: _Path, depth: int, place: Any, number: Any) -> None:
    """Write the step of a node that is new or whose children are done, and what state it is in then."""
    node = path.node[depth]
    low, high = trees.left[node], trees.right[node]
    is_low_leaf, is_high_leaf = trees.left[low] < 0, trees.left[high] < 0
    is_first = path.distinct[depth] - (path.distinct[depth - 1] if depth else 0)
    kind = RETURN if path.state[depth] == BOTH_DONE else PAIR if is_low_leaf & is_high_leaf & is_first else DESCEND
    if kind != DESCEND:
        path.state[depth] = DONE
    side = 1 if depth and path.state[depth - 1] == BOTH_DONE else 0
    place[KIND], place[FEATURE], place[SLOT] = kind, trees.feature[node], 2 * depth + side
    place[MISSING_LEFT], place[IS_FIRST] = trees.missing_left[node], is_first
    number[THRESHOLD], number[COVERED] = trees.threshold[node], _covered(trees, node)
    number[LOW_LEAF] = trees.value[low] if is_low_leaf else np.nan
    number[HIGH_LEAF] = trees.value[high] if is_high_leaf else np.nan
    _copy(path.above[depth], number[HELD:])


@inner
def _next_child(trees: Trees, path: _Path, depth: int) -> Any:
    """Turn to a node's next child, the left one first, and put it on the path."""
    node, below = path.node[depth], path.below[depth]
    threshold, missing, part = trees.threshold[node], trees.missing_left[node], _covered(trees, node)
    _copy(path.above[depth], below)
    if path.state[depth] == NEW:
        path.state[depth], child = LEFT_DONE, trees.left[node]
        below[HELD_HIGH] = min(below[HELD_HIGH], threshold)
    else:
        path.state[depth], child = BOTH_DONE, trees.right[node]
        below[HELD_LOW] = threshold if np.isnan(below[HELD_LOW]) else max(below[HELD_LOW], threshold)
        part, missing = 1 - part, 1 - missing
    below[HELD_MISSING] *= missing
    below[HELD_SHARE] *= part
    path.node[depth + 1], path.state[depth + 1], path.weight[depth + 1] = child, NEW, path.weight[depth] * part
    return child


@kernel(_TREES)
def steps_of(trees: Trees) -> Steps:
    """Plan the way through the trees, depth first, with the constants of each step."""
    nodes, depths = len(trees.left), len(trees.left) // 2 + 2
    place: Any = np.zeros((2 * nodes, 5), np.int32)
    number: Any = np.zeros((2 * nodes, 8))
    path = _Path(
        np.zeros(depths, np.int32),
        np.zeros(depths, np.int32),
        np.zeros(depths, np.int32),
        np.ones(depths),
        np.zeros((depths, 4)),
        np.zeros((depths, 4)),
    )
    count, deepest, features, base = 0, 1, 1, 0.0
    for root in trees.root:
        if trees.left[root] < 0:
            base += trees.value[root]
            continue
        depth = 0
        path.node[0], path.state[0] = root, NEW
        while depth >= 0:
            if path.state[depth] == NEW:
                _meet(trees, path, depth)
                deepest, features = max(deepest, depth + 1), max(features, path.distinct[depth])
            if path.state[depth] != LEFT_DONE:
                _write_step(trees, path, depth, place[count], number[count])
                for leaf in range(LOW_LEAF, HIGH_LEAF + 1):
                    if place[count, KIND] != RETURN and not np.isnan(number[count, leaf]):
                        share = number[count, COVERED] if leaf == LOW_LEAF else 1 - number[count, COVERED]
                        base += path.weight[depth] * share * number[count, leaf]
                count += 1
            if path.state[depth] == DONE:
                depth -= 1
            elif trees.left[_next_child(trees, path, depth)] >= 0:
                depth += 1
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
def _is_within(values: Any, held: Any, within: Any) -> None:
    """1.0 where a row fulfils the conditions above on its feature, else 0.0."""
    low, high = np.float32(held[HELD_LOW]), np.float32(held[HELD_HIGH])
    if held[HELD_MISSING] > 0:
        for row in range(ROWS_AT_ONCE):
            within[row] = 0.0 if (values[row] <= low) | (values[row] > high) else 1.0
    else:
        for row in range(ROWS_AT_ONCE):
            within[row] = 0.0 if values[row] <= low else 1.0 if values[row] <= high else 0.0


@inner
def _pair(block: _Block, place: Any, number: Any, points: Any) -> None:
    """Both ways of a node above two leaves, whose feature is met for the first time."""
    count, slot, left, total = len(points), place[SLOT], block.left[place[SLOT] // 2], block.total
    high, difference, covered = number[HIGH_LEAF], number[LOW_LEAF] - number[HIGH_LEAF], number[COVERED]
    sums = block.added[place[FEATURE]]
    _fill(total, 0.0)
    for point in range(count):
        weight, value = block.weight[slot * count + point], block.value[slot * count + point]
        base, rise = high + difference * covered * (1 - points[point]), difference * points[point]
        for row in range(ROWS_AT_ONCE):
            value[row] = base + rise * left[row]
            total[row] += weight[row]
    for row in range(ROWS_AT_ONCE):
        sums[row] += (left[row] - covered) * difference * total[row]


@inner
def _descend(block: _Block, place: Any, number: Any, points: Any) -> None:
    """Divide a node's weight between its children; children that are leaves have their value at once."""
    count, slot, depth, covered = len(points), place[SLOT], place[SLOT] // 2, number[COVERED]
    left, within, held = block.left[depth], block.within[depth], number[HELD + HELD_SHARE]
    if not place[IS_FIRST]:
        _is_within(block.values[place[FEATURE]], number[HELD:], within)
    for point in range(count):
        t, share, weight = points[point], block.share[depth * count + point], block.weight[slot * count + point]
        if place[IS_FIRST]:
            base = covered * (1 - t)
            for row in range(ROWS_AT_ONCE):
                share[row] = base + t * left[row]
        else:  # rows that have left the conditions above follow the cover
            before = t + (1 - t) * held
            base, rise = (1 - t) * held * covered / before - covered, t / before
            for row in range(ROWS_AT_ONCE):
                share[row] = covered + within[row] * (base + rise * left[row])
        low, high = (2 * depth + 2) * count + point, (2 * depth + 3) * count + point
        low_weight, high_weight = block.weight[low], block.weight[high]
        for row in range(ROWS_AT_ONCE):
            part = weight[row] * share[row]
            low_weight[row] = part
            high_weight[row] = weight[row] - part
        if not np.isnan(number[LOW_LEAF]):
            _fill(block.value[low], number[LOW_LEAF])
        if not np.isnan(number[HIGH_LEAF]):
            _fill(block.value[high], number[HIGH_LEAF])


@inner
def _return(block: _Block, place: Any, number: Any, points: Any) -> None:
    """A node's value from its children's, and what it adds to its feature."""
    count, slot, depth, covered = len(points), place[SLOT], place[SLOT] // 2, number[COVERED]
    left, within, held, total = block.left[depth], block.within[depth], number[HELD + HELD_SHARE], block.total
    sums = block.added[place[FEATURE]]
    _fill(total, 0.0)
    for point in range(count):
        weight, share = block.weight[slot * count + point], block.share[depth * count + point]
        low, high = block.value[(2 * depth + 2) * count + point], block.value[(2 * depth + 3) * count + point]
        value = block.value[slot * count + point]
        if place[IS_FIRST]:  # the derivative of the share is the same at all points
            for row in range(ROWS_AT_ONCE):
                difference = low[row] - high[row]
                total[row] += weight[row] * difference
                value[row] = high[row] + share[row] * difference
        else:
            before = points[point] + (1 - points[point]) * held
            for row in range(ROWS_AT_ONCE):
                difference = low[row] - high[row]
                slope = within[row] * (left[row] - held * covered - (1 - held) * share[row]) / before
                total[row] += weight[row] * slope * difference
                value[row] = high[row] + share[row] * difference
    if place[IS_FIRST]:
        for row in range(ROWS_AT_ONCE):
            sums[row] += (left[row] - covered) * total[row]
    else:
        for row in range(ROWS_AT_ONCE):
            sums[row] += total[row]


@kernel(_STEPS, _F8, _F8, types.float32[:, ::1], _F8_2D)
def write_contributions(
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
    count, slots = len(points), 2 * steps.depth + 2
    block = _Block(
        np.zeros((steps.columns, ROWS_AT_ONCE), np.float32),
        np.zeros((steps.columns, ROWS_AT_ONCE)),
        np.zeros((slots * count, ROWS_AT_ONCE)),
        np.zeros((slots * count, ROWS_AT_ONCE)),
        np.zeros((steps.depth * count, ROWS_AT_ONCE)),
        np.zeros((steps.depth, ROWS_AT_ONCE)),
        np.zeros((steps.depth, ROWS_AT_ONCE)),
        np.zeros(ROWS_AT_ONCE),
    )
    for point in range(count):
        _fill(block.weight[point], weights[point])
    for begin in range(0, len(features), ROWS_AT_ONCE):
        rows = min(ROWS_AT_ONCE, len(features) - begin)
        for column in range(steps.columns):
            _fill(block.added[column], 0.0)
        for row in range(rows):
            for column in range(steps.columns):
                block.values[column, row] = features[begin + row, column]
        for step in range(len(steps.place)):
            place, number = steps.place[step], steps.number[step]
            if place[KIND] == RETURN:
                _return(block, place, number, points)
                continue
            left, threshold = block.left[place[SLOT] // 2], np.float32(number[THRESHOLD])
            _goes_left(block.values[place[FEATURE]], threshold, place[MISSING_LEFT], left)
            if place[KIND] == PAIR:
                _pair(block, place, number, points)
            else:
                _descend(block, place, number, points)
        for row in range(rows):
            for column in range(steps.columns):
                contributions[begin + row, column] = block.added[column, row]
