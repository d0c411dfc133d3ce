"""Some rows of a parquet file are those that slicing all of them gives, however the file is grouped."""

from pathlib import Path

import pandas as pd
import pytest

from mlops_tasks.parquet_pages import rows_of


@pytest.mark.parametrize("group", [1, 7, 1000, 100_000])
def test_any_page_is_the_slice(tmp_path: Path, group: int) -> None:
    """From the beginning, across groups and batches, up to the end and beyond it."""
    whole = pd.DataFrame({"number": range(2500), "text": [f"t{number}" for number in range(2500)]})
    path = tmp_path / "rows.parquet"
    whole.to_parquet(path, index=False, row_group_size=group)
    for start, count in ((0, 5), (998, 10), (2495, 10), (2500, 3), (10**30, 3), (5, 2000)):
        found = rows_of(path, start, count, ["text"])
        assert found.total == 2500
        assert list(found.frame["text"]) == list(whole["text"][start : start + count]), (start, count)


def test_an_empty_file_has_no_rows(tmp_path: Path) -> None:
    """Its columns are there."""
    path = tmp_path / "rows.parquet"
    pd.DataFrame({"number": pd.array([], dtype="int64")}).to_parquet(path, index=False)
    found = rows_of(path, 0, 10, ["number"])
    assert (found.total, list(found.frame.columns), len(found.frame)) == (0, ["number"], 0)
