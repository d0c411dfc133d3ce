"""How a configuration becomes a model that scores: process, fit, save, load; always by the same steps.

A training, the trials of a search and the folds of a cross-validation differ in what they learn from, in their
observers, and in the fate of the artefact: a training's is signed, the others are thrown away (`throwaway_model`).
"""

import contextlib
import io
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mlops_tasks.config import Settings
from mlops_tasks.errors import MlopsError
from mlops_tasks.files import write_json
from mlops_tasks.modeling.artefact import PROCESSORS, ModelArtefact
from mlops_tasks.modeling.configuration import TrainingConfig
from mlops_tasks.modeling.dataset import LearningData, fit_processors
from mlops_tasks.modeling.environment import Environment
from mlops_tasks.modeling.identity import own_source
from mlops_tasks.modeling.isolation import IsolatedPredictor
from mlops_tasks.modeling.manifest import ArtefactManifest, Origin
from mlops_tasks.modeling.model_zoo.family import FitResult, find_family
from mlops_tasks.modeling.own_code import Confinement, called_from_outside
from mlops_tasks.modeling.prediction import predict_segments
from mlops_tasks.modeling.problem import LearningProblem, learning_problem
from mlops_tasks.modeling.processors import FittedProcessors
from mlops_tasks.modeling.seal import MANIFEST, seal
from mlops_tasks.modeling.session import Links, Observer, TrainingSession
from mlops_tasks.modeling.stopping import Conclusion
from mlops_tasks.modeling.trust import Trust
from mlops_tasks.signing import SigningKey


@dataclass(frozen=True)
class Prepared:
    """What one model learns from: learning data, and the learning problem made by processing them."""

    data: LearningData
    processors: FittedProcessors
    """Fitted on segment train."""
    problem: LearningProblem

    @classmethod
    def of(cls, data: LearningData, config: TrainingConfig) -> "Prepared":
        """Process data for a configuration: train is learned from, `stopping.valid_share` of valid is watched."""
        processors = fit_processors(data, config.feature_processors)
        problem = learning_problem(data.watched(config.stopping.valid_share), processors, config.label_processor)
        return cls(data, processors, problem)


@dataclass(frozen=True)
class Fitted:
    """The results of a fit besides the artefact."""

    result: FitResult
    conclusion: Conclusion
    """The verdict on the training."""


@dataclass(frozen=True)
class Stamp:
    """What an artefact needs so that others load it: a statement of its origin, and a signer."""

    origin: Origin
    key: SigningKey


