"""What the families of boosted trees share: the ICs of a round, and the choice of the round that is kept."""

import numpy as np

from mlops_tasks.errors import TrainingError
from mlops_tasks.modeling.metrics import TrainIC, ValidationMetrics
from mlops_tasks.modeling.model_zoo.family import FloatArray
from mlops_tasks.modeling.problem import LearningProblem
from mlops_tasks.modeling.session import TrainingSession

RANK_IC_EVERY = 5
"""Rounds between two rank ICs. One takes 30 ns a row (an IC 6 ns), and a round of small trees 200 ns."""


class RoundMetrics:
    """The metrics of both segments after each boosting round, from 1, except the losses of train.

    `valid.ic` is computed after every round. `valid.rank_ic` is computed after the first and every `RANK_IC_EVERY`-th
    round, or after all rounds if early stopping or the overfitting detector uses it. `train.ic` or `train.rank_ic` is
    computed after every round if the detector compares it (`compares_train_ics`).
    """

    def __init__(self, problem: LearningProblem, session: TrainingSession) -> None:
        self.valid = ValidationMetrics(problem)
        stopping = session.config.stopping
        self._train = TrainIC(problem, stopping.overfitting.metric, session.seed)
        self._places = np.searchsorted(problem.learned(problem.train), self._train.rows)
        self.compares_train_ics = stopping.overfitting.metric != "loss"
        watched = "rank_ic" in (stopping.metric, stopping.overfitting.metric)
        self._rank_ic_every = 1 if watched else RANK_IC_EVERY

    def ics(self, done: int, scores: FloatArray) -> dict[str, float]:
        """`ic` and, when due, `rank_ic` of scores of `valid.rows` after `done` rounds; NaN where no day has one."""
        found = {"ic": self.valid.ic(scores)}
        if done == 1 or done % self._rank_ic_every == 0:
            found["rank_ic"] = self.valid.rank_ic(scores)
        return found

    def train_ics(self, scores: FloatArray) -> dict[str, float]:
        """`ic` or `rank_ic`, if the overfitting detector compares it, of scores of all train rows with a label."""
        return self._train.evaluate(scores[self._places])


def kept_round(session: TrainingSession) -> int:
    """The round whose model is kept.

    Raises
    ------
    TrainingError
        No round is better than another: the watched metric never had a value.
    """
    if not session.best_iteration:
        raise TrainingError(
            f"{session.config.model}: valid {session.config.stopping.metric} was undefined in all "
            f"{len(session.history)} rounds, because all rows of a day score the same; weaken the penalties "
            f"(hyperparameters.{session.config.model}), or watch stopping.metric: loss"
        )
    return session.best_iteration
