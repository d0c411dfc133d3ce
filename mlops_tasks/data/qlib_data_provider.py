"""`QlibDataProvider`: a vintage's bars in the shape that features and models take."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd

from mlops_tasks.columns import BAR_FIELDS, DATETIME, KEY
from mlops_tasks.data.vintages import Day, Vintage


class QlibDataProvider:
    """Frames indexed by (datetime, instrument), sorted, over one vintage."""

    def __init__(self, vintage: Vintage, universe: Literal["all", "members"] = "all") -> None:
        """`members` keeps only the rows of days on which the instrument belongs to the universe."""
        self.vintage = vintage
        self.universe = universe

    def adjusted(
        self, fields: Sequence[str] = BAR_FIELDS, start: Day | None = None, end: Day | None = None
    ) -> pd.DataFrame:
        """Adjusted prices (raw * factor), volume / factor: Qlib's convention. Float64; NaN where absent."""
        return self._indexed(self.vintage.adjusted_bars(start, end), fields)

    def raw(self, fields: Sequence[str] = BAR_FIELDS, start: Day | None = None, end: Day | None = None) -> pd.DataFrame:
        """Prices and volume as traded. Float64; NaN where the source has none."""
        return self._indexed(self.vintage.bars(fields, start, end), fields)

    def _indexed(self, bars: pd.DataFrame, fields: Sequence[str]) -> pd.DataFrame:
        by_day = np.argsort(bars[DATETIME].to_numpy(), kind="stable")
        frame = bars.iloc[by_day].set_index(list(KEY))[list(fields)]
        return frame if self.universe == "all" else frame[self.vintage.membership_mask(frame.index)]
