"""Training runs whose events a test writes itself, through the library's own functions."""

import math
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from itertools import count
from typing import Any

from mlops_tasks.config import Settings
from mlops_tasks.dag_run import DagRun
from mlops_tasks.machine.liveness import this_process
from mlops_tasks.modeling.configuration import resolve_config
from mlops_tasks.state.tables import TrainingRun
from mlops_tasks.state.training_runs import NewEvent, record_events, record_training_run
from mlops_tasks.training.plan import RunPlan
from mlops_tasks.training.run_folder import FitRequest

_numbers = count(1)


@dataclass
class OpenRun:
    """A run that this process supervises, so that nobody thinks it lost."""

    settings: Settings
    run_id: str
    at: datetime
    sequence: int = 0

    def add(self, *events: tuple[str, dict[str, Any]]) -> None:
        """Append events, each a second after the one before."""
        new = [
            NewEvent(self.sequence + number, kind, self.at + timedelta(seconds=self.sequence + number), payload)
            for number, (kind, payload) in enumerate(events, 1)
        ]
        record_events(self.settings, self.run_id, new)
        self.sequence += len(new)

    def iterate(self, first: int, last: int, total: int = 40) -> None:
        """Iterations of a training that learns and then overfits."""
        self.add(*(("iteration", iteration(number, total)) for number in range(first, last + 1)))


@dataclass
class Runs:
    """Makes runs."""

    settings: Settings
    at: datetime
    made: list[str] = field(default_factory=list)

    def open(self, model: str = "lightgbm") -> OpenRun:
        """A run that was created and is fitting."""
        run_id = f"{model}-{self.at:%Y%m%dT%H%M%S}-{next(_numbers):06x}"
        request = {**REQUEST.to_json(), "process": this_process(), "dag_run": DAG_RUN.to_json()}
        run = TrainingRun(
            run_id=run_id, model=model, data_version="v1", owner="daily", priority=0, request=request, at=self.at
        )
        record_training_run(self.settings, run)
        self.made.append(run_id)
        opened = OpenRun(self.settings, run_id, self.at)
        opened.add(("created", this_process()), ("stage", {"stage": "load"}), ("stage", {"stage": "fit"}))
        return opened

    def finished(self, model: str = "lightgbm") -> OpenRun:
        """A run that is over, with a metric that is undefined once."""
        run = self.open(model)
        run.iterate(1, 40)
        run.add(("stage", {"stage": "save"}), ("finished", FINISHED))
        return run


DAG_RUN = DagRun("daily_retraining", "scheduled__2026-03-02T00:00:00+00:00")
DAYS = {
    "train": ("2020-01-02", "2023-12-29"),
    "valid": ("2024-01-02", "2024-12-31"),
    "test": ("2025-01-02", "2026-02-27"),
}
PLAN = RunPlan(
    data_version="v1",
    last_date=date(2026, 2, 27),
    feature_set="alpha158",
    horizon=1,
    models=("lightgbm",),
    segments={name: tuple(map(date.fromisoformat, days)) for name, days in DAYS.items()},  # type: ignore[misc]
    seed=42,
    topk=50,
    n_drop=5,
)
REQUEST = FitRequest(PLAN, "f1", resolve_config("lightgbm", {"num_leaves": 31}, seed=42))

LEAST_LOSS_AT = 22
FINISHED = {"training_key": "0123456789abcdef", "path": "training/0123456789abcdef", "seconds": 61.5, "reused": False}


def iteration(number: int, total: int) -> dict[str, Any]:
    """The payload of an iteration."""
    fall = math.exp(-number / 12)
    metrics = {
        "train.loss": 0.9 + 0.1 * fall,
        "valid.loss": _valid_loss(number),
        "valid.ic": None if number == 3 else 0.05 * (1 - fall) - 0.0004 * number,
        "valid.rank_ic": 0.06 * (1 - fall) - 0.0004 * number,
    }
    best = min(number, LEAST_LOSS_AT)
    return {
        "iteration": number,
        "total": total,
        "percent": round(100 * number / total, 2),
        "eta_s": 1.5 * (total - number),
        "eta_stop_s": 1.5 * max(0, best + 5 - number),
        "best": {"iteration": best, "metric": "valid.loss", "value": _valid_loss(best)},
        "metrics": metrics,
    }


def _valid_loss(number: int) -> float:
    """Falls until `LEAST_LOSS_AT` and rises then."""
    return 0.93 + 0.07 * math.exp(-number / 12) + 0.0009 * number
