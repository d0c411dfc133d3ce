"""What Airflow's DAG processor pays for a DAG file, and what it makes of it."""

from pathlib import Path
from typing import Any

import pytest

from tests.dags.test_dags import DAG_FILES, in_airflow

PARSE_S = 1.0
"""Processor time of a parse at most: each file is parsed once a minute, on a machine that trains."""
SERIALIZED_BYTES = 100_000
"""Of a DAG, which the scheduler and the API server read from the database again and again."""

PROCESS = """
import json, os, resource, selectors, sys
from pathlib import Path
import structlog
from airflow.dag_processing.manager import DagFileProcessorProcess, uuid7

folder, selector = Path(sys.argv[1]), selectors.DefaultSelector()

def used():
    found = resource.getrusage(resource.RUSAGE_CHILDREN)
    return found.ru_utime + found.ru_stime

def processed(path):
    before = used()
    process = DagFileProcessorProcess.start(
        id=uuid7(), path=path, bundle_path=folder, bundle_name="dags-folder", dag_file_rel_path=path.name, callbacks=[],
        selector=selector, logger=structlog.get_logger(), logger_filehandle=open(os.devnull, "wb"), client=None,
        subprocess_logs_to_stdout=False,
    )
    while not process.is_ready:
        for key, _ in selector.select(timeout=1):
            handle, close = key.data
            if not handle(key.fileobj):
                close(key.fileobj)
    result = process.parsing_result
    dags = {dag.dag_id: len(json.dumps(dag.data)) for dag in result.serialized_dags}
    tasks = [task["__var"] for dag in result.serialized_dags for task in dag.data["dag"]["tasks"]]
    params = [name for task in tasks for name in task.get("params", [])]
    return {"seconds": used() - before, "bytes": dags, "params": params, "errors": result.import_errors}

print(json.dumps({path.name: processed(path) for path in sorted(folder.glob("*.py"))}))
"""


@pytest.fixture(scope="module")
def processed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Each DAG file as Airflow's own process for it parses it, forked from one that has Airflow loaded."""
    return process(tmp_path_factory.mktemp("processed"))


def process(home: Path) -> dict[str, dict[str, Any]]:
    """By file."""
    found: dict[str, dict[str, Any]] = in_airflow(home, PROCESS)
    assert set(found) == set(DAG_FILES)
    assert {name: file["errors"] for name, file in found.items() if file["errors"]} == {}
    return found


def test_a_dag_file_is_parsed_in_less_than_a_second_of_processor_time(
    processed: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    """The least of three times, since a core that others use too is slower."""
    tries = [processed]
    while max(seconds := least(tries)) >= PARSE_S and len(tries) < 3:
        tries.append(process(tmp_path))
    assert max(seconds) < PARSE_S, dict(zip(DAG_FILES, seconds, strict=True))


def least(tries: list[dict[str, dict[str, Any]]]) -> list[float]:
    """Processor seconds of each DAG file."""
    return [min(each[name]["seconds"] for each in tries) for name in DAG_FILES]


def test_a_serialized_dag_is_small(processed: dict[str, dict[str, Any]]) -> None:
    """The form is in it once, and not once more in each of its tasks."""
    for file in processed.values():
        assert file["params"] == []
        assert all(0 < size < SERIALIZED_BYTES for size in file["bytes"].values()), file["bytes"]
