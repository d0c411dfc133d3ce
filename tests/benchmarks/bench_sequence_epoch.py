"""One epoch of a Transformer on a CPU, against Qlib's `pytorch_transformer_ts`.

Both train Qlib's own default (d_model 64, 2 heads, 2 layers, feed-forward of 2,048, batches of 8,192, Adam) on the
same rows: 50 stocks x 1,000 days, windows of 20 days, 158 features. One thread each, in processes of their own, in
turns; the fastest of each counts, in processor time, so that other work on the machine does not.

An epoch is what `fit` does in each: Qlib trains, then scores the training rows for its train loss; ours has that loss
from its steps. `ratio` is of epochs, `ratio_training` of the training alone, both in float32, all that Qlib has;
`ratio_bfloat16` and `ratio_training_bfloat16` are for `precision: bfloat16` (mixed precision; weights stay float32),
and are missing where the processor is slower with it.

`max_abs_diff` is the largest difference of a gradient's numbers in float32, of the same batch and weights. `loss_after`
is the loss of the training rows after the epoch; both begin with the same weights, each draws its own batches.
"""

import contextlib
import io
import json
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from mlops_tasks.modeling.networks.trainer import TrainerConfig, Training, bfloat16_cost, reproducible
from mlops_tasks.modeling.networks.transformer import Transformer
from mlops_tasks.modeling.problem import LearningProblem
from tests.benchmarks.processes import in_process
from tests.training.networks.qlib_weights import from_qlib

MODULE = "tests.benchmarks.bench_sequence_epoch"
DAYS, INSTRUMENTS, FEATURES, WINDOW = 1_000, 50, 158, 20
D_MODEL, HEADS, LAYERS, FEEDFORWARD, BATCH = 64, 2, 2, 2_048, 8_192
PART = 256
"""Of our batches, computed at once."""
REPEATS = 2


def run() -> dict[str, Any]:
    """The sides in turns, the best of each."""
    sides: dict[str, list[dict[str, Any]]] = {"float32": [], "peer": []}
    if bfloat16_cost() < 1:
        sides["bfloat16"] = []
    for _ in range(REPEATS):
        for side, results in sides.items():
            results.append(in_process(MODULE, side, DAYS))
    best = {side: min(results, key=lambda each: each["epoch_s"]) for side, results in sides.items()}
    peer, ours = best["peer"], best["float32"]
    mixed = _ratios(peer, best["bfloat16"]) if "bfloat16" in best else {}
    return {
        "name": "sequence_epoch",
        "ours": round(ours["epoch_s"], 2),
        "peer": round(peer["epoch_s"], 2),
        "unit": "processor s",
        **_ratios(peer, ours),
        **{f"{name}_bfloat16": ratio for name, ratio in mixed.items()},
        "max_abs_diff": in_process(MODULE, "agreement", 60)["max_abs_diff"],
        "loss_after": {side: round(each["loss_after"], 4) for side, each in best.items()},
        "peak_mb": {side: each["peak_mb"] for side, each in best.items()},
        "rows": DAYS * INSTRUMENTS,
        "threads": 1,
    }


def _ratios(peer: dict[str, Any], ours: dict[str, Any]) -> dict[str, float]:
    measured = {"ratio": "epoch_s", "ratio_training": "training_s"}
    return {name: round(peer[seconds] / ours[seconds], 2) for name, seconds in measured.items()}


def matrices(days: int) -> tuple[np.ndarray, np.ndarray]:
    """Standard normal features and a label of which a fifth is the mean of a feature's last three days."""
    rng = np.random.default_rng(0)
    features = rng.standard_normal((days, INSTRUMENTS, FEATURES), dtype=np.float32)
    signal = sum(np.roll(features[:, :, 0], lag, axis=0) for lag in range(3)) / np.sqrt(3)
    label = (np.sqrt(0.2) * signal + np.sqrt(0.8) * rng.standard_normal(signal.shape)).astype(np.float32)
    return features.reshape(-1, FEATURES), label.ravel()


