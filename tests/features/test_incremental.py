"""Incremental updates: the very bytes of a full computation, from the rows that a change of the bars reaches."""

import logging
import shutil
from collections.abc import Iterator
from dataclasses import replace
from math import inf
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mlops_tasks.columns import CLOSE, DATETIME, INSTRUMENT, VOLUME, VWAP
from mlops_tasks.config import Settings
from mlops_tasks.data.vintages import Vintage, canonical_bars, vintage_path
from mlops_tasks.errors import StoreError
from mlops_tasks.features import computation
from mlops_tasks.features.kernels import IntArray
from mlops_tasks.features.panel import Panel
from mlops_tasks.features.sets import FeatureSet
from mlops_tasks.features.store import FeatureStore, FeatureVersion
from mlops_tasks.features.values import compute_values
from mlops_tasks.process import run_stage
from tests.features.killing import SPREAD
from tests.features.market import make_vintage
from tests.features.revisions import DAYS, HISTORY, REVISIONS, revise, young_market
from tests.features.small_sets import SETS, feature_set

Key = tuple[pd.Timestamp, str]


class Reference:
    """Which rows depend on a difference, derived row by row from what each window shows."""

    def __init__(self, old: Vintage, new: Vintage, definition: FeatureSet) -> None:
        self.definition = definition
        self.old, self.new = (_Shown(each) for each in (old, new))

    def affected(self) -> set[Key]:
        """All such rows of the new vintage."""
        own = {pair for reach in self.definition.dependencies.values() for pair in reach.items()}
        other_days = self.of_other_cross_sections()
        return {
            (day, name)
            for name, bars in self.new.bars.items()
            for day in bars
            if day not in self.old.bars.get(name, {})
            or day in other_days
            or any(self.differs(day, name, *pair) for pair in own)
            or any(
                self.differs(day, other, *pair)
                for other, reach in self.definition.foreign.items()
                for pair in reach.items()
            )
        }

    def of_other_cross_sections(self) -> set[pd.Timestamp]:
        """Days on which operators across instruments see another bar, or another member, in any of their windows."""
        market = self.definition.market
        names = {*self.old.bars, *self.new.bars}
        longest = int(max(market.values(), default=-1))
        before, after = (each.members(names) for each in (self.old, self.new)) if market else ({}, {})
        found = set()
        for number, day in enumerate(self.new.days if market else ()):
            window = [each for each in self.new.days[max(0, number - longest) : number + 1] if each in self.old.numbers]
            if any(self.differs(day, name, *pair) for name in names for pair in market.items()) or any(
                before[each] != after[each] for each in window
            ):
                found.add(day)
        return found

    def differs(self, day: pd.Timestamp, name: str, field: str, rows: float) -> bool:
        """Whether a window that ends on a day shows something else."""
        return self.old.window(day, name, field, rows) != self.new.window(day, name, field, rows)


class _Shown:
    """A vintage as windows show it."""

    def __init__(self, vintage: Vintage) -> None:
        self.days = list(vintage.calendar())
        self.numbers = {day: number for number, day in enumerate(self.days)}
        self.vintage = vintage
        self.bars: dict[str, dict[pd.Timestamp, dict[str, bytes]]] = {}
        for row in vintage.adjusted_bars().to_dict("records"):
            fields = {name: np.float32(value).tobytes() for name, value in row.items() if isinstance(value, float)}
            self.bars.setdefault(row[INSTRUMENT], {})[row[DATETIME]] = fields

    def members(self, names: set[str]) -> dict[pd.Timestamp, list[bool]]:
        """Which of these are members, by day."""
        index = pd.MultiIndex.from_product([self.days, sorted(names)], names=[DATETIME, INSTRUMENT])
        mask = self.vintage.membership_mask(index).reshape(len(self.days), len(names))
        return dict(zip(self.days, mask.tolist(), strict=True))

    def window(self, day: pd.Timestamp, name: str, field: str, rows: float) -> list[tuple[pd.Timestamp, bytes | None]]:
        """Days of the window, each with the field's value, or None without a bar; those before the series are not."""
        bars = self.bars.get(name, {})
        if not bars or day not in self.numbers:
            return []
        last = self.numbers[day]
        first = max(self.numbers[min(bars)], 0 if rows == inf else last - int(rows))
        return [(each, bars[each][field] if each in bars else None) for each in self.days[first : last + 1]]


