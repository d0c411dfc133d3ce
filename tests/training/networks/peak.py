"""How much a process grows while it trains a network of the zoo: `python -m tests.training.networks.peak <name> ...`.

One process a network, forked from one that has the libraries; prints name -> [bytes grown, bytes estimated].
"""

import gc
import json
import os
import sys
from pathlib import Path

import numpy as np

from mlops_tasks.modeling.configuration import resolve_config
from mlops_tasks.modeling.model_zoo.network import Architecture, NetworkFamily
from mlops_tasks.modeling.networks.trainer import TrainerConfig, Training, reproducible
from mlops_tasks.modeling.problem import LearningProblem

DAYS, INSTRUMENTS, FEATURES = 100, 300, 158


def resident(name: str) -> int:
    """A line of /proc/self/status in bytes: `VmRSS` now, `VmHWM` at most so far."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith(name))
    return int(line.split()[1]) * 1024


def measured(name: str) -> tuple[int, int]:
    """A step first, which loads libraries; then an epoch of a few batches from a fresh start."""
    rows = DAYS * INSTRUMENTS
    label = np.zeros(rows, dtype=np.float32)
    problem = LearningProblem(
        features=np.ones((rows, FEATURES), dtype=np.float32),
        label=label,
        realised=label.astype(np.float64),
        day=np.repeat(np.arange(DAYS, dtype=np.int32), INSTRUMENTS),
        instrument=np.tile(np.arange(INSTRUMENTS, dtype=np.int32), DAYS),
        train=slice(0, rows),
        valid=slice(rows, rows),
        names=[str(number) for number in range(FEATURES)],
    )
    config = resolve_config(name, {"samples_per_epoch": 512}, seed=0)
    trainer, hyperparameters = TrainerConfig.split(config.hyperparameters)
    assert config.class_path is not None
    architecture = Architecture(config.class_path, FEATURES, trainer.window, hyperparameters)
    with reproducible(1):
        Training.begin(problem, architecture.build, trainer, 0).step(np.arange(2))
        gc.collect()
        before = resident("VmRSS")
        Training.begin(problem, architecture.build, trainer, 0).epoch()
    estimate = NetworkFamily.memory_bytes(config.hyperparameters, rows, FEATURES)
    return resident("VmHWM") - before, estimate


def in_fork(name: str) -> list[int]:
    """`measured` in a process of its own."""
    ours, theirs = os.pipe()
    child = os.fork()
    if not child:
        os.write(theirs, json.dumps(measured(name)).encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(theirs)
    with os.fdopen(ours) as answer:
        found: list[int] = json.load(answer)
    return found


if __name__ == "__main__":
    print(json.dumps({name: in_fork(name) for name in sys.argv[1:]}))
