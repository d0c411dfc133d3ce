"""Makes the table of calendars, after an upgrade of exchange_calendars.

`python -m mlops_tasks.data.exchanges.calendar_table`
"""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from mlops_tasks.data.exchanges.calendar_ranking import FIRST, LAST, TABLE
from mlops_tasks.data.exchanges.calendars import ALWAYS, WEEKDAYS, WIDELY_TRADED, sessions
from mlops_tasks.errors import ConfigError


def exceptions() -> Iterator[tuple[str, list[int]]]:
    """For each calendar that can be computed, the days that differ from Monday to Friday, as steps between them."""
    import exchange_calendars

    usual = np.is_busday(np.arange(FIRST, LAST + 1))
    everywhere = exchange_calendars.get_calendar_names(include_aliases=False)
    for name in dict.fromkeys([*WIDELY_TRADED, *everywhere]):
        if name in (ALWAYS, WEEKDAYS):
            continue
        try:
            marks = np.zeros(len(usual), dtype=bool)
            marks[(sessions(name, FIRST, LAST) - FIRST).astype(np.int64)] = True
        except ConfigError:
            continue
        yield name, np.diff(np.flatnonzero(marks != usual), prepend=0).tolist()


def write_table(path: Path = TABLE) -> None:
    """Write the table for the installed exchange_calendars."""
    lines = [f"{json.dumps(name)}: {json.dumps(steps, separators=(',', ':'))}" for name, steps in exceptions()]
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    write_table()