class Computed:
    """The rows that a store says it computed."""

    def __init__(self) -> None:
        self.rows: list[Key] = []

    def __call__(self, index: pd.MultiIndex) -> None:
        self.rows.extend(index)


EXACT = [(name, revision) for name in SETS for revision in sorted(REVISIONS)[:: 4 if name == "across" else 1]]
"""Every set with every kind of revision; of that across instruments a few, since its reference looks at all of them."""


def compute(home: Path, bars: pd.DataFrame, definition: FeatureSet) -> tuple[FeatureVersion, Vintage, set[Key]]:
    """Features of these bars in the store below `home`, and the rows that were computed for it."""
    vintage, computed = make_vintage(home, bars), Computed()
    version = FeatureStore(Settings(home=home)).compute(vintage, definition, computed)
    assert len(computed.rows) == len(set(computed.rows)) == version.computed_rows
    return version, vintage, set(computed.rows)


def files(home: Path, version: FeatureVersion) -> dict[str, bytes]:
    """The version's files by name."""
    folder = FeatureStore(Settings(home=home)).partitions
    return {path.name: path.read_bytes() for each in version.partitions for path in folder.glob(f"{each.digest}.*")}


def assert_equals_full(home: Path, version: FeatureVersion, bars: pd.DataFrame, definition: FeatureSet) -> None:
    """The same version, file by file and byte by byte, as one that is computed where nothing else is."""
    with TemporaryDirectory() as elsewhere:
        full, _, rows = compute(Path(elsewhere), bars, definition)
        assert full.feature_version == version.feature_version
        assert len(rows) == full.rows == len(bars)
        assert files(home, version) == files(Path(elsewhere), full)


@pytest.mark.parametrize("name", SETS)
@settings(max_examples=8)
@given(data=st.data())
def test_any_sequence_of_revisions_equals_a_full_computation(name: str, data: st.DataObject) -> None:
    """Whatever happened before, files are the same bytes, and a second call computes nothing."""
    definition = SETS[name]
    with TemporaryDirectory() as folder:
        home = Path(folder)
        bars = young_market(data.draw)
        compute(home, bars, definition)
        for revision in data.draw(st.lists(st.sampled_from(sorted(REVISIONS)), min_size=1, max_size=4)):
            bars = revise(bars, revision, data.draw)
            version, _, _ = compute(home, bars, definition)
            assert_equals_full(home, version, bars, definition)
            assert compute(home, bars, definition)[0].computed_rows == 0


@pytest.mark.parametrize(("name", "revision"), EXACT)
@settings(max_examples=3)
@given(data=st.data())
def test_exactly_what_depends_on_a_revision_is_computed(name: str, revision: str, data: st.DataObject) -> None:
    """Rows are computed if and only if a window shows something else; all whose values differ are among them."""
    definition = SETS[name]
    with TemporaryDirectory() as folder:
        home = Path(folder)
        bars = young_market(data.draw)
        old, old_vintage, _ = compute(home, bars, definition)
        revised = revise(bars, revision, data.draw)
        new, vintage, rows = compute(home, revised, definition)
        stored_years = {each.year for each in old.partitions}
        expected = Reference(old_vintage, vintage, definition).affected()
        assert {row for row in rows if row[0].year in stored_years} == {
            row for row in expected if row[0].year in stored_years
        }
        assert set(changed_rows(home, old, new)) <= rows
        assert_equals_full(home, new, revised, definition)


