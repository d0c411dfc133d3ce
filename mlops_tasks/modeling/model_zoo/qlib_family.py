"""Any model of Qlib, by class path: one of `qlib.contrib.model`, or your own subclass of `qlib.model.base.Model`.

It is fitted on a `DatasetH` with segments train and valid, and scores one in which each row has a day and an instrument
of its own, so that no row can be ranked among its neighbours.

Its files are model.pkl and qlib.json. **The model is pickled**, because there is no other way to store any object of
Qlib, and a pickle runs code when it is loaded. So it is read only if `models.unpickling_families` names this family,
only from a signed artefact, in a process of its own (`isolation.py`), and only if its SHA-256 is the one in qlib.json:
only the bytes that were trained are loaded.
"""

import contextlib
import hashlib
import inspect
import pickle
import random
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from mlops_tasks.columns import DATETIME, INSTRUMENT, LABEL
from mlops_tasks.errors import ConfigError, DigestMismatchError, TrainingError
from mlops_tasks.files import read_json, write_json
from mlops_tasks.modeling.manifest import ArtefactManifest
from mlops_tasks.modeling.metrics import ValidationMetrics
from mlops_tasks.modeling.model_zoo.class_paths import import_class, make_configured
from mlops_tasks.modeling.model_zoo.family import FitResult, FloatArray, Predictor
from mlops_tasks.modeling.model_zoo.row_scores import check_alone, in_blocks
from mlops_tasks.modeling.problem import LearningProblem
from mlops_tasks.modeling.session import TrainingSession

MODEL_FILE, ABOUT = "model.pkl", "qlib.json"
SEGMENT = "test"


class QlibFamily:
    """Fits once, by Qlib's own code; its iterations cannot be seen, so one is reported, at the end."""

    model: Any
    class_path: str

    def fit(self, problem: LearningProblem, session: TrainingSession) -> FitResult:
        """Fit on the problem as a `DatasetH`.

        The session's seed goes to the global generators, and to the class's own parameter `seed`, where it names one.

        Raises
        ------
        ConfigError
            The class path does not name a Qlib model, or its class does not take the hyper-parameters.
        TrainingError
            Qlib's code fails, or a row's score depends on the rows beside it.
        """
        from qlib.model.base import Model

        config = session.config
        with quiet_recorder(), _seeded(session.seed):
            self.model = make_configured(config, **_own_seed(config.class_path, session.seed))
            self.class_path = config.class_path or ""
            if not isinstance(self.model, Model):
                raise ConfigError(
                    f"models.{config.model}.class_path: {self.class_path} is not a qlib.model.base.Model; give the "
                    "class of one"
                )
            session.expect(1)
            try:
                with threadpool_limits(session.threads):
                    self.model.fit(problem.dataset)
                together = np.asarray(self.model.predict(problem.dataset, segment="valid"), dtype=np.float64).ravel()
            except Exception as error:
                raise TrainingError(
                    f"{self.class_path}: Qlib's own code failed: {type(error).__name__}: {error}; look at "
                    f"hyperparameters.{config.model}, and whether the class takes a DatasetH of one day's factors"
                ) from error
        if len(together) != problem.valid.stop - problem.valid.start:
            raise TrainingError(
                f"{self.class_path}: {len(together)} scores of the validation rows; one per row is needed"
            )
        score = _predictor(self.model, problem.names)
        check_alone(score, problem.features[problem.valid], together)
        metrics = ValidationMetrics(problem)
        session.iteration(1, metrics.evaluate(together[metrics.rows - problem.valid.start]))
        return FitResult(1)

    def save(self, folder: Path) -> None:
        """Write model.pkl and qlib.json.

        Raises
        ------
        TrainingError
            The model holds something that cannot be pickled.
        """
        self.model.config(dump_all=True)  # otherwise Qlib leaves out attributes that begin with an underscore
        try:
            content = pickle.dumps(self.model)
        except (pickle.PicklingError, TypeError, AttributeError) as error:
            raise TrainingError(f"{self.class_path}: the fitted model cannot be pickled: {error}") from error
        (folder / MODEL_FILE).write_bytes(content)
        write_json(folder / ABOUT, {"class_path": self.class_path, "sha256": hashlib.sha256(content).hexdigest()})

    @classmethod
    def load(cls, folder: Path, manifest: ArtefactManifest, threads: int) -> Predictor:
        """Load the model; the bytes that are unpickled are the ones whose digest was compared.

        Raises
        ------
        DigestMismatchError
            model.pkl is not what qlib.json recorded.
        """
        about = read_json(folder / ABOUT)
        content = (folder / MODEL_FILE).read_bytes()
        if hashlib.sha256(content).hexdigest() != about["sha256"]:
            raise DigestMismatchError(f"{folder / MODEL_FILE}: content is not what {ABOUT} recorded; train again")
        model = pickle.loads(content)  # noqa: S301  the bytes are those that were trained, see above
        return QlibPredictor(_predictor(model, manifest["feature_names"]))

    @classmethod
    def runs_code(cls, folder: Path) -> bool:
        """A pickle."""
        return True

    @classmethod
    def memory_bytes(cls, hyperparameters: Mapping[str, Any], rows: int, features: int) -> int:
        """The dataset's copies of the learning rows, and two of the model's own."""
        return rows * features * 4 * (3 + 2)


