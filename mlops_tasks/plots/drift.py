"""What a drift report shows: the columns outside their bands by what they may cost, and the distribution of scores."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray

from mlops_tasks.columns import SCORE
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
    """The first columns of the report, as shares of the limit; their importance; what counts as near it; the scores."""

    exceedance: pd.Series
    importance: pd.Series
    """Shares of the score's; NaN: not known."""
    near: float
    n_columns: int
    scores: ScoreHistogram
    title: str


def drift_info(table: pd.DataFrame, near: float, scores: ScoreHistogram, title: str, top: int = 20) -> DriftInfo:
    """From a drift table (index: column, with `exceedance` and `importance_share`, in the order of the report), what is
    near the limit, and the score histogram."""
    first = table[table["exceedance"].notna()].head(top)
    return DriftInfo(first["exceedance"], first["importance_share"], near, len(table), scores, title)


@styled
def plot_drift(info: DriftInfo) -> Figure:
    """Exceedance of the first columns, with their shares of the importance, above the score distributions."""
    height = 0.24 * max(len(info.exceedance), 4)
    figure, (upper, lower) = draw(2, (9.0, height + 4.6), (height + 0.6, 3.0))
    values = info.exceedance.iloc[::-1]
    colors = [RED if value >= 1 else ORANGE if value >= info.near else BLUE for value in values]
    bars = upper.barh(list(values.index), values, color=colors)
    labels = [_in_words(str(name), share) for name, share in info.importance.iloc[::-1].items()]
    upper.bar_label(bars, labels, padding=3, fontsize="small")
    upper.margins(x=0.1)
    upper.axvline(1.0, color=RED, linestyle="--", linewidth=1, label="limit of the day")
    upper.grid(visible=False, axis="y")
    upper.legend(loc="lower right")
    title = f"{info.title}: first {len(values)} of {info.n_columns} columns"
    upper.set(
        title=title,
        xlabel="distance from the training segment's windows, limit = 1; shares are of the score's importance",
        ylabel="column",
    )
    if len(values) == 0:
        no_data(upper, "no column could be compared")
    _plot_scores(lower, info.scores)
    return figure


def _in_words(column: str, share: float) -> str:
    if column == SCORE:
        return "the scores themselves"
    return f"{share:.1%}" if np.isfinite(share) else "not known"


def _plot_scores(axes: Axes, scores: ScoreHistogram) -> None:
    axes.stairs(scores.reference, scores.edges, color=GREY, fill=True, alpha=0.45, label="reference: training segment")
    axes.stairs(scores.current, scores.edges, color=BLUE, linewidth=1.6, label="current")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set(title="Scores", xlabel="score (outer bins hold what lies beyond)", ylabel="share of rows")
    axes.legend(loc="upper right")