def changed_rows(home: Path, old: FeatureVersion, new: FeatureVersion) -> Iterator[Key]:
    """Rows of a version that the other one lacks or has other bits for."""
    store = FeatureStore(Settings(home=home))
    before, after = (store.load(each.feature_version) for each in (old, new))
    before = before.reindex(after.index)
    differs = before.to_numpy().view(np.uint32) != after.to_numpy().view(np.uint32)
    return iter(after.index[differs.any(axis=1)])


@pytest.fixture
def stored(tmp_path: Path) -> tuple[Path, FeatureVersion, Vintage]:
    """A home with the features of all but the newest day, and the vintage with it."""
    bars = HISTORY[HISTORY[DATETIME] < DAYS[-1]].reset_index(drop=True)
    version, _, _ = compute(tmp_path, bars, SETS["windows"])
    return tmp_path, version, make_vintage(tmp_path, HISTORY)


def test_what_rounding_swallows_is_no_change(tmp_path: Path) -> None:
    """A restatement that float32 cannot tell computes no row, though the bars have another digest."""
    restated = HISTORY.assign(**{CLOSE: HISTORY[CLOSE] * (1 + 1e-12)})
    before, _, _ = compute(tmp_path, HISTORY, SETS["windows"])
    after, _, rows = compute(tmp_path, restated, SETS["windows"])
    assert before.feature_version != after.feature_version
    assert rows == set()
    assert_equals_full(tmp_path, after, restated, SETS["windows"])


def test_a_field_that_no_column_reads_is_no_change(tmp_path: Path) -> None:
    """A restated vwap computes nothing where no column depends on it."""
    definition = feature_set("closes", {"MA5": "Mean($close, 5)/$close"})
    compute(tmp_path, HISTORY, definition)
    restated = HISTORY.assign(**{VWAP: HISTORY[VWAP] * 1.1, VOLUME: HISTORY[VOLUME] + 1})
    assert compute(tmp_path, restated, definition)[2] == set()


