"""What was changed on the disk by hand is not read: not loaded, not checked out, not published."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlops_tasks.config import Settings
from mlops_tasks.data.qlib.store import ensure_store, prune_stores
from mlops_tasks.data.snapshots import checkout_vintage, pin_vintage, pointer_path
from mlops_tasks.data.vintages import Vintage, current_version, load_vintage, publish, write_vintage
from mlops_tasks.errors import DamagedFileError, StoreError
from mlops_tasks.features.store import FeatureStore
from mlops_tasks.files import digest_of, digest_of_file, read_json
from mlops_tasks.verified import VerifiedFiles
from tests.features.market import awkward_bars
from tests.features.small_sets import feature_set

BARS = awkward_bars(instruments=4, days=200)
SIMPLE = feature_set("simple", {"KLEN": "($high-$low)/$open"})


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A home with one vintage, pinned and not published, and its features."""
    home = tmp_path_factory.mktemp("template") / "home"
    settings = Settings(home=home)
    vintage = write_vintage(settings, BARS, None, {"source": "made"})
    pin_vintage(settings, vintage.data_version)
    FeatureStore(settings).compute(vintage, SIMPLE)
    return home, vintage.data_version


@pytest.fixture
def vintage(template: tuple[Path, str], tmp_path: Path) -> Vintage:
    """A copy of it that was verified, so that the attack comes after the look."""
    shutil.copytree(template[0], tmp_path / "home")
    found = load_vintage(Settings(home=tmp_path / "home"), template[1])
    found.files.verify()
    return found


def settings_of(vintage: Vintage) -> Settings:
    return Settings(home=vintage.path.parents[2])


def read_all(settings: Settings, data_version: str) -> pd.DataFrame:
    """Everything that a vintage offers."""
    vintage = load_vintage(settings, data_version)
    vintage.members(), vintage.instrument_names()
    return vintage.bars()


def other_values(path: Path, factor: float = 1.01) -> None:
    """A valid file of the same rows with another close."""
    table = pq.read_table(path)
    place = table.column_names.index("close")
    changed = table.set_column(place, "close", pa.array(table["close"].to_numpy() * factor))
    path.chmod(0o600)
    pq.write_table(changed, path, compression="zstd", row_group_size=1 << 17)


def first_bars(vintage: Vintage) -> Path:
    return min((vintage.path / "bars").iterdir())


def flip_a_byte(vintage: Vintage) -> Path:
    path = first_bars(vintage)
    path.chmod(0o600)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    return path


def flip_a_byte_and_put_the_time_back(vintage: Vintage) -> Path:
    path = first_bars(vintage)
    before = path.stat()
    flip_a_byte(vintage)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    return path


def replace_by_a_valid_file(vintage: Vintage) -> Path:
    other_values(first_bars(vintage))
    return first_bars(vintage)


def add_a_file(vintage: Vintage) -> Path:
    path = vintage.path / "bars" / "2031.parquet"
    shutil.copy(first_bars(vintage), path)
    return path


def remove_a_file(vintage: Vintage) -> Path:
    first_bars(vintage).unlink()
    return vintage.path


def change_the_universe(vintage: Vintage) -> Path:
    path = vintage.path / "universe.txt"
    path.chmod(0o600)
    path.write_text("".join(path.read_text().splitlines(keepends=True)[1:]))
    return path


def rename_an_instrument(vintage: Vintage) -> Path:
    path = vintage.path / "instruments.txt"
    path.chmod(0o600)
    path.write_text(path.read_text().replace("I00", "X00"))
    return path


def change_the_manifest(vintage: Vintage) -> Path:
    path = vintage.path / "manifest.json"
    path.chmod(0o600)
    path.write_text(path.read_text().replace('"source": "made"', '"source": "true"'))
    return path


def rewrite_manifest(vintage: Vintage, **changes: object) -> Path:
    """As somebody who knows how it is sealed would do it."""
    path = vintage.path / "manifest.json"
    path.chmod(0o600)
    content = {name: value for name, value in read_json(path).items() if name != "manifest_digest"} | changes
    content["files"] = {name: digest_of_file(vintage.path / name) for name in content["files"]}
    path.write_text(json.dumps({**content, "manifest_digest": digest_of(content, length=64)}))
    return path


def forge_bars_and_manifest(vintage: Vintage) -> Path:
    path = replace_by_a_valid_file(vintage)
    rewrite_manifest(vintage)
    return path


def forge_the_last_date(vintage: Vintage) -> Path:
    rewrite_manifest(vintage, last_date="2031-12-31")
    return max((vintage.path / "bars").iterdir())


def forge_the_names(vintage: Vintage) -> Path:
    path = rename_an_instrument(vintage)
    rewrite_manifest(vintage)
    return path


