"""The index of a small panel."""

import pandas as pd

from mlops_tasks.columns import DATETIME, INSTRUMENT

INSTRUMENTS = 10


def index_of(rows: int) -> pd.MultiIndex:
    """Ten instruments a day, the last day perhaps fewer."""
    days = pd.bdate_range("2024-01-01", periods=-(-rows // INSTRUMENTS))
    names = [f"S{number:02}" for number in range(INSTRUMENTS)]
    return pd.MultiIndex.from_product([days, names], names=[DATETIME, INSTRUMENT])[:rows]
