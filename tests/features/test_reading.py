"""Reading the feature store: every part of it is that part of the whole."""

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlops_tasks.config import Settings
from mlops_tasks.data.vintages import Vintage
from mlops_tasks.errors import StoreError
from mlops_tasks.features import partitions
from mlops_tasks.features.partitions import row_groups, write_partition
from mlops_tasks.features.reading import Selection, read_frame, read_newest, read_table
from mlops_tasks.features.store import FeatureStore, FeatureVersion
from mlops_tasks.state.history import record_publication
from mlops_tasks.state.tables import Publication
from tests.features.market import awkward_bars, make_vintage

NAMES = ("A", "B", "C")
YEARS = (2019, 2020, 2021)


def random_rows(seed: int, instruments: int, share: float) -> pd.DataFrame:
    """A frame over three years in which most instruments miss most days: they begin late, pause and end."""
    rng = np.random.default_rng(seed)
    days = pd.DatetimeIndex(np.sort(rng.choice(pd.bdate_range("2019-06-01", "2021-03-01"), 60, replace=False)))
    index = pd.MultiIndex.from_product([days, [f"I{n}" for n in range(instruments)]], names=["datetime", "instrument"])
    index = index[rng.random(len(index)) < share].remove_unused_levels()
    return pd.DataFrame(rng.normal(size=(len(index), len(NAMES))).astype(np.float32), index, list(NAMES))


def write_years(folder: Path, frame: pd.DataFrame) -> list[Path]:
    """One partition a year that has rows."""
    paths = []
    for year, part in frame.groupby(frame.index.get_level_values(0).year):
        index = part.index.remove_unused_levels()
        paths.append(folder / f"{year}.parquet")
        write_partition(paths[-1], NAMES, index, [np.ascontiguousarray(part.to_numpy().T)])
    return paths


def assert_same(left: pd.DataFrame, right: pd.DataFrame) -> None:
    """Equal keys, columns and bytes."""
    pd.testing.assert_index_equal(left.index, right.index, exact=False)
    assert left.columns.equals(right.columns)
    np.testing.assert_array_equal(left.to_numpy().view(np.uint32), right.to_numpy().view(np.uint32))


def as_frame(table: pa.Table) -> pd.DataFrame:
    """An Arrow table as the frame that it stands for."""
    return table.to_pandas().astype({"instrument": "str"}).set_index(["datetime", "instrument"])


some_instruments = st.none() | st.sets(st.sampled_from(["I0", "I1", "I2", "I3", "NOBODY"]))
some_day = st.dates(pd.Timestamp("2019-05-20").date(), pd.Timestamp("2021-03-10").date())


@settings(max_examples=50)
@given(
    seed=st.integers(0, 10**6),
    share=st.sampled_from([0.03, 0.3, 1.0]),
    days=st.tuples(some_day, some_day),
    instruments=some_instruments,
    names=st.permutations(NAMES).map(lambda names: tuple(names[:2])),
)
def test_a_part_is_that_part_of_the_whole(
    tmp_path_factory: pytest.TempPathFactory,
    *,
    seed: int,
    share: float,
    days: tuple[object, object],
    instruments: set[str] | None,
    names: tuple[str, ...],
) -> None:
    """Any range, instruments and columns, in both layouts and as Arrow, over files of many row groups."""
    frame = random_rows(seed, 5, share)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(partitions, "_GROUP_ROWS", 7)
        paths = write_years(tmp_path_factory.mktemp("years"), frame)
    first, last = sorted(map(pd.Timestamp, days))
    expected = frame.loc[first:last, list(names)]
    if instruments is not None:
        expected = expected[expected.index.get_level_values(1).isin(instruments)]
    selection = Selection(names, first, last, instruments=instruments)
    for order in ("F", "C"):
        found = read_frame(paths, selection, order)
        assert_same(found, expected)
        assert found.to_numpy().flags[f"{order}_CONTIGUOUS"]
    table = read_table(paths, selection)
    assert table.schema.names == ["datetime", "instrument", *names]
    assert table.schema.field("instrument").type == pa.dictionary(pa.int32(), pa.string())
    assert table.schema.field(names[0]).type == pa.float32()
    assert_same(as_frame(table), expected)


