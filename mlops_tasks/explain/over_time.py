"""How stable explanations are: shares, ranks and parts of the IC by month or quarter."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from mlops_tasks.columns import DATETIME
from mlops_tasks.explain.explanation import Explanation
from mlops_tasks.explain.ic_parts import IcParts, daily_ic_parts

MOST_MONTHS = 12
"""Longer spans are divided into quarters."""


@dataclass(frozen=True)
class OverTime:
    """Features, or groups of them, by period.

    Attributes
    ----------
    shares
        Shape (periods, features), index of months or quarters as text (2017-03, 2017Q1): share in the mean sizes of
        the contributions. Each row sums up to 1; NaN where nothing contributes.
    ic_parts
        Same shape: mean over the period's days of their parts of the IC. NaN in periods without an IC.
    ic
        Shape (periods,): mean of the days' ICs; the sum of the parts, but for the additivity gap.
    days
        Shape (periods,): how many days of the sample lie in it.
    daily
        The parts of each day.
    unranked
        A column that has no rank; None: all have.
    """

    shares: pd.DataFrame
    ic_parts: pd.DataFrame
    ic: pd.Series
    days: pd.Series
    daily: IcParts
    unranked: str | None = None

    @cached_property
    def ranks(self) -> pd.DataFrame:
        """Rank of each feature by its share in each period, 1 for the largest; equal shares have their mean rank."""
        ranked = self.shares.columns.difference([self.unranked], sort=False)
        return self.shares[ranked].rank(axis=1, ascending=False, method="average").reindex(columns=self.shares.columns)

    def stability(self) -> pd.DataFrame:
        """By feature: `rank_median`, `rank_low`, `rank_high`, `rank_std` over the periods (ddof=1, NaN with one)."""
        ranks = self.ranks
        return pd.DataFrame(
            {
                "rank_median": ranks.median(),
                "rank_low": ranks.min(),
                "rank_high": ranks.max(),
                "rank_std": ranks.std(ddof=1),
            }
        )

    def rank_correlation(self) -> float:
        """Mean Spearman correlation of the ranks of successive periods: 1 where no rank changes; NaN with one period.

        Features that never contribute are left out: they tie in every period.
        """
        used = self.ranks.loc[:, (self.shares > 0).any() & self.ranks.notna().any()]
        pairs = [used.iloc[place].corr(used.iloc[place + 1]) for place in range(len(used) - 1)]
        known = [each for each in pairs if np.isfinite(each)]
        return float(np.mean(known)) if known else float("nan")

    def mean_ic_parts(self) -> pd.DataFrame:
        """By feature over all days: `ic_part`, which sum up to the mean IC, and its `ic_error`, the standard error of a
        mean of independent days: too small where the horizon is longer than a day, as labels then overlap."""
        parts = self.daily.parts.dropna(how="all")
        error = parts.std(ddof=1) / np.sqrt(max(1, len(parts)))
        return pd.DataFrame({"ic_part": parts.mean(), "ic_error": error})


def over_time(explanation: Explanation, label: pd.Series, unranked: str | None = None) -> OverTime:
    """Divide what was explained into months, or quarters if it spans more than a year.

    Parameters
    ----------
    label
        Index (datetime, instrument); where it is missing there is no part of the IC.
    unranked
        A column, or group, that is no competitor of the others.

    Raises
    ------
    ExplanationError
        There is no row.
    """
    daily = daily_ic_parts(explanation, label)
    name_of = _periods(explanation.days)
    rows = explanation.contributions.index.get_level_values(DATETIME).map(name_of)
    sizes = explanation.contributions.abs().groupby(rows.to_numpy()).mean()
    total = sizes.sum(axis=1)
    shares = sizes.div(total.where(total > 0), axis=0)
    of_day = daily.ic.index.map(name_of).to_numpy()
    parts = daily.parts.groupby(of_day).mean().reindex(shares.index)
    ic = daily.ic.groupby(of_day).mean().reindex(shares.index)
    days = pd.Series(name_of).value_counts().reindex(shares.index)
    return OverTime(shares, parts, ic, days, daily, unranked)


def _periods(days: pd.DatetimeIndex) -> Mapping[pd.Timestamp, str]:
    months = days.to_period("M")
    span = (months[-1] - months[0]).n + 1
    chosen = months if span <= MOST_MONTHS else days.to_period("Q")
    return dict(zip(days, map(str, chosen), strict=True))
