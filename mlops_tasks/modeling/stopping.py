"""When a training should end and how it is judged: early stopping on a metric of the validation segment."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, TypedDict

from pydantic import Field

from mlops_tasks.config import Section
from mlops_tasks.files import finite_or_none
from mlops_tasks.modeling.overfitting import Metric, OverfittingConfig, OverfittingDetector, StrictNumber
from mlops_tasks.states import FitVerdict


class StoppingConfig(Section):
    """Early stopping; the best iteration is kept."""

    metric: Metric = "loss"
    """The watched metric of the validation segment. `loss` is minimised, `ic` and `rank_ic` (daily means) maximised."""
    patience: Annotated[int, StrictNumber] = Field(50, ge=1)
    """Iterations (boosting rounds, epochs) without a better value after which training ends."""
    min_delta: Annotated[float, StrictNumber] = Field(0.0, ge=0, allow_inf_nan=False)
    """Smallest change that counts as an improvement."""
    valid_share: Annotated[float, StrictNumber] = Field(1.0, gt=0, le=1)
    """The share of the validation days, from the first, that the training sees. The others are evidence of what it has
    learned, because no iteration was chosen on them."""
    overfitting: OverfittingConfig = OverfittingConfig()


@dataclass(frozen=True)
class IterationVerdict:
    """The consequences of one iteration's metrics."""

    is_best: bool
    stop: bool
    reason: str = ""
    """Why training ends, with the numbers; empty while it continues."""
    changed: bool = False
    """Whether the training begins or ceases to overfit with this iteration."""


@dataclass(frozen=True)
class Conclusion:
    """The verdict on a training that has ended."""

    verdict: FitVerdict
    explanation: str
    kept_iteration: int
    kept_gap: float
    """Lead of train over validation at the kept iteration; NaN: unknown."""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {**vars(self), "verdict": self.verdict.value, "kept_gap": finite_or_none(self.kept_gap)}


class BestIteration(TypedDict):
    """The best iteration so far, as events report it."""

    iteration: int
    metric: str
    """`valid.<metric>`."""
    value: float | None


class StoppingMonitor:
    """Follows the metrics of a training; its state is a function of the metrics that it was given, in order."""

    def __init__(self, config: StoppingConfig) -> None:
        self.config = config
        self.best_iteration = 0
        self.best_value: float | None = None
        self.stopped = ""
        """Why training should end; empty while there is no reason."""
        self.detector = OverfittingDetector(config.overfitting, config.patience)
        self._best_metrics: Mapping[str, float] = {}

    def update(self, iteration: int, metrics: Mapping[str, float]) -> IterationVerdict:
        """Judge an iteration (from 1) by its metrics.

        If `valid.<metric>` is missing or not a number, for example because it was not computed, the iteration cannot be
        the best one and does not end the training.
        """
        is_best, reason = self._compare(iteration, metrics)
        if is_best:
            self._best_metrics = dict(metrics)
        changed = self.detector.update(iteration, metrics)
        if not reason and self.detector.state == "overfitting" and self.config.overfitting.action == "stop":
            reason = f"it overfits: {self.explanation}"
        self.stopped = reason
        return IterationVerdict(is_best, bool(reason), reason, changed)

    def best_json(self) -> BestIteration | None:
        """The best iteration so far with its value, plain JSON; None before there is one."""
        if self.best_value is None:
            return None
        metric = f"valid.{self.config.metric}"
        return {"iteration": self.best_iteration, "metric": metric, "value": finite_or_none(self.best_value)}

    @property
    def explanation(self) -> str:
        """The present judgement of the training, in words and numbers."""
        finding = self.detector.finding
        return "nothing is known yet" if finding is None else finding.explanation

    def conclusion(self) -> Conclusion:
        """The verdict on the training if it ended now."""
        verdict, finding = self._verdict(), self.detector.finding
        gap, said = self.detector.said_of(self._best_metrics)
        if finding is None:
            said_all = "no iteration had a validation metric, so it is unknown whether the training overfits"
        elif verdict is FitVerdict.UNDERFITTING and not self.detector.train_improved:
            said_all = f"train {finding.metric} has never been better than at first; {finding.explanation}"
        elif verdict is FitVerdict.UNDERFITTING:
            said_all = f"validation was still improving when the iterations ended; allow more; {finding.explanation}"
        elif verdict is FitVerdict.HEALTHY:
            # The newest iterations are not part of what is kept: their "gets worse" would contradict the verdict.
            said_all = self._said_of_later(finding.iteration) if self.best_iteration else finding.explanation
        else:
            since = f"since iteration {finding.since}; " if verdict is FitVerdict.OVERFITTING else ""
            said_all = since + finding.explanation
        if self.best_iteration:
            kept = f"iteration {self.best_iteration} is kept: {said}"
            said_all = "; ".join(filter(None, [kept, said_all] if verdict is FitVerdict.HEALTHY else [said_all, kept]))
        return Conclusion(verdict, f"{verdict}: {said_all}", self.best_iteration, gap)

    def _said_of_later(self, newest: int) -> str:
        """What became of the iterations after the kept one; empty if there are none."""
        later = newest - self.best_iteration
        if not later:
            return ""
        return (
            f"the {later} iterations after it were no better and are left out"
            if later > 1
            else ("the iteration after it was no better and is left out")
        )

    def _verdict(self) -> FitVerdict:
        state, finding = self.detector.state, self.detector.finding
        if finding is None or state == "unknown":
            return FitVerdict.UNKNOWN
        if state == "overfitting":
            return FitVerdict.OVERFITTING
        if not math.isnan(finding.gap) and not self.detector.train_improved:
            return FitVerdict.UNDERFITTING
        if state == "learning" and not self.stopped:
            return FitVerdict.UNDERFITTING
        return FitVerdict.UNKNOWN if math.isnan(finding.gap) else FitVerdict.HEALTHY

    def _compare(self, iteration: int, metrics: Mapping[str, float]) -> tuple[bool, str]:
        """Whether an iteration is the best so far, and why training should end."""
        value = metrics.get(f"valid.{self.config.metric}", math.nan)
        if math.isnan(value):
            return False, ""
        sign = 1.0 if self.config.metric == "loss" else -1.0
        if self.best_value is None or sign * value < sign * self.best_value - self.config.min_delta:
            self.best_iteration, self.best_value = iteration, value
            return True, ""
        if iteration - self.best_iteration < self.config.patience:
            return False, ""
        return False, (
            f"valid {self.config.metric} has not improved on {self.best_value:.6g} (iteration {self.best_iteration}) "
            f"for {self.config.patience} iterations"
        )
