"""What a drift report shows: the columns farthest outside their bands, and the distribution of scores."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray

from mlops_tasks.plots.figure import BLUE, GREY, ORANGE, RED, draw, no_data, styled

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class ScoreHistogram:
    """Shares of reference and current scores in the bins between `edges`."""

    edges: Floats
    reference: Floats
    current: Floats


@dataclass(frozen=True)
class DriftInfo:
    """The columns farthest outside their bands, the farthest first, as shares of the limit; what is near it; scores."""

    exceedance: pd.Series
    near: float
    n_columns: int
    scores: ScoreHistogram
    title: str


def drift_info(table: pd.DataFrame, near: float, scores: ScoreHistogram, title: str, top: int = 20) -> DriftInfo:
    """From a drift table (index: column, with `exceedance`), the share that is near the limit, and score histograms."""
    exceedance = table["exceedance"].dropna().sort_values(ascending=False, kind="stable")
    return DriftInfo(exceedance.head(top), near, n_columns=len(table), scores=scores, title=title)


@styled
def plot_drift(info: DriftInfo) -> Figure:
    """Exceedance of the top columns above the score distributions."""
    height = 0.24 * max(len(info.exceedance), 4)
    figure, (upper, lower) = draw(2, (9.0, height + 4.6), (height + 0.6, 3.0))
    values = info.exceedance.iloc[::-1]
    colors = [RED if value >= 1 else ORANGE if value >= info.near else BLUE for value in values]
    upper.barh(list(values.index), values, color=colors)
    upper.axvline(1.0, color=RED, linestyle="--", linewidth=1, label="limit of the day")
    upper.grid(visible=False, axis="y")
    upper.legend(loc="lower right")
    title = f"{info.title}: first {len(values)} of {info.n_columns} columns"
    upper.set(title=title, xlabel="distance from the training segment's windows, limit = 1", ylabel="column")
    if len(values) == 0:
        no_data(upper, "no column could be compared")
    _plot_scores(lower, info.scores)
    return figure


def _plot_scores(axes: Axes, scores: ScoreHistogram) -> None:
    axes.stairs(scores.reference, scores.edges, color=GREY, fill=True, alpha=0.45, label="reference: training segment")
    axes.stairs(scores.current, scores.edges, color=BLUE, linewidth=1.6, label="current")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set(title="Scores", xlabel="score (outer bins hold what lies beyond)", ylabel="share of rows")
    axes.legend(loc="upper right")
