"""The feature store: what is computed when, and what comes back."""

from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlops_tasks.columns import CLOSE, DATETIME, INSTRUMENT
from mlops_tasks.config import Settings
from mlops_tasks.data.vintages import Vintage, publish
from mlops_tasks.errors import ConfigError, StoreError
from mlops_tasks.features import computation, partitions
from mlops_tasks.features.store import FeatureStore, FeatureVersion
from mlops_tasks.features.tasks import compute_features_task
from mlops_tasks.files import read_json
from tests import programs
from tests.features.market import awkward_bars, make_vintage

BARS = awkward_bars(seed=3, instruments=6, days=420)
"""Three calendar years: 2019 from June, 2020, and a month of 2021."""

LAST = BARS[DATETIME].max()


def full(home: Path, bars: pd.DataFrame) -> pd.DataFrame:
    """Features of these bars, computed in a store of their own."""
    store = FeatureStore(Settings(home=home))
    return store.load(store.compute(make_vintage(home, bars)).feature_version)


def assert_same_bits(left: pd.DataFrame, right: pd.DataFrame) -> None:
    """Equal index and equal bytes."""
    assert left.index.equals(right.index)
    assert left.columns.equals(right.columns)
    np.testing.assert_array_equal(left.to_numpy().view(np.uint32), right.to_numpy().view(np.uint32))


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> tuple[FeatureStore, Vintage, FeatureVersion]:
    """A store that holds the features of `BARS`."""
    home = tmp_path_factory.mktemp("stored")
    vintage = make_vintage(home, BARS)
    store = FeatureStore(Settings(home=home))
    return store, vintage, store.compute(vintage)


def test_rows_are_the_bars(stored: tuple[FeatureStore, Vintage, FeatureVersion]) -> None:
    """One row a bar, sorted by day and instrument; 158 float32 columns."""
    store, vintage, version = stored
    frame = store.load(version.feature_version)
    bars = pd.MultiIndex.from_frame(vintage.bars(fields=())).sort_values()
    assert frame.index.equals(bars)
    assert frame.shape == (version.rows, 158)
    assert set(frame.dtypes) == {np.dtype(np.float32)}
    assert version.computed_rows == version.rows == vintage.rows


def test_unchanged_bars_compute_nothing(stored: tuple[FeatureStore, Vintage, FeatureVersion]) -> None:
    """A second call finds every partition and gives the same version."""
    store, vintage, version = stored
    again = store.compute(vintage)
    assert (again.feature_version, again.computed_rows) == (version.feature_version, 0)


def test_get_knows_what_compute_returned(stored: tuple[FeatureStore, Vintage, FeatureVersion]) -> None:
    """The manifest holds the whole version."""
    store, vintage, version = stored
    found = store.get(version.feature_version)
    assert (found.names, found.partitions, found.rows) == (version.names, version.partitions, version.rows)
    assert found.data_version == vintage.data_version


def test_one_more_day_computes_that_day_only(tmp_path: Path) -> None:
    """The older partitions are reused, older rows copied, and the result is that of a full computation, bit for bit."""
    store = FeatureStore(Settings(home=tmp_path))
    before = store.compute(make_vintage(tmp_path, BARS[BARS[DATETIME] < LAST]))
    after = store.compute(make_vintage(tmp_path, BARS))
    assert before.partitions[:-1] == after.partitions[:-1]
    assert after.computed_rows == (BARS[DATETIME] == LAST).sum()
    assert_same_bits(store.load(after.feature_version), full(tmp_path / "full", BARS))


