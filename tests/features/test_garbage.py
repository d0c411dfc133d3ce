"""Garbage collection keeps what is needed to the last byte, removes the rest, and may be killed at any file."""

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from mlops_tasks.columns import DATETIME
from mlops_tasks.config import FeatureSettings, Settings
from mlops_tasks.data.vintages import publish
from mlops_tasks.errors import StoreError
from mlops_tasks.features.garbage import Collected, collect_garbage
from mlops_tasks.features.store import FeatureStore
from mlops_tasks.files import write_json, write_text
from tests.data.market import tree
from tests.features.market import awkward_bars, make_vintage

NOW = datetime(2024, 6, 1, tzinfo=UTC)
BARS = awkward_bars(seed=4, instruments=3, days=150, start="2019-10-01")
"""Two calendar years, so that versions share the first one's partition."""

ENDS = ["2020-02-03", "2020-02-28", "2020-03-31", "2020-04-27"]
"""Last days of the vintages, the oldest first."""

SETS = ["alpha158", "alpha360"]


@dataclass(frozen=True)
class Stored:
    """A home whose store holds every set over every vintage."""

    home: Path
    data_versions: list[str] = field(default_factory=list)
    versions: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Feature version to its set and data version."""
    frames: dict[str, pd.DataFrame] = field(default_factory=dict)


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Stored:
    """Eight versions."""
    made = Stored(tmp_path_factory.mktemp("stored"))
    store = FeatureStore(Settings(home=made.home))
    for end in ENDS:
        vintage = make_vintage(made.home, BARS[BARS[DATETIME] <= end].reset_index(drop=True))
        made.data_versions.append(vintage.data_version)
        for name in SETS:
            version = store.compute(vintage, name).feature_version
            made.versions[version] = (name, vintage.data_version)
            made.frames[version] = store.load(version)
    return made


@pytest.fixture
def home(stored: Stored, tmp_path: Path) -> Iterator[Path]:
    """A copy of it."""
    yield copied(stored, tmp_path / "home")


def copied(stored: Stored, home: Path) -> Path:
    """The store and its vintages in another home."""
    return Path(shutil.copytree(stored.home, home))


def settings_of(home: Path, retention_days: int = 30) -> Settings:
    return Settings(home=home, features=FeatureSettings(retention_days=retention_days))


def make_old(home: Path, days: dict[str, int]) -> None:
    """Let each version have been asked for so many days before `NOW`."""
    root = home / "features"
    for version, age in days.items():
        asked = (NOW - timedelta(days=age)).timestamp()
        pointers = [p for p in (root / "by_vintage").glob("*.json") if f'"{version}"' in p.read_text()]
        for path in [root / version / "manifest.json", *pointers]:
            os.utime(path, (asked, asked))


def assert_whole(home: Path, stored: Stored, versions: set[str]) -> None:
    """Exactly these versions are listed, each loads as it did, and no file belongs to none of them."""
    store, root = FeatureStore(settings_of(home)), home / "features"
    assert {path.parent.name for path in root.glob("*/manifest.json")} == versions
    named = {partition.digest for version in versions for partition in store.get(version).partitions}
    files = {path for path in root.rglob("*") if path.is_file() and path.name != ".lock"}
    assert {path.stem for path in files if path.suffix == ".parquet"} == named
    assert {path.stem for path in files if path.parent.name == "partitions"} == named
    assert {path.parent.name for path in files} <= {"partitions", "by_vintage", *versions}
    assert {path.name for path in root.iterdir()} - {".lock"} == {"partitions", "by_vintage", *versions}
    for version, (name, data_version) in stored.versions.items():
        assert store.find(data_version, name) == (version if version in versions else None)
    for version in versions:
        assert_same(store.load(version), stored.frames[version])


def assert_same(left: pd.DataFrame, right: pd.DataFrame) -> None:
    assert left.index.equals(right.index) and list(left.columns) == list(right.columns)
    assert left.to_numpy().tobytes() == right.to_numpy().tobytes()


@hypothesis_settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    ages=st.lists(st.sampled_from([0, 5, 29, 30, 31, 400]), min_size=8, max_size=8),
    needed=st.sets(st.integers(0, 7)),
    in_use=st.none() | st.integers(0, 3),
    killed_at=st.none() | st.integers(1, 30),
)
def test_what_is_needed_stays_to_the_byte_and_nothing_else_does(  # noqa: PLR0917  hypothesis gives them by name
    stored: Stored,
    tmp_path_factory: pytest.TempPathFactory,
    ages: list[int],
    needed: set[int],
    in_use: int | None,
    killed_at: int | None,
) -> None:
    """Whatever is old, needed or in use, and wherever a collection is cut off: each version that is left loads as it
    did, and after one that ends there is exactly what has a reason to be."""
    home = copied(stored, tmp_path_factory.mktemp("collected") / "home")
    settings, names = settings_of(home), list(stored.versions)
    days = dict(zip(names, ages, strict=True))
    make_old(home, days)
    if in_use is not None:
        publish(settings, stored.data_versions[in_use])
    wanted = {names[number] for number in needed}
    newest = {min((v for v in names if stored.versions[v][0] == s), key=lambda v: (days[v], _last(v))) for s in SETS}
    used = {v for v in names if in_use is not None and stored.versions[v][1] == stored.data_versions[in_use]}
    expected = wanted | newest | used | {version for version in names if days[version] < 30}
    if killed_at is not None:
        with pytest.MonkeyPatch.context() as patch:
            cut_off(patch, killed_at)
            try:
                collect_garbage(settings, wanted, NOW)
            except KeyboardInterrupt:
                assert_left_whole(home, stored, expected)
    rehearsed = collect_garbage(settings, wanted, NOW, dry_run=True)
    before = size(home)
    done = collect_garbage(settings, wanted, NOW)
    assert done.bytes_freed == rehearsed.bytes_freed == before - size(home)
    assert set(done.kept) == expected and (done.removed, done.kept) == (rehearsed.removed, rehearsed.kept)
    if killed_at is None:
        assert set(done.removed) == set(names) - expected
    assert_whole(home, stored, expected)
    assert collect_garbage(settings, wanted, NOW) == Collected((), done.kept, 0, 0, dry_run=False)


def _last(version: str) -> tuple[int, ...]:
    """Sorts names the other way round: of equally old versions the last name counts as the newest."""
    return tuple(-ord(letter) for letter in version)


def size(home: Path) -> int:
    """Bytes of all files of the store."""
    return sum(path.stat().st_size for path in (home / "features").rglob("*") if path.is_file())


def cut_off(patch: pytest.MonkeyPatch, at: int) -> None:
    """Let the process end just before the n-th file or folder is removed, as a kill would end it."""
    left = [at]

    def counted(original):
        def removing(path, *rest, **options):
            left[0] -= 1
            if left[0] == 0:
                raise KeyboardInterrupt
            return original(path, *rest, **options)

        return removing

    patch.setattr(os, "unlink", counted(os.unlink))
    patch.setattr(os, "rmdir", counted(os.rmdir))


def assert_left_whole(home: Path, stored: Stored, expected: set[str]) -> None:
    """After a cut: what has to stay is there, whatever is still listed loads, and every pointer leads to a version."""
    store = FeatureStore(settings_of(home))
    listed = {path.parent.name for path in (home / "features").glob("*/manifest.json")}
    assert expected <= listed
    for version in listed:
        assert_same(store.load(version), stored.frames[version])
    for name, data_version in stored.versions.values():
        found = store.find(data_version, name)
        assert found is None or found in listed


def test_reasons_are_told(stored: Stored, home: Path) -> None:
    """Each version that stays says why: who needs it, that it is in use, the newest, or young."""
    settings = settings_of(home)
    names = list(stored.versions)
    make_old(home, dict(zip(names, [100, 90, 80, 70, 60, 50, 10, 20], strict=True)))
    publish(settings, stored.data_versions[0])
    needed = {names[2]: ("alphaops version 3", "alphaops version 4")}
    kept = collect_garbage(settings, needed, NOW, dry_run=True).kept
    used = f"the vintage in use, {stored.data_versions[0]}, has it"
    assert kept == {
        names[0]: used,
        names[1]: used,
        names[2]: "alphaops version 3, alphaops version 4 needs it",
        names[6]: "it is the newest of alpha158",
        names[7]: "it is the newest of alpha360",
    }
    more = collect_garbage(settings_of(home, 55), needed, NOW, dry_run=True).kept
    assert more[names[5]] == "requested on 2024-04-12, less than 55 days ago"


def test_an_old_version_that_is_found_again_is_young(stored: Stored, home: Path) -> None:
    """A computation that finds everything there counts: what was asked for today may be in training."""
    settings, names = settings_of(home), list(stored.versions)
    now = datetime.now(UTC)
    make_old(home, {names[0]: 400, names[2]: 400, names[6]: (NOW - now).days - 1})
    vintage = make_vintage(home, BARS[BARS[DATETIME] <= ENDS[0]].reset_index(drop=True))
    assert FeatureStore(settings).compute(vintage, SETS[0]).computed_rows == 0
    assert collect_garbage(settings, (), now + timedelta(days=29), dry_run=True).removed == (names[2],)
    assert names[0] in collect_garbage(settings, (), now + timedelta(days=31), dry_run=True).removed


def test_orphans_go_and_foreign_files_stay(stored: Stored, home: Path) -> None:
    """Unfinished writes, partitions without a version, and pointers to gone versions are removed; what the store did
    not write is not its to remove."""
    settings, root = settings_of(home), home / "features"
    before = tree(root)
    write_text(root / "partitions" / f"{'0' * 16}.parquet", "no manifest names it")
    write_text(root / "partitions" / f"{'0' * 16}.json", "{}")
    write_text(root / "partitions" / f"{'1' * 16}.tmp", "killed")
    write_text(root / f".{'2' * 16}.123.abc" / "manifest.json", "killed")
    (root / ("3" * 16)).mkdir()
    write_json(root / "by_vintage" / f"{'4' * 16}.alpha158.json", {"feature_version": "5" * 16})
    write_text(root / "by_vintage" / ".x.json.abc", "killed")
    with_orphans = size(home)
    done = collect_garbage(settings, (), dry_run=False)
    assert done.removed == () and done.bytes_freed == with_orphans - size(home) > 0
    assert tree(root) == before
    write_text(root / "notes" / "mine.txt", "a user's own")
    assert collect_garbage(settings, ()).files == 0


@pytest.mark.parametrize("broken", ["manifest.json", "by_vintage"])
def test_what_cannot_be_read_stops_everything(broken: str, stored: Stored, home: Path) -> None:
    """Of a manifest or pointer that is no JSON nobody knows what it names: nothing goes, and the error says which."""
    settings, root = settings_of(home), home / "features"
    make_old(home, dict.fromkeys(stored.versions, 400))
    path = next(root.glob("*/manifest.json" if broken == "manifest.json" else "by_vintage/*.json"))
    path.write_text("{")
    before = tree(root)
    with pytest.raises(StoreError, match=rf"{path.name}.*nothing was removed.*features\.compute"):
        collect_garbage(settings, (), NOW)
    assert tree(root) == before


def test_an_empty_home_has_no_garbage(tmp_path: Path) -> None:
    """Nothing stored: nothing to say."""
    assert collect_garbage(settings_of(tmp_path), ()) == Collected((), {}, 0, 0, dry_run=False)
