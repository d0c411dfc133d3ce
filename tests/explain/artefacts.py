"""Artefacts of each family with known parameters, as their families write and read them."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from mlops_tasks.columns import DATETIME
from mlops_tasks.files import write_json
from mlops_tasks.modeling.artefact import ModelArtefact
from mlops_tasks.modeling.model_zoo.family import find_family
from mlops_tasks.modeling.model_zoo.linear import MODEL_FILE
from mlops_tasks.modeling.model_zoo.network import Architecture, NetworkFamily
from mlops_tasks.modeling.processors import FittedProcessors
from mlops_tasks.modeling.scoring import ScoringRows
from tests.explain.panels import index_of


def artefact(family: str, *, window: int = 1, features: int = 4, **content: Any) -> ModelArtefact:
    """Of a linear model with `coefficients` and `intercept`, a network (small, or `architecture`), or a `booster`."""
    folder = Path(tempfile.mkdtemp(prefix="explained_"))
    if family == "linear":
        coefficients = [float(each) for each in content["coefficients"]]
        write_json(folder / MODEL_FILE, {"coefficients": coefficients, "intercept": content["intercept"]})
    elif family == "network":
        network = NetworkFamily()
        class_path = "mlops_tasks.modeling.networks.mlp:MLP"
        small = Architecture(class_path, features, window, {"hidden_size": 16, "dropout": 0.0})
        network.architecture = content.get("architecture", small)
        torch.manual_seed(0)
        network.weights = network.architecture.build().state_dict()
        network.save(folder)
    else:
        content["booster"].save_model(folder / {"lightgbm": "model.txt", "xgboost": "model.ubj"}[family])
    names = [f"F{number}" for number in range(features)]
    manifest = {"family": family, "window": window, "feature_names": names}
    predictor = find_family(family).load(folder, manifest, 1)  # type: ignore[arg-type]
    return ModelArtefact(folder, manifest, FittedProcessors(), predictor)  # type: ignore[arg-type]


def rows_of(values: np.ndarray, window: int = 1) -> ScoringRows:
    """Rows of days, ten instruments each; the first days are only looked back on."""
    index = index_of(len(values))
    frame = pd.DataFrame(values, index, [f"F{number}" for number in range(values.shape[1])])
    calendar = pd.DatetimeIndex(index.get_level_values(DATETIME).unique())
    wanted = np.asarray(index.get_level_values(DATETIME) >= calendar[window - 1])
    return ScoringRows(frame, wanted, calendar, calendar[0])
