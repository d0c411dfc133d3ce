"""The run of a DAG that this process works for: Airflow says it in environment variables, which stages inherit."""

import getpass
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass

DRIFT_RUN = "drift__"
"""How the identifiers of runs begin for which drift has asked."""


@dataclass(frozen=True)
class DagRun:
    """A run of a DAG, by Airflow's own names."""

    dag_id: str
    run_id: str

    @classmethod
    def of_environment(cls, environ: Mapping[str, str] = os.environ) -> "DagRun | None":
        """The run that a task belongs to; None outside of Airflow."""
        dag_id, run_id = environ.get("AIRFLOW_CTX_DAG_ID"), environ.get("AIRFLOW_CTX_DAG_RUN_ID")
        return cls(dag_id, run_id) if dag_id and run_id else None

    def to_json(self) -> dict[str, str]:
        """Plain JSON."""
        return asdict(self)


def acting() -> str:
    """Who acts, for records: the DAG that this process works for, or else the system's user, by number if nameless."""
    run = DagRun.of_environment()
    if run is not None:
        return run.dag_id
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may run under any number
        return f"user {os.getuid()}"
