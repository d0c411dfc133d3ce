"""A machine trains and scores what only another one has made, and the result has the same bytes."""

import shutil
from pathlib import Path

import pandas as pd
import pytest

from mlops_tasks.config import Settings
from mlops_tasks.data.vintages import current_vintage, publish
from mlops_tasks.features.store import FeatureStore
from mlops_tasks.modeling.artefact import ModelArtefact
from mlops_tasks.modeling.scoring import FeatureSource
from mlops_tasks.modeling.seal import artefact_digest
from mlops_tasks.modeling.trust import Trust
from mlops_tasks.process import stage_function
from mlops_tasks.signing import PUBLIC
from mlops_tasks.training.certificate import certificate_of, certify, certify_model
from mlops_tasks.training.engine import UnifiedQlibTrainingEngine
from mlops_tasks.training.plan import make_plan
from mlops_tasks.training_folder import TrainingFolder
from tests.shared_stores import shared_store
from tests.training.conftest import Market


def scores_of(settings: Settings, training_key: str) -> pd.DataFrame:
    """What a training's model says of the newest three days of the vintage in use."""
    vintage, training = current_vintage(settings), TrainingFolder.of(settings, training_key)
    artefact = ModelArtefact.load(training.model, Trust.of(settings), settings.training.threads)
    last = pd.Timestamp(vintage.last_date)
    source = FeatureSource(FeatureStore(settings), vintage, training.manifest().feature_version)
    return artefact.score(source.rows(last - pd.Timedelta(3, "D"), last, artefact.window))


def environment_of(settings: Settings) -> dict[str, str]:
    """Where a stage finds these settings."""
    shared = settings.shared
    return {
        "MLOPS_HOME": str(settings.home),
        "MLOPS_SHARED__STORE": shared.store,
        "MLOPS_SHARED__ENDPOINT_URL": str(shared.endpoint_url),
    }


def test_it_trains_and_a_third_one_evaluates_and_scores(
    market: Market, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a store in a bucket, which the process that fits the model cannot reach and need not."""
    alone, version = market.settings, market.feature_version
    plan = make_plan(alone, market.vintage.data_version, market.vintage.calendar(), {})
    expected = TrainingFolder(UnifiedQlibTrainingEngine(alone).train(plan, version, "linear"))
    with shared_store("bucket", tmp_path) as shared:
        ours = alone.model_copy(update={"shared": shared.settings})
        assert FeatureStore(ours).compute(market.vintage).computed_rows == 0
        publish(ours, market.vintage.data_version)

        trains, scores = shared.machine("trains"), shared.machine("scores")
        shutil.copytree(alone.secrets_dir, trains.secrets_dir)
        found = current_vintage(trains)
        assert make_plan(trains, found.data_version, found.calendar(), {}) == plan
        made = TrainingFolder(UnifiedQlibTrainingEngine(trains).train(plan, version, "linear"))
        assert made.path.is_relative_to(trains.home) and made.key == expected.key
        assert artefact_digest(made.model) == artefact_digest(expected.model)
        assert TrainingFolder.of(ours, made.key).path == expected.path
        for name in ("predictions.parquet", "plan.json", "curves.json", "importance.json", "columns.json"):
            assert (made.path / name).read_bytes() == (expected.path / name).read_bytes()

        certificate = certify(ours, plan, version)
        certify_model(trains, TrainingFolder.of(trains, made.key), certificate.subject)
        for name, value in environment_of(scores).items():
            monkeypatch.setenv(name, value)
        evaluated = stage_function("evaluation.evaluate")(training_key=made.key, topk=5, n_drop=1)
        for machine in (scores, ours):
            known = certificate_of(machine, made.key)
            assert known is not None and known.passed and known.artefact == artefact_digest(expected.model)
            there = TrainingFolder.of(machine, made.key).evaluation.read()
            assert there.metrics == evaluated["metrics"] and there.data_version == plan.data_version

        monkeypatch.setenv(PUBLIC.variable, (trains.secrets_dir / PUBLIC.file).read_text().split()[0])
        there = scores_of(scores, made.key)
        monkeypatch.delenv(PUBLIC.variable)
        pd.testing.assert_frame_equal(
            there.to_frame(), scores_of(alone, expected.key).to_frame(), check_exact=True, check_freq=False
        )
        assert not (scores.home / "state").exists() and len(there) > 40
