"""What the table of models shows: the results of each seed, and the band of their mean."""

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from mlops_tasks.plots.figure import BLUE, GREY, ORANGE, draw, no_data, styled


@dataclass(frozen=True)
class SeedPoints:
    """One model's values of a metric, by seed, and the interval of their mean (None for one seed)."""

    name: str
    values: Sequence[float]
    mean: float
    interval: tuple[float, float] | None
    is_peer: bool
    """Whether it is one of Qlib's own classes."""


@dataclass(frozen=True)
class ModelTableInfo:
    """A panel for each metric, from the top: title, whether values are shares, and the models in the table's order."""

    title: str
    panels: Sequence[tuple[str, bool, Sequence[SeedPoints]]]


@styled
def plot_model_table(info: ModelTableInfo) -> Figure:
    """Dots are seeds, the diamond is their mean, the line its interval; Qlib's own classes are orange."""
    rows = max([1, *(len(points) for _, _, points in info.panels)])
    figure, axes = draw(len(info.panels), size=(9.0, (1.0 + 0.3 * rows) * len(info.panels)))
    figure.suptitle(info.title, x=0.01, ha="left", fontsize=11)
    for panel, (title, is_share, points) in zip(axes, info.panels, strict=True):
        panel.set_title(title)
        panel.axvline(0, color=GREY, linewidth=0.8)
        if not points:
            no_data(panel, "no model has this metric")
        for row, each in enumerate(points):
            color = ORANGE if each.is_peer else BLUE
            if each.interval is not None:
                panel.plot(each.interval, [row, row], color=color, linewidth=4, alpha=0.25, solid_capstyle="butt")
            panel.plot(each.values, [row] * len(each.values), "o", color=color, markersize=3.5, alpha=0.7)
            panel.plot([each.mean], [row], "D", color=color, markersize=6, markerfacecolor="white")
        panel.set_yticks(range(len(points)), [each.name for each in points])
        panel.invert_yaxis()
        if is_share:
            panel.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=1))
    return figure
