"""The training process: from a request to a training folder. `supervision.py` starts it and watches over it."""

import contextlib
import io
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlops_tasks.config import Settings
from mlops_tasks.errors import MlopsError, SignatureError, TrainingCancelledError
from mlops_tasks.files import digest_of, move_folder, write_json
from mlops_tasks.machine.resources import used_so_far
from mlops_tasks.modeling.artefact import PROCESSORS, ModelArtefact
from mlops_tasks.modeling.checkpoints import CheckpointFolder, training_lock
from mlops_tasks.modeling.dataset import LearningData, fit_processors, load_learning_data
from mlops_tasks.modeling.identity import own_source, training_identity
from mlops_tasks.modeling.model_zoo.family import FitResult, find_family
from mlops_tasks.modeling.own_code import Confinement
from mlops_tasks.modeling.prediction import predict_segments
from mlops_tasks.modeling.problem import learning_problem
from mlops_tasks.modeling.seal import seal, verified_manifest
from mlops_tasks.modeling.session import Links, TrainingSession
from mlops_tasks.modeling.stopping import Conclusion
from mlops_tasks.modeling.trust import OWN_SOURCE, Trust
from mlops_tasks.signing import SigningKey, VerifyingKeys
from mlops_tasks.training.checks import check_learning_data
from mlops_tasks.training.control import FileControl
from mlops_tasks.training.journal import Journal
from mlops_tasks.training.run_folder import FitRequest, RunFolder

log = logging.getLogger(__name__)

ENGINE_VERSION = 5
"""Raise it when the same plan would train another model: training keys depend on it."""


def fit_stage(*, folder: str) -> dict[str, Any]:
    """Train what the request in a run's folder asks for.

    Returns
    -------
    `state` and the rest of the terminal event's payload: finished (training_key, path, reused), failed (error,
    reason: an error that this library raises on purpose) or cancelled.
    """
    run = RunFolder(Path(folder))
    settings, request = run.read()
    try:
        return {"state": "finished", **Fit(settings, request, run).run()}
    except TrainingCancelledError:
        return {"state": "cancelled"}
    except MlopsError as error:
        return {"state": "failed", "error": type(error).__name__, "reason": str(error)}


class Fit:
    """One training in this process."""

    def __init__(self, settings: Settings, request: FitRequest, run: RunFolder) -> None:
        self.settings = settings
        self.request = request
        self.folder = run
        self.journal = Journal(run.journal)
        self.control = FileControl(run.command)
        self.key = SigningKey.of(settings)

    def run(self) -> dict[str, Any]:
        """Train, unless the same training is there already."""
        plan, config = self.request.plan, self.request.config
        self._stage("load")
        spec = plan.learning_spec(self.request.feature_version)
        data = load_learning_data(self.settings, spec, config.window)
        check_learning_data(self.settings, spec, data)
        configuration = {
            "engine_version": ENGINE_VERSION,
            "model": config.model,
            "model_config": config.model_dump(mode="json"),
            "horizon": plan.horizon,
            "seed": plan.seed,
            "identity": training_identity(config, self.settings.training.threads),
        }
        key = digest_of({**configuration, "learning_data": data.digest()})
        target = self.settings.training_dir / key
        found = {"training_key": key, "path": self.settings.relative(target), "reused": True}
        checkpoints = CheckpointFolder(self.settings.checkpoints_dir / key)
        if target.is_dir():
            self._check_found(target)
            checkpoints.remove()  # a kill may have come between the last two steps below
            return found
        with training_lock(self.settings.checkpoints_dir / f"{key}.lock", self.control.check):
            if target.is_dir():  # another process trained it while this one waited
                return found
            lineage = {
                **plan.model_dump(mode="json", exclude={"study"}),  # who asked for it is the run's
                **configuration,
                "training_key": key,
                "feature_version": self.request.feature_version,
            }
            self._train(lineage, data, checkpoints)
            target.parent.mkdir(parents=True, exist_ok=True)
            move_folder(self.folder.result, target)
            checkpoints.remove()
        return {**found, "reused": False}

    def _check_found(self, target: Path) -> None:
        try:
            verified_manifest(target / "model", VerifyingKeys.read(self.settings))
        except SignatureError as error:
            raise SignatureError(f"{error}; to train it anew, remove {target}") from None

    def _train(self, lineage: Mapping[str, Any], data: LearningData, checkpoints: CheckpointFolder) -> None:
        config, folder = self.request.config, self.folder.result
        with contextlib.redirect_stdout(io.StringIO()):  # Qlib prints which optional models it lacks
            family = find_family(config.family)()
        links = Links(self.journal.append, self.control, checkpoints)
        session = TrainingSession(config, threads=self.settings.training.threads, links=links)
        session.stage("process")
        processors = fit_processors(data, config.feature_processors)
        problem = learning_problem(data.watched(config.stopping.valid_share), processors, config.label_processor)
        model_folder = folder / "model"
        model_folder.mkdir(parents=True)

        def learn() -> tuple[FitResult, Conclusion]:
            session.stage("fit")
            result = family.fit(problem, session)
            conclusion = session.conclude()
            session.stage("save")
            family.save(model_folder)
            return result, conclusion

        scratch, writable = self.folder.path / "scratch", [self.folder.path, checkpoints.folder]
        confinement = Confinement.of(self.settings)
        result, conclusion = confinement.learn(config.class_path, learn, scratch, writable)
        write_json(model_folder / PROCESSORS, processors.to_json())
        names = (
            "training_key",
            "model",
            "feature_set",
            "feature_version",
            "data_version",
            "horizon",
            "segments",
            "seed",
        )
        manifest = {name: lineage[name] for name in names}
        manifest |= {"family": config.family, "class_path": config.class_path, "window": config.window}
        own = {} if (source := own_source(config.class_path)) is None else {OWN_SOURCE: source}
        seal(
            model_folder,
            {**manifest, **own, "feature_names": list(data.features.columns)},
            self.key,
        )
        session.stage("predict")
        artefact = ModelArtefact.load(model_folder, Trust.of(self.settings), self.settings.training.threads)
        predictions = predict_segments(artefact, data)
        predictions.to_parquet(folder / "predictions.parquet", index=False)
        write_json(folder / "plan.json", dict(lineage))
        write_json(folder / "curves.json", session.curves())
        write_json(folder / "importance.json", result.importance)
        write_json(
            folder / "metrics.json",
            {
                "run_id": self.folder.run_id,
                "best_iteration": result.best_iteration,
                "fit": conclusion.to_json(),
                "train_seconds": round(session.seconds, 3),
                **used_so_far(),
                "train_rows": int(data.label.iloc[data.rows("train")].notna().sum()),
                "valid_rows": int(data.label.iloc[data.rows("valid")].notna().sum()),
            },
        )

    def _stage(self, name: str) -> None:
        self.journal.append("stage", {"stage": name})
        self.control.check()
