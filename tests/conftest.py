"""What all tests share."""

import signal

import pytest
from hypothesis import settings

from mlops_tasks.private import be_private

# The same examples in every run; `--hypothesis-profile=default` looks for new ones.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")

# Tests call in their own process what otherwise runs in one of the stack's, which makes files for its owner alone.
be_private()

# A shell starts what it puts into the background with SIGINT ignored, which the tests' own processes would inherit.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The tests that start whole stacks go first: they mostly wait, so the others fill the second worker meanwhile."""
    items.sort(key=lambda item: item.get_closest_marker("e2e") is None)
