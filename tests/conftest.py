"""What all tests share."""

import os
import signal

import pytest
from hypothesis import settings

from mlops_tasks.kernels import cache_folder

# The same examples in every run; `--hypothesis-profile=default` looks for new ones.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")

# A shell starts what it puts into the background with SIGINT ignored, which the tests' own processes would inherit.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail the run when a test, or a process that it started, had to compile a kernel (`late_kernels`)."""
    if "PYTEST_XDIST_WORKER" not in os.environ and late_kernels() and not session.exitstatus:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name the kernels that were compiled too late."""
    for name in late_kernels():
        terminalreporter.write_line(f"compiled during the tests: {name}; state the types of this call", red=True)


def late_kernels() -> list[str]:
    """Files of the cache that are newer than its completion; nothing where `make env` has not completed it."""
    complete = cache_folder() / "complete"
    if not complete.exists():
        return []
    made = complete.stat().st_mtime
    return sorted(path.name for path in cache_folder().iterdir() if path.stat().st_mtime > made and path != complete)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The tests that start whole stacks go first: they mostly wait, so the others fill the second worker meanwhile."""
    items.sort(key=lambda item: item.get_closest_marker("e2e") is None)
