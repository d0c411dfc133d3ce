"""Two models on the same rows of the same days: their daily rank ICs, once the labels exist."""

from dataclasses import dataclass

import pandas as pd

from mlops_tasks.columns import DATETIME
from mlops_tasks.config import Settings
from mlops_tasks.data.vintages import Vintage, load_vintage
from mlops_tasks.evaluation.gate import paired_difference
from mlops_tasks.evaluation.ic import daily_rank_ic
from mlops_tasks.features.labels import forward_return
from mlops_tasks.features.store import FeatureStore
from mlops_tasks.modeling.scoring import FeatureSource
from mlops_tasks.registry.model_features import features_of
from mlops_tasks.registry.models import LoadedModel


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


def contest_of(settings: Settings, champion: LoadedModel, challenger: LoadedModel, data_version: str) -> Contest:
    """Two models on a vintage; features that are not there are computed."""
    vintage = load_vintage(settings, data_version)
    champion_features, challenger_features = (features_of(settings, each, vintage) for each in (champion, challenger))
    return Contest(champion, challenger, vintage, champion_features, challenger_features)
