"""The rows that a report looks at: some names of some days, the same for the same seed."""

from dataclasses import dataclass, replace

import numpy as np

from mlops_tasks.columns import DATETIME
from mlops_tasks.errors import ConfigError
from mlops_tasks.modeling.scoring import ScoringRows


@dataclass(frozen=True)
class SampleSize:
    """At most so many days, and names on each of them; both at least 1."""

    days: int
    names: int

    def __post_init__(self) -> None:
        for name in ("days", "names"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} of a sample must be 1 or more, got {getattr(self, name)}")


def sample_of_days(rows: ScoringRows, size: SampleSize, seed: int = 0) -> ScoringRows:
    """The same with fewer rows to score: of days at equal distances, names drawn on each day.

    Whole days would do as well for the IC of a day; more days with fewer names show more of how it changes.
    """
    places = np.flatnonzero(rows.wanted)
    days = rows.features.index.get_level_values(DATETIME)[places]
    found = days.unique()
    chosen = found[np.unique(np.linspace(0, len(found) - 1, min(size.days, len(found))).round().astype(np.int64))]
    generator, wanted = np.random.default_rng(seed), np.zeros(len(rows.wanted), np.bool_)
    for day in chosen:
        of_day = places[days == day]
        wanted[generator.choice(of_day, min(size.names, len(of_day)), replace=False)] = True
    return replace(rows, wanted=wanted)
