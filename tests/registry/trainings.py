"""Small but real training folders: a LightGBM, linear or network artefact on planted data."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pandas as pd

from mlops_tasks.config import Settings
from mlops_tasks.files import write_json
from mlops_tasks.modeling.artefact import ModelArtefact
from mlops_tasks.modeling.environment import CodeState, Environment
from mlops_tasks.modeling.seal import seal
from mlops_tasks.modeling.trust import Trust
from mlops_tasks.signing import SigningKey

FEATURES = ["KMID", "ROC5", "STD20"]
INSTRUMENTS = [f"S{i:03d}" for i in range(20)]
DAYS = pd.bdate_range("2020-01-01", periods=130)
SEGMENTS = {"train": DAYS[:60], "valid": DAYS[60:90], "test": DAYS[90:]}


@dataclass(frozen=True)
class Spec:
    """What a fabricated training is."""

    key: str = "a" * 16
    model: str = "lightgbm"
    seed: int = 1
    skill: float = 1.0
    """How much of the label's planted signal the model has seen in training: 0 is noise only."""
    feature_names: list[str] = field(default_factory=lambda: list(FEATURES))
    metrics: dict[str, Any] = field(default_factory=lambda: {"valid_rank_ic_mean": 0.03, "test_rank_ic_mean": 0.02})
    data_version: str = "data0"
    feature_version: str = "features0"
    feature_set: str = "alpha158"
    window: int = 1
    """Trading days that a network sees."""
    rounds: int = 20
    leaves: int = 7
    depth: int = -1
    """Of LightGBM's trees."""
    environment: dict[str, Any] = field(default_factory=dict)
    """What the manifest says of the environment, where that is not this process's."""
    horizon: int = 1
    """Of the label, as the manifest names it."""
    later_days: int = 0
    """By how many days the learning period that the manifest names ends later than `SEGMENTS`."""


def market(names: list[str] = FEATURES) -> tuple[pd.DataFrame, pd.Series]:
    """Features (datetime, instrument) x names, float32 with some NaN, and a label that follows the first feature."""
    index = pd.MultiIndex.from_product([DAYS, INSTRUMENTS], names=["datetime", "instrument"])
    random = np.random.default_rng(5)
    values = random.standard_normal((len(index), len(names))).astype(np.float32)
    label = pd.Series(0.01 * values[:, 0] + 0.02 * random.standard_normal(len(index)), index, name="label")
    values[random.random(values.shape) < 0.01] = np.nan
    return pd.DataFrame(values, index, names), label


def rows(frame: Any, segment: str) -> Any:
    """The part of a frame or series that lies in a segment."""
    days = SEGMENTS[segment]
    return frame.loc[days[0] : days[-1]]


Data = tuple[pd.DataFrame, pd.Series]
"""Features and label, MultiIndex (datetime, instrument), over `DAYS`."""


def make_training(settings: Settings, spec: Spec, data: Data | None = None) -> Path:
    """Write `<home>/training/<key>/` as the training and evaluation stages do."""
    features, label = market(spec.feature_names) if data is None else data
    folder = settings.training_dir / spec.key
    (folder / "model").mkdir(parents=True)
    curves = _write_model(folder / "model", spec, features, label)
    segments = {name: [str(days[0].date()), str(days[-1].date())] for name, days in SEGMENTS.items()}
    segments["valid"][1] = str(DAYS[89 + spec.later_days].date())
    lineage = {
        "training_key": spec.key,
        "model": spec.model,
        "feature_set": spec.feature_set,
        "feature_version": spec.feature_version,
        "data_version": spec.data_version,
        "horizon": spec.horizon,
        "segments": segments,
        "seed": spec.seed,
    }
    environment = Environment.of_family(spec.model).to_json() | spec.environment
    described = {"family": spec.model, "feature_names": list(features.columns), "window": spec.window}
    seal(folder / "model", {**lineage, **described, "environment": environment}, SigningKey.of(settings))
    code = CodeState("0.1.0", "3ec27c8a" * 5, dirty=False).to_json()
    plan = {**lineage, "last_date": segments["test"][1], "models": [spec.model], "code": code}
    config = {"family": spec.model, "hyperparameters": {"num_leaves": 7, "learning_rate": 0.1}}
    write_json(folder / "plan.json", {**plan, "model_config": config})
    write_json(folder / "curves.json", curves)
    write_json(folder / "importance.json", {})
    write_json(folder / "metrics.json", {"best_iteration": 20, "train_seconds": 0.5, "train_rows": 1200})
    _write_predictions(folder, load_training(settings, spec.key), features, label)
    plots = folder / "evaluation" / "plots"
    plots.mkdir(parents=True)
    (plots / "ic.png").write_bytes(b"\x89PNG")
    write_json(folder / "evaluation" / "evaluation.json", {"metrics": spec.metrics})
    return folder