@settings(max_examples=50)
@given(
    seed=st.integers(0, 10**6),
    share=st.sampled_from([0.01, 0.1, 0.6]),
    day=some_day,
    instruments=some_instruments,
    age=st.none() | st.integers(0, 500),
)
def test_as_of_is_the_newest_row_of_each_instrument(
    tmp_path_factory: pytest.TempPathFactory,
    *,
    seed: int,
    share: float,
    day: object,
    instruments: set[str] | None,
    age: int | None,
) -> None:
    """pandas finds the same rows: sort, cut off at the day and its age, take each instrument's last."""
    frame = random_rows(seed, 5, share)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(partitions, "_GROUP_ROWS", 7)
        paths = write_years(tmp_path_factory.mktemp("years"), frame)
    last = pd.Timestamp(day)
    first = pd.Timestamp("1700-01-01") if age is None else last - pd.Timedelta(days=age)
    known = frame.loc[first:last]
    if instruments is not None:
        known = known[known.index.get_level_values("instrument").isin(instruments)]
    expected = known.groupby(level="instrument").tail(1).sort_index()
    assert_same(read_newest(paths, Selection(NAMES, first, last, instruments=instruments)), expected)


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> tuple[FeatureStore, Vintage, FeatureVersion]:
    """A store that holds Alpha158 over three calendar years."""
    home = tmp_path_factory.mktemp("stored")
    vintage = make_vintage(home, awkward_bars(seed=5, instruments=6, days=420))
    store = FeatureStore(Settings(home=home))
    return store, vintage, store.compute(vintage)


def test_the_store_reads_by_instrument_and_into_arrow(
    stored: tuple[FeatureStore, Vintage, FeatureVersion],
) -> None:
    """What `load` gives for instruments, columns and days, `load_arrow` gives too; each is part of the whole."""
    store, vintage, version = stored
    whole = store.load(version.feature_version)
    part = store.load(version.feature_version, "2019-12-01", "2020-02-28", columns=["KMID"], instruments=["I03", "I01"])
    expected = whole.loc["2019-12-01":"2020-02-28", ["KMID"]].loc[(slice(None), ["I01", "I03"]), :].sort_index()
    assert_same(part, expected)
    table = store.load_arrow(
        version.feature_version, "2019-12-01", "2020-02-28", columns=["KMID"], instruments=["I03", "I01"]
    )
    assert_same(as_frame(table), expected)
    assert table["KMID"].null_count == 0
    one = store.load(version.feature_version, "2019-12-01", "2020-02-28", columns=["KMID"], instruments="I03")
    assert_same(one, expected.loc[(slice(None), ["I03"]), :])
    members = store.load_arrow(version.feature_version, members=vintage)
    assert_same(as_frame(members), store.load(version.feature_version, members=vintage))


def test_as_of_a_day_without_a_session(stored: tuple[FeatureStore, Vintage, FeatureVersion]) -> None:
    """A Sunday has Friday's rows, a suspended instrument its last ones, one that is not listed yet none."""
    store, _, version = stored
    whole = store.load(version.feature_version)
    sunday = pd.Timestamp("2020-02-02")
    found = store.load_as_of(version.feature_version, sunday, columns=["KMID"])
    expected = whole.loc[:sunday, ["KMID"]].groupby(level="instrument").tail(1).sort_index()
    assert_same(found, expected)
    recent = store.load_as_of(version.feature_version, sunday, max_age_days=2)
    assert set(recent.index.get_level_values("datetime")) == {pd.Timestamp("2020-01-31")}
    assert store.load_as_of(version.feature_version, "1999-01-01").empty


