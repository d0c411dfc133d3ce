"""How pages are made from templates: filters, and the paths that their links begin with."""

import json
import struct
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from fastapi import Request
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from mlops_tasks.links import NAVIGATION, dag_run_path
from mlops_tasks.modeling.model_zoo.forms import value_text

NONE = "–"


def _duration(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))


def _metric(name: str) -> str:
    return name.replace(".", " ")


def _share(value: float | None) -> str:
    return NONE if value is None else f"{value:.1%}"


def figure_text(value: float | None) -> str:
    """A number with four digits; a dash where there is none."""
    return NONE if value is None else f"{value:.4g}"


def _metric_names(metrics: Mapping[str, Any]) -> list[str]:
    """Of `<segment>.<metric>`, each metric once."""
    return list(dict.fromkeys(name.partition(".")[2] for name in metrics))


def _said(payload: Mapping[str, Any]) -> str:
    """What an event says, in a line."""
    told = (f"{name} {each if isinstance(each, str) else json.dumps(each)}" for name, each in payload.items())
    return str(payload.get("explanation") or ", ".join(told))


PNG_HEAD = struct.Struct(">8s4x4s2I")
"""Signature, then the first chunk's name, width and height."""


def _size(picture: Path) -> Markup:
    """Width and height of a PNG file as attributes, so that the page keeps its place free; nothing where it is none."""
    with picture.open("rb") as file:
        head = file.read(PNG_HEAD.size)
    if len(head) < PNG_HEAD.size:
        return Markup()
    signature, chunk, width, height = PNG_HEAD.unpack(head)
    is_png = (signature, chunk) == (b"\x89PNG\r\n\x1a\n", b"IHDR")
    return Markup('width="{}" height="{}"').format(width, height) if is_png else Markup()


templates = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"), autoescape=True, undefined=StrictUndefined
)
templates.filters.update(duration=_duration, value=value_text, metric=_metric, share=_share, figure=figure_text)
templates.filters.update(json=json.dumps, said=_said, metric_names=_metric_names, size=_size)
templates.globals.update(dag_run_path=dag_run_path, navigation=NAVIGATION)


def render(request: Request, template: str, **content: Any) -> str:
    """A page whose links begin with the paths that Airflow is served at."""
    root = request.scope["root_path"]
    paths = {"root": root, "api": root.removesuffix("/ui") + "/v1", "airflow": root.removesuffix("/mlops/ui")}
    current = request.url.path.removeprefix(root).strip("/").partition("/")[0]
    return templates.get_template(template).render(**paths, current=current, **content)
