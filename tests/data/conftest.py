"""A home of its own for each test."""

from pathlib import Path

import pytest

from mlops_tasks.config import Settings, load_settings
from tests.benchmarks.panels import PANELS


@pytest.fixture(autouse=True)
def small_syncs(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sources may lie in the test's folder, for processes that it starts too. Great Expectations takes most of a small
    sync's time: it renders where a test is marked `suite_pages`."""
    monkeypatch.setenv("MLOPS_DATA__ALLOWED_FOLDERS", str(tmp_path))
    if request.node.get_closest_marker("suite_pages") is None:
        monkeypatch.setenv("MLOPS_DATA__SUITE_PAGES", "false")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty MLOPS_HOME that the stages will find; sources may lie beside it."""
    folder = tmp_path / "home"
    monkeypatch.setenv("MLOPS_HOME", str(folder))
    return folder


@pytest.fixture
def settings(home: Path) -> Settings:
    """The settings of that home."""
    return load_settings()


# The real panels are no part of the project; where they are absent, the tests on made markets cover the same code.
collect_ignore = [] if PANELS.is_dir() else ["test_panels.py", "test_panels_calendars.py", "test_panel_diff.py"]