def forge_the_years(vintage: Vintage) -> Path:
    years = read_json(vintage.path / "manifest.json")["years"]
    return rewrite_manifest(vintage, years={year: {**each, "digest": "0" * 16} for year, each in years.items()})


def forge_what_row_groups_claim(vintage: Vintage) -> Path:
    """The bars as they are, in groups that claim to hold the days of one group alone: a filter would skip the rest."""
    path = first_bars(vintage)
    path.chmod(0o600)
    table = pq.read_table(path)
    half = len(table) // 2
    pq.write_table(table, path, row_group_size=half)
    truth = pq.ParquetFile(path).metadata.row_group(0).column(0).statistics
    days = [np.datetime64(day, "ns").astype(np.int64).tobytes() for day in (truth.min, truth.max)]
    content = path.read_bytes()
    footer = content.rindex(days[0])
    shifted = (np.frombuffer(days[0], np.int64) + 86_400_000_000_000 * 3000).tobytes()
    path.write_bytes(content[:footer].replace(days[0], shifted) + content[footer:].replace(days[0], shifted))
    if pq.ParquetFile(path).metadata.row_group(0).column(0).statistics.min == truth.min:
        pytest.skip("this writer keeps its statistics elsewhere")
    rewrite_manifest(vintage)
    return path


ATTACKS = [
    flip_a_byte,
    flip_a_byte_and_put_the_time_back,
    replace_by_a_valid_file,
    add_a_file,
    remove_a_file,
    change_the_universe,
    rename_an_instrument,
    change_the_manifest,
    forge_bars_and_manifest,
    forge_the_last_date,
    forge_the_names,
    forge_the_years,
    forge_what_row_groups_claim,
]


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda each: each.__name__)
def test_a_changed_vintage_is_neither_read_nor_published(vintage: Vintage, attack: Callable[[Vintage], Path]) -> None:
    """Whatever was changed, the error names the file and the way back, and that way leads back to every bar."""
    settings, version = settings_of(vintage), vintage.data_version
    path = attack(vintage)
    for use in (lambda: read_all(settings, version), lambda: publish(settings, version)):
        with pytest.raises(StoreError) as caught:
            use()
        assert str(path) in str(caught.value)
        assert f"alphaops checkout {version}" in str(caught.value)
    assert current_version(settings) is None
    restored = checkout_vintage(settings, version)
    pd.testing.assert_frame_equal(restored.bars(), BARS, check_dtype=False)
    assert restored.manifest["source"] == "made"
    assert publish(settings, version)


def test_a_vintage_without_file_digests_is_verified_by_its_content(vintage: Vintage) -> None:
    """One that was written before they were recorded loads; changed, it does not."""
    settings, version = settings_of(vintage), vintage.data_version
    manifest = vintage.path / "manifest.json"
    manifest.chmod(0o600)
    content = {name: value for name, value in read_json(manifest).items() if name not in {"files", "manifest_digest"}}
    manifest.write_text(json.dumps(content))
    (settings.home / "verified.txt").unlink()
    pd.testing.assert_frame_equal(read_all(settings, version), BARS, check_dtype=False)
    load_vintage(settings, version).files.verify()
    path = replace_by_a_valid_file(vintage)
    with pytest.raises(DamagedFileError, match=rf"{path.name}: not what was written \(its content is not bars 2019"):
        read_all(settings, version)


def test_a_changed_object_of_dvc_is_not_checked_out(vintage: Vintage) -> None:
    """It is refused and nothing of it is left; a vintage written anew from its bars is whole, in DVC too."""
    settings, version = settings_of(vintage), vintage.data_version
    bars = digest_of_file(first_bars(vintage))
    cache = settings.data_dir / ".dvc" / "cache" / "files" / "md5"
    changed = next(path for path in cache.rglob("*") if path.is_file() and digest_of_file(path) == bars)
    before = changed.stat()
    other_values(changed)
    changed.chmod(before.st_mode)
    os.utime(changed, ns=(before.st_atime_ns, before.st_mtime_ns))
    shutil.rmtree(vintage.path)
    with pytest.raises(DamagedFileError, match=r"what DVC holds of vintage .* is damaged too.*run sync_market_data"):
        checkout_vintage(settings, version)
    assert not vintage.path.exists() and not changed.exists()
    with pytest.raises(StoreError, match="run sync_market_data on its source"):
        checkout_vintage(settings, version)
    write_vintage(settings, BARS, None, {"source": "made"})
    pin_vintage(settings, version)
    shutil.rmtree(vintage.path)
    pd.testing.assert_frame_equal(checkout_vintage(settings, version).bars(), BARS, check_dtype=False)


