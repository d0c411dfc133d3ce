"""Any scikit-learn regressor, by class path.

Anything with its interface will do: `fit(X, y)`, `predict(X)`, parameters by keyword. So will a function that returns
one, such as a pipeline. Its files are estimator.skops and sklearn.json; there is no pickle. Types that skops or `DATA`
knows to be plain data are loaded anywhere. An estimator that holds other types, of scikit-learn, NumPy, SciPy or the
package that the class path names, runs their code: it is loaded in a process of its own, if the settings allow that.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import skops.io
from sklearn.base import is_regressor
from sklearn.utils import get_tags
from threadpoolctl import threadpool_limits

from mlops_tasks.errors import ConfigError, TrainingError, first_few
from mlops_tasks.files import read_json, write_json
from mlops_tasks.modeling.column_health import with_shares
from mlops_tasks.modeling.manifest import ArtefactManifest
from mlops_tasks.modeling.metrics import ValidationMetrics
from mlops_tasks.modeling.model_zoo.class_paths import make_configured
from mlops_tasks.modeling.model_zoo.family import FitResult, FloatArray, Predictor
from mlops_tasks.modeling.model_zoo.row_scores import check_alone, in_blocks
from mlops_tasks.modeling.model_zoo.skops_files import canonical
from mlops_tasks.modeling.problem import LearningProblem
from mlops_tasks.modeling.session import TrainingSession

MODEL_FILE, ABOUT = "estimator.skops", "sklearn.json"
TRUSTED = ("sklearn", "numpy", "scipy")
"""Packages whose types may be in a file."""
DATA = frozenset(
    [
        "collections.OrderedDict",
        "sklearn._loss.loss.HalfPoissonLoss",
        "sklearn._loss.loss.HalfTweedieLossIdentity",
        "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
        "sklearn.gaussian_process.kernels.ConstantKernel",
        "sklearn.gaussian_process.kernels.Product",
        "sklearn.gaussian_process.kernels.RBF",
        "sklearn.gaussian_process.kernels.Sum",
        "sklearn.gaussian_process.kernels.WhiteKernel",
        "sklearn.metrics._dist_metrics.EuclideanDistance64",
        "sklearn.neighbors._ball_tree.BallTree",
        "sklearn.neighbors._kd_tree.KDTree",
        "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
        "sklearn.tree._tree.Tree",
    ]
)
"""What scikit-learn's own regressors hold beyond the types that skops trusts by itself: numbers, not code."""
TRAIN_SAMPLE = 20_000
"""Rows of train that the loss is computed on: for some estimators scoring costs more than learning."""


class SklearnFamily:
    """Fits once; one iteration is reported, so that its metrics are among the events like those of other families."""

    estimator: Any
    class_path: str

    def fit(self, problem: LearningProblem, session: TrainingSession) -> FitResult:
        """Learn on the rows of train that have a label; the seed and the threads are the session's.

        Raises
        ------
        ConfigError
            The class path does not name a regressor, or its class does not take the hyper-parameters or missing values.
        TrainingError
            A row's score depends on the rows beside it.
        """
        config = session.config
        self.estimator = make_configured(config)
        self.class_path = config.class_path or ""
        _check_regressor(self.estimator, config.model, self.class_path, problem)
        _set_everywhere(self.estimator, "random_state", session.seed, config.hyperparameters)
        _set_everywhere(self.estimator, "n_jobs", session.threads, config.hyperparameters)
        train, metrics = problem.learned(problem.train), ValidationMetrics(problem)
        session.expect(1)
        try:
            with threadpool_limits(session.threads):
                self.estimator.fit(problem.features[train], problem.label[train])
        except (ValueError, TypeError) as error:
            raise ConfigError(
                f"hyperparameters.{config.model}: {self.class_path} cannot be fitted: {error}; correct them"
            ) from error
        _set_everywhere(self.estimator, "n_jobs", 1, {})  # sums over several threads have no fixed order
        sample = train[np.unique(np.linspace(0, len(train) - 1, TRAIN_SAMPLE).round().astype(np.int64))]
        misses = self._score(problem.features[sample], session.threads) - problem.label[sample]
        watched = problem.features[metrics.rows]
        scores = self._score(watched, session.threads)
        check_alone(self.estimator.predict, watched, scores)
        session.iteration(1, {"train.loss": float(np.mean(misses**2)), **metrics.evaluate(scores)})
        return FitResult(1, _importance(self.estimator, problem.names))

    def _score(self, features: FloatArray, threads: int) -> FloatArray:
        return SklearnPredictor(self.estimator, threads).predict(features)

    def save(self, folder: Path) -> None:
        """Write estimator.skops and sklearn.json.

        Raises
        ------
        TrainingError
            The estimator cannot be saved, or holds objects of other packages' types, which cannot be loaded again.
        """
        try:
            content = canonical(skops.io.dumps(self.estimator))
        except Exception as error:  # whatever the estimator's own objects raise when they are taken apart
            raise TrainingError(f"{self.class_path}: skops cannot save it: {type(error).__name__}: {error}") from error
        foreign = _foreign(skops.io.get_untrusted_types(data=content), self.class_path)
        if foreign:
            raise TrainingError(
                f"{self.class_path}: holds {', '.join(foreign)}, from another package than its own; only types of "
                f"{', '.join(TRUSTED)} and its own package can be loaded again: keep others out of its attributes"
            )
        (folder / MODEL_FILE).write_bytes(content)
        write_json(folder / ABOUT, {"class_path": self.class_path})

    @classmethod
    def load(cls, folder: Path, manifest: ArtefactManifest, threads: int) -> Predictor:
        """The estimator.

        Raises
        ------
        TrainingError
            The file holds types of other packages.
        """
        class_path = read_json(folder / ABOUT)["class_path"]
        content = (folder / MODEL_FILE).read_bytes()
        types = skops.io.get_untrusted_types(data=content)
        if foreign := _foreign(types, class_path):
            raise TrainingError(
                f"{folder / MODEL_FILE}: holds {', '.join(foreign)}, of packages that are not trusted; train again"
            )
        return SklearnPredictor(skops.io.loads(content, trusted=types), threads)

    @classmethod
    def runs_code(cls, folder: Path) -> bool:
        """Whether the estimator holds types that are more than data."""
        return not DATA.issuperset(skops.io.get_untrusted_types(data=(folder / MODEL_FILE).read_bytes()))

    @classmethod
    def memory_bytes(cls, hyperparameters: Mapping[str, Any], rows: int, features: int) -> int:
        """The learning rows, their copy in float64, and the trees of a forest, if it is one."""
        return rows * features * (4 + 8) + _tree_bytes(hyperparameters, rows)


