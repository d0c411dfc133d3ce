"""Contributions as means over draws, with what the drawing leaves open."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Sampled:
    """Means over draws.

    Attributes
    ----------
    values
        Shape (n, features).
    variances
        Squares of the values' standard errors, same shape; NaN with a single draw.
    """

    values: Floats
    variances: Floats

    @classmethod
    def of_sums(cls, total: Floats, squares: Floats, draws: int) -> "Sampled":
        """From the sums, over the draws, of what each gives and of its square; both of shape (n, features)."""
        mean = total / draws
        if draws < 2:
            return cls(mean, np.full(mean.shape, np.nan))
        return cls(mean, np.maximum(squares / draws - mean**2, 0.0) / (draws - 1))

    @classmethod
    def joined(cls, parts: Sequence["Sampled"], features: int) -> "Sampled":
        """One below the other."""
        if not parts:
            return cls(np.empty((0, features)), np.empty((0, features)))
        return cls(np.concatenate([part.values for part in parts]), np.concatenate([part.variances for part in parts]))

    def first(self, count: int) -> "Sampled":
        """The first rows."""
        return Sampled(self.values[:count], self.variances[:count])

    def error(self) -> Floats:
        """Standard error of each feature's values, as the root mean square over the rows; shape (features,)."""
        if not len(self.variances):
            return np.full(self.variances.shape[1], np.nan)
        found: Floats = np.sqrt(self.variances.mean(axis=0))
        return found
