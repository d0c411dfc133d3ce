"""A model that looks back on a window of days, from its registration to its scores: the same numbers everywhere."""

from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mlops_tasks.columns import DATETIME
from mlops_tasks.features.store import FeatureStore
from mlops_tasks.modeling.artefact import ModelArtefact
from mlops_tasks.modeling.scoring import FeatureSource
from mlops_tasks.monitoring.report import drift_input, write_drift_report
from mlops_tasks.registry.models import load_version
from mlops_tasks.serving.client import ScoringClient, scores_of
from mlops_tasks.serving.deployment import deploy_blue_green
from mlops_tasks.serving.score_files import score_champion
from tests.operation import make_champion
from tests.registry.conftest import Operation
from tests.registry.trainings import DAYS, INSTRUMENTS, Spec
from tests.serving.conftest import RunningService

WINDOW = 5
SPEC = Spec(key="a" * 16, model="network", window=WINDOW)


def alone(artefact: ModelArtefact, features: pd.DataFrame, instrument: str, day: pd.Timestamp) -> float:
    """The score of one row, from nothing but the bars of its own window."""
    days = DAYS[: DAYS.get_loc(day) + 1][-artefact.window :]
    own = features.loc[pd.IndexSlice[days, [instrument]], :]
    return float(artefact.predict(own).iloc[-1])


def test_a_score_depends_on_its_own_window_only(operation: Operation) -> None:
    """Scores of a range of days are those of each row's own days alone, to the last bit."""
    version = operation.register(SPEC)
    artefact = load_version(operation.settings, version).artefact
    store = FeatureStore(operation.settings)
    source = FeatureSource(store, operation.vintage, operation.feature_version)
    scores = artefact.score(source.rows(DAYS[100], DAYS[110], artefact.window))
    features = store.load(operation.feature_version)
    assert len(scores) == 11 * len(INSTRUMENTS)
    for day in (DAYS[100], DAYS[107]):
        for instrument in INSTRUMENTS[:3]:
            assert scores[day, instrument] == alone(artefact, features, instrument, day)
    assert not np.allclose(scores.to_numpy()[:-1], scores.to_numpy()[1:])


def test_it_is_deployed_served_scored_and_watched(
    operation: Operation, service: RunningService, client: ScoringClient, tmp_path: Path
) -> None:
    """The service's scores, the score file and the drift report's are the artefact's; rows of one day are refused."""
    settings = operation.settings
    version = operation.register(SPEC)
    probe = deploy_blue_green(settings, version)["probe"]
    assert probe == {"date": "2020-06-30", "instruments": len(INSTRUMENTS), "max_abs_diff": 0.0}
    model = load_version(settings, version)
    features = FeatureStore(settings).load(operation.feature_version)
    past = scores_of(client.score(None, DAYS[50].date()))
    assert past["S004"] == alone(model.artefact, features, "S004", DAYS[50])
    written = score_champion(settings, operation.vintage)
    assert written is not None
    newest = pd.read_parquet(written.path).set_index("instrument")["score"]
    assert newest.to_dict() == scores_of(client.score(None, date(2020, 6, 30))).to_dict()
    report = write_drift_report(tmp_path, settings, drift_input(settings, model, operation.vintage))
    assert report["current_rows"] == settings.drift.current_days * len(INSTRUMENTS)
    one_day = features.loc[DAYS[-1]]
    with pytest.raises(Exception, match=r"needs 5 trading days at once.*ask by instruments and date"):
        client.score_features(one_day)


def test_two_window_models_are_compared_on_the_same_days(operation: Operation) -> None:
    """The gate's evidence of a champion that looks back holds every test day: the days before them are read, too."""
    from mlops_tasks.registry.gating import champion_evidence

    version = operation.register(SPEC)
    make_champion(operation.settings, version)
    champion = load_version(operation.settings, version)
    predictions = pd.read_parquet(operation.settings.training_dir / SPEC.key / "predictions.parquet")
    label = predictions[predictions["segment"] == "test"].set_index([DATETIME, "instrument"])["label"]
    data = (operation.vintage, operation.feature_version)
    found, notes = champion_evidence(operation.settings, champion, data, label)
    assert found.rank_ic.notna().sum() == label.dropna().groupby(level=DATETIME).size().size
    assert notes == ()


def test_too_short_a_history_is_an_error_that_says_from_when(operation: Operation) -> None:
    """Rows without the days that their windows reach back to are refused, not filled."""
    version = operation.register(SPEC)
    artefact = load_version(operation.settings, version).artefact
    source = FeatureSource(FeatureStore(operation.settings), operation.vintage, operation.feature_version)
    rows = source.rows(DAYS[50], DAYS[52], 1)
    with pytest.raises(Exception, match=r"need 4 trading days before them, from 2020-03-05 on"):
        artefact.score(replace(rows, since=DAYS[50]))
