"""What the pages ship of others is what its package has, with its licence."""

import json

import pytest

from mlops_tasks.config import PROJECT

UI = PROJECT / "plugins" / "mlops_ui"
PACKAGE = UI / "node_modules" / "uplot"


@pytest.mark.parametrize(
    ("shipped", "original"),
    [
        ("uPlot.iife.min.js", "dist/uPlot.iife.min.js"),
        ("uPlot.min.css", "dist/uPlot.min.css"),
        ("uPlot-LICENSE.txt", "LICENSE"),
    ],
)
def test_a_shipped_file_is_the_packages(shipped: str, original: str) -> None:
    """Byte for byte, of the version that is pinned."""
    pinned = json.loads((UI / "package.json").read_text())["devDependencies"]["uplot"]
    assert json.loads((PACKAGE / "package.json").read_text())["version"] == pinned
    assert (UI / "static" / shipped).read_bytes() == (PACKAGE / original).read_bytes()