class QlibPredictor:
    """A model of Qlib that scores."""

    def __init__(self, score: Callable[[FloatArray], FloatArray]) -> None:
        self._score = score

    def predict(self, features: FloatArray) -> FloatArray:
        """Shape (n,)."""
        return in_blocks(self._score, features)


def dataset_of_rows(features: FloatArray, names: Any) -> Any:
    """A `DatasetH` with one segment, `test`: the rows, each with a day and an instrument of its own; no label."""
    from qlib.data.dataset import DatasetH
    from qlib.data.dataset.handler import DataHandlerLP
    from qlib.data.dataset.loader import StaticDataLoader

    days = pd.date_range("1990-01-01", periods=len(features), freq="D")
    index = pd.MultiIndex.from_arrays(
        [days, [f"R{number:06d}" for number in range(len(features))]], names=[DATETIME, INSTRUMENT]
    )
    columns = pd.MultiIndex.from_tuples([("feature", name) for name in names])
    frame = pd.DataFrame(features, index, columns)
    frame[(LABEL, "LABEL0")] = np.float32("nan")
    handler = DataHandlerLP(data_loader=StaticDataLoader(frame))
    return DatasetH(handler, segments={SEGMENT: (days[0], days[-1])})


def _predictor(model: Any, names: Any) -> Callable[[FloatArray], FloatArray]:
    def score(features: FloatArray) -> FloatArray:
        found = model.predict(dataset_of_rows(features, names), segment=SEGMENT)
        if isinstance(found, pd.Series | pd.DataFrame):
            found = found.sort_index()  # by day, which is the order of the rows
        return np.asarray(found, dtype=np.float64)

    return score


def _own_seed(class_path: str | None, seed: int) -> dict[str, int]:
    if class_path is None:
        return {}
    try:
        parameters = inspect.signature(import_class(class_path)).parameters
    except (TypeError, ValueError):
        return {}
    return {"seed": seed} if "seed" in parameters else {}


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed the generators that Qlib's models draw from."""
    import torch

    before = random.getstate(), np.random.get_state()
    random.seed(seed)
    np.random.seed(seed)
    try:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])


@contextlib.contextmanager
def quiet_recorder() -> Iterator[None]:
    """Replace Qlib's recorder, to which `LGBModel` and others log: it would leave runs and folders behind."""
    from qlib.workflow import R

    before, R._provider = R._provider, _NoRecorder()
    try:
        yield
    finally:
        R._provider = before


class _NoRecorder:
    """Takes every call of a recorder and forgets it."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *arguments, **named: None