def _write_model(folder: Path, spec: Spec, features: pd.DataFrame, label: pd.Series) -> dict[str, Any]:
    random = np.random.default_rng(spec.seed)
    x = rows(features, "train").to_numpy()
    noise = 0.02 * random.standard_normal(len(x))
    y = spec.skill * rows(label, "train").to_numpy() + noise
    if spec.model == "linear":
        robust = {"centre": [0.0] * x.shape[1], "scale": [1.0] * x.shape[1]}
        write_json(folder / "processors.json", {"kind": "robust_zscore_fill_zero", **robust})
        weights = np.linalg.lstsq(np.nan_to_num(x.astype(np.float64)), y, rcond=None)[0]
        write_json(folder / "linear.json", {"coefficients": [float(w) for w in weights], "intercept": 0.0})
        return {}
    if spec.model == "network":
        _write_network(folder, spec, x.shape[1])
        return {}
    recorded: dict[str, Any] = {}
    train = lightgbm.Dataset(x, y)
    parameters = {
        "num_leaves": spec.leaves,
        "max_depth": spec.depth,
        "verbose": -1,
        "seed": spec.seed,
        "num_threads": 1,
        "deterministic": True,
    }
    valid = lightgbm.Dataset(rows(features, "valid").to_numpy(), rows(label, "valid").to_numpy(), reference=train)
    booster = lightgbm.train(
        parameters,
        train,
        num_boost_round=spec.rounds,
        valid_sets=[train, valid],
        valid_names=["train", "valid"],
        callbacks=[lightgbm.record_evaluation(recorded)],
    )
    booster.save_model(str(folder / "model.txt"))
    write_json(folder / "processors.json", {"kind": "none"})
    return {"l2": {segment: recorded[segment]["l2"] for segment in recorded}}


def _write_network(folder: Path, spec: Spec, width: int) -> None:
    """A small recurrent network that has learned nothing, its weights drawn by the seed."""
    import torch
    from safetensors.torch import save_file

    from mlops_tasks.modeling.model_zoo.network import ARCHITECTURE, WEIGHTS, Architecture

    robust = {"centre": [0.0] * width, "scale": [1.0] * width}
    write_json(folder / "processors.json", {"kind": "robust_zscore_fill_zero", **robust})
    made = Architecture(
        "mlops_tasks.modeling.networks.recurrent:GRU", width, spec.window, {"hidden_size": 8, "layers": 1}
    )
    with torch.random.fork_rng():
        torch.manual_seed(spec.seed)
        save_file(made.build().state_dict(), folder / WEIGHTS)
    write_json(folder / ARCHITECTURE, vars(made))


def load_training(settings: Settings, key: str) -> ModelArtefact:
    """The artefact in a training folder."""
    return ModelArtefact.load(settings.training_dir / key / "model", Trust.of(settings))


def _write_predictions(folder: Path, artefact: ModelArtefact, features: pd.DataFrame, label: pd.Series) -> None:
    scores = artefact.predict(features)
    parts = [
        rows(scores, segment).to_frame().assign(segment=segment, label=rows(label, segment))
        for segment in ("valid", "test")
    ]
    columns = ["datetime", "instrument", "segment", "score", "label"]
    pd.concat(parts).reset_index()[columns].to_parquet(folder / "predictions.parquet", index=False)
