"""The write-ahead log of a process: what was appended is there, however the process ended."""

import errno
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mlops_tasks.errors import DamagedFileError
from mlops_tasks.serving import write_ahead
from mlops_tasks.serving.write_ahead import LogFullError, Record, WriteAheadLog, bytes_beside, left_logs
from tests import programs
from tests.data.test_full_disk import ON_SMALL_DISK, may_mount

ROOM = 64 << 20


@pytest.fixture(autouse=True)
def small_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a log has several."""
    monkeypatch.setattr(write_ahead, "SEGMENT_BYTES", 4096)


def append(log: WriteAheadLog, payload: bytes) -> int:
    with log.appending(len(payload)):
        return log.append(payload)


def payloads(seed: int, count: int = 200) -> list[bytes]:
    chance = random.Random(seed)
    return [chance.randbytes(chance.choice((0, 1, 100, 700, 5000))) for _ in range(count)]


def taken(log: WriteAheadLog, most: int = 7) -> list[Record]:
    found = []
    while batch := log.waiting(most):
        log.take(batch)
        found += batch
    return found


@pytest.mark.parametrize("seed", range(5))
def test_records_come_back_once_in_their_order(tmp_path: Path, seed: int) -> None:
    """Whatever their size, over many files, while others are appended; numbers have no gap."""
    log, given, found = WriteAheadLog(tmp_path, ROOM), payloads(seed), []
    chance = random.Random(seed)
    for payload in given:
        append(log, payload)
        if chance.random() < 0.1:
            log.prepare()
        if chance.random() < 0.1:
            log.sync()
            batch = log.waiting(chance.randrange(1, 9))
            log.take(batch)
            found += batch
    assert log.backlog == len(given) - len(found) > 0
    found += taken(log)
    assert [each.payload for each in found] == given
    assert [each.sequence for each in found] == list(range(1, len(given) + 1))
    assert len(list(log.folder.glob("*.wal"))) == 1 and log.backlog == 0
    log.close()
    assert not log.folder.exists()


WRITER = """
import sys
from pathlib import Path
from mlops_tasks.serving import write_ahead
write_ahead.SEGMENT_BYTES = 4096
log = write_ahead.WriteAheadLog(Path(sys.argv[1]), 1 << 26)
while True:
    payload = b"%d " % (log.sequence + 1) * (log.sequence % 300)
    with log.appending(len(payload)):
        print(log.append(payload), flush=True)
"""


def test_what_was_appended_outlives_a_killed_process(tmp_path: Path) -> None:
    """Killed at any moment: every number that was told is in the log, which the next process takes over."""
    process = programs.start(WRITER, tmp_path)
    assert process.stdout is not None
    for _ in range(random.randrange(1, 2000)):
        process.stdout.readline()
    with left_logs(tmp_path) as found:
        assert found == [], "the log of a process that lives is its own"
    process.send_signal(signal.SIGKILL)
    told = int((process.stdout.read().splitlines() or ["1"])[-1])
    process.wait()
    with left_logs(tmp_path) as (left,), left_logs(tmp_path) as nobody_elses:
        assert nobody_elses == []
        left.shrink()
        found = [each for batch in left.batches(100) for each in batch]
        left.remove()
    assert [each.sequence for each in found] == list(range(1, len(found) + 1)) and len(found) >= told
    assert all(each.payload == b"%d " % each.sequence * ((each.sequence - 1) % 300) for each in found)


@pytest.mark.parametrize("damage", ["cut", "overwritten", "zeros"])
def test_a_torn_end_costs_what_is_torn(tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    """Records before it are read; the place that the file had taken beyond them is given back."""
    log = WriteAheadLog(tmp_path, ROOM)
    for payload in (b"first", b"second" * 50, b"third" * 60):
        append(log, payload)
    path, end = next(log.folder.glob("*.wal")), log._segments[0].end
    log.close()
    with path.open("r+b") as file:
        file.seek(end - 20)
        if damage == "cut":
            file.truncate(end - 20)
        else:
            file.write(b"\0" * 20 if damage == "zeros" else os.urandom(200))
    with left_logs(tmp_path) as (left,):
        left.shrink()
        assert [each.payload for batch in left.batches(2) for each in batch] == [b"first", b"second" * 50]
    assert "no record follows" in caplog.text
    assert path.stat().st_size < 400


def test_a_full_log_takes_nothing_and_goes_on_when_there_is_room(tmp_path: Path) -> None:
    """Nothing of what it holds is harmed; other processes' logs count too."""
    log = WriteAheadLog(tmp_path, 3 * 4096)
    for _ in range(3):
        append(log, b"a" * 4000)
    with pytest.raises(LogFullError, match="max_disk_mb"):
        append(log, b"b" * 4000)
    assert [each.payload for each in taken(log)] == [b"a" * 4000] * 3
    assert append(log, b"b" * 4000) == 4
    other = WriteAheadLog(tmp_path, 3 * 4096)
    other.others_bytes = bytes_beside(other)
    assert 4096 <= other.others_bytes <= 3 * 4096
    log.close()
    other.close()


