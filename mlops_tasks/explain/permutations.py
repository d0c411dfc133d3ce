"""Models that are only asked for scores: Shapley values sampled over orders of the features.

A draw is a row of the background and an order of the features. Going from that row to the one that is explained, one
feature at a time, each feature is given the step of the score (Castro, Gomez and Tejada, "Polynomial calculation of the
Shapley value based on sampling", Computers & Operations Research 36, 2009; Strumbelj and Kononenko, JMLR 11, 2010).
Every draw is also gone in the reverse order, which takes out most of the noise (Mitchell et al., JMLR 23, 2022). The
steps of a draw add up to the whole way, so that there is no gap but rounding; what the drawing leaves open is the
standard error of the mean.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mlops_tasks.explain.sampled import Floats, Sampled
from mlops_tasks.modeling.windows import FloatArray

AT_ONCE = 1 << 22
"""Values of rows that the model is given at once: 16 MiB of float32."""


@dataclass(frozen=True)
class PermutationExplainer:
    """Explains any function of rows.

    Attributes
    ----------
    score
        From rows, shape (n, features), float32, to scores, shape (n,).
    background
        One row a draw, shape (draws, features), float32.
    seed
        Of the orders; all rows go through the same ones.
    """

    score: Callable[[FloatArray], FloatArray]
    background: FloatArray
    seed: int

    def base(self) -> float:
        """Mean score of the background."""
        return float(np.mean(self.score(self.background), dtype=np.float64))

    def contributions(self, inputs: FloatArray) -> Sampled:
        """Of each feature of rows, shape (n, features), and its standard error."""
        rng, features = np.random.default_rng(self.seed), inputs.shape[1]
        orders = [rng.permutation(features) for _ in self.background]
        width = max(1, AT_ONCE // (features * (features + 1)))
        parts = [inputs[begin : begin + width] for begin in range(0, len(inputs), width)]
        return Sampled.joined([self._of(part, orders) for part in parts], features)

    def _of(self, rows: FloatArray, orders: list[np.ndarray]) -> Sampled:
        total, squares = np.zeros(rows.shape), np.zeros(rows.shape)
        for baseline, order in zip(self.background, orders, strict=True):
            steps = (self._steps(rows, baseline, order) + self._steps(rows, baseline, order[::-1])) / 2
            total += steps
            squares += steps**2
        return Sampled.of_sums(total, squares, len(self.background))

    def _steps(self, rows: FloatArray, baseline: FloatArray, order: np.ndarray) -> Floats:
        """What each feature changes when it turns from the baseline's value to the row's, in this order."""
        count, features = rows.shape
        turned_at = np.empty(features, np.int64)
        turned_at[order] = np.arange(1, features + 1)
        known = np.arange(features + 1)[:, None] >= turned_at  # (steps, features)
        way = np.where(known[None], rows[:, None, :], baseline).astype(np.float32)
        scores = np.asarray(self.score(way.reshape(-1, features)), np.float64).reshape(count, features + 1)
        steps: Floats = np.diff(scores, axis=1)[:, turned_at - 1]
        return steps
