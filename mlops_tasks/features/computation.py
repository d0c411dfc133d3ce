"""From a vintage to the features of a year."""

from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlops_tasks.columns import DATETIME, INSTRUMENT
from mlops_tasks.data.vintages import Vintage
from mlops_tasks.features.partitions import Partition
from mlops_tasks.features.sets import FeatureSet
from mlops_tasks.files import digest_of


class Computation:
    """One feature set over one vintage."""

    def __init__(self, definition: FeatureSet, vintage: Vintage) -> None:
        self.definition = definition
        self.vintage = vintage
        self.years = sorted(int(year) for year in vintage.manifest["years"])
        keys = vintage.bars(fields=())
        begins = np.flatnonzero(~keys[INSTRUMENT].duplicated().to_numpy())
        self.first_days = keys.iloc[begins].set_index(INSTRUMENT)[DATETIME]
        self.calendar = pd.DatetimeIndex(np.unique(keys[DATETIME].to_numpy()), name=DATETIME)

    @cached_property
    def plan(self) -> Any:
        from mlops_tasks.features.engine import make_plan

        return make_plan(self.definition.nodes)

    def days(self, year: int) -> tuple[pd.DatetimeIndex, int]:
        """Trading days that a year's values depend on, and how many of them precede the year."""
        begin, end = self.calendar.searchsorted([pd.Timestamp(year, 1, 1), pd.Timestamp(year + 1, 1, 1)])
        before = int(min(begin, self.definition.lookback_rows))
        return self.calendar[begin - before : end], before

    def partition(self, year: int) -> Partition:
        """The partition of a year, named by everything that its values depend on."""
        days, _ = self.days(year)
        years = self.vintage.manifest["years"]
        begins = self.first_days[(self.first_days > days[0]) & (self.first_days <= days[-1])]
        identity = {
            "definition": self.definition.digest,
            "bars": [years[str(each)]["digest"] for each in self.years if days[0].year <= each <= year],
            "days": days.strftime("%Y%m%d").tolist(),
            "begins": sorted(zip(begins.index, begins.dt.strftime("%Y%m%d"), strict=True)),
        }
        return Partition(year, digest_of(identity), int(years[str(year)]["rows"]))

    def compute(self, year: int) -> tuple[NDArray[np.float32], pd.MultiIndex]:
        """Values (features, rows) and the index of the rows, by datetime and instrument."""
        from mlops_tasks.features.engine import evaluate
        from mlops_tasks.features.panel import build_panel

        days, before = self.days(year)
        bars = self.vintage.adjusted_bars(days[0], days[-1])
        first_rows = pd.Series(days.searchsorted(pd.DatetimeIndex(self.first_days)), index=self.first_days.index)
        panel = build_panel(bars, days, self.plan.fields, first_rows)
        order = panel.bar_order(first_row=before)
        index = pd.MultiIndex(
            levels=[panel.calendar, panel.instruments],
            codes=[panel.rows[order], panel.codes[order]],
            names=[DATETIME, INSTRUMENT],
            verify_integrity=False,
        )
        return evaluate(self.plan, panel, panel.positions(order)), index
