"""Everything that is measured about one training: metrics, daily series, plots."""

import logging
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from mlops_tasks.columns import DATETIME, INSTRUMENT, LABEL, SCORE
from mlops_tasks.config import PortfolioSettings, Settings
from mlops_tasks.data.vintages import Vintage, load_vintage
from mlops_tasks.evaluation.ic import constant_days_share, daily_ic, daily_rank_ic, quantile_returns, summarise
from mlops_tasks.evaluation.identity import evaluation_identity
from mlops_tasks.evaluation.portfolio import PortfolioResult, backtest, drawdown
from mlops_tasks.evaluation.significance import cosine_mean
from mlops_tasks.files import finite_or_none
from mlops_tasks.training_folder import EvaluationFolder, EvaluationRecord, Metrics, TrainingFolder

log = logging.getLogger(__name__)

EVALUATED = ("valid", "test")
"""Segments for which metrics are computed."""


@dataclass(frozen=True)
class Evaluation:
    """What was measured for one training."""

    training_key: str
    model: str
    metrics: Metrics
    """`<segment>_<name>`; ICs are computed by day, returns are annualised sums; None where undefined."""
    daily: pd.DataFrame
    """The test segment by datetime: ic, rank_ic (date of the score), return, bench, cost, turnover (trading day)."""
    quantiles: pd.DataFrame
    portfolio: PortfolioResult
    data_version: str
    identity: str
    """Digest of everything that the evaluation depends on."""


def evaluate(settings: Settings, training: TrainingFolder, portfolio: PortfolioSettings) -> Evaluation:
    """Evaluate a training's predictions by a portfolio.

    Raises
    ------
    StoreError
        A file is missing, the predictions hold no test rows, or their vintage or Qlib store is gone.
    """
    manifest, predictions = training.manifest(), training.segments()
    vintage = load_vintage(settings, manifest.data_version)
    metrics: Metrics = {}
    for segment in EVALUATED:
        if segment in predictions:
            metrics |= segment_metrics(segment, predictions[segment], vintage)
    test = predictions["test"]
    result = backtest(test[SCORE], settings, manifest.data_version, portfolio)
    metrics |= _portfolio_metrics(result)
    return Evaluation(
        training_key=training.key,
        model=manifest.model,
        metrics=metrics,
        daily=_daily(test, result),
        quantiles=quantile_returns(test[SCORE], test[LABEL], quantiles_for(test)),
        portfolio=result,
        data_version=manifest.data_version,
        identity=identity_of(settings, training, portfolio),
    )


def identity_of(settings: Settings, training: TrainingFolder, portfolio: PortfolioSettings) -> str:
    """Digest of what a training's evaluation depends on, under the current settings and code.

    Raises
    ------
    StoreError
        The training does not exist.
    """
    return evaluation_identity(settings, training.manifest().data_version, training.predictions, portfolio)


def is_current(settings: Settings, training: TrainingFolder, portfolio: PortfolioSettings) -> bool:
    """Whether a training has an evaluation that would be the same if it were made now."""
    found = training.evaluation.find()
    return found is not None and found.identity == identity_of(settings, training, portfolio)


def segment_metrics(segment: str, rows: pd.DataFrame, vintage: Vintage) -> Metrics:
    """Metrics of one segment's scores and labels, names prefixed by the segment."""
    ic, rank_ic = daily_ic(rows[SCORE], rows[LABEL]), daily_rank_ic(rows[SCORE], rows[LABEL])
    values: Metrics = asdict(summarise(ic, rank_ic))
    known = rank_ic.dropna()
    test = cosine_mean(known) if len(known) > 1 else None
    values |= {
        "rank_ic_p_value": None if test is None else test.p_one_sided,
        "coverage": coverage(rows[SCORE], vintage),
        "constant_days_share": constant_days_share(rows[SCORE]),
    }
    return {f"{segment}_{name}": finite_or_none(value) for name, value in values.items()}


def coverage(scores: pd.Series, vintage: Vintage) -> float:
    """Share of the universe's rows (members with a bar, first to last scored day) that have a finite score."""
    days = scores.index.get_level_values(DATETIME)
    bars = vintage.bars(fields=(), start=days.min(), end=days.max())
    index = pd.MultiIndex.from_frame(bars[[DATETIME, INSTRUMENT]])
    expected = index[vintage.membership_mask(index)]
    if len(expected) == 0:
        return float("nan")
    return float(np.isfinite(scores.reindex(expected).to_numpy(np.float64, na_value=np.nan)).mean())


def quantiles_for(rows: pd.DataFrame) -> int:
    """Deciles, or fewer where a decile would hold fewer than three names on a median day."""
    names = rows.groupby(level=DATETIME).size().median()
    return int(min(10, max(2, names // 3)))


def write_evaluation(folder: EvaluationFolder, evaluation: Evaluation, training: TrainingFolder) -> EvaluationRecord:
    """Write an evaluation of `training`, with its plots, into `folder`; returns the content of evaluation.json."""
    record = EvaluationRecord(
        training_key=evaluation.training_key,
        model=evaluation.model,
        data_version=evaluation.data_version,
        identity=evaluation.identity,
        metrics=evaluation.metrics,
        portfolio={"topk": evaluation.portfolio.topk, "n_drop": evaluation.portfolio.n_drop},
        plots=write_plots(folder.plots, evaluation, training),
    )
    folder.write(record, evaluation.daily)
    return record


def write_plots(folder: Path, evaluation: Evaluation, training: TrainingFolder) -> list[str]:
    """Draw all plots; returns their file names. Curves and importance are drawn if the training wrote them."""
    from mlops_tasks.plots import evaluation as plots
    from mlops_tasks.plots.figure import write_png

    daily, portfolio = evaluation.daily, evaluation.portfolio.daily
    below = drawdown(portfolio["excess_return_after_cost"])
    figures = {
        "cumulative_ic": plots.plot_ic(plots.ic_info(daily["ic"].dropna(), daily["rank_ic"].dropna())),
        "equity": plots.plot_equity(plots.equity_info(portfolio, below)),
        "quantile_returns": plots.plot_quantiles(plots.quantile_info(evaluation.quantiles)),
    }
    curves, importance = training.curves(), training.importance()
    if curves:
        figures["training_curve"] = plots.plot_curves(curves)
    if importance:
        figures["feature_importance"] = plots.plot_importance(plots.importance_info(importance))
    for name, figure in figures.items():
        write_png(figure, folder / f"{name}.png")
    return sorted(f"{name}.png" for name in figures)


def _portfolio_metrics(portfolio: PortfolioResult) -> Metrics:
    measured = portfolio.metrics
    return {
        "test_excess_return_after_cost": measured["annualised_excess_return_after_cost"],
        "test_information_ratio": measured["information_ratio"],
        "test_max_drawdown": measured["max_drawdown"],
        "test_turnover": measured["turnover"],
        "test_annual_return": measured["annual_return"],
    }


def _daily(test: pd.DataFrame, portfolio: PortfolioResult) -> pd.DataFrame:
    series = [daily_ic(test[SCORE], test[LABEL]), daily_rank_ic(test[SCORE], test[LABEL])]
    returns = portfolio.daily[["return", "bench", "cost", "turnover"]]
    return pd.concat([*series, returns], axis=1).sort_index().rename_axis(DATETIME)
