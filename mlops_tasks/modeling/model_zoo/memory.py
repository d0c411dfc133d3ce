"""Memory of a training by family, for processes that must not import families: some import heavy libraries.

A family's `memory_bytes` is the formula here; a family without one counts as three copies of its learning rows.
"""

from collections.abc import Callable, Mapping
from typing import Any

Formula = Callable[[Mapping[str, Any], int, int], int]
"""Takes hyper-parameters, learning rows (of train and valid) and features; peak bytes beyond the processed matrix."""

_COPY = 4
"""Bytes of a float32 value."""
_BINS = 256
"""Bins of a feature's values, in both libraries."""
_BINNING_SAMPLE = 200_000
"""Rows that LightGBM looks at to choose its bins."""


def lightgbm_bytes(hyperparameters: Mapping[str, Any], rows: int, features: int) -> int:
    """The copy of the learning rows, their bins, gradients and scores; the sample that bins are chosen from, in float64
    with its positions; a histogram per leaf; the trees and their text."""
    given = {"num_leaves": 31, "max_depth": -1, "num_boost_round": 100, **hyperparameters}
    depth = given["max_depth"]
    leaves = min(given["num_leaves"], 2**depth) if depth > 0 else given["num_leaves"]
    sample = 12 * features * min(rows, _BINNING_SAMPLE)
    trees = 400 * leaves * given["num_boost_round"]
    return int(rows * (features * 6 + 64) + sample + 20 * leaves * _BINS * features + trees)


def xgboost_bytes(hyperparameters: Mapping[str, Any], rows: int, features: int) -> int:
    """The bins of the learning rows, six bytes each where a value is missing, gradients and scores; histograms of the
    leaves that rows can fill."""
    given = {"max_depth": 6, "max_bin": _BINS, "min_child_weight": 1.0, "num_boost_round": 100, **hyperparameters}
    leaves = min(2 ** given["max_depth"], rows / max(given["min_child_weight"], 1.0))
    trees = 400 * leaves * given["num_boost_round"]
    return int(rows * (features * 6 + 64) + 29 * leaves * given["max_bin"] * features + trees)


def linear_bytes(hyperparameters: Mapping[str, Any], rows: int, features: int) -> int:
    """The positions of the learning rows, a few thousand rows in float64, and the sums of products of two columns."""
    return rows * 40 + 8 * (features + 1) * (4 * 4096 + 8 * (features + 1))


def three_copies(hyperparameters: Mapping[str, Any], rows: int, features: int) -> int:
    """The copies of the learning rows that a `DatasetH` and a solver make."""
    return rows * features * _COPY * 3


def five_copies(hyperparameters: Mapping[str, Any], rows: int, features: int) -> int:
    """As `three_copies`, and two copies that Qlib's own model makes."""
    return rows * features * _COPY * 5


def network_bytes(hyperparameters: Mapping[str, Any], rows: int, features: int) -> int:
    """The index of windows, the weights and their copies, and a part of a batch in the forward and backward pass.

    A token (a day; for PatchTST a patch of each feature) takes its input four times, and in each layer 40 vectors of
    the network's width. For the zoo's networks this was above the measured peak, and at most three times as much.
    """
    given = {"window": 20, "batch_size": 256, "micro_batch_size": 128, "layers": 1, "feedforward": 0, **hyperparameters}
    part = min(given["micro_batch_size"] or given["batch_size"], given["batch_size"])
    tokens, inputs = given["window"], features
    width = max(given.get(name, 0) for name in ("d_model", "hidden_size", "d_inner")) or 64
    if "patch_length" in given:
        tokens = features * ((given["window"] - given["patch_length"]) // given["stride"] + 2)
        inputs, width = given["patch_length"], given["d_model"]
    vectors = 40 * width * given.get("top_k", 1) + 4 * given["feedforward"]
    weights = features * width + given["layers"] * width * (4 * width + 2 * given["feedforward"])
    numbers = 5 * weights + part * tokens * (4 * inputs + given["layers"] * vectors)
    return int(rows * 40 + _COPY * numbers)


FORMULAS: Mapping[str, Formula] = {
    "lightgbm": lightgbm_bytes,
    "xgboost": xgboost_bytes,
    "linear": linear_bytes,
    "qlib": five_copies,
    "network": network_bytes,
}

BASE_MB: Mapping[str, float] = {"lightgbm": 600.0, "linear": 900.0, "network": 950.0}
"""Memory of Python and the libraries, with some margin, where it is not `PLAIN_BASE_MB`."""
PLAIN_BASE_MB = 750.0


def model_bytes(family: str, hyperparameters: Mapping[str, Any], rows: int, features: int) -> int:
    """Peak memory of a family's training beyond the processed float32 matrix."""
    return FORMULAS.get(family, three_copies)(hyperparameters, rows, features)
