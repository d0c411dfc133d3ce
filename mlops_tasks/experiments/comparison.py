"""Paired comparison of two registered models: daily rank IC on the same rows of the same days."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from mlops_tasks.columns import DATETIME
from mlops_tasks.config import Settings
from mlops_tasks.data.vintages import Vintage, load_vintage
from mlops_tasks.evaluation.gate import paired_difference
from mlops_tasks.evaluation.ic import daily_rank_ic
from mlops_tasks.evaluation.significance import MeanTest, cosine_mean
from mlops_tasks.features.labels import forward_return
from mlops_tasks.features.store import FeatureStore
from mlops_tasks.files import write_json
from mlops_tasks.modeling.scoring import FeatureSource
from mlops_tasks.plots.comparison import comparison_info, plot_comparison
from mlops_tasks.plots.figure import write_png
from mlops_tasks.registry.model_features import features_of
from mlops_tasks.registry.models import LoadedModel

log = logging.getLogger(__name__)

REPORT = "report.json"
MIN_DAYS = 2


@dataclass(frozen=True)
class Contest:
    """Two models and the data on which they are compared: the same rows, each model on the features of its own set."""

    champion: LoadedModel
    challenger: LoadedModel
    vintage: Vintage
    champion_features: str
    challenger_features: str

    @property
    def learned_until(self) -> pd.Timestamp:
        """Last day that either model has learned from or was chosen by (train and valid segment)."""
        models = (self.champion, self.challenger)
        return max(pd.Timestamp(model.artefact.manifest["segments"]["valid"][1]) for model in models)

    @property
    def horizon(self) -> int:
        """The label's horizon in trading days: the challenger's."""
        return int(self.challenger.artefact.manifest["horizon"])


@dataclass(frozen=True)
class PairedComparison:
    """Daily rank ICs of both models, and the test of their difference (challenger minus champion)."""

    daily: pd.DataFrame
    """By datetime: champion, challenger, difference; only days with all three."""
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


def paired_rank_ic(settings: Settings, contest: Contest, after: pd.Timestamp | None = None) -> pd.DataFrame:
    """Daily rank IC of both models on the days after `learned_until`, and after a given one, that have labels.

    Returns
    -------
    Frame by datetime: champion, challenger, difference (challenger minus champion). Days without a rank IC of both are
    left out; it may be empty.
    """
    start = max(contest.learned_until, contest.learned_until if after is None else after) + pd.Timedelta(days=1)
    label = forward_return(contest.vintage, contest.horizon).dropna()
    label = label[label.index.get_level_values(DATETIME) >= start]
    if len(label) == 0:
        return pd.DataFrame(columns=["champion", "challenger", "difference"], dtype=float)
    end, store = label.index.get_level_values(DATETIME).max(), FeatureStore(settings)
    series = {}
    for name, model, feature_version in (
        ("champion", contest.champion, contest.champion_features),
        ("challenger", contest.challenger, contest.challenger_features),
    ):
        rows = FeatureSource(store, contest.vintage, feature_version).rows(start, end, model.artefact.window)
        series[name] = daily_rank_ic(model.artefact.score(rows), label)
    difference = paired_difference(series["challenger"], series["champion"])
    return pd.DataFrame(series).loc[difference.index].assign(difference=difference)


def compare(daily: pd.DataFrame) -> PairedComparison:
    """Test the mean daily difference; `daily` as from `paired_rank_ic`, two days at least."""
    return PairedComparison(daily, cosine_mean(daily["difference"]))


def conclusion(test: MeanTest) -> str:
    """One sentence for people: which model is better, or that it cannot be told yet."""
    span = f"{test.confidence:.0%} interval {test.lower:+.5f} to {test.upper:+.5f} a day, {test.n} days"
    if test.lower > 0:
        return f"the challenger orders returns better ({span})"
    if test.upper < 0:
        return f"the champion orders returns better ({span})"
    return f"no difference can be told from luck ({span})"


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


def contest_of(settings: Settings, champion: LoadedModel, challenger: LoadedModel, data_version: str) -> Contest:
    """Two models on a vintage; features that are not there are computed."""
    vintage = load_vintage(settings, data_version)
    champion_features, challenger_features = (features_of(settings, each, vintage) for each in (champion, challenger))
    return Contest(champion, challenger, vintage, champion_features, challenger_features)
