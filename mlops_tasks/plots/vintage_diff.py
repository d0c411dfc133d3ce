"""What a vintage diff shows: which dates and fields of the past changed, and how."""

from dataclasses import dataclass

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter

from mlops_tasks.plots.figure import BLUE, GREEN, GREY, ORANGE, RED, date_axis, draw, no_data, styled

PERIODS = 60
"""The most bars along the time axis."""

_COLORS = {
    "open": BLUE,
    "high": GREEN,
    "low": ORANGE,
    "close": RED,
    "volume": GREY,
    "vwap": "#8e5ea2",
    "factor": "#3a3f47",
}


@dataclass(frozen=True)
class VintageDiffInfo:
    """Changed cells by period (index: its first day) and field, and by class, with the most frequent class last."""

    by_period: pd.DataFrame
    by_class: pd.Series
    title: str


def vintage_diff_info(changes: pd.DataFrame, title: str) -> VintageDiffInfo:
    """From the changes of a `VintageDiff`: columns date, field and class are used; it may be empty."""
    days = changes["date"]
    span = 1 if changes.empty else (days.max() - days.min()).days // PERIODS + 1
    first = days - pd.to_timedelta((days - days.min()).dt.days % span, unit="D")
    counts = changes.groupby([first, changes["field"]], observed=True).size().unstack(fill_value=0)
    by_class = changes["class"].value_counts()
    return VintageDiffInfo(counts, by_class[by_class > 0].sort_values(kind="stable"), title)


@styled
def plot_vintage_diff(info: VintageDiffInfo) -> Figure:
    """Changed cells over time, stacked by field, above their classes."""
    figure, (upper, lower) = draw(2, (9.0, 6.0), (3.2, 2.0))
    bottom = pd.Series(0, info.by_period.index)
    periods = info.by_period.index.to_series()
    width = max(periods.diff().min().days, 1) if len(periods) > 1 else 1
    for field in info.by_period.columns:
        counts = info.by_period[field]
        upper.bar(counts.index, counts, width, bottom, color=_COLORS[str(field)], label=str(field), align="edge")
        bottom = bottom + counts
    upper.set(title=info.title, ylabel="changed cells")
    if info.by_period.empty:
        no_data(upper, "no past values changed")
    else:
        upper.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
        date_axis(upper)
    bars = lower.barh([str(kind) for kind in info.by_class.index], info.by_class, color=BLUE)
    lower.bar_label(bars, [f"{count:,}" for count in info.by_class], padding=3)
    lower.margins(x=0.12)
    lower.set(title="By class", xlabel="cells")
    lower.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    upper.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    lower.grid(visible=False, axis="y")
    return figure
