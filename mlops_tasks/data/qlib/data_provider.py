"""`QlibDataProvider`: a vintage's bars in the form that features and models take."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd

from mlops_tasks.columns import BAR_FIELDS, DATETIME, KEY
from mlops_tasks.data.vintages import Day, Vintage


class QlibDataProvider:
    """Frames of one vintage: index (datetime, instrument), sorted and unique, one float64 column per field.

    Only the requested fields and days are read. The fields are those of `BAR_FIELDS`. Both days are included. A pair
    without a bar (suspended, not listed) has no row. Rounded to float32, `adjusted` is what Qlib reads from the
    vintage's store under the same names with a `$` before them.
    """

    def __init__(self, vintage: Vintage, universe: Literal["all", "members"] = "all") -> None:
        """`members` keeps only the rows of days on which the instrument belongs to the universe."""
        self.vintage = vintage
        self.universe = universe

    def adjusted(
        self, fields: Sequence[str] = BAR_FIELDS, start: Day | None = None, end: Day | None = None
    ) -> pd.DataFrame:
        """Prices times factor, volume (shares) divided by factor: Qlib's convention.

        NaN: a volume or vwap that the source did not have.
        """
        return self._indexed(self.vintage.adjusted_bars(start, end, fields), fields)

    def raw(self, fields: Sequence[str] = BAR_FIELDS, start: Day | None = None, end: Day | None = None) -> pd.DataFrame:
        """Prices (currency units) and volume (shares) as traded, and the factor.

        NaN: a volume or vwap that the source did not have.
        """
        return self._indexed(self.vintage.bars(fields, start, end), fields)

    def _indexed(self, bars: pd.DataFrame, fields: Sequence[str]) -> pd.DataFrame:
        by_day = np.argsort(bars[DATETIME].to_numpy(), kind="stable")
        frame = bars.iloc[by_day].set_index(list(KEY))[list(fields)]
        return frame if self.universe == "all" else frame[self.vintage.membership_mask(frame.index)]
