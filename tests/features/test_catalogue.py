"""The catalogue: what is listed, what is found to differ, and what a deletion takes with it."""

import json
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mlops_tasks.columns import CLOSE, DATETIME, INSTRUMENT
from mlops_tasks.config import Settings
from mlops_tasks.errors import StoreError
from mlops_tasks.features.catalogue import FeatureCatalogue
from mlops_tasks.features.store import FeatureStore, FeatureVersion
from tests import programs
from tests.features.market import awkward_bars, make_vintage

BARS = awkward_bars(seed=3, instruments=5, days=420)
"""Three calendar years: 2019 from June, 2020, and a month of 2021."""

RESTATED_DAY = pd.Timestamp("2020-12-15")


def restated() -> pd.DataFrame:
    """`BARS` with one close 1% higher, and without the last day of one instrument."""
    bars = BARS.copy()
    bars.loc[(bars[INSTRUMENT] == "I00") & (bars[DATETIME] == RESTATED_DAY), CLOSE] *= 1.01
    return bars.drop(index=bars.index[bars[INSTRUMENT] == "I04"][-1]).reset_index(drop=True)


Two = tuple[FeatureCatalogue, FeatureVersion, FeatureVersion]


@pytest.fixture(scope="module")
def computed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, FeatureVersion, FeatureVersion]:
    """A store of two versions, the second of restated bars."""
    home = tmp_path_factory.mktemp("computed")
    store = FeatureStore(Settings(home=home))
    old, new = (store.compute(make_vintage(home, bars)) for bars in (BARS, restated()))
    return home, old, new


@pytest.fixture
def two(tmp_path: Path, computed: tuple[Path, FeatureVersion, FeatureVersion]) -> Two:
    """The catalogue of a copy of that store."""
    home, old, new = computed
    shutil.copytree(home, tmp_path, dirs_exist_ok=True)
    return FeatureCatalogue(Settings(home=tmp_path)), old, new


def partition_files(catalogue: FeatureCatalogue) -> set[str]:
    """Digests of the partitions on disk, each with its statistics."""
    found = {path.stem for path in catalogue.store.partitions.glob("*.parquet")}
    assert found == {path.stem for path in catalogue.store.partitions.glob("*.json")}
    return found


def test_versions_are_listed_with_what_is_known(
    two: Two,
) -> None:
    """Name, definition, inputs, window, rows and span of each version; the list is plain JSON."""
    catalogue, old, new = two
    listed = catalogue.versions()
    assert {each.feature_version for each in listed} == {old.feature_version, new.feature_version}
    assert catalogue.versions("alpha158") == listed
    assert catalogue.versions("another") == []
    info = catalogue.info(old.feature_version)
    assert (info.feature_set, info.rows, info.names) == ("alpha158", len(BARS), old.names)
    assert info.expressions["MA5"] == "Mean($close, 5)/$close"
    assert info.data_versions == (old.data_version,)
    assert (info.first_date, info.last_date) == (str(BARS[DATETIME].min().date()), str(BARS[DATETIME].max().date()))
    assert (info.instruments, info.window) == (5, 60)
    assert set(info.inputs) == {"open", "high", "low", "close", "volume", "vwap"}
    content = json.loads(json.dumps(info.to_json(), allow_nan=False))
    assert content["statistics"]["MA5"]["rows"] == len(BARS)


def test_statistics_are_those_of_all_rows(two: Two) -> None:
    """Merged over the years they are what pandas finds in the whole frame."""
    catalogue, old, _ = two
    statistics = catalogue.info(old.feature_version).statistics
    assert statistics is not None
    frame = catalogue.store.load(old.feature_version).astype(np.float64)
    finite = frame.where(np.isfinite(frame))
    for name in frame:
        each, column = statistics[name], finite[name]
        assert (each.rows, each.missing) == (len(frame), int(frame[name].isna().sum()))
        assert (each.min, each.max) == (column.min(), column.max())
        assert [each.mean, each.std] == pytest.approx([column.mean(), column.std()], rel=1e-9, abs=1e-12)


def test_a_version_of_an_older_release_is_listed(
    two: Two,
) -> None:
    """A manifest with the first release's entries and partitions without statistics leave the rest empty."""
    catalogue, old, _ = two
    path = catalogue.store.root / old.feature_version / "manifest.json"
    kept = {
        "feature_version",
        "feature_set",
        "names",
        "rows",
        "partitions",
        "data_version",
        "definition",
        "expressions",
    }
    path.write_text(json.dumps({name: value for name, value in json.loads(path.read_text()).items() if name in kept}))
    for left in catalogue.store.partitions.glob("*.json"):
        left.unlink()
    info = catalogue.info(old.feature_version)
    assert (info.owner, info.created, info.window, info.statistics) == (None, None, None, None)
    assert len(catalogue.versions()) == 2


