"""What the benchmarks run on: a real panel where it is there, else the synthetic market of the same size."""

import os
from pathlib import Path

from mlops_tasks.config import PROJECT

PANELS = Path(os.environ.get("MLOPS_TEST_PANELS", PROJECT.parent / "shared" / "data"))
SIZE = {"MLOPS_SYNTHETIC__INSTRUMENTS": "500", "MLOPS_SYNTHETIC__DAYS": "1250"}


def us_source() -> tuple[str, dict[str, str]]:
    """Source and extra settings: S&P 500 members 2013 to 2018, or as many synthetic bars."""
    panel = PANELS / "us_sp500_5yr" / "panel.parquet"
    return (str(panel), {}) if panel.is_file() else ("synthetic", SIZE)
