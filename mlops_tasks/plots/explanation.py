"""What explains a model: its features by share and by how steadily, groups over time, partial dependence.

The figures are narrow, so that they can be read on a phone.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray

from mlops_tasks.plots.figure import BLUE, GREY, ORANGE, draw, no_data, styled

WIDTH = 5.2
"""Inches."""
LONGEST = 18
"""Characters of a name."""
COLOURS = (
    *("#2a6fbb", "#e08214", "#2e8b57", "#c0392b", "#8e6bb0", "#8c6d4f"),
    *("#17a2b8", "#b8a400", "#d6619b", "#6b7785", "#6fa8dc", "#93c572"),
)
"""Of groups; seen on white and on black."""


@dataclass(frozen=True)
class InfluenceInfo:
    """The first features: index feature, columns share, rank_low, rank_median, rank_high over the periods."""

    table: pd.DataFrame
    n_features: int
    n_periods: int


@dataclass(frozen=True)
class GroupsInfo:
    """Of groups, by period: shares, parts of the IC, and the IC itself."""

    shares: pd.DataFrame
    ic_parts: pd.DataFrame
    ic: pd.Series


@dataclass(frozen=True)
class DependenceCurve:
    """A feature's values, and the mean score at each, less their mean."""

    feature: str
    values: NDArray[np.float64]
    scores: NDArray[np.float64]


@dataclass(frozen=True)
class DependenceInfo:
    """A panel for each feature, all with the same scale of scores."""

    curves: Sequence[DependenceCurve]


def influence_info(table: pd.DataFrame, n_periods: int, top: int = 15) -> InfluenceInfo:
    """The `top` rows of a table by feature that is sorted by share."""
    columns = ["share", "rank_low", "rank_median", "rank_high"]
    return InfluenceInfo(table[columns].head(top), len(table), n_periods)


def groups_info(shares: pd.DataFrame, ic_parts: pd.DataFrame, ic: pd.Series) -> GroupsInfo:
    """Groups in the order of their mean share, the largest first."""
    order = shares.mean().sort_values(ascending=False, kind="stable").index
    return GroupsInfo(shares[order], ic_parts[order], ic)


def dependence_info(curves: Sequence[tuple[str, NDArray[np.float64], NDArray[np.float64]]]) -> DependenceInfo:
    """From feature, values and mean scores; a feature without two values has no curve."""
    kept = [(name, values, scores) for name, values, scores in curves if len(values) > 1]
    return DependenceInfo([DependenceCurve(name, values, scores - scores.mean()) for name, values, scores in kept])


def _short(name: object) -> str:
    """A name that leaves room for the figure."""
    text = str(name)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


@styled
def plot_influence(info: InfluenceInfo) -> Figure:
    """Shares as bars; beside them the ranks of the periods, from the best to the worst, with a dot at the median."""
    rows = len(info.table)
    figure, (whole,) = draw(1, (WIDTH, 1.2 + 0.24 * max(rows, 3)))
    if rows == 0:
        whole.set(title="Share and rank", xlabel="share", ylabel="feature")
        no_data(whole, "there is no feature")
        return figure
    whole.remove()
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    places = np.arange(rows)
    left.barh(places, info.table["share"], color=BLUE)
    left.set_yticks(places, [_short(name) for name in info.table.index])
    left.invert_yaxis()
    left.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    left.xaxis.set_major_locator(MaxNLocator(4))
    left.set(title=f"Share, first {rows} of {info.n_features}", xlabel="of the scores' movement", ylabel="feature")
    right.hlines(places, info.table["rank_low"], info.table["rank_high"], color=GREY, linewidth=3, alpha=0.6)
    right.plot(info.table["rank_median"], places, "o", color=ORANGE, markersize=4)
    right.set(title="Rank", xlabel=f"best, median, worst\nof {info.n_periods} periods")
    right.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    for axes in (left, right):
        axes.grid(visible=False, axis="y")
    right.tick_params(axis="y", length=0)
    return figure


@styled
def plot_groups(info: GroupsInfo) -> Figure:
    """Stacked shares by period; below them, stacked parts of the IC, with a dot at the IC."""
    figure, (upper, lower) = draw(2, (WIDTH, 6.0))
    places, names = np.arange(len(info.shares)), [str(name) for name in info.shares.index]
    below = np.zeros(len(places))
    for number, group in enumerate(info.shares.columns):
        values = info.shares[group].fillna(0.0).to_numpy()
        upper.bar(places, values, 0.8, below, color=COLOURS[number % len(COLOURS)], label=_short(group))
        below += values
    upper.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    upper.set(title="Share of the scores' movement", ylabel="share", ylim=(0, 1))
    lower.set_xlabel("period")
    _plot_ic(lower, info, places)
    for axes in (upper, lower):
        axes.set_xticks(places, names, rotation=45 if len(names) > 6 else 0, ha="right" if len(names) > 6 else "center")
        axes.grid(visible=False, axis="x")
    figure.legend(*upper.get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=9)
    return figure


def _plot_ic(axes: Axes, info: GroupsInfo, places: NDArray[np.int64]) -> None:
    axes.set(title="Parts of the IC (dot: IC)", ylabel="IC")
    if not info.ic.notna().any():
        no_data(axes, "no labels are known")
        return
    up, down = np.zeros(len(places)), np.zeros(len(places))
    for number, group in enumerate(info.ic_parts.columns):
        values = info.ic_parts[group].fillna(0.0).to_numpy()
        below = np.where(values >= 0, up, down)
        axes.bar(places, values, 0.8, below, color=COLOURS[number % len(COLOURS)])
        up, down = up + values.clip(min=0), down + values.clip(max=0)
    axes.axhline(0, color=GREY, linewidth=0.8)
    axes.plot(places, info.ic, "o", color="#000000", markerfacecolor="#ffffff", markersize=6)


@styled
def plot_dependence(info: DependenceInfo) -> Figure:
    """Two columns of panels; scores are changes from their mean."""
    count = len(info.curves)
    rows = max(1, -(-count // 2))
    figure, (whole,) = draw(1, (WIDTH, 0.6 + 1.6 * rows))
    if count == 0:
        whole.set(title="Partial dependence", xlabel="value", ylabel="mean score")
        no_data(whole, "no feature has two values")
        return figure
    whole.remove()
    panels = figure.subplots(rows, 2, sharey=True, squeeze=False).ravel()
    for panel, curve in zip(panels, info.curves, strict=False):
        panel.plot(curve.values, curve.scores, "o-", color=BLUE, markersize=3, linewidth=1.5)
        panel.axhline(0, color=GREY, linewidth=0.8)
        panel.set_title(_short(curve.feature))
        panel.xaxis.set_major_locator(MaxNLocator(3))
        panel.yaxis.set_major_locator(MaxNLocator(4))
    for panel in panels[:count:2]:
        panel.set_ylabel("mean score")
    for panel in panels[max(0, count - 2) : count]:
        panel.set_xlabel("value")
    for panel in panels[count:]:
        panel.remove()
    return figure
