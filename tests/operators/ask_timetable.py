"""A process that answers for `SessionTimetable`, so that Airflow's logging and folders stay out of the tests' own.

Each line of its input is a JSON question, each line of its output that begins with `=` the answer.
"""

import json
import sys
from typing import Any

import pendulum
from airflow.exceptions import AirflowTimetableInvalid
from airflow.timetables.base import DataInterval, TimeRestriction

from mlops_tasks.operators.timetable import SessionTimetable


def answer(calendar: str, delay_min: float, **question: Any) -> Any:
    """The next run; the interval of a run by hand at `manual`; or, for `validate`, the complaint."""
    timetable = SessionTimetable(calendar, delay_min)
    moments = {name: pendulum.parse(question[name]) for name in question if isinstance(question[name], str)}
    if "validate" in question:
        try:
            timetable.validate()
        except AirflowTimetableInvalid as error:
            return str(error)
        return None
    if "manual" in moments:
        return list(timetable.infer_manual_data_interval(run_after=moments["manual"]))
    last = moments.get("last")
    info = timetable.next_dagrun_info(
        last_automated_data_interval=last and DataInterval.exact(last),
        restriction=TimeRestriction(moments.get("earliest"), moments.get("latest"), question["catchup"]),
    )
    return info and [info.run_after, *info.data_interval]


if __name__ == "__main__":
    for line in sys.stdin:
        print("=", json.dumps(answer(**json.loads(line)), default=pendulum.DateTime.isoformat), flush=True)