def peer(days: int) -> dict[str, Any]:
    """Qlib's model on Qlib's sampler, as its `fit` runs them."""
    with contextlib.redirect_stdout(io.StringIO()):
        from qlib.contrib.model.pytorch_transformer_ts import TransformerModel
        from qlib.data.dataset import TSDataSampler
    from torch.utils.data import DataLoader

    features, label = matrices(days)
    calendar = pd.bdate_range("2015-01-01", periods=days)
    keys = [calendar, [f"S{number:02}" for number in range(INSTRUMENTS)]]
    index = pd.MultiIndex.from_product(keys, names=["datetime", "instrument"])
    frame = pd.DataFrame(np.column_stack([features, label]), index)
    sampler = TSDataSampler(frame, calendar[0], calendar[-1], WINDOW)
    sampler.config(fillna_type="ffill+bfill")
    loader = DataLoader(sampler, batch_size=BATCH, shuffle=True, num_workers=0)
    shape = {"d_model": D_MODEL, "nhead": HEADS, "num_layers": LAYERS}
    model = TransformerModel(d_feat=FEATURES, batch_size=BATCH, n_jobs=0, GPU=-1, seed=0, **shape)
    training_s = processor_seconds(lambda: model.train_epoch(loader))
    losses: list[float] = []
    evaluation_s = processor_seconds(lambda: losses.append(model.test_epoch(loader)[0]))
    return {"training_s": training_s, "epoch_s": training_s + evaluation_s, "loss_after": float(losses[0])}


def ours(days: int, precision: str) -> dict[str, Any]:
    """Our trainer with Qlib's optimiser."""
    features, label = matrices(days)
    rows = len(label)
    problem = LearningProblem(
        features=features,
        label=label,
        realised=label.astype(np.float64),
        day=np.repeat(np.arange(days, dtype=np.int32), INSTRUMENTS),
        instrument=np.tile(np.arange(INSTRUMENTS, dtype=np.int32), days),
        train=slice(0, rows),
        valid=slice(rows, rows),
        names=[f"F{number}" for number in range(FEATURES)],
    )
    like_qlib: dict[str, Any] = {"optimizer": "adam", "learning_rate": 1e-4, "weight_decay": 1e-3, "gradient_clip": 0.0}
    steps: dict[str, Any] = {
        "samples_per_epoch": 0,
        "batch_size": BATCH,
        "micro_batch_size": PART,
        "warmup_steps": 0,
        "schedule": "constant",
    }
    config = TrainerConfig(window=WINDOW, precision=precision, **like_qlib, **steps)  # type: ignore[arg-type]
    with reproducible(1):
        training = Training.begin(problem, lambda: both_networks()[1], config, seed=0)
        seconds = processor_seconds(training.epoch)
        scores = training.score(training.rows)
    return {"training_s": seconds, "epoch_s": seconds, "loss_after": float(np.mean((scores - label) ** 2))}


def both_networks() -> tuple[nn.Module, nn.Module]:
    """Qlib's network as its model makes it, and ours with the same weights."""
    with contextlib.redirect_stdout(io.StringIO()):
        from qlib.contrib.model.pytorch_transformer_ts import Transformer as QlibTransformer

    torch.manual_seed(0)
    theirs = QlibTransformer(d_feat=FEATURES, d_model=D_MODEL, nhead=HEADS, num_layers=LAYERS, dropout=0.0)
    shape = {"d_model": D_MODEL, "heads": HEADS, "layers": LAYERS, "feedforward": FEEDFORWARD}
    mine = Transformer(FEATURES, WINDOW, dropout=0.0, **shape)
    mine.load_state_dict(from_qlib(theirs))
    return theirs, mine


def agreement(days: int) -> dict[str, Any]:
    """The largest difference of our gradient from Qlib's, of one batch with the same weights, in float32."""
    theirs, mine = both_networks()
    x, y = torch.randn(20 * days, WINDOW, FEATURES), torch.randn(20 * days)
    for each in (theirs, mine):
        (each(x) - y).square().mean().backward()
    with torch.no_grad():
        for parameter in theirs.parameters():
            if parameter.grad is not None:
                parameter.copy_(parameter.grad)
    expected = from_qlib(theirs)
    differences = [(p.grad - expected[name]).abs().max() for name, p in mine.named_parameters() if p.grad is not None]
    return {"max_abs_diff": float(torch.stack(differences).max())}


def processor_seconds(work: Callable[[], Any]) -> float:
    """What this process's processors take for a piece of work."""
    started = time.process_time()
    work()
    return time.process_time() - started


if __name__ == "__main__":
    torch.set_num_threads(1)
    name, size = sys.argv[1], int(sys.argv[2])
    result = {"peer": peer, "agreement": agreement}[name](size) if name in ("peer", "agreement") else ours(size, name)
    peak_mb = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    print(json.dumps({**result, "peak_mb": peak_mb}))
