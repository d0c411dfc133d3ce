"""LightGBM's text of trees as arrays that the kernel sums: exactly LightGBM's scores, several times as fast."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mlops_tasks.modeling.model_zoo.forest_kernel import (
    MOST_COLUMNS,
    MOST_NODES,
    Forest,
    Nodes,
    add_trees,
    leaves_of,
    nodes_of,
)

_SUMMED = frozenset({"regression", "regression_l1", "huber", "fair", "quantile", "mape", "lambdarank", "rank_xendcg"})
"""Objectives whose score is the sum of the trees; others transform it."""
_CATEGORICAL, _DEFAULT_LEFT = 1, 2
"""Bits of `decision_type` (include/LightGBM/tree.h); the two above them say what counts as missing."""
_ZERO, _NAN = 1, 2
SHARED = 0.25

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int32]


def forest_of(text: str) -> Forest | None:
    """The trees of a LightGBM model's text; None where `plain_trees` finds none, or they are too large for a kernel."""
    found = plain_trees(text)
    if found is None:
        return None
    trees, columns = found
    largest = max(len(tree.feature) + len(tree.leaf_value) for tree in trees)
    return None if columns > MOST_COLUMNS or largest > MOST_NODES else _joined(trees, columns)


def plain_trees(text: str) -> "tuple[list[PlainTree], int] | None":
    """The trees of a LightGBM model's text and the number of columns; None where a score is not the sum of plain trees.

    That is the case for categorical splits, zeros that count as missing, linear leaves, several classes, means of
    trees, and objectives that transform the sum; and where there is no tree.
    """
    head, *parts = text.partition("\nend of trees")[0].split("\nTree=")
    fields = dict(_fields(head))
    if not _is_plain_sum(fields) or "average_output" in head.split("\n"):
        return None
    trees: list[PlainTree] = []
    for part in parts:
        tree = PlainTree.of(dict(_fields(part)))
        if tree is None:
            return None
        trees.append(tree)
    return (trees, int(fields["max_feature_idx"]) + 1) if trees else None


def sum_trees(forest: Forest, features: npt.NDArray[np.float32]) -> Floats:
    """Scores of rows, shape (n,); `features` has shape (n, columns of the model)."""
    scores = np.zeros(len(features))
    add_trees(forest, np.ascontiguousarray(features).view(np.uint32), scores)
    return scores


def _is_plain_sum(fields: Mapping[str, str]) -> bool:
    objective = fields.get("objective", "").split()
    return (
        fields.get("num_tree_per_iteration") == "1"
        and bool(objective)
        and objective[0] in _SUMMED
        and "sqrt" not in objective
    )


def _fields(text: str) -> Iterator[tuple[str, str]]:
    for line in text.split("\n"):
        name, sign, value = line.partition("=")
        if sign:
            yield name, value


@dataclass(frozen=True)
class PlainTree:
    """One tree, inner nodes and leaves each counted from 0; a child below 0 is a leaf, -1 the first one."""

    feature: Ints
    threshold: Floats
    left: Ints
    right: Ints
    missing_left: npt.NDArray[np.bool_]
    leaf_value: Floats
    leaf_count: Floats
    """Rows of the training in each leaf."""
    inner_count: Floats
    """Rows of the training that came to each inner node."""

    @classmethod
    def of(cls, fields: Mapping[str, str]) -> "PlainTree | None":
        """The tree; None where a split is more than a threshold, or a leaf is more than a number."""
        if fields["num_cat"] != "0" or fields.get("is_linear", "0") != "0":
            return None
        leaves, inner = _floats(fields["leaf_value"]), int(fields["num_leaves"]) - 1
        if not inner:
            none = np.empty(0, np.int32)
            return cls(none, np.empty(0), none, none, np.empty(0, np.bool_), leaves, np.ones(1), np.empty(0))
        decision, threshold = _ints(fields["decision_type"]), _floats(fields["threshold"])
        missing = decision >> 2
        if (decision & _CATEGORICAL).any() or (missing == _ZERO).any():
            return None
        # Where nothing counts as missing, LightGBM treats NaN as zero.
        missing_left = np.where(missing == _NAN, (decision & _DEFAULT_LEFT) != 0, threshold >= 0)
        left, right = _ints(fields["left_child"]), _ints(fields["right_child"])
        counts = (_floats(fields[f"{kind}_count"]) for kind in ("leaf", "internal"))
        return cls(_ints(fields["split_feature"]), threshold, left, right, missing_left, leaves, *counts)

    @property
    def shared_steps(self) -> int:
        """Levels that at least `SHARED` of the training's rows reach, so that few steps are wasted."""
        steps, nodes, rows = 0, np.zeros(min(1, len(self.feature)), np.int32), self.leaf_count.sum()
        walking = rows
        while walking >= SHARED * rows and len(nodes):
            children = np.concatenate([self.left[nodes], self.right[nodes]])
            walking -= self.leaf_count[~children[children < 0]].sum()
            steps, nodes = steps + 1, children[children >= 0]
        return steps


def _joined(trees: Sequence[PlainTree], columns: int) -> Forest:
    packed = [_packed(tree) for tree in trees]
    return Forest(
        columns,
        np.concatenate([node for node, _, _ in packed]),
        np.concatenate([value for _, value, _ in packed]),
        np.cumsum([0, *(len(node) for node, _, _ in packed)], dtype=np.int64),
        np.array([tree.shared_steps for tree in trees], np.int32),
        np.array([depth for _, _, depth in packed], np.int32),
    )


def _packed(tree: PlainTree) -> tuple[Nodes, Floats, int]:
    """Nodes and their values, level after level, so that the children of a node lie side by side; and the depth."""
    threshold = at_most(tree.threshold)
    nodes, values, place = [], [], 0
    level = np.array([0 if len(tree.feature) else -1])
    while len(level):
        split, below = level[level >= 0], place + len(level)
        node, value = leaves_of(np.arange(place, below)), np.zeros(len(level))
        left = below + 2 * np.arange(len(split))
        node[level >= 0] = nodes_of(tree.feature[split], threshold[split], tree.missing_left[split], left)
        value[level < 0] = tree.leaf_value[~level[level < 0]]  # LightGBM counts leaves from -1 downwards
        nodes.append(node)
        values.append(value)
        place, level = below, np.column_stack([tree.left[split], tree.right[split]]).reshape(-1)
    return np.concatenate(nodes), np.concatenate(values), len(nodes) - 1


def at_most(threshold: Floats) -> npt.NDArray[np.float32]:
    """The largest float32 that is not above each threshold, which divides float32 values as the threshold does."""
    with np.errstate(over="ignore"):
        near = threshold.astype(np.float32)
    below = np.nextafter(near, np.float32(-np.inf))
    return np.where(near > threshold, below, near).astype(np.float32)


def _floats(text: str) -> Floats:
    return np.array(text.split(), np.float64)


def _ints(text: str) -> Ints:
    return np.array(text.split(), np.int32)
