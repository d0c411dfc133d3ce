"""The graph of a training's lineage as shapes of an SVG picture, whose sizes are in pixels."""

from collections.abc import Sequence
from dataclasses import dataclass

from mlops_tasks.plots.lineage import Box, LineageInfo

WIDTH, LINE, PADDING = 160, 17, 9
ACROSS, DOWN = 188, 96
"""From one column to the next, and from one row."""


@dataclass(frozen=True)
class DrawnBox:
    """A box, and where its lines of text stand."""

    x: float
    y: float
    height: float
    lines: Sequence[tuple[float, str]]
    """The place of each from the top of the picture, and its text."""


@dataclass(frozen=True)
class Drawing:
    """All of a picture."""

    title: str
    width: float
    height: float
    boxes: Sequence[DrawnBox]
    paths: Sequence[str]
    """The arrows, as data of SVG paths."""
    words: str
    """The same for those who do not see it."""


def draw_lineage(info: LineageInfo) -> Drawing:
    """Boxes in columns, from what is read to what is made of it."""
    top = min(box.row for box in info.boxes)
    drawn = {box.key: _drawn(box, top) for box in info.boxes}
    return Drawing(
        title=info.title,
        width=max(box.x for box in drawn.values()) + WIDTH + 2,
        height=max(box.y + box.height for box in drawn.values()) + 2,
        boxes=list(drawn.values()),
        paths=[_arrow(drawn[start], drawn[end]) for start, end in info.edges],
        words=", ".join(" ".join(box.lines) for box in info.boxes),
    )


def _drawn(box: Box, top: float) -> DrawnBox:
    texts = [part for line in box.lines for part in line.split(" + ")]  # of a commit with changes
    height = len(texts) * LINE + 2 * PADDING
    x, y = 2 + box.column * ACROSS, 2 + (box.row - top) * DOWN + max(0.0, (DOWN - 12 - height) / 2)
    lines = [(y + PADDING + (place + 0.75) * LINE, text) for place, text in enumerate(texts)]
    return DrawnBox(x, y, height, lines)


def _arrow(start: DrawnBox, end: DrawnBox) -> str:
    if start.x == end.x:  # from below
        x = start.x + WIDTH / 2
        return f"M{x:.0f},{start.y:.0f}L{x:.0f},{end.y + end.height + 6:.0f}"
    left, right = start.x + WIDTH, end.x - 6
    return f"M{left:.0f},{start.y + start.height / 2:.0f}L{right:.0f},{end.y + end.height / 2:.0f}"
