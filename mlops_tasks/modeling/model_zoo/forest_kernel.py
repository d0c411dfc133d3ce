"""Boosted trees as arrays, and the kernel that sums them."""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import types

from mlops_tasks.kernels import inner, kernel, record

ROWS_AT_ONCE = 32
"""Rows that see a tree before the next one is fetched: as many as leave their keys in the processor's first cache."""
MOST_COLUMNS, MOST_NODES = 2**15, 2**16
"""Of the rows and of one tree; a node has no more bits for them."""
_SIDE_BY_SIDE = 8
"""Rows that go down a tree together: the processor follows all of them at once, and guesses no branch."""
_MAGNITUDE, _INFINITY = np.uint32(0x7FFFFFFF), np.uint32(0x7F800000)
"""Bits of a float32 without its sign, and those of infinity: NaN has larger ones."""
_SIGN, _NAN = np.uint32(0x80000000), np.uint32(0xFFFFFFFF)
"""The bit of the sign, which is the key of zero, too; the key of NaN, above those of all numbers."""
_THRESHOLD_AT, _COLUMN_AT, _MISSING_AT = np.uint64(32), np.uint64(17), np.uint64(16)
"""Where in a node the fields begin; below them is the left child."""
_COLUMN, _CHILD, _ONE = np.uint64(MOST_COLUMNS - 1), np.uint64(MOST_NODES - 1), np.uint64(1)

Nodes = npt.NDArray[np.uint64]


class Forest(NamedTuple):
    """Binary trees, node after node; a leaf is its own child, so that a row may stay there while others walk on.

    Attributes
    ----------
    columns
        Of the rows.
    node
        All that a step needs, as `nodes_of` and `leaves_of` pack it; shape (nodes,).
    value
        Of a leaf; shape (nodes,).
    root
        Of a tree, and the end of the last one; shape (trees + 1,).
    shared_steps
        Of a tree: how many steps its rows take before it is asked whether they have reached their leaves.
    depth
        Of a tree: the steps to its farthest leaf.
    """

    columns: int
    node: Nodes
    value: npt.NDArray[np.float64]
    root: npt.NDArray[np.int64]
    shared_steps: npt.NDArray[np.int32]
    depth: npt.NDArray[np.int32]

    @property
    def trees(self) -> int:
        """How many there are."""
        return len(self.root) - 1


_F8, _I4 = types.float64[::1], types.int32[::1]
_FOREST = record(Forest, types.int64, types.uint64[::1], _F8, types.int64[::1], _I4, _I4)
_READ_ONLY = types.Array(types.uint32, 2, "C", readonly=True)


def keys_of(values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint32]:
    """Integers in the order of the values, which are numbers; of both zeros the same."""
    bits = (values + np.float32(0)).view(np.uint32)  # there is no -0.0 in this sum
    return np.where(bits & _SIGN, ~bits, bits | _SIGN)


def nodes_of(
    column: npt.NDArray[np.int32],
    threshold: npt.NDArray[np.float32],
    missing_left: npt.NDArray[np.bool_],
    left: npt.NDArray[np.int64],
) -> Nodes:
    """Inner nodes: a row goes to the left child where its value is at most the threshold, else to the node after that.

    NaN has the largest key. Where it goes left, keys and threshold are one larger, which makes of its key the smallest.

    Parameters
    ----------
    left
        Places of the left children in their tree.
    """
    missing = missing_left.astype(np.uint64)
    packed = (keys_of(threshold) + missing) << _THRESHOLD_AT
    return packed | column.astype(np.uint64) << _COLUMN_AT | missing << _MISSING_AT | left.astype(np.uint64)


def leaves_of(place: npt.NDArray[np.int64]) -> Nodes:
    """Leaves at these places of their tree: no key is above theirs, and their left child is the leaf itself."""
    return np.uint64(_NAN) << _THRESHOLD_AT | place.astype(np.uint64)