@dataclass(frozen=True)
class ModelFitting:
    """Fits models of one configuration, and loads them.

    Attributes
    ----------
    workplace
        A folder for files that a user's own class writes while it learns.
    stamp
        None: artefacts are thrown away, and are neither signed nor verified.
    writable
        Further folders that a user's own class may write to while it learns.
    """

    settings: Settings
    config: TrainingConfig
    workplace: Path
    stamp: Stamp | None = None
    writable: Sequence[Path] = field(default=())

    def fit(self, prepared: Prepared, session: TrainingSession, folder: Path) -> Fitted:
        """Fit a model, and leave its artefact in a new folder.

        Raises
        ------
        TrainingError
            The training diverged, or a user's own class tried to reach what it may not.
        IsolationError
            The class is a user's own, and cannot be closed off on this system.
        TrainingCancelledError
            Somebody cancelled it.
        """
        with contextlib.redirect_stdout(io.StringIO()):  # Qlib prints which optional models it lacks
            family = find_family(self.config.family)()
        folder.mkdir(parents=True)

        def learn() -> Fitted:
            session.stage("fit")
            result = family.fit(prepared.problem, session)
            conclusion = session.conclude()
            session.stage("save")
            family.save(folder)
            return Fitted(result, conclusion)

        scratch = self.workplace / "scratch"
        confinement = Confinement.of(self.settings)
        fitted = confinement.learn(self.config.class_path, learn, scratch, [folder, *self.writable])
        write_json(folder / PROCESSORS, prepared.processors.to_json())
        self._describe(folder, prepared.problem.names)
        return fitted

    def load(self, folder: Path) -> ModelArtefact:
        """The model that `fit` saved. Errors as for `ModelArtefact.load`."""
        threads = self.settings.training.threads
        if self.stamp is not None:
            return ModelArtefact.load(folder, Trust.of(self.settings), threads)
        return ModelArtefact.unsealed(folder, Confinement.of(self.settings), threads)

    def try_out(self, data: LearningData, horizon: int) -> str | None:
        """Fit, save, load and score on a few days, so that no hours are lost on a class that cannot be saved.

        Returns
        -------
        None, or the reason why the class cannot be fitted on so few rows, which the training will have to show.

        Raises
        ------
        MlopsError
            The model cannot be saved, loaded or scored with: the error that the training would end with.
        """
        few = data.few_days(self.config.window, horizon)
        once = {"epochs": 1} if "epochs" in self.config.hyperparameters else {}
        small = self.config.model_copy(update={"hyperparameters": {**self.config.hyperparameters, **once}})
        stages: list[str] = []
        links = Links(lambda kind, payload: stages.append(payload["stage"]) if kind == "stage" else None)
        session = TrainingSession(small, threads=self.settings.training.threads, links=links)
        with tempfile.TemporaryDirectory(prefix="tried_", dir=self.workplace) as name:
            folder = Path(name, "model")
            tried = ModelFitting(self.settings, small, self.workplace, self.stamp, (Path(name),))
            try:
                session.stage("process")
                tried.fit(Prepared.of(few, small), session, folder)
                predict_segments(tried.load(folder), few)
            except MlopsError as error:
                if stages[-1] == "fit":
                    return f"on {len(few.label)} rows: {error}"
                raise type(error)(
                    f"models.{self.config.model}: {self.config.class_path} was tried out on {len(few.label)} rows "
                    f"before the training: {error}"
                ) from error
        return None

    def _describe(self, folder: Path, names: Sequence[str]) -> None:
        """Write model.json, signed where there is a stamp."""
        config = self.config
        manifest: ArtefactManifest = {
            "family": config.family,
            "class_path": config.class_path,
            "window": config.window,
            "feature_names": list(names),
        }
        if self.stamp is None:
            write_json(folder / MANIFEST, manifest)
            return
        if (source := own_source(config.class_path)) is not None:
            manifest["own_source"] = source
        manifest["environment"] = Environment.of_family(config.family).to_json()
        seal(folder, {**self.stamp.origin, **manifest}, self.stamp.key)


@dataclass(frozen=True)
class ThrowawayModel:
    """A trained model, saved and loaded as in a training, but neither signed nor verified."""

    artefact: ModelArtefact
    best_iteration: int
    conclusion: Conclusion
    """The verdict on its training."""


@contextlib.contextmanager
def throwaway_model(
    prepared: Prepared, config: TrainingConfig, settings: Settings, observers: Sequence[Observer] = ()
) -> Iterator[ThrowawayModel]:
    """Train a configuration to measure it; its files are gone when the block ends. Errors as for `ModelFitting.fit`.

    Parameters
    ----------
    observers
        Called with each iteration; an error that one raises ends the training and passes through.
    """
    with tempfile.TemporaryDirectory(prefix="mlops_measured_") as name, called_from_outside(observers) as told:
        folder, fitting = Path(name, "model"), ModelFitting(settings, config, Path(name))
        session = TrainingSession(config, threads=settings.training.threads, links=Links(observers=told))
        fitted = fitting.fit(prepared, session, folder)
        artefact = fitting.load(folder)
        try:
            yield ThrowawayModel(artefact, fitted.result.best_iteration, fitted.conclusion)
        finally:
            if isinstance(artefact.predictor, IsolatedPredictor):
                artefact.predictor.close()
