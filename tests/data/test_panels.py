"""Real panels, where they are at hand: what is known about them is what the sync finds."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mlops_tasks.columns import PRICES
from mlops_tasks.config import DataSettings, Settings
from mlops_tasks.data.sources import read_source
from mlops_tasks.data.validation import check_vintage, load_suite, validate
from mlops_tasks.errors import VintageRejectedError
from tests.benchmarks.panels import PANELS

US = PANELS / "us_sp500_5yr" / "panel.parquet"
BROKEN = PANELS / "us_sp500_5yr_broken_2017vintage" / "panel.parquet"
CN = PANELS / "cn_csi300_qlib_2010_2026" / "panel.parquet"
INDICES = PANELS / "benchmarks_index_etf" / "panel.parquet"

AT_HAND = [path for path in (US, BROKEN, CN, INDICES) if path.is_file()]

KNOWN = {
    US: {
        "open_present": 11,
        "high_present": 8,
        "low_present": 8,
        "high_not_below_low": 1,
        "open_not_above_high": 1,
        "open_not_below_low": 3,
        "close_not_above_high": 1,
        "close_not_below_low": 8,
    },
    BROKEN: {"own_series": 635_290, "open_present": 505, "low_present": 505},
    CN: {f"{name}_present": 1 for name in (*PRICES, "factor")} | {"close_not_below_low": 1},
    INDICES: {},
}


@pytest.mark.parametrize("path", AT_HAND, ids=lambda path: path.parent.name)
def test_a_panel_breaks_the_rules_that_are_known(path: Path, tmp_path: Path) -> None:
    """The suite finds the documented dirt and nothing else; only the vintage that is broken throughout is rejected."""
    settings = Settings(home=tmp_path, data=DataSettings(prices="raw" if path == INDICES else "adjusted"))
    validation = validate(read_source(settings, str(path), None).frame, load_suite())
    assert validation.rules == KNOWN[path]
    if path == BROKEN:
        with pytest.raises(VintageRejectedError, match="rule own_series"):
            check_vintage(validation, 0.005, tmp_path)
    else:
        check_vintage(validation, 0.005, tmp_path)


@pytest.mark.parametrize("path", [path for path in AT_HAND if path == CN], ids=lambda path: path.parent.name)
def test_float32_prices_come_back_exactly(path: Path, tmp_path: Path) -> None:
    """Raw times factor, cast to float32, is the source's adjusted price to the last bit."""
    source = pd.read_parquet(path)
    frame = read_source(Settings(home=tmp_path), str(path), None).frame
    for name in PRICES:
        np.testing.assert_array_equal((frame[name] * frame["factor"]).to_numpy(dtype="float32"), source[name])
