"""What one machine has published another one has, complete and verified, from a folder as from an object store."""

import json
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest

from mlops_tasks.config import Settings, SharedSettings, load_settings
from mlops_tasks.data.snapshots import checkout_vintage
from mlops_tasks.data.vintages import current_version, current_vintage, load_vintage, publish, write_vintage
from mlops_tasks.errors import ConfigError, DamagedFileError, OvertakenVintageError, StoreError
from mlops_tasks.features.store import FeatureStore
from mlops_tasks.files import digest_of, read_json, write_json
from mlops_tasks.shared_store import Kind, fetch, is_published, pull, push, replace
from mlops_tasks.shared_store import publish as share
from mlops_tasks.training_folder import ModelCertificate, TrainingFolder
from tests import programs
from tests.operation import bars, free_ports, publish_vintage
from tests.registry.trainings import DAYS, Spec, make_training
from tests.shared_stores import Shared, shared_store


@pytest.fixture(params=["folder", "bucket"])
def shared(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Shared]:
    """A store, and two machines or more."""
    with shared_store(request.param, tmp_path) as made:
        yield made


def content_of(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def some_folder(folder: Path) -> Path:
    """Three files, one of them larger than what an upload sends at once."""
    (folder / "model").mkdir(parents=True)
    (folder / "plan.json").write_text("{}")
    (folder / "model" / "empty").write_bytes(b"")
    (folder / "model" / "weights").write_bytes(bytes(range(256)) * 40_000)
    return folder


def objects_of(shared: Shared, kind: str) -> list[str]:
    """Names of stored objects."""
    return sorted(name for name in shared.objects() if name.startswith(kind))


def test_vintage_and_features_reach_another_machine(shared: Shared) -> None:
    """It finds which vintage is in use, its bars and its features, byte for byte, and computes nothing."""
    a, b = shared.machine("a"), shared.machine("b")
    vintage, version = publish_vintage(a)
    assert current_version(b) == vintage.data_version and not (b.data_dir / "vintages").exists()
    found = current_vintage(b)
    assert content_of(found.path) == content_of(vintage.path)
    pd.testing.assert_frame_equal(found.bars(), vintage.bars())

    assert FeatureStore(b).find(vintage.data_version) == version
    pd.testing.assert_frame_equal(FeatureStore(b).load(version), FeatureStore(a).load(version))
    assert FeatureStore(b).compute(found).computed_rows == 0
    (ours, theirs) = (content_of(each.features_dir) for each in (a, b))
    assert ours == theirs
    assert content_of(a.features_dir / version) == content_of(b.features_dir / version)
    assert not list(b.home.rglob("*.tmp"))


def test_a_vintage_that_comes_into_use_is_followed(shared: Shared) -> None:
    """Whichever machine brought it into use; a vintage that is not in use is found too."""
    a, b = shared.machine("a"), shared.machine("b")
    first, _ = publish_vintage(a, DAYS[:-1])
    assert current_version(b) == first.data_version
    second, _ = publish_vintage(b)
    assert current_version(a) == second.data_version and current_vintage(a).last_date == second.last_date
    assert load_vintage(b, first.data_version).rows == first.rows
    assert not publish(a, second.data_version)


def test_a_training_reaches_another_machine_with_what_is_added_later(shared: Shared) -> None:
    """Its certificate and evaluation too, also where one takes the place of another."""
    a, b = shared.machine("a"), shared.machine("b")
    ours = TrainingFolder(make_training(a, Spec()))
    ours.share(a)
    theirs = TrainingFolder.of(b, Spec().key)
    without = {
        name: each for name, each in content_of(ours.path).items() if not name.startswith(("evaluation", "certificate"))
    }
    assert content_of(theirs.path) == without

    for rank_ic in (0.1, 0.2):
        write_json(ours.evaluation.path / "evaluation.json", {"metrics": {"test_rank_ic_mean": rank_ic}})
        ours.write_certificate(ModelCertificate(f"certificate {rank_ic}"))
        ours.share_evaluation(a)
        push(a, ours.certificate)
        found = TrainingFolder.of(b, Spec().key)
        assert content_of(found.path) == content_of(ours.path)
        assert found.evaluation.read().metrics == {"test_rank_ic_mean": rank_ic}
    assert not TrainingFolder.of(b, "b" * 16).exists


def test_of_two_trainings_of_one_key_all_machines_have_the_first(shared: Shared) -> None:
    """Processors differ in last bits: what is certified on one machine is what another one registers."""
    a, b = shared.machine("a"), shared.machine("b")
    ours, theirs = (TrainingFolder(some_folder(each.training_folder("c" * 16))) for each in (a, b))
    (theirs.path / "plan.json").write_text('{"last": "bit"}')
    ours.share(a)
    theirs.share(b)
    assert content_of(ours.path) == content_of(theirs.path) == content_of(TrainingFolder.of(b, "c" * 16).path)


KILLED = """
import os
import sys
from pathlib import Path
from mlops_tasks import object_stores
from mlops_tasks.config import Settings
from mlops_tasks.shared_store import Kind, publish

settings = Settings.model_validate_json(sys.argv[1])

def wait(said):
    print(said, flush=True)
    sys.stdin.readline()

def uploaded(self, path, name, original):
    original(self, path, name)
    wait("uploaded")

def copied(source, target):
    content = Path(source).read_bytes()
    Path(target).write_bytes(content[: len(content) // 2])
    if content[8:]:
        wait("half")
    Path(target).write_bytes(content)

if sys.argv[3] == "half" and settings.shared.is_bucket:
    client = object_stores._client(settings.shared.endpoint_url, os.getpid())
    client.upload_part = lambda original=client.upload_part, **part: (original(**part), wait("half"))[0]
elif sys.argv[3] == "half":
    object_stores.shutil.copyfile = copied
else:
    for store in (object_stores._Folder, object_stores._Bucket):
        store.upload = lambda self, path, name, original=store.upload: uploaded(self, path, name, original)
publish(settings, Kind.TRAININGS, "k" * 16, Path(sys.argv[2]))
print("done", flush=True)
"""


def uploading(settings: Settings, folder: Path, waits: str = "uploaded") -> programs.Program:
    """A process that publishes a folder, and waits for a line after each file, or where `half` of one is written."""
    return programs.start(KILLED, settings.model_dump_json(), folder, waits)


@pytest.mark.parametrize("uploads", [1, 3])
def test_a_killed_upload_is_absent_and_another_one_completes_it(shared: Shared, tmp_path: Path, uploads: int) -> None:
    """After the first file and after the last, before the listing: nobody sees any of it."""
    a, b, folder = shared.machine("a"), shared.machine("b"), some_folder(tmp_path / "made")
    with uploading(a, folder) as process:
        for number in range(uploads):
            if number:
                print(file=process.stdin, flush=True)
            assert process.stdout.readline() == "uploaded\n"
        process.kill()
    assert len(objects_of(shared, "objects")) == uploads and not objects_of(shared, Kind.TRAININGS)
    target = b.training_folder("k" * 16)
    assert not fetch(b, Kind.TRAININGS, "k" * 16, target) and not target.parent.exists()

    share(a, Kind.TRAININGS, "k" * 16, folder)
    assert fetch(b, Kind.TRAININGS, "k" * 16, target) and content_of(target) == content_of(folder)


def test_half_an_object_is_none(shared: Shared, tmp_path: Path) -> None:
    """Killed inside a file: no object of it is there, and publishing again stores all of it."""
    a, b, folder = shared.machine("a"), shared.machine("b"), some_folder(tmp_path / "made")
    with uploading(a, folder, "half") as process:
        assert process.stdout.readline() == "half\n"
        process.kill()
    stored = shared.objects()
    assert [len(stored[name]) for name in stored if name.startswith("objects")] == [0]  # the empty file, before it
    share(a, Kind.TRAININGS, "k" * 16, folder)
    target = b.training_folder("k" * 16)
    assert fetch(b, Kind.TRAININGS, "k" * 16, target) and content_of(target) == content_of(folder)


def test_tasks_of_one_machine_that_want_the_same_all_have_it(shared: Shared) -> None:
    """At the same time, and none sees half of it."""
    a, b = shared.machine("a"), shared.machine("b")
    vintage = write_vintage(a, bars(), None, {"source": "planted bars"})
    publish(a, vintage.data_version)
    found: list[int] = []
    together = threading.Barrier(4)

    def read() -> None:
        together.wait()
        found.append(len(load_vintage(b, vintage.data_version).bars()))

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [vintage.rows] * 4
    assert [path.name for path in (b.data_dir / "vintages").iterdir()] == [vintage.data_version]


def test_two_publishers_at_once_do_no_harm(shared: Shared, tmp_path: Path) -> None:
    """Each uploads every file, one writes the listing; what another machine fetches is whole."""
    a, b, folder = shared.machine("a"), shared.machine("b"), some_folder(tmp_path / "made")
    with uploading(a, folder) as one, uploading(b, folder) as other:
        for process in (one, other):
            assert process.stdout.readline() == "uploaded\n"
        for process in (one, other):
            print("\n\n", file=process.stdin, flush=True)
        said = [process.communicate(timeout=60)[0] for process in (one, other)]
    assert [process.returncode for process in (one, other)] == [0, 0], said
    target = shared.machine("c").training_folder("k" * 16)
    assert fetch(shared.machine("c"), Kind.TRAININGS, "k" * 16, target) and content_of(target) == content_of(folder)
    assert len(objects_of(shared, "")) == 4


def flipped(content: bytes) -> bytes:
    """The same length, one bit other."""
    return content[:-9] + bytes([content[-9] ^ 1]) + content[-8:]


@pytest.mark.parametrize("how", [flipped, lambda content: content[:-1], None], ids=["flipped", "cut", "gone"])
@pytest.mark.parametrize("kind", ["objects", Kind.VINTAGES, "pointers"])
def test_a_damaged_object_is_refused_by_its_name(
    shared: Shared, kind: str, how: Callable[[bytes], bytes] | None
) -> None:
    """Nothing of it can be seen on the machine that wanted it; removed and published again it is there."""
    a, b = shared.machine("a"), shared.machine("b")
    vintage = write_vintage(a, bars(), None, {"source": "planted bars"})
    publish(a, vintage.data_version)
    objects = shared.objects()
    name = max((each for each in objects if each.startswith(kind)), key=lambda each: len(objects[each]))
    shared.change(name, None if how is None else how(objects[name]))
    if how is None and kind != "objects":  # no listing, no vintage; no pointer, nothing in use
        with pytest.raises(StoreError, match=r"no complete vintage|no vintage is in use yet"):
            current_vintage(b)
    else:
        with pytest.raises(DamagedFileError, match=f"{shared.settings.store}/{name}"):
            current_vintage(b)
    assert not list(b.home.rglob("*.parquet")) and not list(b.home.rglob("manifest.json"))

    for each in shared.objects():
        if each == name or each.startswith(Kind.VINTAGES):
            shared.change(each, None)
    publish(a, vintage.data_version)
    assert content_of(current_vintage(b).path) == content_of(vintage.path)


def test_a_damaged_cache_is_fetched_again(shared: Shared) -> None:
    """A partition and a pointer when they are read; a vintage is refused then, and restored by a checkout."""
    a, b = shared.machine("a"), shared.machine("b")
    vintage, version = publish_vintage(a)
    here, expected = current_vintage(b), FeatureStore(a).load(version)
    FeatureStore(b).load(version)
    (partition,) = (b.features_dir / "partitions").glob("*.parquet")
    partition.write_bytes(flipped(partition.read_bytes()))
    pd.testing.assert_frame_equal(FeatureStore(b).load(version), expected)
    (b.data_dir / "current.json").write_text("{")
    assert current_version(b) == vintage.data_version

    (year,) = here.path.glob("bars/*.parquet")
    year.write_bytes(flipped(year.read_bytes()))
    with pytest.raises(DamagedFileError, match="alphaops checkout"):
        current_vintage(b).bars()
    checkout_vintage(b, vintage.data_version)
    assert content_of(here.path) == content_of(vintage.path)


def test_no_machine_replaces_a_vintage_that_its_own_was_not_compared_with(shared: Shared) -> None:
    """Where another one came first, that stays in use; comparing with it, it can be replaced."""
    a, b = shared.machine("a"), shared.machine("b")
    first = write_vintage(a, bars(DAYS[:-2]), None, {"source": "planted bars"}).data_version
    publish(a, first, instead_of=None)
    assert current_version(b) == first
    second = write_vintage(b, bars(DAYS[:-1]), None, {"source": "planted bars"}).data_version
    third = write_vintage(a, bars(), None, {"source": "planted bars"}).data_version
    assert publish(b, second, instead_of=first)
    for known in (first, None):
        with pytest.raises(OvertakenVintageError, match=f"compare {third}"):
            publish(a, third, instead_of=known)
    assert current_version(a) == current_version(b) == second
    assert publish(a, third, instead_of=second) and current_version(b) == third


def test_of_many_that_replace_the_same_one_wins(shared: Shared) -> None:
    """Between its look and its write no other comes."""
    machines = [shared.machine(str(number)) for number in range(6)]
    together, won = threading.Barrier(len(machines)), []

    def step(number: int) -> None:
        settings = machines[number]
        together.wait()
        for _ in range(3):
            path = settings.home / "count.json"
            pull(settings, path)
            before = read_json(path)["n"] if path.is_file() else 0
            after = {"n": before + 1, "by": number}
            if replace(settings, path, after, lambda found, n=before: (found or {"n": 0})["n"] == n):
                won.append(after["n"])

    threads = [threading.Thread(target=step, args=(number,)) for number in range(len(machines))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(won) == list(range(1, len(won) + 1))


def test_a_name_in_a_listing_leads_nowhere_else(shared: Shared, tmp_path: Path) -> None:
    """Whoever may write to the store writes no file outside the folder that a machine asks for."""
    a, key, folder = shared.machine("a"), "k" * 16, some_folder(tmp_path / "made")
    share(a, Kind.TRAININGS, key, folder)
    (name,) = objects_of(shared, Kind.TRAININGS)
    listing = json.loads(shared.objects()[name])["content"]
    for wrong in ("../../outside", "/tmp/outside", ""):
        files = {wrong: listing["files"]["plan.json"]}
        content = {**listing, "files": files}
        sealed = {"content": content, "digest": digest_of(content, length=64)}
        shared.change(name, json.dumps(sealed).encode())
        with pytest.raises(DamagedFileError, match=name):
            fetch(a, Kind.TRAININGS, key, a.training_folder(key))
    assert not a.training_folder(key).exists()


def test_a_store_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that is not mounted is not made; a server that does not answer is an error within seconds."""
    lost = Settings(home=tmp_path, shared=SharedSettings(store=str(tmp_path / "mount")))
    with pytest.raises(StoreError, match=f"{tmp_path}/mount: shared.store is not there; mount it"):
        current_version(lost)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "tests")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s3cret")
    (port,) = free_ports(1)
    away = SharedSettings(store="s3://bucket/desk", endpoint_url=f"http://127.0.0.1:{port}")
    with pytest.raises(StoreError, match=r"s3://bucket/desk/pointers/data/current\.json: .*shared\.store") as caught:
        current_version(Settings(home=tmp_path, shared=away))
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("store", ["bars", "gs://bucket", "s3://", "s3://user:pw@bucket/x", "s3://bucket/x?y=1"])
def test_what_is_no_store_is_refused(store: str, tmp_path: Path) -> None:
    """By its setting, with what one is."""
    with pytest.raises(ConfigError, match=r"shared\.store: .*s3://bucket/prefix"):
        load_settings({"MLOPS_HOME": str(tmp_path), "MLOPS_SHARED__STORE": store})


def test_a_machine_that_shares_nothing_has_all_at_home(tmp_path: Path) -> None:
    """No listing, no pointer, no folder of what is fetched."""
    alone = Settings(home=tmp_path / "home")
    vintage, version = publish_vintage(alone)
    assert not is_published(alone, Kind.VINTAGES, vintage.data_version) and FeatureStore(alone).get(version)
    assert sorted(path.name for path in alone.home.iterdir()) == ["data", "features", "verified.txt"]
    shutil.rmtree(vintage.path)
    with pytest.raises(StoreError, match="no complete vintage"):
        load_vintage(alone, vintage.data_version)
