"""When a training should end: early stopping on a metric of the validation segment."""

from dataclasses import dataclass

from pydantic import Field

from mlops_tasks.config import Section
from mlops_tasks.training.overfitting import Metric, OverfittingConfig


class StoppingConfig(Section):
    """Early stopping; the best iteration is the one that is kept."""

    metric: Metric = "loss"
    """Of the validation segment. `loss` is minimised, `ic` and `rank_ic` (means over days) are maximised."""
    patience: int = Field(50, ge=1)
    """Iterations (boosting rounds, epochs) without a better value after which training ends."""
    min_delta: float = Field(0.0, ge=0)
    """Least change that counts as better."""
    overfitting: OverfittingConfig = OverfittingConfig()


@dataclass(frozen=True)
class Verdict:
    """What follows from the metrics of one iteration."""

    is_best: bool
    stop: bool
    reason: str = ""
    """Why training ends, with the numbers; empty while it goes on."""


class StoppingMonitor:
    """Follows the metrics of a training; its state is a function of the metrics that it was given, in order."""

    def __init__(self, config: StoppingConfig) -> None:
        self.config = config
        self.best_iteration = 0
        self.best_value: float | None = None

    def update(self, iteration: int, metrics: dict[str, float]) -> Verdict:
        """Judge an iteration (from 1) by its metrics; `valid.<metric>` may be missing where it was not computed."""
        value = metrics.get(f"valid.{self.config.metric}")
        if value is None:
            return Verdict(False, False)
        sign = 1.0 if self.config.metric == "loss" else -1.0
        better = self.best_value is None or sign * value < sign * self.best_value - self.config.min_delta
        if better:
            self.best_iteration, self.best_value = iteration, value
            return Verdict(True, False)
        stop = iteration - self.best_iteration >= self.config.patience
        reason = (
            f"valid {self.config.metric} has not improved on {self.best_value:.6g} (iteration {self.best_iteration})"
        )
        return Verdict(False, stop, f"{reason} for {self.config.patience} iterations" if stop else "")
