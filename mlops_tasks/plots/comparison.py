"""What a paired comparison shows: the running sum of daily differences with its confidence band."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from mlops_tasks.plots.figure import BLUE, GREY, cumulative, date_axis, draw, shown, styled


@dataclass(frozen=True)
class ComparisonInfo:
    """Running sum of the daily rank IC difference, challenger minus champion, by datetime."""

    total: pd.Series
    band: pd.Series
    """Half width, on each day, of the band within which a difference of zero stays."""
    title: str
    caption: str


def comparison_info(
    difference: pd.Series, standard_error: float, p_two_sided: float | None, title: str
) -> ComparisonInfo:
    """From the daily difference and the robust standard error of its mean (0 draws no band).

    After k of n days, the sum of a series with mean zero has a standard deviation of about standard_error * sqrt(n k);
    the band is 1.96 times this.
    """
    values = difference.dropna()
    n = len(values)
    band = pd.Series(1.96 * standard_error * np.sqrt(n * np.arange(1, n + 1)), values.index)
    caption = (
        f"mean {shown(values.mean() if n else None, '+.5f')} a day, {n} days, two-sided p {shown(p_two_sided, '.3f')}"
    )
    return ComparisonInfo(cumulative(values), band, title, caption)


@styled
def plot_comparison(info: ComparisonInfo) -> Figure:
    """The running sum; if it ends outside the band, the difference is more than luck."""
    figure, (axes,) = draw()
    axes.fill_between(
        info.band.index, -info.band, info.band, color=GREY, alpha=0.2, linewidth=0, label="95% band of no gain"
    )
    axes.plot(info.total.index, info.total, color=BLUE, label=info.caption)
    axes.axhline(0, color=GREY, linewidth=0.8)
    axes.set(title=info.title, xlabel="date of the score", ylabel="sum of rank IC differences")
    axes.legend(loc="upper left")
    date_axis(axes)
    return figure
