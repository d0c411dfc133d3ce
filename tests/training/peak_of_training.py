"""`python -m tests.training.peak_of_training <model> <rows>`: the most memory that a training takes, in bytes, as JSON.

`matrix` is the size of all rows' features in float32, `peak` what the process took at most beyond what it held `before`
there were any rows: from the digest of the data over processors and fit to the scores of the saved artefact.
"""

import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from mlops_tasks.columns import DATETIME, INSTRUMENT, LABEL
from mlops_tasks.config import Settings
from mlops_tasks.files import write_json
from mlops_tasks.modeling.artefact import PROCESSORS, ModelArtefact
from mlops_tasks.modeling.column_health import ColumnHealth
from mlops_tasks.modeling.configuration import TrainingConfig, resolve_config
from mlops_tasks.modeling.dataset import LearningData, fit_processors
from mlops_tasks.modeling.model_zoo.family import find_family
from mlops_tasks.modeling.prediction import predict_segments
from mlops_tasks.modeling.problem import learning_problem
from mlops_tasks.modeling.seal import seal
from mlops_tasks.modeling.session import TrainingSession
from mlops_tasks.modeling.trust import Trust
from mlops_tasks.signing import SigningKey, ensure_signing_key

FEATURES, INSTRUMENTS = 158, 300
CHANGES = {
    "lightgbm": {"num_boost_round": 3, "num_leaves": 15},
    "xgboost": {"num_boost_round": 3, "max_depth": 3},
    "mlp": {"epochs": 1, "samples_per_epoch": 2000, "valid_rows_per_epoch": 2000},
    "lstm": {"epochs": 1, "samples_per_epoch": 1000, "valid_rows_per_epoch": 1000, "layers": 1, "hidden_size": 16},
}
SHARES = {"train": 0.7, "valid": 0.15, "test": 0.15}


def measure(model: str, rows: int) -> dict[str, int]:
    """Train in this process, which should have done nothing else, as `training/fit.py` does."""
    config = resolve_config(model, CHANGES.get(model, {}), seed=1)
    train(config, 20 * INSTRUMENTS)  # imports, and the libraries' own threads
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = _status("VmRSS")
    train(config, rows)
    return {"matrix": rows * FEATURES * 4, "peak": _status("VmHWM") - before, "before": before}


def train(config: TrainingConfig, rows: int) -> None:
    """Digest, fit, save, load and score on generated rows."""
    data = generated(rows, config.window)
    data.digest()
    ColumnHealth.of(data.learned_features(), list(data.features.columns))
    with tempfile.TemporaryDirectory() as name:
        settings = Settings(home=Path(name))
        ensure_signing_key(settings)
        folder = Path(name, "model")
        folder.mkdir()
        _fit(config, data, folder, SigningKey.of(settings))
        predict_segments(ModelArtefact.load(folder, Trust.of(settings)), data)


def generated(rows: int, window: int) -> LearningData:
    """Features of normal numbers, laid out as the feature store does, and a label that a few of them move."""
    days = pd.bdate_range("2000-01-03", periods=rows // INSTRUMENTS)
    names = [f"S{number:03d}" for number in range(INSTRUMENTS)]
    index = pd.MultiIndex.from_product([days, names], names=[DATETIME, INSTRUMENT])
    random = np.random.default_rng(0)
    values = np.empty((len(index), FEATURES), np.float32, "F" if window == 1 else "C")
    for begin in range(0, len(values), 4096):
        part = values[begin : begin + 4096]
        part[:] = random.standard_normal(part.shape, dtype=np.float32)
    label = values[:, :3].sum(axis=1) + random.standard_normal(len(values))
    ends = np.cumsum([0, *(round(share * len(days)) for share in SHARES.values())])
    segments = {
        name: (days[begin].date(), days[min(end, len(days)) - 1].date())
        for name, begin, end in zip(SHARES, ends[:-1], ends[1:], strict=True)
    }
    columns = [f"F{number}" for number in range(FEATURES)]
    features = pd.DataFrame(values, index=index, columns=columns, copy=False)
    member = None if window == 1 else np.ones(len(index), dtype=np.bool_)
    return LearningData(features, pd.Series(label, index, name=LABEL), segments, member, None if window == 1 else days)


def _fit(config: TrainingConfig, data: LearningData, folder: Path, key: SigningKey) -> None:
    family = find_family(config.family)()
    processors = fit_processors(data, config.feature_processors)
    problem = learning_problem(data.watched(config.stopping.valid_share), processors, config.label_processor)
    family.fit(problem, TrainingSession(config))
    family.save(folder)
    write_json(folder / PROCESSORS, processors.to_json())
    seal(
        folder,
        {"family": config.family, "window": config.window, "feature_names": list(data.features.columns)},
        key,
    )


def _status(name: str) -> int:
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], int(sys.argv[2]))))
