"""What all tests share."""

import gc
import os
import signal
import sys
from pathlib import Path

import pytest
from hypothesis import settings
from xdist.scheduler import LoadFileScheduling

from mlops_tasks.kernels import cache_folder
from mlops_tasks.private import be_private
from tests import heavy, made_once, shared_stages

TESTS = Path(__file__).parent


# The same examples in every run; `--hypothesis-profile=default` looks for new ones.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")

# Tests call in their own process what otherwise runs in one of the stack's, which makes files for its owner alone.
be_private()

# As the stack's processes: a thread of OpenMP that waits beside other work does not hold the core that the work needs.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

# A shell starts what it puts into the background with SIGINT ignored, which the tests' own processes would inherit.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_configure(config: pytest.Config) -> None:
    """Several workers share a stage server; a few tests by hand are quicker without one."""
    made_once.run_folder()  # before the workers start, which share it
    made_once.copy_state_databases()
    if shared_stages.SOCKET in os.environ:
        shared_stages.use_shared_server()
    elif sys.platform == "linux" and config.getoption("numprocesses", None) and not config.getoption("--fast"):
        shared_stages.start_shared_server()


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


_DESK = ("deployments", "experiment_results", "serving_pages", "version_details")
_ALONE = ("new_training", "training_live", "lineage_drawing", "shipped")
SERVERS = {
    **{f"tests/plugins/test_{name}.py": "tests/plugins/serving.py" for name in _DESK},
    **{f"tests/plugins/test_{name}.py": f"tests/plugins/test_{name}.py" for name in _ALONE},
}
"""Files of `tests/plugins` that do not use the server of all others, and what they share instead."""


class ByFile(LoadFileScheduling):
    """A worker takes whole files, so that what a file makes is made once; tests of one server are one file to it."""

    def _split_scope(self, nodeid: str) -> str:
        file = super()._split_scope(nodeid)
        return SERVERS.get(file, "tests/plugins") if nodeid.startswith("tests/plugins/") else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> ByFile:
    """Whatever `--dist` says."""
    return ByFile(config, log)


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--fast`: see `heavy.py`."""
    parser.addoption("--fast", action="store_true", help="leave out what needs a server, a process or a simulation")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Fast tests do not even import the heavy ones."""
    if not config.getoption("--fast") or not collection_path.is_relative_to(TESTS):
        return None
    return heavy.is_heavy(collection_path.relative_to(TESTS).as_posix()) or None


def pytest_collection_finish(session: pytest.Session) -> None:
    """Hold the fast tests to what they promise; leave what the imports made out of every garbage collection."""
    if session.config.getoption("--fast") and session.items:
        heavy.refuse_processes_and_servers()
    gc.collect()
    gc.freeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest go first, which mostly wait, so that the others fill the cores meanwhile: whole stacks, then what has
    one Airflow. Last are the files that `heavy.py` does not name: short ones, so that all workers end together."""
    items.sort(key=_place)


def _place(item: pytest.Item) -> int:
    path = item.path.relative_to(TESTS).as_posix()
    if path == "e2e/test_workers.py":
        return 2  # two whole stacks at once would wait for each other
    if item.get_closest_marker("e2e"):
        return 0
    if path.startswith("plugins/"):
        return 1
    return 2 if heavy.is_heavy(path) else 3
