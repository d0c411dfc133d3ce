"""Diffs as they are on disk, for pages and the API: their list, the verdict of one, its cells page by page."""

from pathlib import Path

import pandas as pd
import pytest

from mlops_tasks.config import Settings, VintagePolicySettings
from mlops_tasks.data.revisions.approvals import approve
from mlops_tasks.data.revisions.diff import CHANGES_FILE, diff_vintages
from mlops_tasks.data.revisions.stored import NoDiffError, cell_page, diff_file, find_stored_diff, stored_diffs
from mlops_tasks.data.vintages import Vintage, publish, write_vintage
from mlops_tasks.errors import StoreError
from tests.operation import bars

DAYS = pd.bdate_range("2026-01-05", periods=30)
NAMES = ("S000", "S001")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """An empty home."""
    return Settings(home=tmp_path)


def written(settings: Settings, factor: float = 1.0, days: int = len(DAYS)) -> Vintage:
    """A vintage; the first instrument's closes from the tenth to the twentieth row are multiplied."""
    frame = bars(DAYS[:days], NAMES)
    frame.loc[10:20, "close"] *= factor
    return write_vintage(settings, frame, None, {"source": "s", "quarantined": 0})


@pytest.fixture
def pair(settings: Settings) -> tuple[str, str]:
    """The vintage in use and one with other closes, compared."""
    old, new = written(settings).data_version, written(settings, 1.12).data_version
    publish(settings, old)
    diff_vintages(settings, old, new)
    return old, new


def test_a_diff_is_found_with_what_the_policy_says_now(settings: Settings, pair: tuple[str, str]) -> None:
    """The verdict follows the settings, and an approval ends the waiting."""
    found = find_stored_diff(settings, *pair)
    assert (found.restated_rows, found.verdict.decision, found.is_waiting) == (11, "block", True)
    assert found.has_plot and found.approval is None
    lenient = VintagePolicySettings(max_restated_rows_share=0.9)
    lenient_settings = settings.model_copy(update={"vintage_policy": lenient})
    assert find_stored_diff(lenient_settings, *pair).verdict.decision == "warn"
    approve(settings, pair[1], "the vendor corrected them", "ann")
    approved = find_stored_diff(settings, *pair)
    assert not approved.is_waiting and approved.approval is not None and approved.approval.by == "ann"


def test_the_cells_of_a_diff_come_page_by_page(settings: Settings, pair: tuple[str, str]) -> None:
    """Each once, in order; nothing beyond the end."""
    pages = [cell_page(settings, *pair, first, 4) for first in (0, 4, 8, 12)]
    cells = [cell for page in pages for cell in page.cells]
    assert [page.total for page in pages] == [11] * 4 and [len(page.cells) for page in pages] == [4, 4, 3, 0]
    assert [cell.date for cell in cells] == [day.date() for day in DAYS[10:21]]
    assert {(cell.instrument, cell.field, cell.kind) for cell in cells} == {("S000", "close", "restated")}
    assert all(cell.relative_change == pytest.approx(0.12) for cell in cells)


def test_diffs_are_listed_newest_first(settings: Settings, pair: tuple[str, str]) -> None:
    """All of them page by page, or those of a vintage."""
    third = written(settings, days=29).data_version
    diff_vintages(settings, pair[0], third)
    both = stored_diffs(settings, 0, 10)
    assert (both.total, [each.new for each in both.diffs]) == (2, [third, pair[1]])
    assert [each.new for each in stored_diffs(settings, 1, 10).diffs] == [pair[1]]
    assert [each.new for each in stored_diffs(settings, 0, 10, pair[1]).diffs] == [pair[1]]
    assert stored_diffs(settings, 0, 10, "0" * 16).total == 0


def test_no_name_leads_out_of_the_diffs(settings: Settings, pair: tuple[str, str]) -> None:
    """Other names, other files and other folders are refused."""
    assert diff_file(settings, *pair, CHANGES_FILE).is_file()
    for name in ("summary.json", "../secret", "universe.parquet", ""):
        with pytest.raises(NoDiffError):
            diff_file(settings, *pair, name)
    with pytest.raises(NoDiffError):
        find_stored_diff(settings, pair[1], pair[0])
    for version in ("..", "../x", ".hidden", "a/b", "a\0b"):
        with pytest.raises(StoreError):
            find_stored_diff(settings, version, pair[1])
