"""The training process: from a request to a training folder. `supervision.py` starts it and watches over it."""

import logging
from dataclasses import dataclass, replace
from pathlib import Path

from mlops_tasks.config import Settings
from mlops_tasks.errors import MlopsError, SignatureError, TrainingCancelledError
from mlops_tasks.files import digest_of, move_folder
from mlops_tasks.machine.resources import used_so_far
from mlops_tasks.modeling.checkpoints import CheckpointFolder, training_lock
from mlops_tasks.modeling.column_health import ColumnHealth
from mlops_tasks.modeling.dataset import LearningData
from mlops_tasks.modeling.environment import CodeState
from mlops_tasks.modeling.fitting import ModelFitting, Prepared, Stamp
from mlops_tasks.modeling.identity import training_identity
from mlops_tasks.modeling.manifest import Origin
from mlops_tasks.modeling.prediction import predict_segments
from mlops_tasks.modeling.seal import verified_manifest
from mlops_tasks.modeling.session import Links, TrainingSession
from mlops_tasks.signing import SigningKey, VerifyingKeys
from mlops_tasks.stage_results import FinishedFit
from mlops_tasks.states import RunState
from mlops_tasks.training.checks import check_columns
from mlops_tasks.training.control import FileControl
from mlops_tasks.training.journal import Journal
from mlops_tasks.training.learning_source import LearningSource
from mlops_tasks.training.run_folder import FitRequest, RunFolder
from mlops_tasks.training_folder import FitRecord, TrainingFolder, TrainingManifest, TrainingMetrics

log = logging.getLogger(__name__)

ENGINE_VERSION = 5
"""Raise it when the same plan would train a different model: training keys depend on it."""

OUR_CLASSES = "mlops_tasks."
"""Class paths of this project begin with this; they are not tried out, since its tests cover them."""


@dataclass(frozen=True)
class FoundTraining:
    """A finished training in its folder."""

    training_key: str
    path: str
    """Of the folder, relative to the home."""
    reused: bool
    """Whether it existed already."""


def fit_stage(*, folder: str) -> FinishedFit:
    """Train what the request in a run's folder asks for.

    Returns
    -------
    `state` and the rest of the terminal event's payload: finished (training_key, path, reused), failed (error,
    reason: an error that this project raises on purpose) or cancelled.
    """
    run = RunFolder(Path(folder))
    settings, request = run.read()
    try:
        found = Fit(settings, request, run).run()
        return {
            "state": RunState.FINISHED,
            "training_key": found.training_key,
            "path": found.path,
            "reused": found.reused,
        }
    except TrainingCancelledError:
        return {"state": RunState.CANCELLED}
    except MlopsError as error:
        return {
            "state": RunState.FAILED,
            "error": type(error).__name__,
            "reason": str(error),
            "kind": error.kind.value,
        }


class Fit:
    """One training in this process."""

    def __init__(self, settings: Settings, request: FitRequest, run: RunFolder) -> None:
        self.settings = settings
        self.request = request
        self.folder = run
        self.journal = Journal(run.journal)
        self.control = FileControl(run.command)
        self.key = SigningKey.of(settings)

    def run(self) -> FoundTraining:
        """Train, unless the same training exists already."""
        plan, config = self.request.plan, self.request.config
        self._stage("load")
        spec = plan.learning_spec(self.request.feature_version)
        data = LearningSource(self.settings, spec, config.window)
        configuration = {
            "engine_version": ENGINE_VERSION,
            "model": config.model,
            "model_config": config.model_dump(mode="json"),
            "horizon": plan.horizon,
            "seed": plan.seed,
            "identity": training_identity(config, self.settings.training.threads),
        }
        key = digest_of({**configuration, "learning_data": data.digest})
        target = TrainingFolder.of(self.settings, key)
        found = FoundTraining(key, self.settings.relative(target.path), reused=True)
        checkpoints = CheckpointFolder(self.settings.checkpoints_dir / key)
        if target.exists:
            self._check_found(target)
            checkpoints.remove()  # a kill may have come between the last two steps below
            return found
        with training_lock(self.settings.checkpoints_dir / f"{key}.lock", self.control.check):
            if target.exists:  # another process trained it while this one waited
                return found
            lineage = {
                **plan.model_dump(mode="json", exclude={"study"}),  # the study belongs to the run
                **configuration,
                "training_key": key,
                "feature_version": self.request.feature_version,
                "code": CodeState.here().to_json(),
            }
            data.check()
            self._train(TrainingManifest.from_json(lineage), data.loaded, checkpoints)
            target.path.parent.mkdir(parents=True, exist_ok=True)
            move_folder(self.folder.result, target.path)
            checkpoints.remove()
        return replace(found, reused=False)

    def _check_found(self, target: TrainingFolder) -> None:
        try:
            verified_manifest(target.model, VerifyingKeys.read(self.settings))
        except SignatureError as error:
            raise SignatureError(f"{error}; to train it again, remove {target.path}") from None

    def _train(self, trained: TrainingManifest, data: LearningData, checkpoints: CheckpointFolder) -> None:
        config, folder = self.request.config, TrainingFolder(self.folder.result)
        health = ColumnHealth.of(data.learned_features(), list(data.features.columns))
        for said in health.warnings():
            log.warning("%s", said)
        check_columns(config, health)
        origin: Origin = {
            "training_key": trained.training_key,
            "model": trained.model,
            "feature_set": trained.feature_set,
            "feature_version": trained.feature_version,
            "data_version": trained.data_version,
            "horizon": trained.horizon,
            "segments": dict(trained.segments),
            "seed": trained.seed,
        }
        writable = (self.folder.path, checkpoints.folder)
        fitting = ModelFitting(self.settings, config, self.folder.path, Stamp(origin, self.key), writable)
        if config.class_path is not None and not config.class_path.startswith(OUR_CLASSES):
            cannot = fitting.try_out(data, self.request.plan.horizon)
            if cannot is not None:
                log.info("%s cannot be tried out %s", config.class_path, cannot)
        links = Links(self.journal.append, self.control, checkpoints)
        session = TrainingSession(config, threads=self.settings.training.threads, links=links)
        session.stage("process")
        fitted = fitting.fit(Prepared.of(data, config), session, folder.model)
        session.stage("predict")
        folder.write_predictions(predict_segments(fitting.load(folder.model), data))
        folder.write_manifest(trained)
        folder.write_curves(session.curves())
        folder.write_importance(fitted.result.importance)
        folder.write_columns(health.to_json())
        numbers = {
            "best_iteration": fitted.result.best_iteration,
            "train_seconds": round(session.seconds, 3),
            **used_so_far(),
            **health.metrics,
            "train_rows": int(data.label.iloc[data.rows("train")].notna().sum()),
            "valid_rows": int(data.label.iloc[data.rows("valid")].notna().sum()),
        }
        fit = FitRecord(**fitted.conclusion.to_json())
        folder.write_metrics(TrainingMetrics(numbers, fit, self.folder.run_id))

    def _stage(self, name: str) -> None:
        self.journal.append("stage", {"stage": name})
        self.control.check()
