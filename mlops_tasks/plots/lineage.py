"""The lineage of a training as a graph: raw files > vintage > features and label > training > model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure

from mlops_tasks.plots.figure import BLUE, GREEN, GREY, ORANGE, draw, styled

SHOWN_FILES = 4
"""Raw files that have a box of their own; the others share one."""
_WIDTH, _HEIGHT = 0.54, 0.62
"""Of a box, where a column and a row are 1."""
_NAME = 30
"""Characters of a name that fit into a box."""


@dataclass(frozen=True)
class Box:
    """One node: its lines of text, and where it stands."""

    key: str
    lines: tuple[str, ...]
    column: int
    """From 0, in the direction in which data flows."""
    row: float
    """From 0, the uppermost."""
    colour: str = BLUE


@dataclass(frozen=True)
class LineageInfo:
    """A graph of boxes."""

    title: str
    boxes: tuple[Box, ...]
    edges: tuple[tuple[str, str], ...]
    """Keys, from what is read to what is made of it."""


def lineage_info(title: str, lineage: Mapping[str, Any]) -> LineageInfo:
    """The graph of a `lineage.json` (`registry/lineage_document.py`); what was not recorded has no box."""
    raw, vintage, features = lineage["raw"], lineage["vintage"], lineage["features"]
    files = _files(raw)
    middle = (max(3, len(files)) - 1) / 2
    boxes = [Box(f"raw{n}", lines, 0, _row(n, len(files), middle), GREY) for n, lines in enumerate(files)]
    bars = (f"{vintage['rows']:,} bars",) if vintage.get("rows") else ()
    boxes.append(Box("vintage", ("vintage", vintage["data_version"], *bars), 1, middle))
    set_lines = (features["feature_set"], features["feature_version"], f"{len(features.get('names', ()))} features")
    boxes.append(Box("features", ("features", *set_lines), 2, middle - 0.6))
    edges = [(box.key, "vintage") for box in boxes if box.column == 0]
    edges += [("vintage", "features"), ("features", "training")]
    if label := lineage.get("label"):
        boxes.append(Box("label", ("label", f"horizon {label['horizon']}"), 2, middle + 0.6))
        edges += [("vintage", "label"), ("label", "training")]
    model, training = lineage["model"], lineage.get("training") or {}
    about = (f"seed {training['seed']}",) if training else ()
    boxes.append(Box("training", ("training", model["training_key"], *about), 3, middle))
    made_by = _made_by(training)
    if made_by:
        boxes.append(Box("code", made_by, 3, middle + 1.2, ORANGE))
        edges.append(("code", "training"))
    boxes.append(Box("model", ("model", model["model"], model["digest"][:16]), 4, middle, GREEN))
    return LineageInfo(title, tuple(boxes), (*edges, ("training", "model")))


def _row(place: int, count: int, middle: float) -> float:
    return place + middle - (count - 1) / 2


def _files(raw: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """The lines of each box of raw files."""
    found = [_file(each) for each in raw[:SHOWN_FILES]]
    if len(raw) > SHOWN_FILES:
        rest = raw[SHOWN_FILES - 1 :]
        found[SHOWN_FILES - 1 :] = [(f"{len(rest)} more files", f"{sum(each['rows'] for each in rest):,} rows")]
    return found or [("source", "not recorded")]


def _file(each: Mapping[str, Any]) -> tuple[str, ...]:
    return str(each["name"])[-_NAME:], f"{each['rows']:,} rows", each["sha256"][:16]


def _made_by(training: Mapping[str, Any]) -> tuple[str, ...]:
    code, environment = training.get("code"), training.get("environment")
    lines = [f"commit {(code['commit'] or 'unknown')[:12]}{' + changes' if code['dirty'] else ''}"] if code else []
    if environment:
        lines += [f"lock {(environment['lock'] or 'none')[:12]}", f"Python {environment['python']}"]
    return tuple(lines)


@styled
def plot_lineage(info: LineageInfo) -> Figure:
    """Boxes in columns, from the left to the right; an arrow from what is read to what is made of it."""
    rows = 1 + max(box.row for box in info.boxes)
    columns = 1 + max(box.column for box in info.boxes)
    figure, (axes,) = draw(size=(2.4 * columns, 0.8 + 0.95 * rows))
    axes.set(title=info.title, xticks=(), yticks=())
    axes.set(xlabel="from what is read, to what is made of it", ylabel="what serves the same")
    axes.spines[:].set_visible(False)
    axes.set(xlim=(-0.5, columns - 0.5), ylim=(rows - 0.5, -0.5))
    places = {box.key: (box.column, box.row) for box in info.boxes}
    for start, end in info.edges:
        (left, top), (right, bottom) = places[start], places[end]
        step = _WIDTH / 2 if left < right else 0.0
        rise = 0.0 if left < right else _HEIGHT / 2
        arrow = {"arrowstyle": "->", "color": GREY, "linewidth": 1.0}
        axes.annotate("", (right - step, bottom + rise), (left + step, top - rise), arrowprops=arrow)
    for box in info.boxes:
        frame = {"boxstyle": "round,pad=0.45", "facecolor": "white", "edgecolor": box.colour}
        text = "\n".join(box.lines)
        axes.text(box.column, box.row, text, ha="center", va="center", fontsize=7.5, bbox=frame)
    return figure
