"""The sweep ends every process of one stack and none else."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator

import psutil
import pytest

from mlops_tasks.config import Settings
from mlops_tasks.stack import keeper
from mlops_tasks.stack.credentials import ensure_credentials
from mlops_tasks.stack.environment import STACK_ID
from mlops_tasks.stack.health import wait_for
from mlops_tasks.stack.processes import ProcessId, identify, own_processes, sweep
from mlops_tasks.stack.services import SCORING, service_named

SLEEP = "import time; time.sleep(120)"
RENAMED = f"import setproctitle; setproctitle.setproctitle('airflow worker ' + 'x' * 4000); {SLEEP}"
DEAF = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); {SLEEP}"


def parent_of(child: str, *, session: bool) -> str:
    """A program that starts `child` without an id in its environment, prints its number and waits."""
    return (
        "import os, subprocess, sys, time\n"
        f"env = {{k: v for k, v in os.environ.items() if k != {STACK_ID!r}}}\n"
        f"child = subprocess.Popen([sys.executable, '-c', {child!r}], env=env, start_new_session={session})\n"
        "print(child.pid, flush=True); time.sleep(120)"
    )


@pytest.fixture
def spawn() -> Iterator:
    """Start a program; every one still alive at the end is killed."""
    started: list[subprocess.Popen[str]] = []

    def start(program: str, stack_id: str | None, *, session: bool = True) -> subprocess.Popen[str]:
        env = {k: v for k, v in os.environ.items() if k != STACK_ID} | ({STACK_ID: stack_id} if stack_id else {})
        command = [sys.executable, "-c", program]
        child = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True, start_new_session=session)
        started.append(child)
        return child

    yield start
    for child in started:
        child.kill()
        child.wait()
        child.stdout.close()


def gone(pid: int) -> bool:
    """Whether no living process has this number."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def wait_renamed(pid: int) -> None:
    """Until the process has overwritten the environment that the system shows."""
    for _ in range(200):
        if psutil.Process(pid).cmdline()[:1] == ["airflow"]:
            return
        time.sleep(0.02)
    raise AssertionError("not renamed")


def test_ends_ours_and_leaves_strangers_and_the_other_stack(spawn) -> None:
    """A process with our id ends; one without an id, and one of another home, go on."""
    ours, stranger, other = spawn(SLEEP, "one"), spawn(SLEEP, None), spawn(SLEEP, "two")
    assert sweep("one", None, grace_s=2) == 1
    assert gone(ours.pid)
    assert stranger.poll() is None
    assert other.poll() is None


def test_finds_a_grandchild_in_a_session_of_its_own(spawn) -> None:
    """A descendant counts though it has neither our id nor our session."""
    ours = spawn(parent_of(SLEEP, session=True), "one")
    grandchild = int(ours.stdout.readline())
    sweep("one", None, grace_s=2)
    assert gone(grandchild)


def test_finds_a_renamed_orphan_in_the_keepers_session(spawn) -> None:
    """A process that hides its environment and has lost its parent is found by the session that our keeper led."""
    keeper = spawn(parent_of(RENAMED, session=False), "one")
    record = identify(keeper.pid)
    orphan = int(keeper.stdout.readline())
    wait_renamed(orphan)
    keeper.kill()
    keeper.wait()
    assert [process.pid for process in own_processes("one", record)] == [orphan]
    sweep("one", record, grace_s=2)
    assert gone(orphan)


def test_a_renamed_stranger_is_not_ours(spawn) -> None:
    """A hidden environment alone is no reason: the session must be our keeper's."""
    stranger = spawn(RENAMED, None)
    wait_renamed(stranger.pid)
    keeper = spawn(SLEEP, "one")
    assert [process.pid for process in own_processes("one", identify(keeper.pid))] == [keeper.pid]


def test_a_used_again_number_is_not_the_keeper(spawn) -> None:
    """A process that has the recorded number but started at another time is a stranger, with its whole session."""
    stranger = spawn(parent_of(RENAMED, session=False), None)
    wait_renamed(int(stranger.stdout.readline()))
    assert own_processes("one", ProcessId(stranger.pid, "another start")) == []


def test_kills_what_does_not_listen(spawn) -> None:
    """A process that ignores the request to end is killed after the grace."""
    deaf = spawn(DEAF, "one")
    deaf.stdout.readline()
    sweep("one", None, grace_s=0.5)
    assert gone(deaf.pid)


def test_a_stack_started_by_ours_is_left_alone(spawn) -> None:
    """A descendant that carries another home's id belongs to that home."""
    program = parent_of(SLEEP, session=True).replace(
        f"if k != {STACK_ID!r}", f"if k != {STACK_ID!r}}} | {{{STACK_ID!r}: 'two'"
    )
    ours = spawn(program, "one")
    other = int(ours.stdout.readline())
    sweep("one", None, grace_s=2)
    try:
        assert not gone(other)
    finally:
        psutil.Process(other).kill()


def test_the_caller_is_never_among_them() -> None:
    """`make down` from a shell that carries the id does not end that shell."""
    program = (
        "from mlops_tasks.stack.processes import own_processes; print([p.pid for p in own_processes('one', None)])"
    )
    env = {**os.environ, STACK_ID: "one"}
    result = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_a_keeper_ends_its_services_itself(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked to stop, it leaves no process that has to be swept up; here with one of its services."""
    monkeypatch.setenv("MLOPS_HOME", str(settings.home))
    monkeypatch.setenv("MLOPS_STACK__SCORING_PORT", str(settings.stack.scoring_port))
    ensure_credentials(settings)
    monkeypatch.setattr(keeper, "services", lambda of: (service_named(SCORING, of),))
    keeper.start(settings, "")
    try:
        assert wait_for(lambda: [state.state for state in keeper.service_states(settings)] == ["RUNNING"], 60)
        record = keeper.read_record(settings)
        own = own_processes(record.stack_id, record.keeper)
        assert len(own) >= 2  # the service starts a reader of its own
    finally:
        swept = keeper.stop(settings)
    assert swept == 0
    assert all(gone(process.pid) for process in own)
    assert not keeper.is_running(settings)
