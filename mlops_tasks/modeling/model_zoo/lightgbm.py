"""LightGBM: gradient boosted trees (Ke et al., NIPS 2017).

A training that continues from a checkpoint ends with the same bytes as an uninterrupted one: scores are sums of the
same leaves in the same order, and the generator that draws columns is set to the state that it would have
(`seed_after`).
"""

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np

from mlops_tasks.files import write_text
from mlops_tasks.modeling.manifest import ArtefactManifest
from mlops_tasks.modeling.model_zoo.boosting import RoundMetrics, kept_round
from mlops_tasks.modeling.model_zoo.family import FitResult, FloatArray, Predictor
from mlops_tasks.modeling.model_zoo.forest import forest_of, sum_trees
from mlops_tasks.modeling.model_zoo.forest_kernel import Forest
from mlops_tasks.modeling.model_zoo.memory import lightgbm_bytes
from mlops_tasks.modeling.problem import LearningProblem
from mlops_tasks.modeling.session import Restored, TrainingSession

MODEL_FILE = "model.txt"
QUICK_TREES = 1000
"""The most trees with which a row is scored in about a tenth of a millisecond."""

_SEED = re.compile(r"^\[feature_fraction_seed: (-?\d+)\]$", re.MULTILINE)
_ROUNDS = re.compile(r"^\[num_iterations: \d+\]$", re.MULTILINE)
_COLUMNS = re.compile(r"^feature_infos=(.*)$", re.MULTILINE)


class LightGBMFamily:
    """Boosting as Qlib's `LGBModel` configures it."""

    booster: Any
    """Cut at the best round, and always read from text: in memory, gains have more digits unless training resumed."""

    def fit(self, problem: LearningProblem, session: TrainingSession) -> FitResult:
        """Boost until the session says stop; keep the best round."""
        metrics, rows = RoundMetrics(problem, session), problem.learned(problem.train)
        rounds = int(session.config.hyperparameters["num_boost_round"])
        start = _Start.of(session, rounds)
        learn = lightgbm.Dataset(problem.features[rows], problem.label[rows], params=dict(start.params))
        if start.booster is None:  # otherwise its scores of these rows are needed first
            learn.construct()  # binned, so that this copy is gone before the next one is made
        rows = metrics.valid.rows
        watch = lightgbm.Dataset(problem.features[rows], problem.label[rows], reference=learn)
        session.expect(rounds)
        booster = start.booster
        if start.done < rounds and not session.monitor.stopped:
            report = _Report(session, metrics, learn, watch, start)
            booster = lightgbm.train(
                start.params,
                learn,
                num_boost_round=rounds - start.done,
                valid_sets=[learn, watch],
                valid_names=["train", "valid"],
                init_model=booster,
                keep_training_booster=True,
                callbacks=[report],
            )
        best = kept_round(session)
        self.booster = lightgbm.Booster(model_str=start.model_text(booster, best))
        gains = self.booster.feature_importance("gain")
        return FitResult(best, dict(zip(problem.names, map(float, gains), strict=True)))

    def save(self, folder: Path) -> None:
        """Write model.txt, cut at the best round."""
        write_text(folder / MODEL_FILE, self.booster.model_to_string())

    @classmethod
    def load(cls, folder: Path, manifest: ArtefactManifest, threads: int) -> Predictor:
        """Trees in LightGBM's text format."""
        return LightGBMPredictor(folder / MODEL_FILE, threads)

    @classmethod
    def runs_code(cls, folder: Path) -> bool:
        """Text of trees."""
        return False

    @classmethod
    def memory_bytes(cls, hyperparameters: Mapping[str, Any], rows: int, features: int) -> int:
        """See `memory.py`."""
        return lightgbm_bytes(hyperparameters, rows, features)


@dataclass(frozen=True)
class _Start:
    """Where a training begins: at its first round, or after a checkpoint."""

    params: Mapping[str, Any]
    rounds: int
    """The most rounds of the whole training."""
    done: int = 0
    booster: Any = None
    seed: str = ""
    """The seed that columns were drawn with from the first round on, if the resumed training uses another one."""

    @classmethod
    def of(cls, session: TrainingSession, rounds: int) -> "_Start":
        """After the newest checkpoint, or at the beginning."""
        params = dict(session.config.hyperparameters)
        del params["num_boost_round"]
        params |= {"objective": params.pop("loss"), "verbosity": -1, "seed": session.seed}
        params |= {"num_threads": session.threads, "deterministic": True, "force_row_wise": True}
        restored = session.restore()
        return cls(params, rounds) if restored is None else cls._behind(restored, params, rounds)

    @classmethod
    def _behind(cls, restored: Restored, params: dict[str, Any], rounds: int) -> "_Start":
        text = (restored.folder / MODEL_FILE).read_text()
        done, share = restored.iteration, float(params["colsample_bytree"])
        seed = _found(_SEED, text)
        params["feature_fraction_seed"] = seed_after(done, int(seed), draws_per_round(text, share))
        return cls(params, rounds, done, lightgbm.Booster(model_str=text), seed)

    def model_text(self, booster: Any, rounds: int = -1) -> str:
        """The text of a model as if it had been trained without interruption; cut at a round, or whole."""
        text = _ROUNDS.sub(f"[num_iterations: {self.rounds}]", booster.model_to_string(num_iteration=rounds))
        return _SEED.sub(f"[feature_fraction_seed: {self.seed}]", text) if self.seed else text


