"""The training process: from a request to a training folder. `supervision.py` starts it and watches over it."""

import contextlib
import io
import logging
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlops_tasks.config import Settings
from mlops_tasks.errors import MlopsError, SignatureError, TrainingCancelledError
from mlops_tasks.files import digest_of, move_folder, write_json
from mlops_tasks.machine.resources import used_so_far
from mlops_tasks.modeling.artefact import PROCESSORS, ModelArtefact
from mlops_tasks.modeling.checkpoints import CheckpointFolder, training_lock
from mlops_tasks.modeling.column_health import ColumnHealth
from mlops_tasks.modeling.dataset import LearningData, fit_processors
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
from mlops_tasks.training.control import FileControl
from mlops_tasks.training.journal import Journal
from mlops_tasks.training.learning_source import LearningSource
from mlops_tasks.training.run_folder import FitRequest, RunFolder

log = logging.getLogger(__name__)

ENGINE_VERSION = 5
"""Raise it when the same plan would train another model: training keys depend on it."""


OUR_CLASSES = "mlops_tasks."
"""Beginning of the class paths that the library brings with it; its tests try them out."""


@dataclass(frozen=True)
class Fitted:
    """What a family's fit has given, and what is to be thought of it."""

    result: FitResult
    conclusion: Conclusion


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
            self._train(lineage, data.loaded, checkpoints)
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
        health = ColumnHealth.of(data.learned_features(), list(data.features.columns))
        for said in health.warnings():
            log.warning("%s", said)
        if config.class_path is not None and not config.class_path.startswith(OUR_CLASSES):
            self._try_out(lineage, data)
        links = Links(self.journal.append, self.control, checkpoints)
        session = TrainingSession(config, threads=self.settings.training.threads, links=links)
        writable = [self.folder.path, checkpoints.folder]
        fitted = self._fitted(folder / "model", lineage, data, session, writable)
        session.stage("predict")
        predictions = predict_segments(self._loaded(folder / "model"), data)
        predictions.to_parquet(folder / "predictions.parquet", index=False)
        write_json(folder / "plan.json", dict(lineage))
        write_json(folder / "curves.json", session.curves())
        write_json(folder / "importance.json", fitted.result.importance)
        write_json(folder / "columns.json", health.to_json())
        write_json(
            folder / "metrics.json",
            {
                "run_id": self.folder.run_id,
                "best_iteration": fitted.result.best_iteration,
                "fit": fitted.conclusion.to_json(),
                "train_seconds": round(session.seconds, 3),
                **used_so_far(),
                **health.metrics,
                "train_rows": int(data.label.iloc[data.rows("train")].notna().sum()),
                "valid_rows": int(data.label.iloc[data.rows("valid")].notna().sum()),
            },
        )

    def _try_out(self, lineage: Mapping[str, Any], data: LearningData) -> None:
        """Fit, save, load and score a class that is none of ours on a few days, before hours are spent on it.

        A class that cannot be fitted on so little is left to the training.

        Raises
        ------
        MlopsError
            What it has learned cannot be saved, loaded or scored with: the error that the training would end with.
        """
        config = self.request.config
        few = data.few_days(config.window, self.request.plan.horizon)
        once = {"epochs": 1} if "epochs" in config.hyperparameters else {}
        stages: list[str] = []
        links = Links(lambda kind, payload: stages.append(payload["stage"]) if kind == "stage" else None)
        small = config.model_copy(update={"hyperparameters": {**config.hyperparameters, **once}})
        session = TrainingSession(small, threads=self.settings.training.threads, links=links)
        with tempfile.TemporaryDirectory(prefix="tried_", dir=self.folder.path) as name:
            folder = Path(name, "model")
            try:
                self._fitted(folder, lineage, few, session, [Path(name)])
                predict_segments(self._loaded(folder), few)
            except MlopsError as error:
                if stages[-1] == "fit":
                    log.info("%s cannot be tried out on %d rows: %s", config.class_path, len(few.label), error)
                    return
                raise type(error)(
                    f"models.{config.model}: {config.class_path} was tried out on {len(few.label)} rows before the "
                    f"training: {error}"
                ) from error

    def _fitted(
        self,
        folder: Path,
        lineage: Mapping[str, Any],
        data: LearningData,
        session: TrainingSession,
        writable: Sequence[Path],
    ) -> Fitted:
        """Fit a model and leave its sealed artefact; an own class may write into `writable` while it learns."""
        config = session.config
        with contextlib.redirect_stdout(io.StringIO()):  # Qlib prints which optional models it lacks
            family = find_family(config.family)()
        session.stage("process")
        processors = fit_processors(data, config.feature_processors)
        problem = learning_problem(data.watched(config.stopping.valid_share), processors, config.label_processor)
        folder.mkdir(parents=True)

        def learn() -> Fitted:
            session.stage("fit")
            result = family.fit(problem, session)
            conclusion = session.conclude()
            session.stage("save")
            family.save(folder)
            return Fitted(result, conclusion)

        scratch = self.folder.path / "scratch"
        fitted = Confinement.of(self.settings).learn(config.class_path, learn, scratch, writable)
        write_json(folder / PROCESSORS, processors.to_json())
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
        seal(folder, {**manifest, **own, "feature_names": list(data.features.columns)}, self.key)
        return fitted

    def _loaded(self, folder: Path) -> ModelArtefact:
        return ModelArtefact.load(folder, Trust.of(self.settings), self.settings.training.threads)

    def _stage(self, name: str) -> None:
        self.journal.append("stage", {"stage": name})
        self.control.check()
