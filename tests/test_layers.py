"""The library's files import one another in one direction."""

from graphlib import CycleError, TopologicalSorter

import grimp
import pytest


def test_no_circle_between_files() -> None:
    """Imports inside functions and for types included."""
    graph = grimp.build_graph("mlops_tasks", exclude_type_checking_imports=False)
    files = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    assert len(files) > 300
    try:
        TopologicalSorter(files).prepare()
    except CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))
