"""The chain without Airflow: the stages as the DAG files wire them, one after another in this process.

`python -m tests.e2e.reference` runs the daily chain in the home that the environment names. The scoring service runs in
a thread, MLflow's store is the home's own database.
"""

import importlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from graphlib import TopologicalSorter
from types import SimpleNamespace
from typing import Any

from airflow.sdk.bases.xcom import BaseXCom
from airflow.sdk.definitions._internal.expandinput import MappedArgument
from airflow.sdk.definitions.xcom_arg import PlainXComArg
from jinja2 import Template

from mlops_tasks.config import PROJECT, load_settings
from mlops_tasks.operators.stage import StageOperator
from mlops_tasks.process import STAGES, stage_function
from mlops_tasks.stack.chain import RETRAIN, SYNC
from mlops_tasks.stack.credentials import ADMIN
from mlops_tasks.stage_results import check_result
from tests.serving.conftest import RunningService


@dataclass
class Walk:
    """One run of a DAG: each task once, those of a mapped group once an element."""

    dag: Any
    results: dict[str, Any] = field(default_factory=dict)
    """Of each task; of a mapped one a list, an element each."""

    def run(self) -> None:
        """Every task after those before it; without the one that tells other DAGs."""
        order = TopologicalSorter({task.task_id: task.upstream_task_ids for task in self.dag.tasks}).static_order()
        for task in map(self.dag.get_task, order):
            group = task.get_closest_mapped_task_group()
            if group is not None:
                (elements,) = group._expand_input.value.values()
                count = len(self._resolved(elements, None))
                self.results[task.task_id] = [self._result(task, index) for index in range(count)]
            elif not task.outlets:
                self.results[task.task_id] = self._result(task, None)

    def _result(self, task: Any, index: int | None) -> Any:
        if isinstance(task, StageOperator):
            params = {name: self.dag.params[name] for name in task.run_params}
            result = stage_function(task.stage)(**self._resolved(task.arguments, index), **params)
            check_result(task.stage, STAGES[task.stage].result, result)
            return result
        return task.python_callable(*self._resolved(task.op_args, index))

    def _resolved(self, value: Any, index: int | None) -> Any:
        """What Airflow puts in the place of references, in that element of a mapped group, or outside (None)."""
        match value:
            case PlainXComArg():
                return self._output(value, index)
            case MappedArgument():
                assert index is not None
                return self._resolved(value._input.value[value._key], None)[index]
            case Mapping():
                return {name: self._resolved(each, index) for name, each in value.items()}
            case list() | tuple():
                return [self._resolved(each, index) for each in value]
        template = isinstance(value, str)
        return Template(value).render(dag_run=SimpleNamespace(triggering_user_name=ADMIN)) if template else value

    def _output(self, reference: PlainXComArg, index: int | None) -> Any:
        """Of one element's task within a mapped group, of all of them outside."""
        found, key = self.results[reference.operator.task_id], reference.key
        if reference.operator.get_closest_mapped_task_group() is None:
            return _keyed(found, key)
        return [_keyed(each, key) for each in found] if index is None else _keyed(found[index], key)


def _keyed(result: Any, key: str) -> Any:
    return result if key == BaseXCom.XCOM_RETURN_KEY else result[key]


def main() -> None:
    """Sync, then retrain, as the asset that the sync emits would have it."""
    sys.path.insert(0, str(PROJECT / "dags"))
    service = RunningService(load_settings())
    for name in (SYNC, RETRAIN):
        Walk(importlib.import_module(name).dag).run()
    service.stop()


if __name__ == "__main__":
    main()
