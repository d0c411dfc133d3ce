"""Stages run in processes of their own, and never outlive the task that started them."""

import logging
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from mlops_tasks import process
from mlops_tasks.errors import (
    CapacityError,
    ConfigError,
    DeploymentError,
    ErrorKind,
    LeakError,
    NotApprovedError,
    SignatureError,
    SourceNotFoundError,
    SourceUnavailableError,
    StageCancelledError,
    StageError,
    StageTimeoutError,
    TrainingCancelledError,
)
from mlops_tasks.process import STAGES, Stage, run_stage, stage_function
from mlops_tasks.stage_output import PRINTED, StageFailure, StageLine
from mlops_tasks.stage_process import end_group
from mlops_tasks.stage_results import Worked
from tests.waiting import is_running, wait_for


def pids_in(path: Path) -> list[int]:
    wait_for(path.exists)
    return [int(pid) for pid in path.read_text().split()]


def test_a_stage_returns_its_result_and_streams_what_it_writes():
    """The result comes back as JSON; each line that the stage writes is seen."""
    lines = []
    result = run_stage("tests.example_stages:double", {"number": 21}, time_limit_s=30, on_line=lines.append)
    assert result == {"number": 42}
    assert StageLine("doubling 21") in lines


def test_a_stages_records_are_logged_under_their_own_names_and_levels(caplog):
    """Through two processes, one inside the other: nothing is put before a text, a traceback is part of its record, and
    what looks like a record and is none stays a line."""
    with (
        caplog.at_level(logging.INFO),
        pytest.raises(StageError, match=r"talk_inside: StageError: .*talk: KeyError: 'nothing'"),
    ):
        run_stage("tests.example_stages:talk_inside", {}, time_limit_s=60)
    told = [(record.name, record.levelname, record.getMessage()) for record in caplog.records]
    assert ("tests.talk", "WARNING", "drift in 2 columns:\n  close\n  volume") in told
    assert ("tests.talk", "INFO", "on the way") in told
    assert (PRINTED, "INFO", '{"level": "high"}') in told
    (failed,) = [text for name, level, text in told if level == "ERROR" and "Traceback" in text]
    assert failed.startswith("tests.example_stages:talk failed") and failed.endswith("KeyError: 'nothing'")


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ConfigError("m"), ErrorKind.CONFIGURATION),
        (CapacityError("m"), ErrorKind.CONFIGURATION),
        (LeakError("m"), ErrorKind.CONFIGURATION),
        (SourceNotFoundError("m"), ErrorKind.DATA),
        (SignatureError("m"), ErrorKind.DATA),
        (SourceUnavailableError("m"), ErrorKind.TRANSIENT),
        (DeploymentError("m"), ErrorKind.TRANSIENT),
        (NotApprovedError("m"), ErrorKind.DECIDED),
        (ConnectionRefusedError("m"), ErrorKind.TRANSIENT),
        (KeyError("m"), ErrorKind.BUG),
    ],
)
def test_the_kind_of_an_error_crosses_the_process(error: Exception, kind: ErrorKind, tmp_path: Path) -> None:
    """Whoever raised it; so does its name, with what it says."""
    StageFailure.of(error).write(tmp_path / "result.json")
    failure = StageFailure.read(tmp_path / "result.json")
    assert failure is not None
    found = failure.error("a.stage")
    assert (type(found), found.kind, str(found)) == (StageError, kind, f"a.stage: {type(error).__name__}: {error}")


def test_a_cancelled_training_cancels_its_stage(tmp_path: Path) -> None:
    """It is the end that somebody decided on."""
    StageFailure.of(TrainingCancelledError("m")).write(tmp_path / "result.json")
    failure = StageFailure.read(tmp_path / "result.json")
    assert failure is not None and isinstance(failure.error("a.stage"), StageCancelledError)
    assert failure.error("a.stage").kind is ErrorKind.DECIDED


def test_a_failed_stage_raises_with_its_own_last_words():
    """A known error of the stage is in the message of the task's error."""
    with pytest.raises(StageError, match=r"TrainingError: segment test is empty; choose other dates$") as caught:
        run_stage("tests.example_stages:fail", {}, time_limit_s=30)
    assert caught.value.kind is ErrorKind.CONFIGURATION


