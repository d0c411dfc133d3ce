"""What an experiment shows: the effect at its looks, the running sum of differences, and the arms' shares of units."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray

from mlops_tasks.plots.figure import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    RED,
    cumulative,
    date_axis,
    draw,
    no_data,
    shown,
    styled,
)

_COLOURS = (BLUE, ORANGE, GREEN, RED)
_PANEL, _EDGE = 2.7, 0.9
"""Heights in inches: of a metric, and of title and label."""
_MOST_BARS = 15
"""More looks than these are drawn as a band."""
_LEGEND: dict[str, Any] = {"frameon": True, "framealpha": 0.85, "edgecolor": "none"}


@dataclass(frozen=True)
class ArmCourse:
    """One arm against the control, on one metric."""

    arm: str
    differences: pd.Series
    """Treatment minus control by datetime, ascending; empty where days are the units."""
    looks: pd.DataFrame
    """By datetime of the last day that a look counts: effect, lower, upper; the interval holds over all looks."""


@dataclass(frozen=True)
class MetricCourse:
    """One metric of an experiment."""

    title: str
    smallest_effect: float
    arms: Sequence[ArmCourse]


@dataclass(frozen=True)
class ExperimentInfo:
    """All metrics of an experiment, the primary one first."""

    title: str
    metrics: Sequence[MetricCourse]


@dataclass(frozen=True)
class SharesInfo:
    """By datetime: each arm's share of the units so far less its planned share, and within what it stays by chance."""

    title: str
    surplus: pd.DataFrame
    """Columns: arms."""
    above: pd.DataFrame
    """The largest surplus that is no mismatch; columns: arms."""
    below: pd.DataFrame
    """The largest deficit that is none; columns: arms."""
    units: int


Band = Callable[[NDArray[np.float64], float], NDArray[np.float64]]
"""From numbers of units and a planned share, by how much an arm's share may exceed it (`checks.ratio_band`)."""


def shares_info(counts: pd.DataFrame, planned: Mapping[str, float], band: Band, title: str) -> SharesInfo:
    """From the numbers of new units by datetime (columns: arms), the planned shares, and the band of the check.

    An arm's deficit is the surplus of all others together.
    """
    total = counts.cumsum()
    units = total.sum(axis=1)
    shares = pd.Series(planned)[counts.columns]
    seen = units.to_numpy(np.float64)
    above, below = (
        pd.DataFrame({arm: band(seen, of(share)) for arm, share in shares.items()}, counts.index)
        for of in (float, lambda share: 1 - share)
    )
    surplus = total.div(units, axis=0) - shares
    return SharesInfo(title, surplus, above, below, int(units.iloc[-1]) if len(units) else 0)


@styled
def plot_effects(info: ExperimentInfo) -> Figure:
    """For each metric the mean difference so far by day, and at each look its interval; dashed: the smallest effect
    that matters."""
    figure, panels = _panels(info)
    for axes, metric in zip(panels, info.metrics, strict=True):
        axes.set(title=metric.title, ylabel="treatment minus control")
        if _is_empty(axes, metric):
            continue
        for bound in (-metric.smallest_effect, metric.smallest_effect):
            axes.axhline(bound, color=GREY, linewidth=0.9, linestyle="--")
        for place, (colour, arm) in enumerate(zip(cycle(_COLOURS), metric.arms, strict=False)):
            _plot_effect(axes, arm, colour, pd.Timedelta(hours=18 * place))
        _limit(axes, metric)
        _finish(axes)
    panels[-1].set_xlabel("day; mean so far, and at looks its interval over all looks; dashed: smallest effect")
    return figure


@styled
def plot_differences(info: ExperimentInfo) -> Figure:
    """For each metric the running sum of the daily differences."""
    figure, panels = _panels(info)
    for axes, metric in zip(panels, info.metrics, strict=True):
        axes.set(title=metric.title, ylabel="summed differences")
        if _is_empty(axes, metric):
            continue
        for colour, arm in zip(cycle(_COLOURS), metric.arms, strict=False):
            values = arm.differences
            if len(values):
                mean = f"{arm.arm}: mean {shown(values.mean(), '+.4g')} a day, {len(values)} days"
                axes.plot(values.index, cumulative(values), color=colour, linewidth=1.6, label=mean)
        _finish(axes)
    panels[-1].set_xlabel("day; treatment minus control, summed from the first day on")
    return figure