@pytest.mark.parametrize(
    ("day", "computed"), [("2019-06", {2019, 2020}), ("2020-12", {2020, 2021}), ("2021-01", {2021})]
)
def test_a_restated_bar_computes_the_years_that_depend_on_it(tmp_path: Path, day: str, computed: set[int]) -> None:
    """The bar's year and the years whose windows may reach into it are computed anew, no other."""
    restated = BARS.copy()
    row = restated.index[(restated[INSTRUMENT] == "I00") & (restated[DATETIME].dt.strftime("%Y-%m") == day)][0]
    restated.loc[row, CLOSE] *= 1.01
    store = FeatureStore(Settings(home=tmp_path))
    before, after = (store.compute(make_vintage(tmp_path, bars)) for bars in (BARS, restated))
    changed = {new.year for old, new in zip(before.partitions, after.partitions, strict=True) if old != new}
    assert changed == computed
    assert_same_bits(store.load(after.feature_version), full(tmp_path / "full", restated))


def test_an_instrument_with_an_older_first_bar_computes_the_years_that_see_it(tmp_path: Path) -> None:
    """A backfilled instrument is no newcomer any more: windows that reach its former first day change."""
    late = BARS[(BARS[INSTRUMENT] != "I00") | (BARS[DATETIME] >= "2020-01-15")]
    store = FeatureStore(Settings(home=tmp_path))
    store.compute(make_vintage(tmp_path, late))
    after = store.compute(make_vintage(tmp_path, BARS))
    assert_same_bits(store.load(after.feature_version), full(tmp_path / "full", BARS))


@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10**6), data=st.data())
def test_any_sequence_of_changes_equals_a_full_computation(
    tmp_path_factory: pytest.TempPathFactory, seed: int, data: st.DataObject
) -> None:
    """Days added, bars restated and removed, instruments added: incremental and full have the same bits."""
    home = tmp_path_factory.mktemp("sequence")
    store = FeatureStore(Settings(home=home))
    bars = awkward_bars(seed=seed, instruments=4, days=300, start="2020-03-02")
    days = np.unique(bars[DATETIME])
    for _ in range(3):
        cut = data.draw(st.integers(70, len(days) - 1))
        kept = bars[bars[DATETIME] <= days[cut]].reset_index(drop=True)
        if data.draw(st.booleans()):
            kept.loc[data.draw(st.integers(0, len(kept) - 1)), CLOSE] *= 1.003
        if data.draw(st.booleans()):
            kept = kept.drop(index=data.draw(st.integers(0, len(kept) - 1)))
        if data.draw(st.booleans()):
            kept = kept[kept[INSTRUMENT] != data.draw(st.sampled_from(["I00", "I01", "I02"]))]
        version = store.compute(make_vintage(home, kept.reset_index(drop=True)))
        assert_same_bits(store.load(version.feature_version), full(home / f"full{version.feature_version}", kept))


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_no_value_depends_on_the_future(
    tmp_path: Path, stored: tuple[FeatureStore, Vintage, FeatureVersion], share: float
) -> None:
    """Bars cut off at a day give the same bits up to that day."""
    store, _, version = stored
    days = np.unique(BARS[DATETIME])
    last = days[int(share * len(days))]
    assert_same_bits(full(tmp_path, BARS[BARS[DATETIME] <= last]), store.load(version.feature_version, end=last))


def test_ranges_columns_and_members(stored: tuple[FeatureStore, Vintage, FeatureVersion], tmp_path: Path) -> None:
    """Reading a part gives that part of the whole; members are those of the vintage on that day."""
    store, _, version = stored
    whole = store.load(version.feature_version)
    part = store.load(version.feature_version, "2019-12-20", "2020-01-10", columns=["MA5", "KMID"])
    assert_same_bits(part, whole.loc["2019-12-20":"2020-01-10", ["MA5", "KMID"]])
    spells = pd.DataFrame(
        {"instrument": ["I00", "I04"], "first_date": "2019-07-01", "last_date": ["2019-12-31", "2020-06-30"]}
    )
    spells[["first_date", "last_date"]] = spells[["first_date", "last_date"]].apply(pd.to_datetime)
    other = make_vintage(tmp_path, BARS, spells)
    members = store.load(version.feature_version, members=other)
    assert_same_bits(members, whole[other.membership_mask(whole.index)])
    assert set(members.index.get_level_values(INSTRUMENT)) == {"I00", "I04"}
    assert members.index.levels[1].tolist() == ["I00", "I04"]


