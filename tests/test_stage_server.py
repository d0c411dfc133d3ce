"""Stages forked by the stage server: as those in a fresh interpreter, and right whatever happens to the server."""

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from mlops_tasks.config import PROJECT
from mlops_tasks.errors import ErrorKind, StageError, StageTimeoutError
from mlops_tasks.process import run_stage
from mlops_tasks.stage_output import StageLine
from mlops_tasks.stage_process import ForkedProcess, FreshProcess, StageProcess, end_group
from tests.waiting import is_running, wait_for

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the stage server is made of what only Linux has")

STAGES = "tests.example_stages"
LOOK = f"{STAGES}:look_around"


@dataclass
class Running:
    """A stage server of its own home."""

    home: Path
    process: subprocess.Popen[bytes]

    @property
    def memory_mb(self) -> float:
        """Resident."""
        return psutil.Process(self.process.pid).memory_info().rss / 1e6

    def said(self) -> str:
        """Its log."""
        return (self.home / "log").read_text()

    def holds(self, secret: str) -> bool:
        """Whether its memory has these bytes anywhere."""
        with Path(f"/proc/{self.process.pid}/mem").open("rb", buffering=0) as memory:
            for line in Path(f"/proc/{self.process.pid}/maps").read_text().splitlines():
                first, last, rights = re.match(r"(\w+)-(\w+) (\S+)", line).groups()
                if rights.startswith("rw"):
                    memory.seek(int(first, 16))
                    with suppress(OSError):
                        if secret.encode() in memory.read(int(last, 16) - int(first, 16)):
                            return True
        return False


def start(home: Path) -> subprocess.Popen[bytes]:
    """A server that is ready once its first stage has been forked."""
    # Other tests of this process may have imported MLflow, which leaves variables behind.
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    environment = {**clean, "MLOPS_HOME": str(home), "PYTHONUNBUFFERED": "1", "PYTHONHASHSEED": "0"}
    with (home / "log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "mlops_tasks.stage_server"], cwd=PROJECT, env=environment, stdout=log, stderr=log
        )


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One server for all; its home's path is longer than a socket's may be."""
    home = tmp_path_factory.mktemp("home") / ("a" * 80)
    home.mkdir()
    running = Running(home, start(home))
    wait_for((home / "run" / "stages.sock").exists)
    yield running
    running.process.kill()
    running.process.wait()


@pytest.fixture
def server(served: Running, monkeypatch: pytest.MonkeyPatch) -> Running:
    """The server, alive, and this process's home is its home."""
    monkeypatch.setenv("MLOPS_HOME", str(served.home))
    if served.process.poll() is not None:
        served.process = start(served.home)
        wait_for(lambda: "serves" in served.said().splitlines()[-1])
    return served


def run(stage: str, limit_s: float = 60, **arguments: Any) -> tuple[dict[str, Any], StageProcess, list[str]]:
    """A stage's result, its process, and what it said."""
    children: list[StageProcess] = []
    lines: list[StageLine] = []
    found = run_stage(stage, arguments, time_limit_s=limit_s, on_line=lines.append, on_start=children.append)
    return found, children[0], [line.text for line in lines]


