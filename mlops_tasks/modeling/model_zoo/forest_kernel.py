"""Boosted trees as arrays, and the kernel that adds up their leaves."""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import types

from mlops_tasks.kernels import inner, kernel, record

ROWS_AT_ONCE = 64
"""Rows that descend a tree together: the processor follows many at once, and has no branch to predict."""
_MAGNITUDE, _INFINITY = 0x7FFFFFFF, 0x7F800000
"""Mask of a float32's bits without the sign, and the bits of infinity, above which are those of NaN."""
_LOWEST, _HIGHEST = np.int32(-(2**31)), np.int32(2**31 - 1)


class Forest(NamedTuple):
    """Binary trees, one node after another; a leaf is its own child, so that a row can stay there while others go on.

    Attributes
    ----------
    columns
        Number of columns of the rows.
    node
        Shape (4 * nodes,). Of each node, side by side: column, threshold, right child, left child. A row goes left if
        the key of its value is at most the threshold, which is a key too (`keys_of`). A column number from `columns` on
        stands for the column that many before it, with NaN going left.
    value
        Of each leaf; shape (nodes,).
    root
        Root node of each tree; shape (trees,).
    shared_steps
        How many steps all rows take together in each tree, before those that have reached their leaf are left out;
        shape (trees,).
    """

    columns: int
    node: npt.NDArray[np.int32]
    value: npt.NDArray[np.float64]
    root: npt.NDArray[np.int32]
    shared_steps: npt.NDArray[np.int32]


_I4, _F8 = types.int32[::1], types.float64[::1]
_FOREST = record(Forest, types.int64, _I4, _F8, _I4, _I4)
_READ_ONLY = types.Array(types.int32, 2, "C", readonly=True)


def keys_of(values: npt.NDArray[np.float32]) -> npt.NDArray[np.int32]:
    """Integers that sort as the values do; both zeros have the same. There must be no NaN."""
    bits = (values + np.float32(0)).view(np.int32)  # the sum turns -0.0 into 0.0
    return np.asarray(bits ^ ((bits >> 31) & _MAGNITUDE), np.int32)


@inner
def _write_keys(bits: npt.NDArray[np.int32], first: int, keys: npt.NDArray[np.int32]) -> None:
    """Write keys of rows from `first` on; NaN sorts last in the first half of the columns, first in the second half."""
    columns = bits.shape[1]
    for row in range(min(len(keys), len(bits) - first)):
        for column in range(columns):
            found = bits[first + row, column]
            size = found & _MAGNITUDE
            key = found ^ ((found >> 31) & _MAGNITUDE) if size else np.int32(0)
            keys[row, column] = _HIGHEST if size > _INFINITY else key
            keys[row, columns + column] = _LOWEST if size > _INFINITY else key


@kernel(_FOREST, types.int32[:, ::1], _F8, also=((_FOREST, _READ_ONLY, _F8),))
def add_trees(forest: Forest, bits: npt.NDArray[np.int32], scores: npt.NDArray[np.float64]) -> None:
    """Add to each row's score the leaves that it falls into, tree by tree: in LightGBM's order, so with the same bits.

    Parameters
    ----------
    bits
        Bits of the rows' float32 values; shape (n, columns).
    scores
        Shape (n,); changed in place.
    """
    node = forest.node
    keys: Any = np.empty((ROWS_AT_ONCE, 2 * forest.columns), np.int32)
    place: Any = np.empty(ROWS_AT_ONCE, np.int32)
    walking: Any = np.empty(ROWS_AT_ONCE + 1, np.int32)
    for first in range(0, len(scores), ROWS_AT_ONCE):
        count = min(ROWS_AT_ONCE, len(scores) - first)
        _write_keys(bits, first, keys)
        for tree in range(len(forest.root)):
            place[:] = 4 * forest.root[tree]
            for _ in range(forest.shared_steps[tree]):
                for row in range(count):
                    at = place[row]
                    place[row] = 4 * node[at + 2 + (keys[row, node[at]] <= node[at + 1])]
            left = 0
            for row in range(count):
                walking[left] = row
                left += 4 * node[place[row] + 2] != place[row]
            while left:
                walked, left = left, 0
                for turn in range(walked):
                    row = walking[turn]
                    at = place[row]
                    place[row] = 4 * node[at + 2 + (keys[row, node[at]] <= node[at + 1])]
                    walking[left] = row
                    left += 4 * node[place[row] + 2] != place[row]
            for row in range(count):
                scores[first + row] += forest.value[place[row] // 4]