def test_arrow_is_not_copied_out_of_the_row_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A range of days refers to the buffers of its row groups, of which no more are held than it touches."""
    monkeypatch.setattr(partitions, "_GROUP_ROWS", 400)
    monkeypatch.setattr(partitions, "_GROUPS_A_READ", 1)
    frame = random_rows(1, 100, 1.0).loc["2020"]
    [path] = write_years(tmp_path, frame)
    ends = [end for _, end in row_groups(frame.index.remove_unused_levels())]
    days = frame.index.get_level_values(0)
    whole = read_table([path], Selection(NAMES, days[0], days[-1]))
    assert [chunk.offset for chunk in whole["A"].chunks] == [0] * len(ends)
    before = pa.total_allocated_bytes()
    table = read_table([path], Selection(NAMES, days[ends[0]], days[ends[2] - 150]))
    held = pa.total_allocated_bytes() - before
    rows_of_two_groups = ends[2] - ends[0]
    assert [len(chunk) for chunk in table["A"].chunks] == [ends[1] - ends[0], ends[2] - 100 - ends[1]]
    assert held < 1.2 * rows_of_two_groups * (8 + 4 + 4 * len(NAMES))


def test_the_version_of_a_moment_is_that_of_the_vintage_in_use_then(tmp_path: Path) -> None:
    """Before a restatement the old one, after it the new one, and the old one again where its vintage came back."""
    hours = [datetime(2021, 3, 1, hour, tzinfo=UTC) for hour in range(10)]
    settings, clock = Settings(home=tmp_path), iter([hours[1], hours[4], hours[6]])
    store = FeatureStore(settings, clock=lambda: next(clock))
    bars = awkward_bars(seed=5, instruments=3, days=100)
    restated = bars.assign(close=bars["close"] * 1.01)
    vintages = [make_vintage(tmp_path, each) for each in (bars, restated)]
    for hour, number in ((0, 0), (3, 1), (8, 0)):
        record_publication(settings, Publication(data_version=vintages[number].data_version, at=hours[hour]))
    old, new = (store.compute(vintage).feature_version for vintage in vintages)
    (tmp_path / "feature_sets.yaml").write_text(OWN_SET)
    own = store.compute(vintages[1], "own").feature_version
    found = [store.version_as_of(hours[hour]) for hour in (1, 2, 4, 7, 8, 9)]
    assert found == [old, old, new, new, old, old]
    assert store.version_as_of(hours[7], "own") == own
    with pytest.raises(StoreError, match=r"was in use at .*, but no alpha158 features .*made later: \['"):
        store.version_as_of(hours[3])
    with pytest.raises(StoreError, match=r"no own features .*made later: none"):
        store.version_as_of(hours[9], "own")
    with pytest.raises(StoreError, match="no vintage is recorded as in use at 2021-02-28"):
        store.version_as_of(hours[0] - timedelta(days=1))
    with pytest.raises(StoreError, match="has no time zone"):
        store.version_as_of(datetime(2021, 3, 1))


OWN_SET = """
own:
  version: 1
  owner: tests
  description: one factor
  factors:
    BODY: $close/$open
"""


def test_a_damaged_partition_is_found(tmp_path: Path) -> None:
    """`verify` names the partitions whose bytes are not those that were written, and those that are gone."""
    store = FeatureStore(Settings(home=tmp_path))
    version = store.compute(make_vintage(tmp_path, awkward_bars(seed=5, instruments=3, days=420)))
    assert store.verify(version.feature_version) == []
    damaged, gone, _ = version.partitions
    path = store.partitions / f"{damaged.digest}.parquet"
    content = bytearray(path.read_bytes())
    content[1000] ^= 1
    path.write_bytes(content)
    (store.partitions / f"{gone.digest}.parquet").unlink()
    assert store.verify(version.feature_version) == [damaged, gone]


PEAK = """
import sys, tracemalloc
from pathlib import Path
import pandas as pd, pyarrow as pa
from mlops_tasks.features.reading import Selection, read_frame
names = tuple(f"F{n}" for n in range(100))
tracemalloc.start()
selection = Selection(names, pd.Timestamp("2020-01-01"), pd.Timestamp("2020-12-31"))
frame = read_frame([Path(sys.argv[1])], selection, sys.argv[2])
print((tracemalloc.get_traced_memory()[1] + pa.default_memory_pool().max_memory()) / frame.to_numpy().nbytes)
"""


@pytest.mark.parametrize("order", ["F", "C"])
def test_reading_holds_the_result_and_a_few_row_groups(tmp_path: Path, order: str) -> None:
    """What numpy and Arrow allocate at most to read 200 MB is little more than the result."""
    index = pd.MultiIndex.from_product(
        [pd.bdate_range("2020-01-01", "2020-12-31"), [f"I{n:04d}" for n in range(2000)]],
        names=["datetime", "instrument"],
    )
    rng = np.random.default_rng(0)
    pieces = (rng.random((100, end - begin), np.float32) for begin, end in row_groups(index))
    write_partition(tmp_path / "p.parquet", [f"F{n}" for n in range(100)], index, pieces)
    run = subprocess.run(
        [sys.executable, "-c", PEAK, str(tmp_path / "p.parquet"), order], check=True, capture_output=True, text=True
    )
    assert 1 < float(run.stdout) < 1.25
