"""What explains scores: contributions of features that sum up to the score, and by how much they fail to."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pandas as pd

from mlops_tasks.columns import DATETIME
from mlops_tasks.errors import ExplanationError, first_few


class Method(StrEnum):
    """How contributions were computed."""

    TREES = "trees"
    """Exact Shapley values along the paths of trees."""
    LINEAR = "linear"
    """Exact Shapley values in closed form."""
    EXPECTED_GRADIENTS = "expected_gradients"
    """Gradients integrated from rows of a background; as exact as the gap says."""
    PERMUTATIONS = "permutations"
    """Shapley values sampled over orders of the features, of a model that is only asked for scores."""


@dataclass(frozen=True)
class AdditivityGap:
    """How far scores are from what explains them: |score - base - sum of contributions|, in units of the score."""

    largest: float
    mean: float
    spread: float
    """Of the scores, of all names where only some were explained: the largest less the smallest."""

    @property
    def share(self) -> float:
        """The largest gap as a share of the spread; 0 where there is no gap, infinite where only the spread is 0."""
        return self.largest / self.spread if self.spread else 0.0 if self.largest == 0 else float("inf")


@dataclass(frozen=True)
class Importance:
    """How much each feature, or group of features, moves the scores.

    Attributes
    ----------
    table
        By feature, the most important first: `mean_abs`, the mean size of its contribution, in units of the score;
        `share`, that as a share of the sum over the features (NaN where all are 0); `mean`, its mean with its sign.
    rows
        Over which the means are.
    gap
        Of these rows.
    """

    table: pd.DataFrame
    rows: int
    gap: AdditivityGap


@dataclass(frozen=True)
class Explanation:
    """Scores of rows as sums: score = base + contributions + gap.

    Attributes
    ----------
    method
        How they were computed.
    contributions
        Shape (n, features), float64, in units of the score, index (datetime, instrument).
    base
        The score of a row of which nothing is known.
    scores
        The model's own; shape (n,), same index.
    sampling_error
        By feature: the standard error of its contribution, for the background rows and orders that were drawn, as the
        root mean square over the rows; of a group, the sum of its features', which is the most that it can be. None
        where nothing is drawn.
    ranked_among
        Scores of all names of the days, where not all of them were explained; None: they were.
    """

    method: Method
    contributions: pd.DataFrame
    base: float
    scores: pd.Series
    sampling_error: pd.Series | None = None
    ranked_among: pd.Series | None = None

    @cached_property
    def gaps(self) -> pd.Series:
        """Score - base - sum of contributions of each row."""
        return self.scores - self.base - self.contributions.sum(axis=1)

    @property
    def gap(self) -> AdditivityGap:
        """Of all rows.

        Raises
        ------
        ExplanationError
            There is no row.
        """
        if self.scores.empty:
            raise ExplanationError("there is no row to explain; choose days on which the universe has members")
        sizes = self.gaps.abs()
        among = self.scores if self.ranked_among is None else self.ranked_among
        return AdditivityGap(float(sizes.max()), float(sizes.mean()), float(among.max() - among.min()))

    @property
    def days(self) -> pd.DatetimeIndex:
        """That have rows, ascending."""
        return pd.DatetimeIndex(self.scores.index.get_level_values(DATETIME).unique()).sort_values()

    def on(self, day: pd.Timestamp) -> "Explanation":
        """The rows of one day.

        Raises
        ------
        ExplanationError
            There are none.
        """
        rows = np.asarray(self.scores.index.get_level_values(DATETIME) == day)
        if not rows.any():
            raise ExplanationError(f"no row of {day.date()} was explained; explain that day too")
        found = self.of_rows(rows)
        if self.ranked_among is None:
            return found
        of_day = np.asarray(self.ranked_among.index.get_level_values(DATETIME) == day)
        return replace(found, ranked_among=self.ranked_among[of_day])

    def of_rows(self, rows: npt.NDArray[np.bool_]) -> "Explanation":
        """Some of the rows, by a mask of shape (n,); the sampling error stays that of all."""
        return replace(self, contributions=self.contributions[rows], scores=self.scores[rows])

    def importance(self) -> Importance:
        """Global values over all rows.

        Raises
        ------
        ExplanationError
            There is no row.
        """
        gap, sizes = self.gap, self.contributions.abs().mean()
        total = sizes.sum()
        table = pd.DataFrame(
            {"mean_abs": sizes, "share": sizes / (total if total else np.nan), "mean": self.contributions.mean()}
        )
        return Importance(table.sort_values("mean_abs", ascending=False, kind="stable"), len(self.scores), gap)

    def shares_by_day(self) -> pd.DataFrame:
        """Share of each feature in the mean sizes of contributions, day by day; NaN on days on which all are 0."""
        sizes = self.contributions.abs().groupby(level=DATETIME).mean()
        total = sizes.sum(axis=1)
        return sizes.div(total.where(total > 0), axis=0)

    def grouped(self, group_of: Mapping[str, str]) -> "Explanation":
        """The same with one column a group: the sum of its features' contributions, groups in order of appearance.

        Raises
        ------
        ExplanationError
            A feature has no group.
        """
        names = [str(name) for name in self.contributions.columns]
        if missing := [name for name in names if name not in group_of]:
            raise ExplanationError(
                f"{len(missing)} features have no group: {first_few(missing)}; give each feature of the model one"
            )
        groups = list(dict.fromkeys(group_of[name] for name in names))
        member = np.array([[group_of[name] == group for group in groups] for name in names], np.float64)
        values = self.contributions.to_numpy() @ member
        error = None if self.sampling_error is None else pd.Series(self.sampling_error.to_numpy() @ member, groups)
        contributions = pd.DataFrame(values, self.contributions.index, groups)
        return replace(self, contributions=contributions, sampling_error=error)

    @property
    def error_share(self) -> float | None:
        """The sampling error as a share of the contributions' size, both as root mean squares; None without one."""
        if self.sampling_error is None:
            return None
        size = float(np.sqrt((self.contributions.to_numpy() ** 2).sum(axis=1).mean())) if len(self.scores) else 0.0
        error = float(np.sqrt((self.sampling_error**2).sum()))
        return error / size if size else 0.0 if error == 0 else float("inf")
