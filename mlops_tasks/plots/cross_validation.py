"""What a cross-validation shows: the course of each backtest path, and where the paths end."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from mlops_tasks.plots.figure import BLUE, GREY, ORANGE, date_axis, draw, styled

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class BacktestPath:
    """One path: its mean daily rank IC by seed, and the running sums over its days."""

    values: Sequence[float]
    mean: float
    interval: tuple[float, float] | None
    """Of the mean over seeds; None for one seed."""
    cumulative: Floats
    """Shape (days,), mean over seeds."""
    least: Floats
    largest: Floats
    """The largest of the seeds on each day."""


@dataclass(frozen=True)
class CrossValidationInfo:
    """All paths over the same days, and the confidence interval of their common mean daily rank IC."""

    title: str
    days: pd.DatetimeIndex
    paths: Sequence[BacktestPath]
    interval: tuple[float, float]


@styled
def plot_cross_validation(info: CrossValidationInfo) -> Figure:
    """Above, the running sum of each path's daily rank ICs, with a band between the seeds; below, each path's mean.

    Dots are seeds, the diamond is their mean, the thick line its interval; the grey band is the interval of the mean
    over all paths.
    """
    heights = [3.0, 0.7 + 0.22 * len(info.paths)]
    figure, (above, below) = draw(2, size=(9.0, 1.4 + sum(heights)), heights=heights)
    figure.suptitle(info.title, x=0.01, ha="left", fontsize=11)
    above.set_title("Running sum of daily rank IC, one line per path; bands: smallest to largest seed")
    above.axhline(0, color=GREY, linewidth=0.8)
    for path in info.paths:
        above.fill_between(info.days, path.least, path.largest, color=BLUE, alpha=0.12, linewidth=0)
        above.plot(info.days, path.cumulative, color=BLUE, linewidth=1.0, alpha=0.8)
    above.set_ylabel("rank IC, summed")
    date_axis(above)
    below.set_title("Mean daily rank IC of each path; dots: seeds")
    below.axvline(0, color=GREY, linewidth=0.8)
    below.axvspan(*info.interval, color=GREY, alpha=0.15, linewidth=0)
    for row, path in enumerate(info.paths):
        if path.interval is not None:
            below.plot(path.interval, [row, row], color=BLUE, linewidth=4, alpha=0.25, solid_capstyle="butt")
        below.plot(path.values, [row] * len(path.values), "o", color=BLUE, markersize=3.5, alpha=0.7)
        below.plot([path.mean], [row], "D", color=ORANGE, markersize=6, markerfacecolor="white")
    below.set_yticks(range(len(info.paths)), [f"path {number + 1}" for number in range(len(info.paths))])
    below.invert_yaxis()
    below.set_xlabel("mean daily rank IC")
    return figure
