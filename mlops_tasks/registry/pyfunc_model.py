"""How MLflow's own `pyfunc.load_model` reads an artefact: through the same class as the rest of this project."""

from pathlib import Path
from typing import Any

import pandas as pd

from mlops_tasks.config import load_settings
from mlops_tasks.modeling.artefact import ModelArtefact
from mlops_tasks.modeling.trust import Trust


class PyfuncModel:
    """What MLflow calls: `predict(model_input, params)`."""

    def __init__(self, artefact: ModelArtefact) -> None:
        self.artefact = artefact

    def predict(self, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Scores of the rows, a frame with the one column `score` and the index of `model_input`."""
        return self.artefact.predict(model_input).to_frame()


def _load_pyfunc(path: str) -> PyfuncModel:
    """MLflow's entry point; `path` is the artefact folder, and the home that MLOPS_HOME names has the trusted keys."""
    return PyfuncModel(ModelArtefact.load(Path(path), Trust.of(load_settings())))