def test_the_newest_day_is_computed_from_the_window_it_needs(
    stored: tuple[Path, FeatureVersion, Vintage], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the new rows are asked for, over a panel that is no longer than the longest window."""
    home, _, vintage = stored
    asked = []

    def watched(definition: FeatureSet, panel: Panel, positions: IntArray) -> NDArray[np.float32]:
        asked.append((len(panel.calendar), int((positions >= 0).sum())))
        return compute_values(definition, panel, positions)

    monkeypatch.setattr(computation, "compute_values", watched)
    version = FeatureStore(Settings(home=home)).compute(vintage, SETS["windows"])
    new_rows = int((HISTORY[DATETIME] == DAYS[-1]).sum())
    assert asked == [(int(SETS["windows"].lookback_rows) + 1, new_rows)]
    assert version.computed_rows == new_rows


def test_the_base_that_shares_most_is_taken(tmp_path: Path) -> None:
    """After a strange vintage, the next day of the usual one is computed from the usual one."""
    usual = HISTORY[HISTORY[DATETIME] < DAYS[-1]].reset_index(drop=True)
    strange = usual.assign(**{CLOSE: usual[CLOSE] * 2})
    for bars in (usual, strange):
        compute(tmp_path, bars, SETS["windows"])
    _, _, rows = compute(tmp_path, HISTORY, SETS["windows"])
    assert {day for day, _ in rows} == {pd.Timestamp(DAYS[-1])}


@pytest.mark.parametrize("lost", ["partition", "damaged partition", "vintage", "bars"])
def test_without_a_usable_base_all_is_computed(
    stored: tuple[Path, FeatureVersion, Vintage], lost: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A base that is gone or damaged is said in the log, and the result is the same."""
    home, version, _ = stored
    partition = FeatureStore(Settings(home=home)).partitions / f"{version.partitions[-1].digest}.parquet"
    old = vintage_path(Settings(home=home), version.data_version)
    if lost == "partition":
        partition.unlink()
    elif lost == "damaged partition":
        content = bytearray(partition.read_bytes())
        content[len(content) // 2] ^= 1
        partition.write_bytes(content)
    elif lost == "vintage":
        (old / "manifest.json").unlink()
    else:
        next((old / "bars").glob("2020*")).write_bytes(b"no parquet")
    with caplog.at_level(logging.INFO):
        after, _, rows = compute(home, HISTORY, SETS["windows"])
    assert len(rows) == after.partitions[-1].rows
    assert f"cannot reuse those of {version.data_version}" in caplog.text or version.data_version in caplog.text
    assert_equals_full(home, after, HISTORY, SETS["windows"])


def test_what_is_there_is_found_without_reading_bars(stored: tuple[Path, FeatureVersion, Vintage]) -> None:
    """A second call needs no bars: they may be gone."""
    home, _, vintage = stored
    store = FeatureStore(Settings(home=home))
    first = store.compute(vintage, SETS["windows"])
    shutil.rmtree(vintage.path / "bars")
    second = store.compute(vintage, SETS["windows"])
    assert second == replace(first, computed_rows=0)


def test_killed_at_any_rename_the_next_call_completes_it(tmp_path: Path) -> None:
    """Wherever an update is cut off, the run after it gives the same files, and nothing is left beside them."""
    home = tmp_path / "home"
    compute(home, HISTORY[HISTORY[DATETIME] < DAYS[-1]].reset_index(drop=True), SPREAD)
    vintage = make_vintage(home, HISTORY)
    given = {"home": str(home), "data_version": vintage.data_version, "tries": str(tmp_path / "tries")}
    statuses = run_stage("tests.features.killing:kill_at_every_rename", given, time_limit_s=240)["statuses"]
    assert len(statuses) >= 5
    assert set(statuses) == {0}
    version = FeatureStore(Settings(home=home)).compute(vintage, SPREAD)
    for number in range(len(statuses)):
        copy = tmp_path / "tries" / str(number)
        assert files(copy, version) == files(home, version)
        assert FeatureStore(Settings(home=copy)).find(vintage.data_version, SPREAD.digest) == version.feature_version
        assert not [path for path in (copy / "features").rglob("*") if path.suffix == ".tmp"]


def test_another_instrument_may_begin_later_end_earlier_or_be_away_for_a_while(tmp_path: Path) -> None:
    """What is read of it on a day does not depend on its later bars, nor on the rows that are computed with it."""
    index = HISTORY[HISTORY[INSTRUMENT] == "I00"]
    there = index[DATETIME].isin([*DAYS[50:70], *DAYS[90:100]])
    bars = canonical_bars(pd.concat([HISTORY[HISTORY[INSTRUMENT] != "I00"], index[there]]))
    whole, _, _ = compute(tmp_path / "whole", bars, SETS["foreign"])
    expected = FeatureStore(Settings(home=tmp_path / "whole")).load(whole.feature_version)
    market = expected["MARKET"].groupby(DATETIME).first()
    assert market[: DAYS[49]].isna().all()
    assert market[DAYS[50] : DAYS[77]].notna().all()
    assert market[DAYS[78] : DAYS[89]].isna().all()
    for last in (DAYS[60], DAYS[73], DAYS[85], DAYS[-1]):
        home = tmp_path / "grown"
        version, _, _ = compute(home, canonical_bars(bars[bars[DATETIME] <= last]), SETS["foreign"])
        stored = FeatureStore(Settings(home=home)).load(version.feature_version)
        np.testing.assert_array_equal(stored.to_numpy().view(np.uint32), expected[:last].to_numpy().view(np.uint32))


def test_another_instrument_without_bars_is_named(tmp_path: Path) -> None:
    """A vintage that lacks it is refused, also where an earlier one had it."""
    compute(tmp_path, HISTORY, SETS["foreign"])
    with pytest.raises(StoreError, match="I00"):
        compute(tmp_path, canonical_bars(HISTORY[HISTORY[INSTRUMENT] != "I00"]), SETS["foreign"])