@inner
def _write_keys(bits: npt.NDArray[np.uint32], first: int, keys: npt.NDArray[np.uint32]) -> None:
    """Keys of the rows from `first` on, row after row, and of no value where there are no more."""
    columns = bits.shape[1]
    rows = min(len(keys) // columns, len(bits) - first)
    for row in range(rows):
        for column in range(columns):
            found = bits[first + row, column]
            size = found & _MAGNITUDE
            key = ~found if found & _SIGN else found | _SIGN
            keys[row * columns + column] = _NAN if size > _INFINITY else key if size else _SIGN
    keys[rows * columns :] = 0


@inner
def _next(tree: Nodes, keys: npt.NDArray[np.uint32], row: Any, place: Any) -> Any:
    """Where a row goes from a place; its keys begin at `row`. All is unsigned: no index counts from the end."""
    node = tree[place]
    key = np.uint32(keys[row + (node >> _COLUMN_AT & _COLUMN)] + (node >> _MISSING_AT & _ONE))
    return (node & _CHILD) + np.uint64(key > np.uint32(node >> _THRESHOLD_AT))


@inner
def _leaves(tree: Nodes, keys: npt.NDArray[np.uint32], columns: Any, steps: int, depth: int) -> Any:
    """Where the eight rows of these keys end."""
    r0, r1 = np.uint64(0), columns
    r2, r3 = r1 + columns, r1 + columns + columns
    r4, r5, r6, r7 = r3 + r1, r3 + r2, r3 + r3, r3 + r3 + r1
    p0 = p1 = p2 = p3 = p4 = p5 = p6 = p7 = np.uint64(0)
    taken, walking = 0, True
    while walking:
        b0, b1, b2, b3, b4, b5, b6, b7 = p0, p1, p2, p3, p4, p5, p6, p7
        p0, p1 = _next(tree, keys, r0, p0), _next(tree, keys, r1, p1)
        p2, p3 = _next(tree, keys, r2, p2), _next(tree, keys, r3, p3)
        p4, p5 = _next(tree, keys, r4, p4), _next(tree, keys, r5, p5)
        p6, p7 = _next(tree, keys, r6, p6), _next(tree, keys, r7, p7)
        taken += 1
        walking = taken < depth
        if walking and taken >= steps:
            walking = (b0 ^ p0 | b1 ^ p1 | b2 ^ p2 | b3 ^ p3 | b4 ^ p4 | b5 ^ p5 | b6 ^ p6 | b7 ^ p7) != 0
    return p0, p1, p2, p3, p4, p5, p6, p7


@kernel(_FOREST, types.uint32[:, ::1], _F8, also=((_FOREST, _READ_ONLY, _F8),))
def add_trees(forest: Forest, bits: npt.NDArray[np.uint32], scores: npt.NDArray[np.float64]) -> None:
    """Add to each row's score the leaves that it falls into, tree after tree: LightGBM's order, and so its bits.

    Parameters
    ----------
    bits
        Of the rows' float32 values; shape (n, columns).
    scores
        Shape (n,); changed in place.
    """
    columns = forest.columns
    keys: Any = np.empty(ROWS_AT_ONCE * columns, np.uint32)
    for first in range(0, len(scores), ROWS_AT_ONCE):
        count = min(ROWS_AT_ONCE, len(scores) - first)
        _write_keys(bits, first, keys)
        for number in range(len(forest.root) - 1):
            begin, end = forest.root[number], forest.root[number + 1]
            tree, value = forest.node[begin:end], forest.value[begin:end]
            steps, depth = forest.shared_steps[number], forest.depth[number]
            for row in range(0, count, _SIDE_BY_SIDE):
                places = _leaves(tree, keys[row * columns :], np.uint64(columns), steps, depth)
                for turn, place in enumerate(places):
                    if row + turn < count:
                        scores[first + row + turn] += value[place]