def test_a_file_that_somebody_writes_into_is_told(tmp_path: Path) -> None:
    """It is not taken for the end of the log."""
    log = WriteAheadLog(tmp_path, ROOM)
    append(log, b"a" * 100)
    next(log.folder.glob("*.wal")).write_bytes(b"x" * 4096)
    with pytest.raises(DamagedFileError, match="no record begins at byte 0"):
        log.waiting(10)
    log.close()


def test_what_the_disk_did_not_take_is_told_and_gets_no_company(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next record goes into a new file; the log is unsynced until those of the old one are needed no more."""
    log = WriteAheadLog(tmp_path, ROOM)
    append(log, b"a")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", failing)
        with pytest.raises(OSError, match="Input/output"):
            log.sync()
    append(log, b"b")
    log.sync()
    assert len(list(log.folder.glob("*.wal"))) == 2 and log.unsynced
    assert [each.payload for each in taken(log)] == [b"a", b"b"] and not log.unsynced
    log.close()


def failing(*given: object) -> None:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def test_names_of_files_are_owed_until_the_disk_has_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failure is no success the second time."""
    log = WriteAheadLog(tmp_path, ROOM)
    seen: list[Path] = []
    append(log, b"a")
    with monkeypatch.context() as patch:
        patch.setattr(write_ahead, "sync", failing)
        for _ in range(2):
            with pytest.raises(OSError, match="Input/output"):
                log.sync()
    monkeypatch.setattr(write_ahead, "sync", seen.append)
    log.sync()
    log.sync()
    assert seen == [log.folder, log.root]
    log.close()


def test_without_room_only_the_thread_that_prepares_tries_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Answers do not wait for a disk that has just said no."""
    log, tries = WriteAheadLog(tmp_path, ROOM), []

    def full(*given: object) -> None:
        tries.append(given)
        failing()

    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", full)
        for _ in range(5):
            with pytest.raises(OSError, match="Input/output"):
                append(log, b"a")
            log.skip()
        assert len(tries) == 1
        with pytest.raises(OSError, match="Input/output"):
            log.prepare()
        assert len(tries) == 2
    log.prepare()
    assert append(log, b"a") == 6 and log.backlog == 1
    log.close()


def test_a_lock_that_was_not_to_be_had_is_asked_for_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder that the first try left is no hindrance."""
    monkeypatch.setattr(write_ahead, "RETRY_S", 0.0)
    log = WriteAheadLog(tmp_path, ROOM)
    with monkeypatch.context() as patch:
        patch.setattr(write_ahead, "_locked", failing_lock)
        with pytest.raises(OSError, match="Input/output"):
            append(log, b"a")
    assert append(log, b"a") == 1
    log.close()


def failing_lock(*given: object, **named: object) -> None:
    failing()


DISK = """
import sys
from pathlib import Path
from mlops_tasks.serving.write_ahead import WriteAheadLog
root = Path(sys.argv[1])
log = WriteAheadLog(root / "logs", 1 << 40)
def append(payload):
    with log.appending(len(payload)):
        return log.append(payload)
append(b"a" * 1000)
log.prepare()
filler = (root / "filler").open("wb", buffering=0)
try:
    while filler.write(b"0" * 65536): pass
except OSError: pass
count = 1
try:
    while append(b"b" * 1000): count += 1
except OSError as error:
    print(type(error).__name__, error.errno)
print(count, len(log.waiting(10**6)))
(root / "filler").unlink()
print(append(b"c") == count + 1)
"""


@pytest.mark.skipif(not may_mount(), reason="a small disk needs user namespaces")
def test_a_full_disk_takes_nothing_from_the_place_that_is_reserved(tmp_path: Path) -> None:
    """The present file goes on to its end; then the error is the system's, and after it the log goes on."""
    code = DISK.replace("import sys\n", "import sys\nfrom mlops_tasks.serving import write_ahead\n", 1)
    command = [*ON_SMALL_DISK, str(tmp_path), sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert done[0] == "OSError 28" and done[2] == "True"
    count, kept = map(int, done[1].split())
    assert count == kept > 3000, "four megabytes of them"