def test_differences_are_those_of_the_frames(two: Two) -> None:
    """Per column and year as many values differ, by as much and as early and late, as between the two frames."""
    catalogue, old, new = two
    found = catalogue.compare(old.feature_version, new.feature_version)
    left, right = (catalogue.store.load(each.feature_version) for each in (old, new))
    common = left.index.intersection(right.index)
    assert (found.rows_added, found.rows_removed, found.common_rows) == (0, 1, len(common))
    assert (found.added, found.removed, found.redefined, found.changed_definition) == ((), (), {}, {})
    assert found.equal_years == (2019,)
    left, right = left.loc[common], right.loc[common]
    differs = (left != right) & ~(left.isna() & right.isna())
    assert set(found.differences) == set(differs.columns[differs.any()])
    assert set(found.statistics) == set(found.differences)
    years = common.get_level_values(0).year
    for name, each_year in found.differences.items():
        assert [each.year for each in each_year] == sorted(set(years[differs[name]]))
        for each in each_year:
            rows = differs[name] & (years == each.year)
            days = common[rows].get_level_values(0)
            sizes = (left.loc[rows, name].astype(float) - right.loc[rows, name]).abs()
            assert (each.values, each.largest) == (rows.sum(), sizes[np.isfinite(sizes)].max())
            assert (each.first_date, each.last_date) == (str(days.min().date()), str(days.max().date()))
            assert pd.Timestamp(each.first_date) >= RESTATED_DAY
    json.dumps(found.to_json(), allow_nan=False)


def test_a_changed_definition_is_told(tmp_path: Path) -> None:
    """Columns that came, went or have another expression; values are compared where a name is in both."""
    (tmp_path / "feature_sets.yaml").write_text(SETS)
    settings = Settings(home=tmp_path)
    store, vintage = FeatureStore(settings), make_vintage(tmp_path, BARS)
    one, two = (store.compute(vintage, name) for name in ("short", "long"))
    found = FeatureCatalogue(settings).compare(one.feature_version, two.feature_version)
    assert (found.added, found.removed) == (("RANGE",), ("GAP",))
    assert found.redefined == {"TREND": ("$close/Mean($close, 5)", "$close/Mean($close, 9)")}
    assert found.changed_definition["window"] == (4, 8)
    assert set(found.differences) == {"TREND"}
    assert found.rows_added == found.rows_removed == 0


SETS = """
short:
  version: 1
  owner: tests
  description: a short trend
  factors:
    TREND: $close/Mean($close, 5)
    BODY: $close/$open
    GAP: $open/Ref($close, 1)
long:
  version: 1
  owner: tests
  description: a longer trend
  factors:
    TREND: $close/Mean($close, 9)
    BODY: $close/$open
    RANGE: $high/$low
"""


def test_deleting_leaves_what_others_need(two: Two) -> None:
    """The version, its pointers and the partitions that it alone names go; the other version is read as before."""
    catalogue, old, new = two
    before = catalogue.store.load(new.feature_version)
    catalogue.delete(old.feature_version)
    assert [each.feature_version for each in catalogue.versions()] == [new.feature_version]
    assert catalogue.store.find(old.data_version) is None
    assert partition_files(catalogue) == {each.digest for each in new.partitions}
    pd.testing.assert_frame_equal(catalogue.store.load(new.feature_version), before)
    with pytest.raises(StoreError, match=f"no feature version {old.feature_version}"):
        catalogue.delete(old.feature_version)


def test_what_is_needed_is_not_deleted(two: Two) -> None:
    """The error says which models need the version, and everything is as before."""
    catalogue, old, _ = two
    files = partition_files(catalogue)
    with pytest.raises(StoreError, match="is needed by alphaops version 3, alphaops version 4: keep it"):
        catalogue.delete(old.feature_version, {old.feature_version: ("alphaops version 3", "alphaops version 4")})
    with pytest.raises(StoreError, match=f"{old.feature_version} is needed: keep it"):
        catalogue.delete(old.feature_version, {old.feature_version})
    assert (len(catalogue.versions()), partition_files(catalogue)) == (2, files)


KILLED = """
import os, signal, sys
from pathlib import Path
from mlops_tasks.config import Settings
from mlops_tasks.features.catalogue import FeatureCatalogue
settings, left = Settings(home=Path(sys.argv[1])), [int(sys.argv[3])]
def die_in_time(event, arguments):
    if event in ("os.remove", "os.rmdir"):
        left[0] -= 1
        if left[0] < 0:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(die_in_time)
FeatureCatalogue(settings).delete(sys.argv[2])
"""


@pytest.mark.parametrize("removals", range(7))
def test_a_killed_deletion_leaves_whole_versions_and_is_completed(two: Two, removals: int) -> None:
    """After any number of removals every listed version can be read, and the next call ends the work."""
    catalogue, old, new = two
    home = catalogue.settings.home
    killed = programs.run(KILLED, home, old.feature_version, removals, timeout=60)
    assert killed.returncode == -signal.SIGKILL
    for each in catalogue.versions():
        assert len(catalogue.store.load(each.feature_version)) == each.rows
    assert catalogue.store.find(old.data_version) in (old.feature_version, None)
    catalogue.delete(old.feature_version)
    assert [each.feature_version for each in catalogue.versions()] == [new.feature_version]
    assert partition_files(catalogue) == {each.digest for each in new.partitions}
    assert not os.path.lexists(catalogue.store.root / old.feature_version)
