"""What Airflow's database knows of our tasks: in which run something was made, and which wait for a person."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from airflow.models.hitl import HITLDetail
from airflow.models.taskinstance import TaskInstance
from airflow.utils.state import TaskInstanceState
from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from mlops_tasks.links import task_path
from mlops_tasks.roles import CHAIN_DAG

ASKING_DAGS = (CHAIN_DAG, "deploy_model")
"""DAGs whose task `deploy_model` may ask a person."""
MOST_QUESTIONS = 20


@dataclass(frozen=True)
class Task:
    """A task of one of our DAGs."""

    dag_id: str
    task_id: str


@dataclass(frozen=True)
class Question:
    """A task that waits for a person's answer."""

    subject: str
    asked_at: datetime
    path: str
    """Of the page in Airflow where it is answered."""


def page_of(session: Session, task: Task, moment: datetime) -> str:
    """The page of the task in the run in which it was at work at a moment (aware).

    That of the task in all runs, where no run was: something else has made what is asked about, such as the command
    line, or the run is not kept any more.
    """
    at_work = (
        TaskInstance.dag_id == task.dag_id,
        TaskInstance.task_id == task.task_id,
        TaskInstance.start_date <= moment,
        or_(TaskInstance.end_date.is_(None), TaskInstance.end_date >= moment),
    )
    query = select(TaskInstance.run_id).where(*at_work).order_by(TaskInstance.start_date.desc()).limit(1)
    return task_path(task.dag_id, task.task_id, session.scalars(query).first())


def open_questions(session: Session) -> Sequence[Question]:
    """What our tasks ask people, and nobody has answered yet; the oldest first."""
    query = (
        select(HITLDetail, TaskInstance)
        .join(TaskInstance, TaskInstance.id == HITLDetail.ti_id)
        .where(
            HITLDetail.responded_at.is_(None),
            TaskInstance.dag_id.in_(ASKING_DAGS),
            TaskInstance.state.in_((TaskInstanceState.AWAITING_INPUT, TaskInstanceState.DEFERRED)),
        )
        .order_by(HITLDetail.created_at)
        .limit(MOST_QUESTIONS)
    )
    return [_question(detail, instance) for detail, instance in session.execute(query)]


def _question(detail: HITLDetail, instance: TaskInstance) -> Question:
    path = f"{task_path(instance.dag_id, instance.task_id, instance.run_id)}/required_actions"
    return Question(detail.subject, detail.created_at, path)
