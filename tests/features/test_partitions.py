"""Partition files: what lies in them, the statistics beside them, and what damage is noticed."""

import json
import math
from itertools import chain
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlops_tasks.errors import StoreError
from mlops_tasks.features import partitions
from mlops_tasks.features.partitions import is_intact, read_statistics, row_groups, statistics_path, write_partition
from mlops_tasks.features.reading import Selection, read_frame
from mlops_tasks.features.statistics import ColumnStatistics, describe_columns, merge_columns

ALL = (pd.Timestamp("2000-01-01"), pd.Timestamp("2100-01-01"))


def panel(days: int = 90, instruments: int = 7) -> tuple[pd.MultiIndex, np.ndarray]:
    """Rows of a year with gaps, and two columns: one of numbers, NaN and infinities, one without any number."""
    rng = np.random.default_rng(1)
    index = pd.MultiIndex.from_product(
        [pd.bdate_range("2020-01-01", periods=days), [f"I{n}" for n in range(instruments)]],
        names=["datetime", "instrument"],
    )[rng.random(days * instruments) > 0.1].remove_unused_levels()
    values = rng.normal(3, 2, (2, len(index))).astype(np.float32)
    values[0, :9] = np.nan
    values[0, 9:12] = [np.inf, -np.inf, np.inf]
    values[1] = np.nan
    return index, values


def split(index: pd.MultiIndex, values: np.ndarray) -> list[np.ndarray]:
    """One piece a row group."""
    return [values[:, begin:end] for begin, end in row_groups(index)]


def test_statistics_are_those_of_the_values(tmp_path: Path) -> None:
    """Counts, mean, deviation and range of the finite values, as pandas has them; NaN where there is none."""
    index, values = panel()
    path = tmp_path / "p.parquet"
    write_partition(path, ["X", "EMPTY"], index, [values])
    found = read_statistics(path)
    assert found is not None
    finite = pd.Series(values[0][np.isfinite(values[0])].astype(float))
    each = found["X"]
    assert (each.rows, each.missing, each.infinite) == (len(index), 9, 3)
    assert [each.mean, each.std, each.min, each.max] == pytest.approx(
        [finite.mean(), finite.std(), finite.min(), finite.max()], rel=1e-12
    )
    assert (found["EMPTY"].missing, found["EMPTY"].finite) == (len(index), 0)
    assert all(math.isnan(value) for value in (found["EMPTY"].mean, found["EMPTY"].std, found["EMPTY"].max))


def test_pieces_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Written in one piece or group by group, file and statistics have the same bytes."""
    monkeypatch.setattr(partitions, "_GROUP_ROWS", 50)
    index, values = panel()
    whole, parts = tmp_path / "whole.parquet", tmp_path / "parts.parquet"
    write_partition(whole, ["X", "EMPTY"], index, [values])
    write_partition(parts, ["X", "EMPTY"], index, split(index, values))
    assert pq.ParquetFile(whole).num_row_groups > 5
    assert whole.read_bytes() == parts.read_bytes()
    assert statistics_path(whole).read_bytes() == statistics_path(parts).read_bytes()


values_of_a_column = st.lists(st.floats(width=32, allow_nan=True, allow_infinity=True), min_size=1, max_size=30)


@given(columns=st.lists(values_of_a_column, min_size=1, max_size=4))
def test_merged_statistics_are_those_of_all_rows(columns: list[list[float]]) -> None:
    """However rows are spread over partitions, counts and range are exact, mean and deviation up to rounding."""
    parts = [describe_columns(["X"], np.array([values], np.float32)) for values in columns]
    merged = merge_columns(parts)["X"]
    whole = describe_columns(["X"], np.array([[*chain(*columns)]], np.float32))["X"]
    assert (merged.rows, merged.missing, merged.infinite) == (whole.rows, whole.missing, whole.infinite)
    same = [(merged.min, whole.min), (merged.max, whole.max)]
    assert all(one == two or (math.isnan(one) and math.isnan(two)) for one, two in same)
    size = max(abs(whole.min), abs(whole.max)) if whole.finite else 0.0
    assert merged.mean == pytest.approx(whole.mean, rel=1e-12, abs=1e-12 * size, nan_ok=True)
    assert merged.m2 == pytest.approx(whole.m2, rel=1e-9, abs=1e-12 * size * size * whole.rows, nan_ok=True)
    assert ColumnStatistics.from_json(json.loads(json.dumps(merged.to_json()))).to_json() == merged.to_json()


def test_a_damaged_file_is_noticed(tmp_path: Path) -> None:
    """One changed bit fails the full check; a file that was cut off is an error on reading that names it."""
    index, values = panel()
    path = tmp_path / "p.parquet"
    write_partition(path, ["X", "EMPTY"], index, [values])
    content = bytearray(path.read_bytes())
    assert is_intact(path)
    content[len(content) // 3] ^= 4
    path.write_bytes(content)
    assert not is_intact(path)
    path.write_bytes(content[: len(content) // 2])
    assert not is_intact(path)
    with pytest.raises(StoreError, match=r"p\.parquet: a damaged partition .*remove it and run features\.compute"):
        read_frame([path], Selection(("X",), *ALL))


def test_statistics_are_there_before_the_partition(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer that ends at any rename leaves no partition without its statistics."""
    index, values = panel()
    path = tmp_path / "p.parquet"

    def die(self: Path, target: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", die)
    with pytest.raises(KeyboardInterrupt):
        write_partition(path, ["X", "EMPTY"], index, [values])
    assert not path.exists()
    monkeypatch.undo()
    replaced: list[str] = []
    replace = Path.replace

    def note(self: Path, target: Path) -> Path:
        replaced.append(target.name)
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", note)
    write_partition(path, ["X", "EMPTY"], index, [values])
    assert replaced == ["p.json", "p.parquet"]
