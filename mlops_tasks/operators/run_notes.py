"""The note of a DAG run: what its tasks have to say about it, such as the gate's decision, or why one of them failed.

A listener of Airflow's scheduler. A task cannot write the note: the Task SDK has no call for it, and the REST API would
need an account's password. So a task leaves its sentence as an XCom, and the scheduler, which ends the run, copies it.
"""

import json
from typing import Any

from airflow.listeners import hookimpl

from mlops_tasks.process import RUN_NOTE

NOTE_LENGTH = 1000
"""Longest note that Airflow keeps, in characters."""


@hookimpl
def on_dag_run_success(dag_run: Any, msg: str) -> None:
    """Write the note of a run that has succeeded."""
    write_note(dag_run)


@hookimpl
def on_dag_run_failed(dag_run: Any, msg: str) -> None:
    """Write the note of a run that has failed."""
    write_note(dag_run)


def write_note(dag_run: Any) -> None:
    """Write the note of a run in Airflow's database, in the run's session; a note by a person stays."""
    from airflow.models.xcom import XComModel
    from sqlalchemy import select
    from sqlalchemy.orm import object_session

    session, old = object_session(dag_run), dag_run.dag_run_note
    if session is None or (old is not None and old.user_id is not None):
        return
    said = select(XComModel.value).where(
        XComModel.dag_id == dag_run.dag_id, XComModel.run_id == dag_run.run_id, XComModel.key == RUN_NOTE
    )
    sentences = map(_sentence, session.scalars(said.order_by(XComModel.timestamp)))
    note = "\n".join(dict.fromkeys(filter(None, sentences)))[:NOTE_LENGTH]
    if note or old is not None:
        dag_run.note = note


def _sentence(value: Any) -> str:
    """An XCom's text, which Airflow keeps as JSON; empty if it is not text."""
    try:
        content = json.loads(value)
    except (TypeError, ValueError):
        content = value
    return content if isinstance(content, str) else ""