class _Report:
    """What LightGBM calls after each round."""

    def __init__(self, session: TrainingSession, metrics: RoundMetrics, learn: Any, watch: Any, start: _Start) -> None:
        self._session, self._metrics, self._start = session, metrics, start
        self._learn, self._watch = learn, watch
        self._done = start.done

    def __call__(self, env: Any) -> None:
        """LightGBM's callback."""
        self._done += 1
        found = [*env.evaluation_result_list, *self._ics(env.model)]
        values = {f"{segment}.{'loss' if name == 'l2' else name}": value for segment, name, value, _ in found}
        self._session.iteration(self._done, values)
        self._session.checkpoint(
            self._done, lambda folder: write_text(folder / MODEL_FILE, self._start.model_text(env.model))
        )
        if self._session.monitor.stopped:
            raise lightgbm.callback.EarlyStopException(self._session.best_iteration - 1, env.evaluation_result_list)

    def _ics(self, booster: Any) -> Iterator[tuple[str, str, float, bool]]:
        """ICs of the segments for which one is due now.

        They are not the `feval` of `lightgbm.train`, for which LightGBM would copy the scores of both segments each
        time: at 40 ns a row that is a twentieth of a round of small trees.
        """
        metrics, done = self._metrics, self._done
        yield from booster.eval(self._watch, "valid", _as_feval(lambda scores: metrics.ics(done, scores)))
        if metrics.compares_train_ics:
            yield from booster.eval(self._learn, "train", _as_feval(metrics.train_ics))


def _as_feval(metrics: Callable[[FloatArray], Mapping[str, float]]) -> Callable[[FloatArray, Any], list[Any]]:
    """A function that LightGBM calls with scores and their dataset, for metrics that are better when larger."""
    return lambda scores, _: [(name, value, True) for name, value in metrics(scores).items()]


def seed_after(rounds: int, seed: int, draws: int) -> int:
    """The `feature_fraction_seed` with which a booster draws what another one draws after this many rounds.

    LightGBM draws the columns of a tree with the linear congruential generator x <- 214013 x + 2531011 modulo 2^32,
    whose first state is the seed (include/LightGBM/utils/random.h). Steps compose, so any number of them takes about
    thirty multiplications.

    Parameters
    ----------
    draws
        Steps of the generator in a round.
    """
    factor, summand, steps = 214013, 2531011, rounds * draws
    state = seed
    while steps:
        if steps & 1:
            state = (factor * state + summand) % 2**32
        factor, summand = factor * factor % 2**32, (factor + 1) * summand % 2**32
        steps >>= 1
    return state - 2**32 if state >= 2**31 else state


def draws_per_round(text: str, share: float) -> int:
    """Steps of the generator in a round (`Random::Sample`, src/treelearner/col_sampler.hpp), from a model's text.

    Columns with a single value take no part.
    """
    columns = sum(info != "none" for info in _found(_COLUMNS, text).split(" "))
    drawn = max(math.floor(columns * share + 0.5), min(1, columns))
    if share >= 1 or drawn == columns:
        return 0
    return columns if drawn > 1 and drawn > columns / math.log2(drawn) else drawn


def _found(pattern: re.Pattern[str], text: str) -> str:
    found = pattern.search(text)
    assert found is not None, f"LightGBM's text has no {pattern.pattern}"
    return found[1]


@dataclass(frozen=True)
class LightGBMPredictor:
    """Trees, cut at the best round when they were saved."""

    path: Path
    threads: int

    @cached_property
    def booster(self) -> Any:
        """The loaded booster."""
        return lightgbm.Booster(model_file=str(self.path))

    @cached_property
    def forest(self) -> Forest | None:
        """The trees for the kernel; None where LightGBM itself has to predict."""
        return forest_of(self.path.read_text())

    @property
    def is_quick(self) -> bool:
        """Whether a row is scored in a fraction of a millisecond."""
        return self.forest is not None and self.forest.trees <= QUICK_TREES

    def predict(self, features: FloatArray) -> FloatArray:
        """Sum of the trees; shape (n,)."""
        forest = self.forest
        if forest is not None and features.dtype == np.float32 and features.shape[1] == forest.columns:
            return sum_trees(forest, features)
        scores: FloatArray = np.asarray(self.booster.predict(features, num_threads=self.threads))
        return scores
