"""Starts DAG runs, as Airflow's own trigger does: under the user's name and rights, with a checked form.

Whatever takes long or needs a secret is a DAG run. The API server itself signs nothing and puts nothing into service.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any

from airflow.api_fastapi.auth.managers.models.base_user import BaseUser
from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
from airflow.api_fastapi.common.dagbag import create_dag_bag, get_latest_version_of_dag
from airflow.api_fastapi.common.db.common import SessionDep
from airflow.api_fastapi.core_api.security import GetUserDep, requires_access_dag
from airflow.exceptions import ParamValidationError
from airflow.models import DagModel
from airflow.models.dagbag import DBDagBag
from airflow.utils import timezone
from airflow.utils.state import DagRunState
from airflow.utils.types import DagRunTriggeredByType, DagRunType
from fastapi import Depends, HTTPException
from sqlalchemy.orm import Session

from mlops_api.messages.dag_runs import StartedRun
from mlops_tasks.errors import hint
from mlops_tasks.links import dag_run_path


@cache
def _dag_bag() -> DBDagBag:
    return create_dag_bag()


@dataclass(frozen=True)
class DagRuns:
    """Starts runs for the user of a request."""

    user: BaseUser
    session: Session

    def start(self, dag_id: str, form: Mapping[str, Any]) -> StartedRun:
        """Start a run with the fields of its form that differ from their defaults.

        Raises
        ------
        HTTPException
            403: the user may not run this DAG. 422: the form has no such field, or refuses a value. 503: Airflow does
            not know the DAG, or could not read its file.
        """
        requires_access_dag("POST", DagAccessEntity.RUN, dag_id)(None, self.user)
        known = self._known(dag_id)
        dag = get_latest_version_of_dag(_dag_bag(), dag_id, self.session)
        unknown = sorted(set(form) - set(dag.params))
        if unknown:
            raise HTTPException(422, "; ".join(f"{name}: {hint(name, dag.params)}" for name in unknown))
        moment = timezone.utcnow()
        run_type = DagRunType.MANUAL
        try:
            run = dag.create_dagrun(
                run_id=dag.timetable.generate_run_id(run_type=run_type, run_after=moment, data_interval=None),
                run_after=moment,
                conf=dict(form),
                run_type=run_type,
                triggered_by=DagRunTriggeredByType.REST_API,
                triggering_user_name=self.user.get_name(),
                state=DagRunState.QUEUED,
                session=self.session,
            )
        except (ParamValidationError, ValueError) as error:
            raise HTTPException(422, str(error)) from None
        self.session.commit()
        return StartedRun(
            dag_id=dag_id, run_id=run.run_id, page=dag_run_path(dag_id, run.run_id), paused=bool(known.is_paused)
        )

    def _known(self, dag_id: str) -> DagModel:
        found: DagModel | None = self.session.get(DagModel, dag_id)
        if found is None or found.is_stale or found.has_import_errors:
            raise HTTPException(503, f"Airflow has no usable DAG {dag_id}; its list of DAGs shows import errors")
        return found


def _dag_runs(user: GetUserDep, session: SessionDep) -> DagRuns:
    return DagRuns(user, session)


DagRunsDep = Annotated[DagRuns, Depends(_dag_runs)]
