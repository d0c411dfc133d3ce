"""Paired comparison of two registered models: daily rank IC on the same rows of the same days."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from mlops_tasks.columns import DATETIME
from mlops_tasks.evaluation.significance import MeanTest, cosine_mean
from mlops_tasks.files import write_json
from mlops_tasks.monitoring.contest import Contest
from mlops_tasks.plots.comparison import comparison_info, plot_comparison
from mlops_tasks.plots.figure import write_png

REPORT = "report.json"
MIN_DAYS = 2


@dataclass(frozen=True)
class PairedComparison:
    """Daily rank ICs of both models, and the test of their difference (challenger minus champion)."""

    daily: pd.DataFrame
    """By datetime: champion, challenger, difference; only days that have all three."""
    test: MeanTest

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        numbers = self.test.to_json()
        names = (
            "standard_error",
            "t",
            "p_one_sided",
            "p_two_sided",
            "lower",
            "upper",
            "confidence",
            "degrees_of_freedom",
        )
        return {
            "first_date": str(self.daily.index[0].date()),
            "last_date": str(self.daily.index[-1].date()),
            "n_days": len(self.daily),
            "champion_rank_ic_mean": float(self.daily["champion"].mean()),
            "challenger_rank_ic_mean": float(self.daily["challenger"].mean()),
            "difference": numbers["mean"],
            **{name: numbers[name] for name in names},
            "conclusion": conclusion(self.test),
        }


def compare(daily: pd.DataFrame) -> PairedComparison:
    """Test the mean daily difference; `daily` is as from `paired_rank_ic`, with at least two days."""
    return PairedComparison(daily, cosine_mean(daily["difference"]))


def conclusion(test: MeanTest) -> str:
    """One sentence for people: which model is better, or that this is not clear yet."""
    span = f"{test.confidence:.0%} interval {test.lower:+.5f} to {test.upper:+.5f} a day, {test.n} days"
    if test.lower > 0:
        return f"the challenger orders returns better ({span})"
    if test.upper < 0:
        return f"the champion orders returns better ({span})"
    return f"no difference can be distinguished from luck ({span})"


def write_comparison(folder: Path, contest: Contest, comparison: PairedComparison, data_version: str) -> None:
    """Write report.json, daily.parquet and comparison.png into `folder`."""
    champion, challenger = contest.champion.version, contest.challenger.version
    title = f"Rank IC, challenger (version {challenger}) minus champion (version {champion})"
    test = comparison.test
    info = comparison_info(comparison.daily["difference"], test.standard_error, test.p_two_sided, title)
    write_png(plot_comparison(info), folder / "comparison.png")
    comparison.daily.rename_axis(DATETIME).reset_index().to_parquet(folder / "daily.parquet", index=False)
    identity = {
        "champion_version": champion,
        "challenger_version": challenger,
        "champion_training_key": contest.champion.training_key,
        "challenger_training_key": contest.challenger.training_key,
        "data_version": data_version,
        "champion_feature_version": contest.champion_features,
        "challenger_feature_version": contest.challenger_features,
    }
    write_json(folder / REPORT, identity | comparison.to_json())