@styled
def plot_shares(info: SharesInfo) -> Figure:
    """Each arm's surplus of units over its planned share, with the band that it leaves where units are lost."""
    figure, (axes,) = draw(size=(9.0, 3.9))
    axes.set(
        title=f"{info.title}: shares of the {info.units:,} units with events",
        xlabel="day; outside of the band the arms do not have the units that were planned",
        ylabel="share less planned share",
    )
    if info.surplus.empty:
        no_data(axes, "no unit has an event yet")
        return figure
    alike = np.allclose(info.above, info.above.iloc[:, [0]]) and np.allclose(info.below, info.below.iloc[:, [0]])
    for place, (colour, arm) in enumerate(zip(cycle(_COLOURS), info.surplus.columns, strict=False)):
        if place == 0 or not alike:
            edges = (-info.below[arm], info.above[arm])
            axes.fill_between(info.above.index, *edges, color=GREY if alike else colour, alpha=0.15, linewidth=0)
        axes.plot(info.surplus.index, info.surplus[arm], "o-", color=colour, markersize=2.5, label=arm)
    reach = 1.3 * float(max(info.above.iloc[-1].max(), info.surplus.iloc[len(info.surplus) // 2 :].abs().max().max()))
    axes.set_ylim(-reach, reach)
    axes.axhline(0, color=GREY, linewidth=0.8)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.legend(loc="upper right", ncols=len(info.surplus.columns), **_LEGEND)
    date_axis(axes)
    return figure


def _panels(info: ExperimentInfo) -> tuple[Figure, list[Axes]]:
    figure, panels = draw(len(info.metrics), (9.0, _EDGE + _PANEL * len(info.metrics)))
    figure.suptitle(info.title, x=0.01, ha="left", fontsize=11)
    return figure, panels


def _plot_effect(axes: Axes, arm: ArmCourse, colour: str, aside: pd.Timedelta) -> None:
    """`aside`: how far bars are moved, so that those of several arms do not hide each other."""
    means, looks = arm.differences.expanding().mean(), arm.looks
    if len(means):
        axes.plot(means.index, means, color=colour, linewidth=1.0, alpha=0.6)
    if looks.empty:
        axes.plot([], [], color=colour, label=f"{arm.arm}: no look yet, {len(means)} days")
        return
    newest, days = looks.iloc[-1], looks.index + aside
    label = f"{arm.arm}: {newest['effect']:+.4g} ({newest['lower']:+.4g} to {newest['upper']:+.4g})"
    if len(looks) > _MOST_BARS:
        axes.fill_between(looks.index, looks["lower"], looks["upper"], color=colour, alpha=0.18, linewidth=0)
        axes.plot(looks.index, looks["effect"], color=colour, linewidth=2, label=label)
        return
    reach = [looks["effect"] - looks["lower"], looks["upper"] - looks["effect"]]
    axes.errorbar(days, looks["effect"], reach, fmt="o", color=colour, markersize=4, capsize=2.5, label=label)


def _limit(axes: Axes, metric: MetricCourse) -> None:
    """The first days' means vary widely, and are cut off where they would flatten the rest."""
    bounds = [metric.smallest_effect, -metric.smallest_effect]
    for arm in metric.arms:
        bounds += [*arm.looks["lower"], *arm.looks["upper"]]
        means = arm.differences.expanding().mean().iloc[min(10, len(arm.differences) // 3) :]
        bounds += [*means] if len(means) else []
    low, high = min(bounds), max(bounds)
    room = 0.08 * (high - low)
    axes.set_ylim(low - room, high + room)


def _is_empty(axes: Axes, metric: MetricCourse) -> bool:
    """Whether there is nothing to draw, which is said."""
    if any(len(arm.differences) or len(arm.looks) for arm in metric.arms):
        return False
    no_data(axes, "no day has a value of both arms yet")
    axes.set(xticks=[], yticks=[])
    return True


def _finish(axes: Axes) -> None:
    axes.axhline(0, color="#555555", linewidth=0.8)
    axes.legend(loc="best", **_LEGEND)
    date_axis(axes)
