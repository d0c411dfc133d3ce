"""Splits of the trading calendar in which no label of a learning day reaches into a test day, nor the other way round.

The label of day t with horizon h is the return from the close of t + 1 to that of t + 1 + h, so an observation of day t
spans the days t to t + 1 + h. Purging leaves out learning days whose span meets that of a test day. The embargo leaves
out further days, on both sides, because features and markets have memory (Lopez de Prado, Advances in Financial Machine
Learning, 2018, chapters 7 and 12).

Days are positions in a calendar, 0 to n - 1; all sets are ascending int arrays.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import comb
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlops_tasks.errors import ConfigError

Days = NDArray[np.int64]


def _at_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise ConfigError(f"{name}: {value} is less than {least}")


@dataclass(frozen=True)
class Gap:
    """How far apart two days must be so that neither knows anything of the other."""

    horizon: int = 1
    """Of the label, in trading days."""
    embargo_days: int = 0

    def __post_init__(self) -> None:
        _at_least("horizon", self.horizon, 1)
        _at_least("embargo_days", self.embargo_days, 0)

    @property
    def days(self) -> int:
        """Days between the last day of one set and the first of the next."""
        return self.horizon + 1 + self.embargo_days


@dataclass(frozen=True)
class Split:
    """One division of the calendar; there is a gap between each two of the three sets."""

    train: Days
    valid: Days
    """For early stopping: the last learning days. Empty if none were requested."""
    test: Days
    groups: tuple[int, ...] = ()
    """Combinatorial splits: the groups of days that are tested."""


@dataclass(frozen=True)
class WalkForward:
    """Train on the past, test on what follows, step forward by the test days; each later day is tested once.

    Attributes
    ----------
    train_days
        Days before the gap in the first split. Expanding: later splits have all days up to their gap.
    test_days
        Days tested by each split; the last one may have fewer.
    valid_days
        Days between train and test, with a gap on both sides, for early stopping.
    """

    train_days: int
    test_days: int
    valid_days: int = 0
    expanding: bool = True
    gap: Gap = Gap()

    def __post_init__(self) -> None:
        _at_least("train_days", self.train_days, 1)
        _at_least("test_days", self.test_days, 1)
        _at_least("valid_days", self.valid_days, 0)

    @property
    def first_test_day(self) -> int:
        """Position of the first day that is tested."""
        return self.train_days + self.gap.days + (self.valid_days + self.gap.days if self.valid_days else 0)

    def splits(self, n_days: int) -> Iterator[Split]:
        """All splits of a calendar, in time order.

        Raises
        ------
        ConfigError
            The calendar ends before a day can be tested.
        """
        if n_days <= self.first_test_day:
            raise ConfigError(
                f"walk-forward: {n_days} days leave none to test after {self.train_days} days to train on, "
                f"{self.valid_days} to validate on and gaps of {self.gap.days}; use fewer, or a longer history"
            )
        for start in range(self.first_test_day, n_days, self.test_days):
            test = np.arange(start, min(start + self.test_days, n_days))
            end = start - self.gap.days
            valid = np.arange(end - self.valid_days, end)
            end -= self.valid_days + self.gap.days if self.valid_days else 0
            yield Split(np.arange(0 if self.expanding else end - self.train_days, end), valid, test)


@dataclass(frozen=True)
class CombinatorialPurged:
    """Combinatorial purged cross-validation: every choice of `test_groups` of `groups` blocks of days is tested once.

    Each day is tested in C(groups - 1, test_groups - 1) splits, and the tests form as many whole backtest paths.

    Attributes
    ----------
    groups, test_groups
        Blocks of successive days, as equal as they can be, and how many are tested at a time.
    valid_days
        The last learning days, which are kept for early stopping, with a gap to those that are trained on.
    """

    groups: int
    test_groups: int
    valid_days: int = 0
    gap: Gap = Gap()

    def __post_init__(self) -> None:
        _at_least("groups", self.groups, 2)
        _at_least("test_groups", self.test_groups, 1)
        _at_least("valid_days", self.valid_days, 0)
        if self.test_groups >= self.groups:
            raise ConfigError(
                f"test_groups: {self.test_groups} of {self.groups} groups leave none to train on; use fewer"
            )

    @property
    def n_splits(self) -> int:
        """C(groups, test_groups)."""
        return comb(self.groups, self.test_groups)

    @property
    def n_paths(self) -> int:
        """Backtest paths: C(groups, test_groups) test_groups / groups."""
        return comb(self.groups - 1, self.test_groups - 1)

    def blocks(self, n_days: int) -> list[Days]:
        """The days of each group."""
        return [np.asarray(block, dtype=np.int64) for block in np.array_split(np.arange(n_days), self.groups)]

    def splits(self, n_days: int) -> Iterator[Split]:
        """All splits of a calendar, in lexicographic order of their groups.

        Raises
        ------
        ConfigError
            A split is left without a day to train on.
        """
        blocks = self.blocks(n_days)
        for chosen in combinations(range(self.groups), self.test_groups):
            test = np.concatenate([blocks[group] for group in chosen])
            learning = _apart(np.setdiff1d(np.arange(n_days), test), test, self.gap.days)
            valid = learning[len(learning) - self.valid_days :] if self.valid_days else learning[:0]
            train = _apart(np.setdiff1d(learning, valid), valid, self.gap.days)
            if len(train) == 0 or len(valid) < self.valid_days:
                raise ConfigError(
                    f"combinatorial split: {n_days} days in {self.groups} groups leave no day to train on besides the "
                    f"test groups {chosen}, {self.valid_days} days to validate on and gaps of {self.gap.days}; "
                    "use fewer groups or a longer history"
                )
            yield Split(train, valid, test, chosen)

    def paths(self) -> NDArray[np.int64]:
        """Which split tests each group on each backtest path; shape (n_paths, groups), split positions as in `splits`.

        For each group, a path takes one of the splits that test it, and each path takes another one. So every path
        covers the calendar once, and every test is used once.
        """
        chosen = list(combinations(range(self.groups), self.test_groups))
        return np.array([[i for i, groups in enumerate(chosen) if group in groups] for group in range(self.groups)]).T


def backtest_paths(cpcv: CombinatorialPurged, tested: Sequence[NDArray[Any]], n_days: int) -> NDArray[Any]:
    """Combine the tests of all splits into whole backtests.

    Parameters
    ----------
    tested
        For each split, a value for each of its test days, in order.

    Returns
    -------
    Shape (n_paths, n_days).
    """
    splits, blocks = list(cpcv.splits(n_days)), cpcv.blocks(n_days)
    paths = [
        np.concatenate([tested[i][np.isin(splits[i].test, blocks[group])] for group, i in enumerate(path)])
        for path in cpcv.paths()
    ]
    return np.stack(paths)


def _apart(days: Days, others: Days, gap: int) -> Days:
    """Days with at least `gap` days between them and each of the others (both ascending)."""
    if len(others) == 0:
        return days
    after = np.searchsorted(others, days)
    nearest_above = others[np.minimum(after, len(others) - 1)]
    nearest_below = others[np.maximum(after - 1, 0)]
    return days[np.minimum(np.abs(nearest_above - days), np.abs(days - nearest_below)) > gap]
