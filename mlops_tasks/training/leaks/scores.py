"""Scores a trained model again where no later data exist: its scores must be what they were with all data present."""

import math
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd

from mlops_tasks.columns import DATETIME, INSTRUMENT, SCORE
from mlops_tasks.config import Settings
from mlops_tasks.data.vintages import Vintage, load_vintage, publish, write_vintage
from mlops_tasks.features.sets import FeatureSet
from mlops_tasks.features.store import FeatureStore
from mlops_tasks.modeling.artefact import ModelArtefact
from mlops_tasks.modeling.scoring import FeatureSource
from mlops_tasks.modeling.trust import Trust
from mlops_tasks.process import environment_of
from mlops_tasks.training.leaks.checks import SCORES, Check, check_of
from mlops_tasks.training.leaks.comparison import Comparison, Leak
from mlops_tasks.training.leaks.known import known_on
from mlops_tasks.training_folder import TrainingFolder

SCORED_DAYS = 10
"""Trading days up to a cut whose scores are compared: a model that sees later days differs on the last ones."""


def check_scores(settings: Settings, training: TrainingFolder, cuts: Sequence[pd.Timestamp]) -> Iterator[Check]:
    """Score the last days before each cut again, in a home folder that holds nothing later.

    The home is made for this purpose: a vintage of the bars that the features and the windows look back on, and its
    features, computed and read by the functions of the chain. The model is loaded from the training's own artefact; a
    model of a user's own class is loaded in a process that can read nothing else.

    Parameters
    ----------
    training
        A training's folder, whose predictions were made in the presence of all data.
    cuts
        Trading days; those without predictions are left out.

    Raises
    ------
    TrainingError
        The model's own code fails there.
    StoreError, SignatureError, DigestMismatchError, IsolationError
        As for loading the vintage and the artefact.
    """
    recorded = _scores(pd.read_parquet(training.predictions).set_index([DATETIME, INSTRUMENT])[SCORE])
    days = pd.DatetimeIndex(recorded.index.levels[0])
    artefact = ModelArtefact.load(training.model, Trust.of(settings), settings.training.threads)
    vintage = load_vintage(settings, artefact.manifest["data_version"])
    definition = FeatureStore(settings).definition(artefact.manifest["feature_version"])
    for day in (each for each in cuts if each in days):
        place = int(days.get_loc(day))
        first = days[max(0, place - SCORED_DAYS + 1)]
        found = Comparison()
        with _home_until(day, vintage, definition, _history(vintage, definition, first, artefact.window)) as source:
            again = artefact.score(source.rows(first, day, artefact.window))
        found.add(recorded.loc[first:day], _scores(again))
        yield check_of(SCORES, day, found, Leak.MODEL, str(artefact.manifest["model"]))


def _history(vintage: Vintage, definition: FeatureSet, first: pd.Timestamp, window: int) -> pd.Timestamp:
    """The first day whose bars are needed for the windows, and the features in them, of rows on and after `first`."""
    calendar = vintage.calendar()
    if definition.foreign or math.isinf(definition.lookback_rows):
        return calendar[0]
    return calendar[max(0, int(calendar.searchsorted(first)) - (window - 1) - int(definition.lookback_rows))]


@contextmanager
def _home_until(
    day: pd.Timestamp, vintage: Vintage, definition: FeatureSet, since: pd.Timestamp
) -> Iterator[FeatureSource]:
    """A home folder with a vintage as it was known on a day, and its features; within the block it is `MLOPS_HOME`, and
    nothing is shared: the vintage in use knows later days."""
    known = known_on(vintage, day)
    with tempfile.TemporaryDirectory(prefix="mlops_certificate_") as name:
        settings = Settings(home=Path(name))
        cut = write_vintage(settings, known.bars(start=since), known.members(), {"source": known.data_version})
        store = FeatureStore(settings)
        version = store.compute(cut, definition).feature_version
        publish(settings, cut.data_version)
        with environment_of({"MLOPS_HOME": name, "MLOPS_SHARED__STORE": ""}):
            yield FeatureSource(store, cut, version)


def _scores(scores: pd.Series) -> pd.DataFrame:
    """Scores as a table to compare: sorted by (datetime, instrument), whatever file or frame they come from."""
    days, names = (scores.index.get_level_values(name) for name in (DATETIME, INSTRUMENT))
    index = pd.MultiIndex.from_arrays(
        [pd.DatetimeIndex(days).as_unit("ns"), names.astype(str)], names=[DATETIME, INSTRUMENT]
    )
    return pd.DataFrame({SCORE: scores.to_numpy(np.float64)}, index).sort_index()
