"""Figures without global state, and PNG files that depend on their content alone."""

import io
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from matplotlib import dates, rc_context, rcParamsDefault
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

BLUE, ORANGE, GREY, RED, GREEN = "#2a6fbb", "#e08214", "#8a8f98", "#c0392b", "#2e8b57"

_STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#555555",
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e6e8eb",
    "legend.frameon": False,
    "text.parse_math": False,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
}

Info = TypeVar("Info")


def styled(plot: Callable[[Info], Figure]) -> Callable[[Info], Figure]:
    """Let a `plot_*` function draw in the house style, whatever the process's Matplotlib settings are."""

    @wraps(plot)
    def in_style(info: Info) -> Figure:
        with rc_context({**rcParamsDefault, **_STYLE}):
            return plot(info)

    return in_style


def draw(
    rows: int = 1, size: tuple[float, float] = (9.0, 4.5), heights: Sequence[float] | None = None
) -> tuple[Figure, list[Axes]]:
    """A new figure and its axes, one above the other; size in inches."""
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    grid = {"height_ratios": list(heights)} if heights else None
    axes = figure.subplots(rows, 1, squeeze=False, gridspec_kw=grid)
    return figure, list(axes[:, 0])


def png_bytes(figure: Figure, dpi: int = 110) -> bytes:
    """The figure as PNG; equal content gives equal bytes (no date, no software in the metadata)."""
    buffer = io.BytesIO()
    with rc_context({**rcParamsDefault, **_STYLE}):
        figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()


_VARIABLES = {"#000000": "--text", "#555555": "--muted", "#e6e8eb": "--edge", "#ffffff": "--back"}
"""Colours of the style that a page's theme has its own for."""


def svg_text(figure: Figure, salt: str) -> str:
    """The figure as an `<svg>` element within a page, in the colours of the page's theme (`html_page.py`).

    Its texts are texts, escaped; equal content gives equal text. `salt` tells the ids of a page's figures apart.
    """
    buffer = io.StringIO()
    with rc_context({**rcParamsDefault, **_STYLE, "svg.fonttype": "none", "svg.hashsalt": salt}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :].replace('id="matplotlib.', 'id="')
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, f"var({variable})")
    return text


def write_png(figure: Figure, path: Path) -> None:
    """Write the figure as PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png_bytes(figure))


def date_axis(axes: Axes) -> None:
    """Few, short date labels."""
    locator = dates.AutoDateLocator(minticks=4, maxticks=9)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(dates.ConciseDateFormatter(locator))


def cumulative(series: pd.Series) -> pd.Series:
    """Running sum; days without a value add nothing."""
    return series.fillna(0.0).cumsum()


def shown(value: float | None, pattern: str) -> str:
    """A number as text; a dash where there is none."""
    return "–" if value is None or not np.isfinite(value) else format(value, pattern)


def no_data(axes: Axes, text: str) -> None:
    """Say in the middle of the axes why there is nothing to see."""
    style: dict[str, Any] = {"ha": "center", "va": "center", "color": GREY, "transform": axes.transAxes}
    axes.text(0.5, 0.5, text, **style)