def test_a_killed_stage_is_transient_and_one_that_leaves_without_a_word_is_a_bug(tmp_path: Path) -> None:
    """As by the kernel, for lack of memory: what it has started ends with it, and does not hold its caller up."""
    path, children = tmp_path / "pids", []

    def kill() -> None:
        pids_in(path)
        os.kill(children[0].pid, signal.SIGKILL)

    threading.Thread(target=kill, daemon=True).start()
    with pytest.raises(StageError, match="exit status -9") as caught:
        sleeper = "tests.example_stages:sleep_with_grandchild"
        run_stage(sleeper, {"pid_file": str(path)}, time_limit_s=60, on_start=children.append)
    wait_for(lambda: not any(map(is_running, pids_in(path))))
    assert caught.value.kind is ErrorKind.TRANSIENT
    with pytest.raises(StageError, match="exit status 3") as caught:
        run_stage("tests.example_stages:leave", {"status": 3}, time_limit_s=60)
    assert caught.value.kind is ErrorKind.BUG


def test_a_stage_is_checked_when_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the process that started it."""
    example = Stage("tests.example_stages:double", Worked)
    monkeypatch.setattr(process, "INNER_STAGES", {example.function: example})
    with pytest.raises(StageError, match=r"tests\.example_stages:double: .* Worked .*finished is missing"):
        run_stage("tests.example_stages:double", {"number": 21}, time_limit_s=60)


def test_what_runs_beside_the_trainings_gives_way_to_them() -> None:
    """The process of the certificate has a lower priority than its caller's, that of a training has the same."""
    children, priorities = [], {}
    for stage in ("training.certify", "training.train"):

        def look(_: StageLine, stage: str = stage) -> None:
            priorities[stage] = os.getpriority(os.PRIO_PROCESS, children[-1].pid)

        with pytest.raises(StageError):
            run_stage(stage, {}, time_limit_s=120, on_line=look, on_start=children.append)
    own = os.getpriority(os.PRIO_PROCESS, 0)
    assert priorities == {"training.certify": min(own + 3, 19), "training.train": own}


def test_an_unknown_stage_names_the_known_ones():
    """A typing error in a stage's name shows what there is."""
    with pytest.raises(StageError, match=r"unknown stage 'data.fetch'.*data.read_source"):
        stage_function("data.fetch")


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_of_the_chain_exists(stage):
    """Each name in STAGES leads to a function."""
    assert callable(stage_function(stage))


def test_a_stage_past_its_limit_is_ended_with_all_that_it_started(tmp_path):
    """The time limit kills the whole process group, grandchildren included. Where the stage has not come up within a
    limit, it is given a longer one."""
    pid_file = tmp_path / "pids"
    for limit in (4, 16, 64, 256):
        with pytest.raises(StageTimeoutError, match=f"limit of {limit} s"):
            run_stage("tests.example_stages:sleep_with_grandchild", {"pid_file": str(pid_file)}, time_limit_s=limit)
        if pid_file.exists():
            break
    wait_for(lambda: not any(map(is_running, pids_in(pid_file))), 20)


def test_a_killed_task_takes_its_stage_with_it(tmp_path):
    """`kill -9` of the task's process ends the stage's whole group within moments."""
    pid_file = tmp_path / "pids"
    code = (
        "from mlops_tasks.process import run_stage;"
        f"run_stage('tests.example_stages:sleep_with_grandchild', {{'pid_file': {str(pid_file)!r}}}, time_limit_s=300)"
    )
    task = subprocess.Popen([sys.executable, "-c", code])
    pids = pids_in(pid_file)
    task.send_signal(signal.SIGKILL)
    task.wait()
    wait_for(lambda: not any(map(is_running, pids)), 20)


def test_a_stage_can_be_ended_from_outside(tmp_path):
    """`on_kill` of the operator ends the group; the runner then reports a failed stage."""
    pid_file = tmp_path / "pids"
    children = []
    ender = threading.Thread(target=lambda: (pids_in(pid_file), end_group(children[0])))
    ender.start()
    with pytest.raises(StageError, match="exit status -9"):
        run_stage(
            "tests.example_stages:sleep_with_grandchild",
            {"pid_file": str(pid_file)},
            time_limit_s=60,
            on_start=children.append,
        )
    ender.join()
    wait_for(lambda: not any(map(is_running, pids_in(pid_file))), 20)
    assert os.getpgid(0) != children[0].pid
