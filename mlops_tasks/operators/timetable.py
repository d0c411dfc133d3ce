"""A schedule that follows an exchange: one run per session, when its bars can be available."""

from datetime import timedelta
from typing import Any, Literal

import pendulum
from airflow.exceptions import AirflowTimetableInvalid
from airflow.timetables.base import DagRunInfo, DataInterval, TimeRestriction, Timetable

from mlops_tasks.errors import ConfigError

_USUAL = frozenset({"XNYS", "XSHG", "24/7"})
"""Calendars that are known without importing exchange_calendars: DAG files are parsed all the time."""
_WINDOW = timedelta(days=400)
"""Longer than any exchange has stayed closed."""


class SessionTimetable(Timetable):
    """One run after each session of a trading calendar, a delay after its close.

    Weekends and holidays have no run, a half day has an earlier one, and daylight saving is the exchange's. `24/7` runs
    every day, the delay after the midnight (UTC) that ends it. A run's data interval is the moment of the run, as with
    Airflow's own trigger timetables; so is a manual run's. Without catchup, missed runs are skipped up to the newest
    one; the first run of a DAG without a start date is the first that lies ahead.

    Nothing is computed while a DAG file is parsed.

    Parameters
    ----------
    calendar
        A name of exchange_calendars (XNYS, XSHG, 24/7, ...).
    delay_min
        Minutes from a session's close to its run.
    """

    def __init__(self, calendar: str, delay_min: float) -> None:
        self.calendar = calendar
        self.delay_min = float(delay_min)
        self.description = f"After each session of {calendar}, {self.delay_min:g} minutes after its close"

    @property
    def summary(self) -> str:
        """What Airflow's pages show in place of a cron expression."""
        return f"{self.calendar} close + {self.delay_min:g} min"

    @classmethod
    def deserialize(cls, data: dict[str, Any]) -> "SessionTimetable":
        """The timetable that `serialize` described."""
        return cls(data["calendar"], data["delay_min"])

    def serialize(self) -> dict[str, Any]:
        """Its parameters, as JSON."""
        return {"calendar": self.calendar, "delay_min": self.delay_min}

    def validate(self) -> None:
        """Raise AirflowTimetableInvalid unless the calendar is known; Airflow shows it as the DAG's import error."""
        if self.calendar in _USUAL:
            return
        from mlops_tasks.data.exchanges.calendars import check_calendar

        try:
            check_calendar(self.calendar)
        except ConfigError as error:
            raise AirflowTimetableInvalid(str(error)) from error

    def infer_manual_data_interval(self, *, run_after: pendulum.DateTime) -> DataInterval:
        """The moment of the run."""
        return DataInterval.exact(run_after)

    def next_dagrun_info(
        self, *, last_automated_data_interval: DataInterval | None, restriction: TimeRestriction
    ) -> DagRunInfo | None:
        """The next run within the restriction, or None when there is none."""
        candidates = []
        if last_automated_data_interval is not None:
            candidates.append(self._run_after(last_automated_data_interval.end))
        elif restriction.earliest is None:
            candidates.append(self._run_after(pendulum.now("UTC")))
        if restriction.earliest is not None:
            candidates.append(self._run_from(restriction.earliest))
        if not restriction.catchup:
            candidates.append(self._run_until(pendulum.now("UTC")))
        chosen = max(candidates)
        if restriction.latest is not None and restriction.latest < chosen:
            return None
        return DagRunInfo.exact(chosen)

    def _run_after(self, moment: pendulum.DateTime) -> pendulum.DateTime:
        return self._run(moment, "right", 0)

    def _run_from(self, moment: pendulum.DateTime) -> pendulum.DateTime:
        return self._run(moment, "left", 0)

    def _run_until(self, moment: pendulum.DateTime) -> pendulum.DateTime:
        return self._run(moment, "right", -1)

    def _run(self, moment: pendulum.DateTime, side: Literal["left", "right"], step: int) -> pendulum.DateTime:
        """The run that lies `step` places from where `moment` would be inserted among all runs."""
        import numpy as np

        from mlops_tasks.data.exchanges.calendars import schedule

        at = moment.in_timezone("UTC").naive()
        runs = schedule(self.calendar, at - _WINDOW, at + _WINDOW).closes + np.timedelta64(
            round(self.delay_min * 60), "s"
        )
        run = runs[np.searchsorted(runs, np.datetime64(at, "us"), side) + step]
        return pendulum.from_timestamp(int(run.astype(np.int64)))
