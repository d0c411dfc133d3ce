"""The graph of a lineage as it is drawn: no two boxes touch, arrows end at boxes, texts stay inside."""

from itertools import combinations
from typing import Any

import pytest

from mlops_tasks.config import PROJECT
from mlops_tasks.plots.lineage import Box, LineageInfo

INFO = LineageInfo(
    "training k",
    (
        Box("raw0", ("bars.csv", "10 rows"), 0, 0.0),
        Box("raw1", ("more.csv", "10 rows"), 0, 1.0),
        Box("vintage", ("vintage", "v1"), 1, 0.5),
        Box("training", ("training", "k", "seed 1", "a", "b"), 2, -0.5),
        Box("code", ("commit 3ec27c8a3ec2 + changes", "lock 1"), 2, 0.7),
    ),
    (("raw0", "vintage"), ("raw1", "vintage"), ("vintage", "training"), ("code", "training")),
)


@pytest.fixture
def drawing(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The plugin's module, which lies where Airflow finds it."""
    monkeypatch.syspath_prepend(str(PROJECT / "plugins"))
    from mlops_ui import lineage_drawing

    return lineage_drawing


def test_boxes_do_not_touch_and_arrows_lead_between_them(drawing: Any) -> None:
    """In a picture that holds them all, from the left to the right, or from below."""
    drawn = drawing.draw_lineage(INFO)
    for one, other in combinations(drawn.boxes, 2):
        apart = one.x + drawing.WIDTH < other.x or other.x + drawing.WIDTH < one.x
        assert apart or one.y + one.height < other.y or other.y + other.height < one.y
    assert all(box.x + drawing.WIDTH < drawn.width and box.y >= 0 for box in drawn.boxes)
    assert all(box.y + box.height < drawn.height for box in drawn.boxes)
    assert all(box.y < y < box.y + box.height for box in drawn.boxes for y, _ in box.lines)
    starts = [tuple(map(float, path[1:].partition("L")[0].split(","))) for path in drawn.paths]
    assert [x for x, _ in starts] == [
        pytest.approx(2 + drawing.WIDTH),
        pytest.approx(2 + drawing.WIDTH),
        pytest.approx(2 + drawing.ACROSS + drawing.WIDTH),
        pytest.approx(2 + 2 * drawing.ACROSS + drawing.WIDTH / 2),
    ]
    assert [text for _, text in drawn.boxes[4].lines] == ["commit 3ec27c8a3ec2", "changes", "lock 1"]
    assert "bars.csv 10 rows" in drawn.words
