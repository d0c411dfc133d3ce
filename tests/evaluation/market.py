"""A small market in a home folder, with a Qlib store, and a finished training whose scores hold a planted signal."""

from pathlib import Path

import numpy as np
import pandas as pd

from mlops_tasks.config import Settings
from mlops_tasks.data.qlib.store import write_qlib_store
from mlops_tasks.data.vintages import Vintage, canonical_bars, write_vintage
from mlops_tasks.features.labels import forward_return
from mlops_tasks.training_folder import TrainingFolder, TrainingManifest

DAYS = pd.bdate_range("2023-01-02", periods=80, name="datetime")
NAMES = [f"S{i:02d}" for i in range(24)]
KEY = "k" * 16
SEGMENTS = {"train": DAYS[:20], "valid": DAYS[20:45], "test": DAYS[45:]}
LEAVER, SUSPENDED = NAMES[3], NAMES[5]
"""One name leaves the universe before the test segment, one has no bars on three days of it."""


def closes() -> pd.DataFrame:
    """Adjusted closes, days x names."""
    returns = np.random.default_rng(11).normal(0.0005, 0.02, size=(len(DAYS), len(NAMES)))
    return pd.DataFrame(50 * np.exp(returns.cumsum(axis=0)), DAYS, NAMES)


def write_market(settings: Settings, close: pd.DataFrame | None = None) -> Vintage:
    """Write a vintage and its Qlib store; one name is half its raw price with factor 2."""
    close = closes() if close is None else close
    bars = close.stack().rename("close").rename_axis(["datetime", "instrument"]).reset_index()
    factor = np.where(bars["instrument"] == NAMES[0], 2.0, 1.0)
    raw = bars["close"] / factor
    bars = bars.assign(open=raw, high=raw, low=raw, close=raw, volume=1e6, vwap=raw, factor=factor)
    gone = (bars["instrument"] == SUSPENDED) & bars["datetime"].isin(DAYS[55:58])
    spells = pd.DataFrame({"instrument": NAMES, "first_date": DAYS[0], "last_date": DAYS[-1]})
    spells.loc[spells["instrument"] == LEAVER, "last_date"] = DAYS[40]
    vintage = write_vintage(settings, canonical_bars(bars[~gone]), spells, {"source": "planted"})
    write_qlib_store(settings, vintage)
    return vintage


def write_training(settings: Settings, vintage: Vintage, skill: float = 0.5, key: str = KEY) -> Path:
    """Write plan, predictions, curves and importance of a training whose scores are label plus noise."""
    label = forward_return(vintage, 1).astype(float)
    label = label[vintage.membership_mask(label.index)]
    noise = np.random.default_rng(3).normal(size=len(label))
    score = skill * label.fillna(0.0) / 0.02 + noise
    days = label.index.get_level_values("datetime")
    parts = [
        pd.DataFrame({"segment": segment, "score": score, "label": label})[(days >= own[0]) & (days <= own[-1])]
        for segment, own in SEGMENTS.items()
        if segment != "train"
    ]
    folder = TrainingFolder.of(settings, key)
    folder.path.mkdir(parents=True)
    folder.write_predictions(pd.concat(parts).reset_index())
    manifest = TrainingManifest(
        training_key=key,
        model="lightgbm",
        data_version=vintage.data_version,
        last_date=str(vintage.last_date),
        feature_set="alpha158",
        feature_version="f" * 16,
        horizon=1,
        segments={name: (str(own[0].date()), str(own[-1].date())) for name, own in SEGMENTS.items()},
        seed=1,
    )
    folder.write_manifest(manifest)
    folder.write_curves({"l2": {"train": [1.0, 0.9], "valid": [1.0, 0.95]}})
    folder.write_importance({"KMID": 3.0, "ROC5": 1.0})
    return folder.path