def test_a_forked_stage_is_as_one_in_a_fresh_interpreter(
    server: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Result, log, folder, environment, permissions, session, modules' search path; and no child of the caller."""
    for name in [name for name in os.environ if name.startswith("MLFLOW_")]:
        monkeypatch.delenv(name)  # other tests of this process may have imported MLflow
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own_stage.py").write_text("from tests.example_stages import look_around\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    fresh, process, _ = run("own_stage:look_around")  # another PYTHONPATH than the server's
    assert isinstance(process, FreshProcess)
    monkeypatch.delenv("PYTHONPATH")
    monkeypatch.chdir(PROJECT)
    forked, process, lines = run(LOOK)
    assert isinstance(process, ForkedProcess) and "looking around" in lines
    assert forked.pop("folder") == str(PROJECT) and fresh.pop("folder") == str(tmp_path)
    assert forked.pop("path")[0] == str(PROJECT) and fresh.pop("path")[0] == str(tmp_path)
    fresh["environment"].remove("PYTHONPATH")
    more = set(forked.pop("environment")).difference(fresh.pop("environment"))
    assert "MLFLOW_HTTP_REQUEST_TIMEOUT" in more  # modules set it when they are imported, and read it later
    assert forked.pop("modules") > 10 * fresh.pop("modules")
    assert forked == fresh
    assert (forked["leads"], forked["threads"]) == (True, ["leash"])


def test_what_is_shared_with_the_server_is_no_use_of_a_stages_own(server: Running) -> None:
    """Neither as it sees itself nor from outside."""
    found, process, _ = run(f"{STAGES}:use_memory", mb=200)
    assert isinstance(process, ForkedProcess)
    assert process.inherited_mb > 150  # all that the server has imported
    assert 400 <= found["own"] <= 600  # the content, its copy, and what it touched of the libraries
    assert found["all"] > found["own"] - 200 + process.inherited_mb / 2


def test_failures_cross_the_process(server: Running) -> None:
    """Its own error with its own words and kind; an exit status."""
    with pytest.raises(StageError, match=r"TrainingError: segment test is empty; choose other dates$") as caught:
        run(f"{STAGES}:fail")
    assert caught.value.kind is ErrorKind.CONFIGURATION
    with pytest.raises(StageError, match="exit status 3"):
        run(f"{STAGES}:leave", status=3)


def test_the_time_limit_and_the_leash_end_all_that_it_started(server: Running, tmp_path: Path) -> None:
    """As for a fresh interpreter: the group ends with its limit, by hand, and with a caller that is killed."""
    pids = tmp_path / "pids"

    def started() -> list[int]:
        wait_for(pids.exists)
        return [int(pid) for pid in pids.read_text().split()]

    with pytest.raises(StageTimeoutError, match="limit of 2 s"):
        run(f"{STAGES}:sleep_with_grandchild", 2, pid_file=str(pids))
    wait_for(lambda: not any(map(is_running, started())))
    pids.unlink()
    children: list[StageProcess] = []
    ender = threading.Thread(target=lambda: (started(), end_group(children[0])))
    ender.start()
    with pytest.raises(StageError, match="exit status -9") as caught:
        run_stage(f"{STAGES}:sleep_with_grandchild", {"pid_file": str(pids)}, time_limit_s=60, on_start=children.append)
    assert caught.value.kind is ErrorKind.TRANSIENT
    ender.join()
    assert isinstance(children[0], ForkedProcess)
    wait_for(lambda: not any(map(is_running, started())))
    pids.unlink()
    call = f"run_stage('{STAGES}:sleep_with_grandchild', {{'pid_file': {str(pids)!r}}}, time_limit_s=300)"
    code = f"from mlops_tasks.process import run_stage; {call}"
    task = subprocess.Popen([sys.executable, "-c", code], cwd=PROJECT)
    stage = psutil.Process(started()[0])
    assert stage.ppid() == server.process.pid
    assert " ".join(stage.cmdline()).strip() == f"alphaops run {STAGES}:sleep_with_grandchild for {task.pid}"
    task.send_signal(signal.SIGKILL)
    task.wait()
    wait_for(lambda: not any(map(is_running, started())))


def test_another_environment_of_the_libraries_is_not_forked(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a library reads while it is imported cannot be changed afterwards."""
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert isinstance(run(LOOK)[1], FreshProcess)
    monkeypatch.undo()
    monkeypatch.setenv("MLOPS_HOME", str(server.home))
    assert isinstance(run(LOOK)[1], ForkedProcess)


def test_the_server_never_learns_a_secret_nor_keeps_memory_or_threads(
    server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stage's secret is in its own process; one that leaks memory and threads leaves the next as it was."""
    run(LOOK)
    before, secret = server.memory_mb, os.urandom(16).hex()
    monkeypatch.setenv("MLOPS_STATE_URL", f"sqlite:///{secret}")
    monkeypatch.setattr("mlops_tasks.process.INNER_STAGES", {})
    found, process, _ = run(f"{STAGES}:leak", mb=300, secret=secret)
    assert isinstance(process, ForkedProcess) and found["threads"] > 8
    assert not server.holds(secret)
    assert server.holds("mlops_tasks.stage_server")  # what it has is found
    assert server.memory_mb < before + 20
    assert run(LOOK)[0]["threads"] == ["leash"]


ASK_AS_NOBODY = """
import os, socket, sys
os.chdir(sys.argv[1])
os.setuid(65534)
with socket.socket(socket.AF_UNIX) as connection:
    connection.settimeout(20)
    connection.connect("stages.sock")
    print(connection.recv(100))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_for_another_user_nothing_is_forked(server: Running) -> None:
    """Even if the folder of the socket were open to everybody: the answer is a refusal, before anything is read."""
    folder = server.home / "run"
    modes = {path: path.stat().st_mode & 0o777 for path in (folder, folder / "stages.sock")}
    try:
        for path in modes:
            path.chmod(0o777)
        command = [sys.executable, "-ISc", ASK_AS_NOBODY, str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    finally:
        for path, mode in modes.items():
            path.chmod(mode)
    assert done.stdout == "b'\\n'\n"


def test_a_stage_outlives_the_server_and_the_next_one_is_right(server: Running, tmp_path: Path) -> None:
    """Killed while a stage works: its result counts, and later stages start by themselves, or with a new server."""
    begun, go_on = tmp_path / "begun", tmp_path / "go_on"
    results: list[Any] = []
    waiting = threading.Thread(
        target=lambda: results.append(run(f"{STAGES}:wait_for_file", begun=str(begun), go_on=str(go_on)))
    )
    waiting.start()
    wait_for(begun.exists)
    server.process.kill()
    server.process.wait()
    assert isinstance(run(LOOK)[1], FreshProcess)
    go_on.touch()
    waiting.join()
    assert results[0][0] == {"waited": True} and isinstance(results[0][1], ForkedProcess)
    server.process = start(server.home)
    wait_for(lambda: isinstance(run(LOOK)[1], ForkedProcess))


def test_new_code_is_imported_before_the_next_stage(server: Running, tmp_path: Path) -> None:
    """The first stage after a change is a fresh interpreter, later ones are forked by the renewed server; what was at
    work is reported to its end."""
    begun, go_on = tmp_path / "begun", tmp_path / "go_on"
    ends: list[Any] = []

    def long() -> None:
        with pytest.raises(StageError, match="exit status 5"):
            run(f"{STAGES}:wait_for_file", begun=str(begun), go_on=str(go_on), status=5)
        ends.append(True)

    waiting = threading.Thread(target=long)
    waiting.start()
    wait_for(begun.exists)
    changed = PROJECT / "mlops_tasks" / "columns.py"
    was = changed.stat()
    os.utime(changed, ns=(was.st_atime_ns, was.st_mtime_ns + 1))
    try:
        assert isinstance(run(LOOK)[1], FreshProcess)
        assert isinstance(run(LOOK)[1], ForkedProcess)
        assert "the code has changed" in server.said() and server.process.poll() is None
        go_on.touch()
        waiting.join()
        assert ends == [True]
    finally:
        os.utime(changed, ns=(was.st_atime_ns, was.st_mtime_ns))
