"""`python -m tests.training.peak <model> <rows>`: measured and estimated peak memory of a fit, in bytes, as JSON."""

import json
import os
import sys
from pathlib import Path

from mlops_tasks.modeling.configuration import resolve_config
from mlops_tasks.modeling.model_zoo.family import find_family
from mlops_tasks.modeling.problem import learning_problem
from mlops_tasks.modeling.processors import FittedProcessors
from mlops_tasks.modeling.session import TrainingSession
from tests.planted import Shape, plant

FEATURES = 150
INSTRUMENTS = 200
ROUNDS = 5


def measure(model: str, rows: int) -> dict[str, int]:
    """Fit on planted rows of full trees, in a process that has done nothing else."""
    planted = plant("sparse", Shape(days=rows // INSTRUMENTS, instruments=INSTRUMENTS, features=FEATURES, missing=0.01))
    given = {"num_boost_round": ROUNDS}
    overrides = {"lightgbm": given | {"lambda_l1": 0.0, "lambda_l2": 1.0}, "xgboost": given}.get(model, {})
    config = resolve_config(model, overrides, seed=1)
    problem = learning_problem(planted.data, FittedProcessors(), config.label_processor)
    family, session = find_family(config.family)(), TrainingSession(config)
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    family.fit(problem, session)
    learned = int(problem.valid.stop)
    return {
        "peak": _peak() - before,
        "estimate": int(family.memory_bytes(config.hyperparameters, learned, FEATURES)),
    }


def _peak() -> int:
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], int(sys.argv[2]))))
