"""What an evaluation shows: ICs over time, the portfolio, score quantiles, the training, the features."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from mlops_tasks.plots.figure import BLUE, GREEN, GREY, ORANGE, RED, cumulative, date_axis, draw, no_data, shown, styled


@dataclass(frozen=True)
class IcInfo:
    """Running sums of daily ICs, by datetime, and their means."""

    ic: pd.Series
    rank_ic: pd.Series
    ic_mean: float
    rank_ic_mean: float


@dataclass(frozen=True)
class EquityInfo:
    """Running sums of daily returns, not compounded (as in Qlib's risk analysis), by datetime."""

    portfolio: pd.Series
    """After costs."""
    universe: pd.Series
    excess: pd.Series
    drawdown: pd.Series
    """Excess return after costs below its highest value so far, 0 before the first day included; 0 or negative."""


@dataclass(frozen=True)
class QuantileInfo:
    """Mean label of each score quantile over all days, in basis points a day, and its standard error."""

    mean_bps: pd.Series
    standard_error_bps: pd.Series
    n_days: int


@dataclass(frozen=True)
class ImportanceInfo:
    """The most important features, strongest first, as shares of the sum of absolute values."""

    shares: pd.Series
    n_features: int


Curves = Mapping[str, Mapping[str, Sequence[float | None]]]


def ic_info(ic: pd.Series, rank_ic: pd.Series) -> IcInfo:
    """Running sums and means of daily ICs; NaN days add nothing."""
    return IcInfo(cumulative(ic), cumulative(rank_ic), float(ic.mean()), float(rank_ic.mean()))


def equity_info(daily: pd.DataFrame, drawdown: pd.Series) -> EquityInfo:
    """From a frame by datetime with columns return (before costs), cost and bench, as daily shares of the account, and
    from the drawdown of the excess return after costs."""
    portfolio = cumulative(daily["return"] - daily["cost"])
    universe = cumulative(daily["bench"])
    return EquityInfo(portfolio, universe, portfolio - universe, drawdown)


def quantile_info(quantile_returns: pd.DataFrame) -> QuantileInfo:
    """From daily mean labels, columns 1 to the number of quantiles."""
    used = quantile_returns.dropna(how="all")
    error = used.std(ddof=1) / np.sqrt(used.notna().sum().clip(lower=1))
    return QuantileInfo(used.mean() * 1e4, error * 1e4, len(used))


def importance_info(importance: Mapping[str, float], top: int = 20) -> ImportanceInfo:
    """The `top` features by absolute importance; ties in alphabetical order."""
    values = pd.Series(dict(importance), dtype=float).sort_index()
    total = values.abs().sum()
    shares = (values.abs() / total if total > 0 else values.abs()).sort_values(ascending=False, kind="stable")
    return ImportanceInfo(shares.head(top), len(values))


@styled
def plot_ic(info: IcInfo) -> Figure:
    """Running sums of IC and rank IC; a straight climb is a steady signal."""
    figure, (axes,) = draw()
    axes.plot(info.ic.index, info.ic, color=BLUE, label=f"IC, mean {shown(info.ic_mean, '.4f')}")
    axes.plot(info.rank_ic.index, info.rank_ic, color=ORANGE, label=f"rank IC, mean {shown(info.rank_ic_mean, '.4f')}")
    axes.axhline(0, color=GREY, linewidth=0.8)
    axes.set(title="Cumulative daily IC, test segment", xlabel="date of the score", ylabel="sum of daily correlations")
    axes.legend(loc="upper left")
    date_axis(axes)
    return figure


@styled
def plot_equity(info: EquityInfo) -> Figure:
    """The portfolio after costs against the universe, and the drawdown of the excess."""
    figure, (upper, lower) = draw(2, (9.0, 6.0), (3, 1))
    upper.plot(info.portfolio.index, info.portfolio, color=BLUE, label="portfolio after costs")
    upper.plot(info.universe.index, info.universe, color=GREY, label="universe, equal weight")
    upper.plot(info.excess.index, info.excess, color=GREEN, linewidth=1.8, label="excess after costs")
    upper.axhline(0, color=GREY, linewidth=0.8)
    upper.set(title="Portfolio against the universe, test segment", ylabel="sum of daily returns,\nnot compounded")
    upper.legend(loc="upper left")
    lower.fill_between(info.drawdown.index, info.drawdown, 0, color=RED, alpha=0.35, linewidth=0)
    lower.set(xlabel="trading day", ylabel="excess drawdown\n(of the sum)")
    lower.sharex(upper)
    upper.tick_params(labelbottom=False)
    for axes in (upper, lower):
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    date_axis(lower)
    return figure


@styled
def plot_quantiles(info: QuantileInfo) -> Figure:
    """Mean label by score quantile; a good model's bars climb from left to right."""
    figure, (axes,) = draw()
    colors = [BLUE if value >= 0 else RED for value in info.mean_bps]
    bars = {"color": colors, "yerr": info.standard_error_bps, "error_kw": {"ecolor": GREY, "capsize": 2}}
    axes.bar(info.mean_bps.index, info.mean_bps, **bars)
    axes.axhline(0, color=GREY, linewidth=0.8)
    axes.set_xticks(list(info.mean_bps.index))
    title = f"Mean label by score quantile, {info.n_days} test days"
    axes.set(title=title, xlabel="score quantile (right: highest scores)", ylabel="mean label, bps (bar: std. error)")
    if info.n_days == 0:
        no_data(axes, "fewer names per day than quantiles")
    return figure


@styled
def plot_curves(curves: Curves) -> Figure:
    """The training's metric by iteration, one panel per metric: {metric: {segment: values}}; None: not computed."""
    figure, panels = draw(max(len(curves), 1), (9.0, 1.0 + 3.2 * max(len(curves), 1)))
    colors = {"train": BLUE, "valid": ORANGE, "test": GREEN}
    for axes, (metric, segments) in zip(panels, curves.items(), strict=False):
        for segment, values in segments.items():
            series = np.array(values, dtype=np.float64)
            known = np.flatnonzero(np.isfinite(series))
            axes.plot(known + 1, series[known], color=colors.get(segment, GREY), label=segment)
        axes.set(title=f"Training: {metric}", ylabel=metric)
        axes.legend(loc="upper right")
    panels[-1].set_xlabel("iteration")
    if not curves:
        panels[0].set(title="Training", ylabel="metric")
        no_data(panels[0], "this model has no training curve")
    return figure


@styled
def plot_importance(info: ImportanceInfo) -> Figure:
    """The most important features as horizontal bars."""
    figure, (axes,) = draw(1, (9.0, 1.4 + 0.24 * max(len(info.shares), 1)))
    shares = info.shares.iloc[::-1]
    axes.barh(list(shares.index), shares, color=BLUE)
    axes.grid(visible=False, axis="y")
    axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    title = f"Feature importance, top {len(info.shares)} of {info.n_features}"
    axes.set(title=title, xlabel="share of total importance", ylabel="feature")
    if len(info.shares) == 0:
        no_data(axes, "this model has no feature importance")
    return figure
