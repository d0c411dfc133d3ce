"""Two arms on the same days: the daily values of a metric, and what their portfolios came to."""

from dataclasses import dataclass

import pandas as pd

from mlops_tasks.experiments.inference.offers import Data

CONTROL, TREATMENT = "control", "treatment"


@dataclass(frozen=True)
class PairedDays:
    """Daily values of a metric, of the control and of another arm."""

    values: pd.DataFrame
    """By day (`2024-01-31`): control, treatment."""
    data: Data | None
    """What is known of how the days depend on each other."""


@dataclass(frozen=True)
class PairedPortfolios:
    """What the portfolios of two arms came to on the same days and names: described, not tested.

    The drawdown is a statistic of the whole path: it has no daily values whose mean could be tested.
    """

    arm: str
    days: int
    control: dict[str, float | None]
    """As in `PortfolioResult.metrics`."""
    treatment: dict[str, float | None]

    def said(self) -> str:
        """One sentence for people."""
        named = {
            "max_drawdown": "largest drawdown of the excess return",
            "annualised_excess_return_after_cost": "excess return a year",
            "turnover": "turnover a day",
        }
        parts = [
            f"{words} {_percent(self.treatment[name])} (control {_percent(self.control[name])})"
            for name, words in named.items()
        ]
        return f"{self.arm} (described, not tested): on {self.days} trading days, {', '.join(parts)}"


def _percent(share: float | None) -> str:
    return "unknown" if share is None else f"{share:.1%}"
