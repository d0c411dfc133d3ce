"""What a trial achieves on validation days: ICs, and the turnover and drawdown of the names that it would hold."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from mlops_tasks.columns import DATETIME
from mlops_tasks.evaluation.ic import MIN_PAIRS, daily_ic, daily_rank_ic, information_ratio
from mlops_tasks.evaluation.portfolio import names_held


@dataclass(frozen=True)
class TrialResult:
    """A configuration's result on the validation days."""

    metrics: Mapping[str, float]
    """By objective: `ic`, `rank_ic`, `icir`, `rank_icir`, `turnover`, `drawdown`; finite."""
    rank_ic: pd.Series
    """By datetime, every day whose labels can be ranked; 0 on a day on which all scores are the same."""


def trial_result(score: pd.Series, label: pd.Series, topk: int, horizon: int) -> TrialResult:
    """Measure scores against realised labels of the same index.

    Parameters
    ----------
    score, label
        MultiIndex (datetime, instrument), sorted; scores finite, labels NaN where the future is not known.
    topk
        Names held at equal weight; capped at a third of the median number of names a day.
    horizon
        Days that a label spans; the held names' daily return is label / horizon, as if `horizon` portfolios were
        renewed in turn.

    Returns
    -------
    A day on which all scores are the same ranks nothing and counts as an IC of zero, so that a model that learned
    nothing has no skill rather than an unknown one. `turnover` is the mean share of the account that is bought and sold
    a day (0 to 2) when the best names are held without a buffer. `drawdown` is the largest fall of the summed excess
    return of these names over all names, before costs. Smaller is better for both.
    """
    by_day = label.dropna().groupby(level=DATETIME)
    days = by_day.size().index[(by_day.size() >= MIN_PAIRS) & (by_day.nunique() > 1)]
    ic, rank_ic = (daily(score, label).reindex(days).fillna(0.0) for daily in (daily_ic, daily_rank_ic))
    held = _held(score, topk)
    metrics = {
        "ic": float(ic.mean()),
        "rank_ic": float(rank_ic.mean()),
        "icir": information_ratio(ic) or 0.0,
        "rank_icir": information_ratio(rank_ic) or 0.0,
        "turnover": _turnover(held),
        "drawdown": _drawdown(held, label, horizon),
    }
    return TrialResult(metrics, rank_ic)


def _held(score: pd.Series, topk: int) -> pd.Series:
    """Whether each row is among the best of its day; ties go to the name that sorts first."""
    by_day = score.groupby(level=DATETIME, sort=False)
    return by_day.rank(ascending=False, method="first") <= names_held(score, topk)


def _turnover(held: pd.Series) -> float:
    weights = held.unstack(fill_value=False).to_numpy(np.float64)
    weights = weights / np.maximum(weights.sum(axis=1, keepdims=True), 1.0)
    if len(weights) < 2:
        return 0.0
    return float(np.abs(np.diff(weights, axis=0)).sum(axis=1).mean())


def _drawdown(held: pd.Series, label: pd.Series, horizon: int) -> float:
    everything = label.groupby(level=DATETIME).mean()
    chosen = label.where(held).groupby(level=DATETIME).mean()
    total = np.append(0.0, ((chosen - everything) / horizon).fillna(0.0).cumsum().to_numpy())
    return float((np.maximum.accumulate(total) - total).max())
