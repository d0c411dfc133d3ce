"""What a drift report shows: the columns that drifted most, and the distribution of scores."""

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
    """The columns with the largest PSI, the largest first, the thresholds, and the scores."""

    psi: pd.Series
    warn: float
    alert: float
    n_columns: int
    scores: ScoreHistogram
    title: str


def drift_info(
    table: pd.DataFrame, thresholds: tuple[float, float], scores: ScoreHistogram, title: str, top: int = 20
) -> DriftInfo:
    """From a drift table (index: column, with `psi`), (warn, alert) thresholds and the score histogram."""
    psi = table["psi"].dropna().sort_values(ascending=False, kind="stable")
    return DriftInfo(psi.head(top), *thresholds, n_columns=len(table), scores=scores, title=title)


@styled
def plot_drift(info: DriftInfo) -> Figure:
    """PSI of the top columns above the score distributions."""
    height = 0.24 * max(len(info.psi), 4)
    figure, (upper, lower) = draw(2, (9.0, height + 4.6), (height + 0.6, 3.0))
    psi = info.psi.iloc[::-1]
    colors = [RED if value >= info.alert else ORANGE if value >= info.warn else BLUE for value in psi]
    upper.barh(list(psi.index), psi, color=colors)
    upper.axvline(info.warn, color=ORANGE, linestyle="--", linewidth=1, label=f"warn {info.warn:g}")
    upper.axvline(info.alert, color=RED, linestyle="--", linewidth=1, label=f"alert {info.alert:g}")
    upper.grid(visible=False, axis="y")
    upper.legend(loc="lower right")
    upper.set(title=f"{info.title}: first {len(psi)} of {info.n_columns} columns", xlabel="PSI", ylabel="column")
    if len(psi) == 0:
        no_data(upper, "no column could be compared")
    _plot_scores(lower, info.scores)
    return figure


def _plot_scores(axes: Axes, scores: ScoreHistogram) -> None:
    axes.stairs(scores.reference, scores.edges, color=GREY, fill=True, alpha=0.45, label="reference: training segment")
    axes.stairs(scores.current, scores.edges, color=BLUE, linewidth=1.6, label="current")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set(title="Scores", xlabel="score (outer bins hold what lies beyond)", ylabel="share of rows")
    axes.legend(loc="upper right")
