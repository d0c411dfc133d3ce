"""Shapley values by their definition, and models to explain."""

from collections.abc import Callable
from itertools import combinations
from math import factorial
from typing import Any

import lightgbm
import numpy as np
import xgboost

from mlops_tasks.explain.kernels import Trees

COLUMNS = 7
USED = 5
"""The columns after them say nothing, and do not vary."""


def shapley(players: int, worth: Callable[[frozenset[int]], float]) -> np.ndarray:
    """Weighted means of marginal worths over all coalitions (Shapley, 1953)."""
    values = np.zeros(players)
    for player in range(players):
        others = [each for each in range(players) if each != player]
        for size in range(players):
            weight = factorial(size) * factorial(players - size - 1) / factorial(players)
            for coalition in map(frozenset, combinations(others, size)):
                values[player] += weight * (worth(coalition | {player}) - worth(coalition))
    return values


def mean_of_paths(trees: Trees, row: np.ndarray, known: frozenset[int]) -> float:
    """The sum of trees for a row of which some features are known: the others follow the rows of the training."""

    def below(node: int) -> float:
        low, high = int(trees.left[node]), int(trees.right[node])
        if low < 0:
            return float(trees.value[node])
        feature = int(trees.feature[node])
        if feature in known:
            value = row[feature]
            goes_left = bool(trees.missing_left[node]) if np.isnan(value) else value <= trees.threshold[node]
            return below(low if goes_left else high)
        total = trees.cover[low] + trees.cover[high]
        return float((trees.cover[low] * below(low) + trees.cover[high] * below(high)) / total)

    return sum(below(int(root)) for root in trees.root)


def matrix(rows: int, seed: int) -> np.ndarray:
    """Coarse and fine columns with gaps and extremes; those after `USED` are zero."""
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((rows, COLUMNS)).astype(np.float32)
    values[:, 1] = np.round(values[:, 1] * 2) / 2
    values[rng.random(values.shape) < 0.1] = np.nan
    values[rng.random(values.shape) < 0.01] = 1e30
    values[:, USED:] = 0.0
    return values


def label_of(values: np.ndarray, seed: int) -> np.ndarray:
    """With an interaction, and weight on what is missing."""
    known = np.nan_to_num(values.astype(np.float64)).clip(-3, 3)
    noise = np.random.default_rng(seed).standard_normal(len(values))
    return known[:, 0] * known[:, 1] + np.sin(3 * known[:, 2]) + np.isnan(values[:, 3]) + known[:, 4] + 0.1 * noise


def lightgbm_model(seed: int, rounds: int = 6, **parameters: Any) -> lightgbm.Booster:
    """Trees of the first columns; no label is negative, so that any objective will do."""
    values = matrix(400, seed)
    chosen = {"objective": "regression", "verbosity": -1, "min_data_in_leaf": 5, "seed": seed, "num_threads": 1}
    label = label_of(values, seed)
    learn = lightgbm.Dataset(values, label - label.min(), params={"verbosity": -1})
    return lightgbm.train(chosen | parameters, learn, rounds)


def xgboost_model(seed: int, rounds: int = 6, **parameters: Any) -> xgboost.Booster:
    """Trees of the first columns."""
    values = matrix(400, seed)
    chosen = {"objective": "reg:squarederror", "seed": seed, "nthread": 1, "verbosity": 0}
    return xgboost.train(chosen | parameters, xgboost.DMatrix(values, label_of(values, seed), nthread=1), rounds)