def test_a_pointer_to_something_else_is_not_followed(vintage: Vintage) -> None:
    """Another vintage's content under this name is refused."""
    settings, version = settings_of(vintage), vintage.data_version
    other = write_vintage(settings, BARS.assign(volume=1.0), None, {"source": "made"})
    pin_vintage(settings, other.data_version)
    content = pointer_path(settings, other.data_version).read_text().replace(other.data_version, version)
    pointer_path(settings, version).write_text(content)
    shutil.rmtree(vintage.path)
    with pytest.raises(StoreError, match="run sync_market_data"):
        checkout_vintage(settings, version)
    assert not vintage.path.exists()


def test_a_store_of_qlib_that_was_touched_is_written_anew(vintage: Vintage) -> None:
    """A store is derived: one with another number in it, its time put back, is made from the vintage again."""
    settings = settings_of(vintage)
    publish(settings, vintage.data_version)
    path = next(ensure_store(settings, vintage).glob("features/*/close.day.bin"))
    before, content = path.stat(), path.read_bytes()
    path.write_bytes(content[:-4] + np.float32(1e6).tobytes())
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    store = ensure_store(settings, vintage)
    assert path.read_bytes() == content
    untouched = path.stat().st_ino
    assert ensure_store(settings, vintage) == store and path.stat().st_ino == untouched
    prune_stores(settings)
    assert store.is_dir()


@pytest.mark.parametrize("what", ["a byte", "a byte, its time put back", "no checksum"])
def test_a_changed_partition_is_not_read_and_is_computed_anew(vintage: Vintage, what: str) -> None:
    """The error names the file and the way back, which leads to the very bytes."""
    settings = settings_of(vintage)
    store = FeatureStore(settings)
    version = store.compute(vintage, SIMPLE)
    whole = store.load(version.feature_version)
    path = store.partitions / f"{version.partitions[0].digest}.parquet"
    before, content = path.stat(), path.read_bytes()
    if what == "no checksum":
        path.with_suffix(".json").unlink()
    else:
        path.write_bytes(content[:-2000] + bytes([content[-2000] ^ 1]) + content[-1999:])
    if "time" in what:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(DamagedFileError, match=rf"{path.name}: not what was written.*alphaops features compute"):
        store.load(version.feature_version)
    again = store.compute(vintage, SIMPLE)
    assert again.computed_rows == version.partitions[0].rows
    pd.testing.assert_frame_equal(store.load(version.feature_version), whole)
    assert path.read_bytes() == content


def test_a_file_is_read_once_in_all_processes_until_it_changes(vintage: Vintage) -> None:
    """A process that comes later looks at nothing again; a file whose status has changed is looked at."""
    settings, path, looks = settings_of(vintage), first_bars(vintage), []

    def look(file: Path) -> str:
        looks.append(file)
        return digest_of_file(file)

    assert VerifiedFiles(settings.home).has(path, digest_of_file(path), look) and not looks
    path.chmod(0o400)
    assert VerifiedFiles(settings.home).has(path, digest_of_file(path), look) and looks == [path]
    assert VerifiedFiles(settings.home).has(path, digest_of_file(path), look) and looks == [path]


def test_a_wrong_memory_costs_time_and_no_more(vintage: Vintage) -> None:
    """What says of whole files that they are others, of half lines and of nothing makes no vintage unreadable."""
    settings, version = settings_of(vintage), vintage.data_version
    path = settings.home / "verified.txt"
    lines = [line.split(" ") for line in path.read_text().splitlines()]
    wrong = [" ".join([*words[:2], "0" * 64]) if words[0] == "file" else " ".join(words[:1]) for words in lines]
    for content in ("\n".join(wrong), "\0\xff file", ""):
        path.write_bytes(content.encode("latin-1"))
        memory = VerifiedFiles(settings.home)
        assert memory.has(first_bars(vintage), digest_of_file(first_bars(vintage)))
    path.unlink()
    load_vintage(settings, version).files.verify()


def test_a_memory_that_others_can_write_is_not_believed(vintage: Vintage) -> None:
    """A stranger's word that a changed file is the right one counts for nothing."""
    settings, path = settings_of(vintage), first_bars(vintage)
    expected = digest_of_file(path)
    replace_by_a_valid_file(vintage)
    status = path.stat()
    identity = f"{status.st_dev}:{status.st_ino}:{status.st_size}:{status.st_mtime_ns}:{status.st_ctime_ns}"
    planted = settings.home / "verified.txt"
    planted.write_text(f"file {identity} {expected}\n")
    planted.chmod(0o666)
    assert not VerifiedFiles(settings.home).has(path, expected)
    planted.unlink()
    stranger = settings.home / "planted.txt"
    stranger.write_text(f"file {identity} {expected}\n")
    planted.symlink_to(stranger)
    assert not VerifiedFiles(settings.home).has(path, expected)
