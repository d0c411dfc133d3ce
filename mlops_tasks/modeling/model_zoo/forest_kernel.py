"""Boosted trees as arrays, and the kernel that sums them."""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import types

from mlops_tasks.kernels import kernel, record

ROWS_AT_ONCE = 64
"""Rows that go down a tree side by side: the processor follows many at once, and guesses no branch."""


class Forest(NamedTuple):
    """Binary trees, node after node; a leaf is its own child, so that every row takes as many steps as a tree is deep.

    Attributes
    ----------
    feature, threshold
        Of a node, shape (nodes,): a row goes left where its value is at most the threshold.
    child
        Shape (2 * nodes,): of node i at 2 i the right child, at 2 i + 1 the left one.
    missing_left
        Whether NaN goes left.
    value
        Of a leaf.
    root, depth
        Of a tree, shape (trees,).
    """

    feature: npt.NDArray[np.int32]
    threshold: npt.NDArray[np.float32]
    child: npt.NDArray[np.int32]
    missing_left: npt.NDArray[np.bool_]
    value: npt.NDArray[np.float64]
    root: npt.NDArray[np.int32]
    depth: npt.NDArray[np.int32]


_I4, _F8 = types.int32[::1], types.float64[::1]
_FOREST = record(Forest, _I4, types.float32[::1], _I4, types.boolean[::1], _F8, _I4, _I4)

_READ_ONLY = types.Array(types.float32, 2, "C", readonly=True)


@kernel(_FOREST, types.float32[:, ::1], _F8, also=((_FOREST, _READ_ONLY, _F8),))
def add_trees(forest: Forest, features: npt.NDArray[np.float32], scores: npt.NDArray[np.float64]) -> None:
    """Add to each row's score the leaves that it falls into, tree after tree: LightGBM's order, and so its bits.

    Parameters
    ----------
    features
        Shape (n, columns).
    scores
        Shape (n,); changed in place.
    """
    node: Any = np.empty(ROWS_AT_ONCE, np.int32)
    for first in range(0, len(scores), ROWS_AT_ONCE):
        count = min(ROWS_AT_ONCE, len(scores) - first)
        for tree in range(len(forest.root)):
            node[:] = forest.root[tree]
            for _ in range(forest.depth[tree]):
                for row in range(count):
                    at = node[row]
                    value = features[first + row, forest.feature[at]]
                    left = (value <= forest.threshold[at]) | (np.isnan(value) & forest.missing_left[at])
                    node[row] = forest.child[2 * at + left]
            for row in range(count):
                scores[first + row] += forest.value[node[row]]
