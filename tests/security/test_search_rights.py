"""What a researcher gets out of `tune_models`: a study and a judged challenger; no deployment, and no code."""

import json
from typing import Any

import pytest

from mlops_tasks.config import PROJECT
from mlops_tasks.roles import RIGHTS, SEARCH_DAG, Right, Role
from tests.dags.test_dags import in_airflow

SHOW = """
import json, sys
import airflow
from types import SimpleNamespace
from unittest.mock import patch
from airflow.dag_processing.dagbag import DagBag
from airflow.sdk.definitions.xcom_arg import XComArg

HOSTILE = json.loads(sys.argv[2])
TEXTS = {"task": HOSTILE, "list": [HOSTILE, {"nested": HOSTILE}], HOSTILE: 1}
dags = DagBag(sys.argv[1]).dags
stages, rendered = {}, {}

def resolved(self, context, *args, **kwargs):
    # What an earlier task, a form or a database gave: hostile texts wherever there may be one.
    return TEXTS

def rendered_arguments(dag, task):
    run = SimpleNamespace(triggering_user_name="ann")
    context = {"ti": SimpleNamespace(map_index=0), "params": dict(dag.params), "dag_run": run}
    env = dag.get_template_env()
    if not task.is_mapped:
        task.render_template_fields(context, env)
        return task.arguments
    given = {"arguments": TEXTS}
    with (
        patch.object(type(task), "_expand_mapped_kwargs", lambda self, context: (given, {id(TEXTS)})),
        patch("airflow.sdk.execution_time.context.context_update_for_unmapped", lambda context, unmapped: None),
    ):
        made = []
        unmap = task.unmap
        with patch.object(type(task), "unmap", lambda self, kwargs: made.append(unmap(kwargs)) or made[-1]):
            task.render_template_fields(context, env)
    return made[0].arguments

for kind in {XComArg, *XComArg.__subclasses__()}:
    kind.resolve = resolved
for dag in dags.values():
    own = [t for t in dag.tasks if (getattr(t, "stage", None) or getattr(t, "partial_kwargs", {}).get("stage"))]
    stages[dag.dag_id] = [getattr(t, "stage", None) or t.partial_kwargs["stage"] for t in own]
    rendered[dag.dag_id] = {t.task_id: json.dumps(rendered_arguments(dag, t), default=str) for t in own}
print(json.dumps([stages, rendered]))
"""
HOSTILE = "{{ 6 * 7 }}"


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Stages of each DAG, and each task's arguments once Airflow has rendered them, every result being hostile."""
    found: list[dict[str, Any]] = in_airflow(tmp_path_factory.mktemp("search"), SHOW, json.dumps(HOSTILE))
    return found


def test_who_may_only_search_reaches_no_deployment(shown: list[dict[str, Any]]) -> None:
    """No stage of the DAG that a researcher may run talks to the scoring service or moves the champion."""
    assert RIGHTS[Role.RESEARCHER] == {Right.SEE, Right.SEARCH, Right.TRAIN}
    stages = shown[0][SEARCH_DAG]
    assert "registry.gate_challenger" in stages
    assert [stage for stage in stages if stage.startswith("serving.")] == []


def test_no_text_of_a_form_or_a_database_is_executed_as_a_template(shown: list[dict[str, Any]]) -> None:
    """In no task of any DAG, mapped or not: what comes out is what went in."""
    texts = [text for tasks in shown[1].values() for text in tasks.values()]
    assert sum(HOSTILE in text for text in texts) > 15
    assert [text for text in texts if "42" in text] == []


def test_no_dag_file_gives_a_task_a_template() -> None:
    """The operator would pass it on as it stands; what Airflow shows of a mapped task is the one that there may be."""
    for path in (PROJECT / "dags").rglob("*.py"):
        lines = [line for line in path.read_text().splitlines() if "{{" in line]
        assert [line for line in lines if "map_index_template" not in line] == [], path
