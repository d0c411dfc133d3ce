"""A stage leaves nothing running, and what it writes or returns at its end ends no task in error but its own."""

from pathlib import Path

import pytest

from mlops_tasks.errors import StageError
from mlops_tasks.process import run_stage
from mlops_tasks.stage_output import PRINTED, StageLine
from tests.waiting import is_running, wait_for

STAGES = "tests.security.example_stages"


def test_what_a_stage_has_started_ends_with_it(tmp_path: Path) -> None:
    """Though the stage itself has ended well."""
    pid_file = tmp_path / "pid"
    run_stage(f"{STAGES}:leave_a_child", {"pid_file": str(pid_file)}, time_limit_s=60)
    wait_for(lambda: not is_running(int(pid_file.read_text())), 20)


def test_a_stage_that_fails_when_its_result_is_written_has_failed() -> None:
    """Its exit status counts."""
    with pytest.raises(StageError, match="exit status 3"):
        run_stage(f"{STAGES}:fail_at_exit", {}, time_limit_s=60)


def test_what_is_no_text_ends_no_task() -> None:
    """It is shown with marks in place of what cannot be read."""
    lines: list[StageLine] = []
    assert run_stage(f"{STAGES}:write_no_text", {}, time_limit_s=60, on_line=lines.append) == {"written": True}
    assert [line.text for line in lines if "odd" in line.text] == ["\ufffd\ufffd\x00 odd"]


@pytest.mark.parametrize(
    "line",
    [
        '{"level": "high", "logger": "l", "text": "t"}',
        '{"level": 20, "logger": 7, "text": "t"}',
        '{"level": 20, "logger": "l", "text": ["t"]}',
        '{"level": 20, "logger": "l"}',
        '{"level": 20',
    ],
)
def test_what_looks_like_a_record_and_is_none_stays_a_line(line: str) -> None:
    """Whatever a library prints, it is logged as it is."""
    assert StageLine.parse(line) == StageLine(line, logger=PRINTED)
    StageLine.parse(line).relay()
