"""Models that are trained to be measured and thrown away: the trials of a search, the folds of a cross-validation."""

import contextlib
import io
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mlops_tasks.config import Settings
from mlops_tasks.files import write_json
from mlops_tasks.modeling.artefact import ModelArtefact
from mlops_tasks.modeling.configuration import TrainingConfig
from mlops_tasks.modeling.isolation import IsolatedPredictor
from mlops_tasks.modeling.model_zoo.family import FitResult, find_family
from mlops_tasks.modeling.own_code import Confinement, called_from_outside
from mlops_tasks.modeling.problem import LearningProblem
from mlops_tasks.modeling.processors import FittedProcessors
from mlops_tasks.modeling.seal import MANIFEST
from mlops_tasks.modeling.session import Links, Observer, TrainingSession
from mlops_tasks.modeling.stopping import Conclusion


@dataclass(frozen=True)
class MeasuredModel:
    """A trained model, saved and loaded as the engine does; nothing of it is signed or verified."""

    artefact: ModelArtefact
    best_iteration: int
    conclusion: Conclusion
    """What is to be thought of its training."""


@contextlib.contextmanager
def measured_model(
    problem: LearningProblem,
    processors: FittedProcessors,
    config: TrainingConfig,
    settings: Settings,
    observers: Sequence[Observer] = (),
) -> Iterator[MeasuredModel]:
    """Train a configuration; its files are gone when the block ends. An own class is closed off (`own_code.py`).

    Parameters
    ----------
    processors
        With which the features of `problem` were made.
    observers
        Called with each iteration; what one raises ends the training and passes through.

    Raises
    ------
    TrainingError
        The training diverged, or an own class has tried to reach what it may not.
    IsolationError
        The class is a user's own, and cannot be closed off on this system.
    """
    with contextlib.redirect_stdout(io.StringIO()):  # Qlib prints which optional models it lacks
        family = find_family(config.family)()
    confinement, threads = Confinement.of(settings), settings.training.threads
    with tempfile.TemporaryDirectory(prefix="mlops_measured_") as name, called_from_outside(observers) as told:
        folder = Path(name, "model")
        folder.mkdir()
        session = TrainingSession(config, threads=threads, links=Links(observers=told))

        def learn() -> FitResult:
            result = family.fit(problem, session)
            family.save(folder)
            return result

        result = confinement.learn(config.class_path, learn, Path(name, "scratch"), [folder])
        about = {"family": config.family, "class_path": config.class_path, "window": config.window}
        manifest = {**about, "feature_names": list(problem.names)}
        write_json(folder / MANIFEST, manifest)
        predictor = confinement.predictor(folder, manifest, threads)
        artefact = ModelArtefact(folder, manifest, processors, predictor)
        try:
            yield MeasuredModel(artefact, result.best_iteration, session.conclude())
        finally:
            if isinstance(predictor, IsolatedPredictor):
                predictor.close()
