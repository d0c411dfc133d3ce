"""Exact Shapley values of boosted trees, as LightGBM's and XGBoost's `pred_contrib` have them, by our own kernel."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from mlops_tasks.errors import ExplanationError
from mlops_tasks.explain.kernels import ROWS_AT_ONCE, Steps, Trees, steps_of, write_contributions
from mlops_tasks.modeling.model_zoo.forest import PlainTree, at_most, plain_trees

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class TreeExplainer:
    """Explains the sum of trees along their paths: a feature that is not known follows the training's rows.

    Lundberg et al., "From local explanations to global understanding with explainable AI for trees", Nature Machine
    Intelligence 2, 2020 (`tree_path_dependent`); how it is computed, see `kernels.py`.
    """

    trees: Trees
    offset: float = 0.0
    """What is added to the sum of the trees."""

    @classmethod
    def of_lightgbm(cls, text: str) -> "TreeExplainer":
        """The trees of a LightGBM model's text.

        Raises
        ------
        ExplanationError
            A score is more than the sum of trees that split at thresholds.
        """
        found = plain_trees(text)
        if found is None:
            raise ExplanationError(
                "LightGBM: the scores are no plain sum of trees that split at thresholds (categorical splits, linear "
                "leaves, zeros that count as missing, several classes, means or a transforming objective); train "
                "without these, or use LightGBM's own pred_contrib"
            )
        trees, columns = found
        return cls(_joined([_of_lightgbm(tree) for tree in trees], columns))

    @classmethod
    def of_xgboost(cls, content: bytes) -> "TreeExplainer":
        """The trees of an XGBoost model's JSON (`Booster.save_raw("json")`).

        Raises
        ------
        ExplanationError
            The model is no `gbtree` with one output and the objective reg:squarederror, or splits by categories.
        """
        learner = orjson.loads(content)["learner"]
        booster, objective = learner["gradient_booster"], learner["objective"]["name"]
        outputs = _numbers(learner["learner_model_param"]["base_score"])
        if booster["name"] != "gbtree" or objective != "reg:squarederror" or len(outputs) != 1:
            raise ExplanationError(
                f"XGBoost: booster {booster['name']}, objective {objective}, outputs: {len(outputs)}; only gbtree with "
                "reg:squarederror and one output is explained: train so, or use XGBoost's own pred_contribs"
            )
        trees = [_of_xgboost(tree) for tree in booster["model"]["trees"]]
        return cls(_joined(trees, int(learner["learner_model_param"]["num_feature"])), outputs[0])

    @property
    def base(self) -> float:
        """The score of a row of which nothing is known."""
        return self.offset + self._steps.base

    def contributions(self, features: npt.NDArray[np.float32], threads: int = 1) -> Floats:
        """Shapley values, shape (n, features); the same to the last bit whatever the threads and the other rows.

        Parameters
        ----------
        features
            Shape (n, the model's columns); NaN goes the way that the model has for it.

        Raises
        ------
        ExplanationError
            The number of columns is another one.
        """
        columns = self.trees.columns
        if features.ndim != 2 or features.shape[1] != columns:
            raise ExplanationError(
                f"rows of shape {features.shape}; the model has {columns} columns: give all, in order"
            )
        rows = np.require(features, np.float32, ["C", "W"])  # as the kernel is compiled for
        found = np.empty(rows.shape)
        points, weights = np.polynomial.legendre.leggauss(self._steps.points)
        rule = (points + 1) / 2, weights / 2
        parts = list(_parts(len(rows), threads))
        if len(parts) < 2:
            write_contributions(self._steps, *rule, rows, found)
            return found
        with ThreadPoolExecutor(len(parts)) as pool:  # the kernel holds no lock
            list(pool.map(lambda part: write_contributions(self._steps, *rule, rows[part], found[part]), parts))
        return found

    @cached_property
    def _steps(self) -> Steps:
        steps: Steps = steps_of(self.trees)
        return steps


def _parts(rows: int, threads: int) -> Iterator[slice]:
    blocks = -(-rows // ROWS_AT_ONCE)
    width = ROWS_AT_ONCE * max(1, -(-blocks // max(1, threads)))
    for begin in range(0, rows, width):
        yield slice(begin, min(rows, begin + width))


@dataclass(frozen=True)
class _Tree:
    """One tree in the form of `Trees`, counted from 0."""

    feature: npt.NDArray[Any]
    threshold: npt.NDArray[np.float32]
    missing_left: npt.NDArray[Any]
    left: npt.NDArray[Any]
    right: npt.NDArray[Any]
    cover: npt.NDArray[Any]
    value: npt.NDArray[Any]


def _of_lightgbm(tree: PlainTree) -> _Tree:
    """Inner nodes first, then leaves."""
    inner, leaves = len(tree.feature), len(tree.leaf_value)
    none = np.full(leaves, -1)
    left, right = (np.where(child >= 0, child, inner + ~child) for child in (tree.left, tree.right))
    return _Tree(
        feature=np.concatenate([tree.feature, none]),
        threshold=np.concatenate([at_most(tree.threshold), np.zeros(leaves, np.float32)]),
        missing_left=np.concatenate([tree.missing_left, np.zeros(leaves, np.bool_)]),
        left=np.concatenate([left, none]),
        right=np.concatenate([right, none]),
        cover=np.concatenate([tree.inner_count, tree.leaf_count]),
        value=np.concatenate([np.zeros(inner), tree.leaf_value]),
    )


def _of_xgboost(tree: Mapping[str, Any]) -> _Tree:
    if any(tree["split_type"]):
        raise ExplanationError(
            "XGBoost: a tree splits by categories; encode them as numbers, or use XGBoost's own pred_contribs"
        )
    left, right = (np.array(tree[f"{side}_children"], np.int32) for side in ("left", "right"))
    conditions = np.array(tree["split_conditions"], np.float32)
    is_leaf = left < 0
    return _Tree(
        feature=np.where(is_leaf, -1, tree["split_indices"]),
        threshold=np.nextafter(conditions, np.float32(-np.inf)),  # a row goes left below the condition, not at it
        missing_left=np.array(tree["default_left"], np.bool_),
        left=left,
        right=right,
        cover=np.array(tree["sum_hessian"]),
        value=np.where(is_leaf, conditions, 0.0),
    )


def _joined(trees: Sequence[_Tree], columns: int) -> Trees:
    roots = np.cumsum([0, *(len(tree.feature) for tree in trees)])
    if any(not (tree.cover > 0).all() for tree in trees):
        raise ExplanationError(
            "a tree has nodes that no row of the training came to; train with rows of positive weight"
        )

    def children(side: str) -> npt.NDArray[np.int32]:
        found = (getattr(tree, side) for tree in trees)
        moved = [np.where(each >= 0, each + root, -1) for each, root in zip(found, roots[:-1], strict=True)]
        return np.concatenate(moved).astype(np.int32)

    def joined(name: str, kind: Any) -> npt.NDArray[Any]:
        return np.concatenate([getattr(tree, name) for tree in trees]).astype(kind)

    return Trees(
        columns,
        joined("feature", np.int32),
        joined("threshold", np.float32),
        joined("missing_left", np.int32),
        children("left"),
        children("right"),
        joined("cover", np.float64),
        joined("value", np.float64),
        roots[:-1].astype(np.int32),
    )


def _numbers(text: str) -> list[float]:
    """Of one number, or of several in brackets."""
    return [float(each) for each in text.strip("[]").split(",")]