def test_a_day_without_bars_is_an_empty_frame(stored: tuple[FeatureStore, Vintage, FeatureVersion]) -> None:
    """A range that holds no bar gives no rows and all columns."""
    store, _, version = stored
    for day in ("2020-01-04", "1999-01-04"):
        frame = store.load(version.feature_version, day, day)
        assert frame.shape == (0, 158)
        assert frame.index.names == [DATETIME, INSTRUMENT]


def test_find_gives_the_version_of_a_vintage(stored: tuple[FeatureStore, Vintage, FeatureVersion]) -> None:
    """The version that was computed for a data version is found by it; before that there is none."""
    store, vintage, version = stored
    assert store.find(vintage.data_version) == version.feature_version
    assert store.find("0000000000000000") is None


def test_find_knows_a_definition_by_its_name_only_while_it_has_it(tmp_path: Path) -> None:
    """A set that was changed since has no features yet under its name; those of before are found by their digest."""
    own, vintage = tmp_path / "feature_sets.yaml", make_vintage(tmp_path, BARS)
    text = "mine: {version: 1, owner: me, description: A ratio., factors: {RATIO: $close/$open}}"
    own.write_text(text)
    store = FeatureStore(Settings(home=tmp_path))
    before = store.compute(vintage, "mine")
    assert store.find(vintage.data_version, "mine") == before.feature_version
    own.write_text(text.replace("$close/$open", "$high/$open"))
    assert store.find(vintage.data_version, "mine") is None
    assert store.find(vintage.data_version, store.definition(before.feature_version).digest) == before.feature_version
    after = store.compute(vintage, "mine")
    assert after.computed_rows == vintage.rows
    assert store.find(vintage.data_version, "mine") == after.feature_version != before.feature_version


def test_the_manifest_says_what_is_stored(tmp_path: Path) -> None:
    """Definition, span and time of a version can be read without any code; the time is no part of its identity."""
    now = datetime(2021, 1, 9, 7, 30, tzinfo=UTC)
    vintage = make_vintage(tmp_path, BARS)
    version = FeatureStore(Settings(home=tmp_path), clock=lambda: now).compute(vintage)
    manifest = read_json(tmp_path / "features" / version.feature_version / "manifest.json")
    assert manifest["created"] == "2021-01-09T07:30:00+00:00"
    assert (manifest["first_date"], manifest["last_date"], manifest["instruments"]) == ("2019-06-03", "2021-01-08", 6)
    assert (manifest["rows"], manifest["window"], manifest["indicators"]) == (vintage.rows, 60, [])
    assert manifest["inputs"] == ["open", "high", "low", "close", "volume", "vwap"]
    assert list(manifest["expressions"]) == sorted(manifest["names"])
    assert (manifest["feature_set"], manifest["data_version"]) == ("alpha158", vintage.data_version)
    later = FeatureStore(Settings(home=tmp_path / "later")).compute(make_vintage(tmp_path / "later", BARS))
    assert later.feature_version == version.feature_version


@pytest.mark.parametrize("last", [LAST, LAST - pd.Timedelta(1, "D")])
def test_values_do_not_depend_on_the_pieces_they_are_computed_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last: pd.Timestamp
) -> None:
    """A year in pieces of one row group each has the bytes of a year in one piece, computed or copied."""
    monkeypatch.setattr(partitions, "_GROUP_ROWS", 100)
    contents = []
    for home, values in ((tmp_path / "one", 1 << 26), (tmp_path / "many", 1)):
        monkeypatch.setattr(computation, "_PIECE_VALUES", values)
        store = FeatureStore(Settings(home=home))
        store.compute(make_vintage(home, BARS[BARS[DATETIME] <= last]))
        version = store.compute(make_vintage(home, BARS))
        contents.append([(store.partitions / f"{each.digest}.parquet").read_bytes() for each in version.partitions])
    assert contents[0] == contents[1]


