"""Real panels, where they are at hand: their days are exactly the sessions of one exchange."""

import numpy as np
import pandas as pd
import pytest

from mlops_tasks.data.exchanges.calendars import infer_calendars, sessions
from tests.benchmarks.panels import PANELS


@pytest.mark.parametrize(
    ("panel", "name", "count"), [("us_sp500_5yr", "XNYS", 1259), ("cn_csi300_qlib_2010_2026", "XSHG", 3966)]
)
def test_real_panels_are_their_exchanges_sessions(panel: str, name: str, count: int) -> None:
    """The panel's days are the exchange's sessions, and the exchange is inferred for every instrument."""
    frame = pd.read_parquet(PANELS / panel / "panel.parquet", columns=["date", "instrument"])
    days = frame["date"].to_numpy().astype("datetime64[D]")
    codes, names = pd.factorize(frame["instrument"])
    assert len(np.unique(days)) == count
    np.testing.assert_array_equal(np.unique(days), sessions(name, days.min(), days.max()))
    assert set(infer_calendars(codes, days, len(names))) == {name}
