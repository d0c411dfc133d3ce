"""The process that replays: features, learning data, model and scores are made again, and compared with the record.

It is given no secret. It reads the vintage, the stored features and the recorded predictions, and writes only into the
replay's folder. Nothing of the registered model is loaded or executed: the model that scores is the one that it trains.
"""

import logging
import shutil
from pathlib import Path

import pandas as pd

from mlops_tasks.config import Settings, load_settings
from mlops_tasks.data.vintages import load_vintage
from mlops_tasks.features.sets import stored_feature_set
from mlops_tasks.features.store import FeatureStore
from mlops_tasks.files import digest_of
from mlops_tasks.modeling.checkpoints import CheckpointFolder
from mlops_tasks.modeling.dataset import LearningData
from mlops_tasks.modeling.fitting import ModelFitting, Prepared
from mlops_tasks.modeling.learning_spec import LearningSpec
from mlops_tasks.modeling.prediction import predict_segments
from mlops_tasks.modeling.session import Links, TrainingSession
from mlops_tasks.registry.replay.compare import (
    compare_features,
    compare_learning_data,
    compare_model,
    compare_scores,
    verdict_on,
)
from mlops_tasks.registry.replay.report import Part, Standing
from mlops_tasks.registry.replay.request import ReplayRequest
from mlops_tasks.registry.replay.scratch import Scratch
from mlops_tasks.stage_results import MeasuredReplay
from mlops_tasks.training.learning_source import LearningSource
from mlops_tasks.training_folder import TrainingFolder

log = logging.getLogger(__name__)


def replay_stage(*, folder: str) -> MeasuredReplay:
    """Make a version's training again in a replay's folder; begun anew after a kill, it continues.

    Returns
    -------
    `verdict`, empty if the record contradicts itself: its configuration is not the one that its training key stands
    for; and `parts`, each a `Compared` as JSON.
    """
    scratch, settings = Scratch(Path(folder)), load_settings()
    request, home = ReplayRequest.read(scratch.request), scratch.settings
    vintage = load_vintage(home, request.data_version)
    version = FeatureStore(home).compute(vintage, stored_feature_set(request.definition)).feature_version
    stored = FeatureStore(settings)
    features = compare_features(stored, request.feature_version, FeatureStore(home), version)
    log.info("%s", features)
    source = LearningSource(
        home, LearningSpec(request.data_version, version, request.horizon, request.days), request.config.window
    )
    same = digest_of({**request.configuration, "learning_data": source.digest}) == request.training_key
    if not same and request.same_environment and features.standing is Standing.EQUAL:
        return {"verdict": "", "parts": [features.to_json()]}
    replayed = _trained_again(settings, request, scratch, source.loaded)
    recorded = pd.read_parquet(TrainingFolder.of(settings, request.training_key).predictions)
    parts = [
        features,
        compare_learning_data(recorded, replayed, same=same),
        compare_model(scratch.fit / "model", request.files),
        compare_scores(recorded, replayed),
    ]
    for each in parts[1:]:
        log.info("%s", each)
    assert parts[-1].part is Part.SCORES
    return {
        "verdict": verdict_on(parts[-1], request.tolerance).value,
        "parts": [each.to_json() for each in parts],
    }


def _trained_again(settings: Settings, request: ReplayRequest, scratch: Scratch, data: LearningData) -> pd.DataFrame:
    """The predictions of the model that is trained as the request says; it is left in the folder, unsigned."""
    threads = request.threads or settings.training.threads
    # A user's own class sees nothing of the real home while it learns and scores, so these are its settings.
    as_then = settings.model_copy(update={"training": settings.training.model_copy(update={"threads": threads})})
    shutil.rmtree(scratch.fit, ignore_errors=True)
    fitting = ModelFitting(as_then, request.config, scratch.fit, writable=(scratch.fit, scratch.checkpoints))
    links = Links(checkpoints=CheckpointFolder(scratch.checkpoints))
    session = TrainingSession(request.config, threads=threads, links=links)
    fitting.fit(Prepared.of(data, request.config), session, scratch.fit / "model")
    return predict_segments(fitting.load(scratch.fit / "model"), data)
