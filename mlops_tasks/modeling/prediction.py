"""Scores of the evaluated segments, by a saved artefact."""

import numpy as np
import pandas as pd

from mlops_tasks.columns import DATETIME, INSTRUMENT, LABEL, SCORE, SEGMENT
from mlops_tasks.errors import TrainingError
from mlops_tasks.modeling.artefact import ModelArtefact
from mlops_tasks.modeling.dataset import LearningData


def predict_segments(artefact: ModelArtefact, data: LearningData) -> pd.DataFrame:
    """Scores of valid and test through the saved artefact, so that training and serving agree by construction.

    For data without a test segment, as in a search, there are only scores of valid.

    Raises
    ------
    TrainingError
        A score is not finite.
    """
    parts = []
    for segment in (name for name in ("valid", "test") if name in data.segments):
        scores = artefact.score(data.scoring_rows(segment))
        part = pd.DataFrame(
            {
                DATETIME: scores.index.get_level_values(DATETIME),
                INSTRUMENT: scores.index.get_level_values(INSTRUMENT),
                SEGMENT: segment,
                SCORE: scores.to_numpy(),
                LABEL: data.label.to_numpy()[data.scored(segment)],
            }
        )
        parts.append(part)
    predictions = pd.concat(parts, ignore_index=True)
    if not np.isfinite(predictions[SCORE]).all():
        raise TrainingError(
            "the trained model gives some rows a score that is not finite; check the features and hyper-parameters"
        )
    return predictions
