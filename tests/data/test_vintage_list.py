"""The list of vintages, page by page, and what is known of one."""

import shutil
from pathlib import Path

import pytest

from mlops_tasks.config import Settings
from mlops_tasks.data import vintage_list
from mlops_tasks.data.vintage_list import NoVintageError, find_vintage, vintage_page
from mlops_tasks.data.vintages import vintage_path
from mlops_tasks.errors import StoreError
from tests.data.market import make_bars, save, sync


def test_vintages_are_listed_newest_first_and_known_by_their_manifests(settings: Settings, tmp_path: Path) -> None:
    """In use, in DVC, bars, source; one whose folder is gone is in DVC alone. No path of the machine is told."""
    bars = make_bars()
    old = sync(save(bars[bars["Date"] < "2020-01-10"], tmp_path / "old.parquet"))["data_version"]
    new = sync(save(bars, tmp_path / "bars.parquet"))["data_version"]
    page = vintage_page(settings, 0, 10)
    first, second = page.vintages
    assert (page.total, first.data_version, second.data_version) == (2, new, old)
    assert (first.in_use, first.on_disk, first.in_dvc, second.in_use) == (True, True, True, False)
    assert (first.rows, first.instruments, first.received, first.quarantined) == (120, 4, 120, 0)
    assert (first.first_date, first.last_date) == (bars["Date"].iloc[0], bars["Date"].iloc[-1])
    detail = find_vintage(settings, new)
    assert sum(detail.years.values()) == 120 and sorted(detail.years) == ["2019", "2020"]
    assert first.source == "bars.parquet" and [each.name for each in detail.inputs] == ["bars.parquet"]
    shutil.rmtree(vintage_path(settings, old))
    gone = find_vintage(settings, old).vintage
    assert (gone.on_disk, gone.in_dvc, gone.rows, gone.source) == (False, True, None, None)
    with pytest.raises(NoVintageError, match="there is no vintage '0000"):
        find_vintage(settings, "0" * 16)
    with pytest.raises(StoreError):
        find_vintage(settings, "../secrets")


def test_only_the_manifests_of_a_page_are_read(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many vintages there are."""
    folder = settings.data_dir / "vintages"
    folder.mkdir(parents=True)
    for number in range(1000):
        (folder / f"{number:016x}.dvc").touch()
    asked: list[str] = []
    monkeypatch.setattr(vintage_list, "_manifest", lambda settings, version: asked.append(version) or {})
    page = vintage_page(settings, 990, 20)
    assert (page.total, len(page.vintages), len(asked)) == (1000, 10, 10)
