"""Scores of single rows from third-party models, which see a matrix: a row's score must not depend on other rows."""

from collections.abc import Callable

import numpy as np

from mlops_tasks.errors import TrainingError
from mlops_tasks.modeling.windows import FloatArray

BLOCK = 1024
"""Rows that a model is given at once. Always this many: the order of sums in a product may depend on the row count."""
SAMPLE = 256
TOLERANCE = 1e-4
"""Of the spread of the scores: float32 sums in another order differ by less."""

Predict = Callable[[FloatArray], FloatArray]


def in_blocks(predict: Predict, features: FloatArray) -> FloatArray:
    """Scores, float64, shape (n,), of rows given to `predict` in blocks of equal size, the last one padded.

    Raises
    ------
    TrainingError
        The model does not give exactly one number per row.
    """
    scores = np.empty(len(features))
    for begin in range(0, len(features), BLOCK):
        part = features[begin : begin + BLOCK]
        full = np.zeros((BLOCK, features.shape[1]), dtype=np.float32)
        full[: len(part)] = part
        found = np.asarray(predict(full))
        if found.shape not in ((BLOCK,), (BLOCK, 1)):
            raise TrainingError(f"the model gives scores of shape {found.shape} for {BLOCK} rows, not one per row")
        scores[begin : begin + len(part)] = found.reshape(BLOCK)[: len(part)]
    return scores


def check_alone(predict: Predict, features: FloatArray, together: FloatArray) -> None:
    """Check on a sample that rows score the same among other rows.

    Parameters
    ----------
    features, together
        Rows, and the model's scores of all of them at once.

    Raises
    ------
    TrainingError
        They do not: a model that ranks a row among its neighbours cannot score a single name.
    """
    sample = np.unique(np.linspace(0, len(features) - 1, SAMPLE).round().astype(np.int64))
    alone = in_blocks(predict, np.ascontiguousarray(features[sample[::-1]]))[::-1]
    largest = float(np.nanmax(np.abs(alone - together[sample]), initial=0.0))
    spread = float(np.nanstd(together)) or 1.0
    if largest > TOLERANCE * spread:
        raise TrainingError(
            f"the model's score of a row depends on the rows beside it (by {largest / spread:.2g} standard deviations "
            "of its scores), but it must score single names; use a model that looks at one row at a time"
        )
