"""Which arm serves on which market day, where days are the units: drawn once, at the start, for all days to come."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from mlops_tasks.config import Settings
from mlops_tasks.data.exchanges.calendars import AUTO, sessions
from mlops_tasks.experiments.hashing import SPACE, positions
from mlops_tasks.experiments.inference.switchback import Switchback

_CALENDAR_DAYS_A_SESSION = 3
"""More than any calendar has, over twenty sessions or more."""
_LONGEST_BREAK = 60
"""Calendar days beyond these."""


@dataclass(frozen=True)
class DaySchedule:
    """The market days of a switchback, kept as they were known at its start, so that no later holiday moves a block."""

    days: tuple[str, ...]
    """As ISO dates (`2024-01-31`), ascending."""
    block: int
    washout: int

    @classmethod
    def after(cls, day: date, design: Switchback, calendar: str) -> Self:
        """From the first session after a day on.

        Raises
        ------
        ConfigError
            The calendar is unknown.
        """
        reach = timedelta(days=_CALENDAR_DAYS_A_SESSION * design.days + _LONGEST_BREAK)
        found = sessions(calendar, day + timedelta(days=1), day + reach)[: design.days]
        return cls(tuple(map(str, found)), design.block, design.washout)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; the inverse of `from_json`."""
        return {**{name: getattr(self, name) for name in ("block", "washout")}, "days": list(self.days)}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """From plain values."""
        return cls(tuple(values["days"]), values["block"], values["washout"])

    @cached_property
    def design(self) -> Switchback:
        """Its blocks."""
        return Switchback(len(self.days), self.block, self.washout)

    def first(self, salt: str) -> NDArray[np.bool_]:
        """Of each pair of blocks, whether treatment comes first: a coin by the experiment's salt; shape (pairs,)."""
        return positions(salt, [f"pair {number}" for number in range(self.design.pairs)]) < SPACE // 2

    def codes(self, salt: str, days: Sequence[str]) -> NDArray[np.int8]:
        """The arm of each day (0 control, 1 treatment); -1 where it is no day of the schedule."""
        arms = dict(zip(self.days, self.design.schedule(self.first(salt)).tolist(), strict=True))
        return np.array([arms.get(day, -1) for day in days], np.int8)

    def said(self) -> str:
        """For people."""
        return f"{self.days[0]} to {self.days[-1]} in blocks of {self.block} days, the first {self.washout} left out"


def calendar_of(settings: Settings) -> str:
    """The calendar whose sessions are the market days: that of the bars if it is named, else that of the schedule."""
    return settings.calendar.schedule if settings.calendar.name == AUTO else settings.calendar.name
