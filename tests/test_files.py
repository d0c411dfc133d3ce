"""No partial write is ever visible."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from mlops_tasks.errors import BusyFolderError, DamagedFileError
from mlops_tasks.files import (
    digest_of,
    finite_or_none,
    folder_lock,
    new_file,
    new_folder,
    read_json,
    write_json,
    write_text,
)


def test_a_failed_write_leaves_the_old_content_and_nothing_else(tmp_path):
    """A value that JSON cannot hold is refused before the file is touched."""
    path = tmp_path / "a.json"
    write_json(path, {"x": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"x": float("nan")})
    assert read_json(path) == {"x": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize("content", [b"", b'{"half": ', b"\xff\xfe"])
def test_a_file_that_is_no_json_is_named_as_damaged(tmp_path, content):
    """Also to those who expect a ValueError."""
    path = tmp_path / "a.json"
    path.write_bytes(content)
    for kind in (DamagedFileError, ValueError):
        with pytest.raises(kind, match=r"a\.json cannot be read as JSON: it is damaged"):
            read_json(path)


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    """Nobody sees a file half-written; an error in between leaves the old content and nothing beside it."""
    target = tmp_path / "scores.parquet"
    with new_file(target) as beside:
        beside.write_bytes(b"first")
        assert not target.exists() and beside.name.startswith(".")
    assert target.read_bytes() == b"first"
    with pytest.raises(RuntimeError), new_file(target) as beside:
        beside.write_bytes(b"half")
        raise RuntimeError
    assert target.read_bytes() == b"first" and list(tmp_path.iterdir()) == [target]


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    """An error inside the block leaves no folder, and the next writer succeeds."""
    with pytest.raises(RuntimeError), new_folder(tmp_path / "v1") as folder:
        write_text(folder / "half", "x")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    with new_folder(tmp_path / "v1") as folder:
        write_text(folder / "whole", "x")
    assert [p.name for p in (tmp_path / "v1").iterdir()] == ["whole"]


def test_what_a_killed_writer_left_is_removed_by_the_next(tmp_path):
    """A SIGKILLed writer's temporary folder is never taken for the result and does not stay."""
    code = (
        "import os, signal; from pathlib import Path; from mlops_tasks.files import new_folder\n"
        f"with new_folder(Path({str(tmp_path / 'v1')!r})) as f:\n"
        "    (f / 'half').write_text('x'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -signal.SIGKILL
    assert not (tmp_path / "v1").exists()
    assert len(list(tmp_path.iterdir())) == 1
    with new_folder(tmp_path / "v1") as folder:
        write_text(folder / "whole", "x")
    assert [p.name for p in tmp_path.iterdir()] == ["v1"]


def test_the_first_of_two_writers_of_the_same_folder_wins(tmp_path):
    """Targets are named by content, so the second write is dropped, not merged."""
    with new_folder(tmp_path / "v1") as first, new_folder(tmp_path / "v1") as second:
        write_text(first / "a", "1")
        write_text(second / "a", "1")
    assert [p.name for p in tmp_path.iterdir()] == ["v1"]


def test_a_lock_is_free_again_when_its_holder_is_killed(tmp_path):
    """The system releases the lock of a SIGKILLed process."""
    code = (
        "import time; from pathlib import Path; from mlops_tasks.files import folder_lock\n"
        f"with folder_lock(Path({str(tmp_path)!r})):\n"
        "    print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert holder.stdout.readline() == b"held\n"
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    started = time.monotonic()
    with folder_lock(tmp_path):
        assert time.monotonic() - started < 30


def test_a_digest_does_not_depend_on_key_order():
    """Equal content, equal digest; other content, another."""
    assert digest_of({"a": 1, "b": 2}) == digest_of({"b": 2, "a": 1}) != digest_of({"a": 1, "b": 3})


@pytest.mark.parametrize("value", [None, float("nan"), np.float32("inf"), -np.inf])
def test_what_json_cannot_carry_becomes_none(value):
    """Missing and infinite numbers are null in reports."""
    assert finite_or_none(value) is None
    assert finite_or_none(np.float64(1.5)) == 1.5


WATCHED = """
import ctypes, os, sys
from pathlib import Path
from mlops_tasks import files
done, place = [], Path(sys.argv[1])
fsync, library = os.fsync, ctypes.CDLL(None)
def noted(handle):
    done.append("sync " + Path(f"/proc/self/fd/{handle}").readlink().name.split(".")[-1]), fsync(handle)
os.fsync = noted
class Library:
    def __init__(self, *_, **__): pass
    def __getattribute__(self, name):
        return lambda handle: (done.append("all"), library.syncfs(handle))[1]
ctypes.CDLL = Library
def watch(event, given):
    if event == "os.rename": done.append("rename " + Path(given[1]).name)
sys.addaudithook(watch)
"""
"""Notes the system calls of a process of its own."""


def watched(code, *arguments):
    """What a process brings to the disk, and renames, while it runs some code; `place` is its first argument."""
    command = [sys.executable, "-c", f"{WATCHED}{code}\nprint(*done, sep='\\n')", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


@pytest.mark.parametrize("count", [3, 200])
def test_a_folder_is_on_the_disk_before_it_has_its_name(tmp_path, count):
    """Each file and folder is brought to the disk, one by one or all at once, then renamed, then the name is."""
    code = (
        "with files.new_folder(place / 'target') as folder:\n"
        "    (folder / 'sub').mkdir()\n"
        "    for n in range(int(sys.argv[2])): (folder / 'sub' / f'f{n}').write_text('x')"
    )
    done = watched(code, tmp_path, count)
    assert done[-2:] == ["rename target", f"sync {tmp_path.name}"]
    brought = {"sync sub", *(f"sync f{n}" for n in range(count))}
    assert (brought <= set(done[:-2])) if count == 3 else ("all" in done[:-2])


@pytest.mark.parametrize(
    "code",
    [
        "files.write_text(place / 'target', 'x')",
        "with files.new_file(place / 'target') as beside: beside.write_text('x')",
    ],
)
def test_a_file_is_on_the_disk_before_it_has_its_name(tmp_path, code):
    """Its content first, then its name in the folder."""
    content, *named = watched(code, tmp_path)
    assert content.startswith("sync ") and content != f"sync {tmp_path.name}"
    assert named == ["rename target", f"sync {tmp_path.name}"]


def test_a_lock_that_others_hold_is_waited_for_no_longer_than_said(tmp_path):
    """Then the folder is named; once it is free, it is had at once."""
    with folder_lock(tmp_path):
        began = time.monotonic()
        with pytest.raises(BusyFolderError, match="try again in a minute"), folder_lock(tmp_path, wait_s=0.2):
            pass
        assert 0.2 <= time.monotonic() - began < 5
    with folder_lock(tmp_path, wait_s=0):
        assert (tmp_path / ".lock").exists()