class SklearnPredictor:
    """An estimator that scores."""

    def __init__(self, estimator: Any, threads: int) -> None:
        self.estimator, self.threads = estimator, threads

    def predict(self, features: FloatArray) -> FloatArray:
        """Shape (n,)."""
        with threadpool_limits(self.threads):
            return in_blocks(self.estimator.predict, features)


def _check_regressor(estimator: Any, model: str, class_path: str, problem: LearningProblem) -> None:
    if not (hasattr(estimator, "fit") and hasattr(estimator, "predict") and is_regressor(estimator)):
        raise ConfigError(
            f"models.{model}.class_path: {class_path} is not a scikit-learn regressor; give the class of one, or for a "
            "classifier the regressor of its kind: a score ranks, it is not a class"
        )
    if get_tags(estimator).input_tags.allow_nan:
        return
    missing = dict(zip(problem.names, np.isnan(problem.features).mean(axis=0).tolist(), strict=True))
    found = with_shares({name: share for name, share in missing.items() if share})
    if found:
        raise ConfigError(
            f"models.{model}.feature_processors: {class_path} cannot take missing values, and {len(found)} of "
            f"{len(missing)} features have some: {first_few(found)}; set "
            "[robust_zscore_fill_zero]"
        )


def _set_everywhere(estimator: Any, name: str, value: Any, given: Mapping[str, Any]) -> None:
    """Set a parameter of the estimator and of those within it, except where the hyper-parameters set it."""
    found = [path for path in estimator.get_params(deep=True) if path.rpartition("__")[2] == name]
    estimator.set_params(**{path: value for path in found if given.get(path) is None})


def _foreign(types: Sequence[str], class_path: str) -> list[str]:
    packages = {*TRUSTED, class_path.partition(":")[0].partition(".")[0]}
    return [name for name in types if name not in DATA and name.partition(".")[0] not in packages]


def _importance(estimator: Any, names: Sequence[str]) -> dict[str, float]:
    """The estimator's own, or the sizes of its coefficients; empty where it has neither."""
    for attribute in ("feature_importances_", "coef_"):
        values = np.abs(np.ravel(getattr(estimator, attribute, [])))
        if len(values) == len(names):
            return dict(zip(names, map(float, values), strict=True))
    return {}


def _tree_bytes(hyperparameters: Mapping[str, Any], rows: int) -> int:
    """About 100 bytes per node and two nodes per leaf; 0 for estimators without `n_estimators`."""
    leaf = hyperparameters.get("min_samples_leaf") or 1
    leaves = rows / leaf if leaf >= 1 else 1 / leaf
    if hyperparameters.get("max_depth"):
        leaves = min(leaves, 2.0 ** min(64, hyperparameters["max_depth"]))
    if hyperparameters.get("max_leaf_nodes"):
        leaves = min(leaves, hyperparameters["max_leaf_nodes"])
    return math.ceil(200 * leaves * (hyperparameters.get("n_estimators") or 0))
