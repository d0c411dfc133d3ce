"""Airflow imports this by its name in each of its processes when they start.

The processes that it forks for tasks and for DAG files have then imported what they need.
"""

from mlops_tasks.lean_imports import import_json_schema

__all__: tuple[str, ...] = ()  # nothing of Airflow's own settings is set

import_json_schema()