def test_one_day_of_a_large_partition_is_read_alone(tmp_path: Path) -> None:
    """Row groups hold whole days, and a day's read touches one of them."""
    bars = pd.concat([BARS.assign(instrument=BARS[INSTRUMENT] + f"_{copy:02d}") for copy in range(30)])
    bars = bars.sort_values([INSTRUMENT, DATETIME], ignore_index=True)
    store = FeatureStore(Settings(home=tmp_path))
    version = store.compute(make_vintage(tmp_path, bars))
    whole = store.load(version.feature_version)
    file = pq.ParquetFile(store.partitions / f"{version.partitions[1].digest}.parquet")
    ranges = [file.metadata.row_group(n).column(0).statistics for n in range(file.num_row_groups)]
    assert len(ranges) > 1
    assert all(earlier.max < later.min for earlier, later in pairwise(ranges))
    for day in (ranges[0].max, ranges[1].min):
        assert_same_bits(store.load(version.feature_version, day, day), whole.loc[[day]])


def test_what_is_missing_is_said(stored: tuple[FeatureStore, Vintage, FeatureVersion]) -> None:
    """An unknown version, set or column, and a partition that is gone, are errors that name it."""
    store, vintage, version = stored
    with pytest.raises(StoreError, match="no feature version nope"):
        store.get("nope")
    with pytest.raises(StoreError, match="no columns \\['MA7'\\]"):
        store.load(version.feature_version, columns=["MA7"])
    with pytest.raises(ConfigError, match="unknown feature set 'alpha159'"):
        store.compute(vintage, "alpha159")


def test_a_lost_partition_is_computed_again(tmp_path: Path) -> None:
    """A partition that was deleted comes back with the same bytes."""
    store = FeatureStore(Settings(home=tmp_path))
    vintage = make_vintage(tmp_path, BARS)
    version = store.compute(vintage)
    path = store.partitions / f"{version.partitions[1].digest}.parquet"
    content = path.read_bytes()
    path.unlink()
    with pytest.raises(StoreError, match="the partition of 2020 is gone"):
        store.load(version.feature_version)
    assert store.compute(vintage).computed_rows == version.partitions[1].rows
    assert path.read_bytes() == content


KILLED_WHILE_WRITING = """
import os, signal, sys
from pathlib import Path
from mlops_tasks.config import Settings
from mlops_tasks.data.vintages import load_vintage
from mlops_tasks.features import store
home = Path(sys.argv[1])
settings = Settings(home=home)
write, done = Path.replace, []
def die_at_the_second(self, target):
    if self.suffix == ".tmp":
        done.append(target)
        if len(done) == 2:
            os.kill(os.getpid(), signal.SIGKILL)
    return write(self, target)
Path.replace = die_at_the_second
store.FeatureStore(settings).compute(load_vintage(settings, sys.argv[2]))
"""


def test_a_killed_computation_is_completed_by_the_next(tmp_path: Path) -> None:
    """A process killed between two partitions leaves the first for the next call, and nothing half-written."""
    vintage = make_vintage(tmp_path, BARS)
    killed = programs.run(KILLED_WHILE_WRITING, tmp_path, vintage.data_version, timeout=120)
    assert killed.returncode == -9
    store = FeatureStore(Settings(home=tmp_path))
    assert list(store.partitions.glob("*.tmp"))
    version = store.compute(vintage)
    assert version.computed_rows == version.rows - version.partitions[0].rows
    assert not list(store.partitions.glob("*.tmp"))
    assert_same_bits(store.load(version.feature_version), full(tmp_path / "full", BARS))


def test_the_task_returns_plain_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The stage computes the vintage it is given, and a retry computes nothing and returns the same version."""
    monkeypatch.setenv("MLOPS_HOME", str(tmp_path))
    vintage = make_vintage(tmp_path, BARS)
    publish(Settings(home=tmp_path), vintage.data_version)
    first = compute_features_task(data_version=vintage.data_version)
    second = compute_features_task(data_version=vintage.data_version)
    assert first == second | {"computed_rows": vintage.rows}
    assert first["columns"] == 158
    assert second["computed_rows"] == 0
