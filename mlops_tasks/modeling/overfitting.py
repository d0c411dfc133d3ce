"""Whether a training overfits: how far the train segment is ahead of the validation segment, and how this develops.

The gap is the lead of train over validation in the metric's own sense (a lower loss, a higher IC), as a share of the
larger of the two values. There is always one in a market with a low signal-to-noise ratio, so a gap alone says little.
A training overfits when the gap is too wide and still widens while validation does not improve. Whether a series moves
is decided by Kendall's test over a window of iterations (Mann, Econometrica 13, 1945); how fast it moves is the median
of all slopes between two iterations (Sen, Journal of the American Statistical Association 63, 1968). Single outliers
change neither. A training that overfits keeps this state until validation reaches a new best, or all gaps in the window
are narrow again, so that noise does not end it.

A detector's state is a function of the metrics that it was given, in order, so a training that was interrupted comes to
the same findings.
"""

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from statistics import median
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from mlops_tasks.config import Section
from mlops_tasks.files import finite_or_none

Metric = Literal["loss", "ic", "rank_ic"]
FitState = Literal["unknown", "learning", "healthy", "overfitting"]
"""`learning`: validation improves."""


def _no_text_or_truth(value: Any) -> Any:
    if isinstance(value, str | bool):
        raise ValueError("expected a number")
    return value


StrictNumber = BeforeValidator(_no_text_or_truth)
"""A number as in a form: 5.0 is 5, and neither `true` nor "5" is a number."""

TREND_Z = 1.96
"""Kendall's statistic from which a trend counts; five values in a row that all rise have 2.2."""


class OverfittingConfig(Section):
    """When a training counts as overfitting, and what follows."""

    action: Literal["note", "stop"] = "note"
    """`note` records it; `stop` also ends the training, with the best iteration so far."""
    metric: Metric = "loss"
    """Compared between the train and validation segments; a family can be judged if it reports it for both."""
    gap: Annotated[float, StrictNumber] = Field(0.1, gt=0, lt=2)
    """Smallest lead of train over validation that is too much, as a share of the larger of the two values. Losses of
    scaled labels are near 1, so 0.1 is a lot; for `ic` and `rank_ic`, 0.5 is a suitable value."""
    window: Annotated[int, Field(ge=5), StrictNumber] | None = None
    """Iterations over which trends are measured; None: the patience of early stopping, between 5 and 20."""


@dataclass(frozen=True)
class OverfittingFinding:
    """The detector's finding after an iteration, with its reasons; unknown numbers are NaN."""

    state: FitState
    metric: Metric
    iteration: int
    since: int
    """Iteration at which it entered this state."""
    window: int
    """Iterations over which trends are measured."""
    train: float
    valid: float
    gap: float
    gap_slope: float
    """Per iteration; above 0: it widens."""
    gap_z: float
    """Kendall's statistic of the gap over the window."""
    valid_slope: float
    """Change of the validation metric per iteration, as it is."""
    valid_z: float
    """Kendall's statistic of the validation metric's improvement; below 0: it gets worse."""

    @property
    def explanation(self) -> str:
        """The state in words and numbers."""
        level = f"iteration {self.iteration}: {said_gap(self.metric, self.train, self.valid, self.gap)}"
        if math.isnan(self.valid_z):
            return f"{level}; trends need {self.window} iterations"
        trends = [f"validation {_moves(self.valid_z, 'improves', 'gets worse')}"]
        trends[0] += f" ({self.valid_slope:+.3g} an iteration, z {self.valid_z:+.1f})"
        if not math.isnan(self.gap_z):
            trends.append(f"the gap {_moves(self.gap_z, 'widens', 'narrows')}")
            trends[1] += f" ({self.gap_slope:+.2%} an iteration, z {self.gap_z:+.1f})"
        return f"{level}; over the last {self.window} iterations {' and '.join(trends)}"

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; unknown numbers are None."""
        return {name: finite_or_none(v) if isinstance(v, float) else v for name, v in asdict(self).items()}


class OverfittingDetector:
    """Follows the metrics of a training.

    Parameters
    ----------
    config
        When a training counts as overfitting.
    patience
        Of early stopping, in iterations; it sets the window if the configuration gives none.
    """

    def __init__(self, config: OverfittingConfig, patience: int) -> None:
        self.config = config
        self.window = config.window or min(20, max(5, patience))
        self.state: FitState = "unknown"
        self.train_improved = False
        """Whether the train metric was ever better than at first."""
        self._since = 0
        self._sense = -1.0 if config.metric == "loss" else 1.0
        self._train, self._first_train = math.nan, math.nan
        self._best_at, self._best_valid = 0, -math.inf
        self._iterations: deque[int] = deque(maxlen=self.window)
        self._valids, self._gaps = Trend(self.window), Trend(self.window)

    def update(self, iteration: int, metrics: Mapping[str, float]) -> bool:
        """Take an iteration's metrics; returns whether the training begins or ceases to overfit with it.

        An iteration whose validation metric is missing or not finite is ignored. One without a finite train metric has
        no gap, and a window that holds such an iteration is never called overfitting.
        """
        train, valid = self._values(metrics)
        if not math.isfinite(valid):
            return False
        if self._sense * valid > self._best_valid:
            self._best_at, self._best_valid = iteration, self._sense * valid
        self._train = train
        self._iterations.append(iteration)
        self._valids.append(valid)
        self._gaps.append(self._gap(train, valid))
        if math.isnan(self._first_train):
            self._first_train = train
        self.train_improved |= self._sense * train > self._sense * self._first_train
        before, self.state = self.state, self._judge()
        if self.state != before:
            self._since = iteration
        return self.state != before and "overfitting" in (self.state, before)

    @property
    def finding(self) -> OverfittingFinding | None:
        """The finding after the newest iteration with the validation metric; None before there is one."""
        if not self._iterations:
            return None
        full = len(self._iterations) == self.window
        return OverfittingFinding(
            state=self.state,
            metric=self.config.metric,
            iteration=self._iterations[-1],
            since=self._since,
            window=self.window,
            train=self._train,
            valid=self._valids.values[-1],
            gap=self._gaps.values[-1],
            gap_slope=median_slope(self._iterations, self._gaps.values) if full else math.nan,
            gap_z=self._gaps.z,
            valid_slope=median_slope(self._iterations, self._valids.values) if full else math.nan,
            valid_z=self._sense * self._valids.z + 0.0,  # no -0
        )

    def said_of(self, metrics: Mapping[str, float]) -> tuple[float, str]:
        """Gap of an iteration's metrics (NaN: unknown), and the same in words."""
        train, valid = self._values(metrics)
        gap = self._gap(train, valid)
        return gap, said_gap(self.config.metric, train, valid, gap)

    def _values(self, metrics: Mapping[str, float]) -> tuple[float, float]:
        name = self.config.metric
        return float(metrics.get(f"train.{name}", math.nan)), float(metrics.get(f"valid.{name}", math.nan))

    def _gap(self, train: float, valid: float) -> float:
        if not (math.isfinite(train) and math.isfinite(valid)):
            return math.nan
        size = max(abs(train), abs(valid))
        return self._sense * (train - valid) / size if size else 0.0

    def _judge(self) -> FitState:
        if len(self._iterations) < self.window:
            return "unknown"
        improves, widens = self._sense * self._valids.z >= TREND_Z, self._gaps.z
        if self.state == "overfitting":
            return self._judge_again(improves)
        if improves:
            return "learning"
        if math.isnan(widens):
            return "unknown"
        too_wide = self._gaps.values[-1] >= self.config.gap
        return "overfitting" if too_wide and widens >= TREND_Z else "healthy"

    def _judge_again(self, improves: bool) -> FitState:
        """The state after overfitting: it ends with a new best validation, or when no gap in the window is too wide."""
        if improves and self._best_at >= self._iterations[0]:
            return "learning"
        return "healthy" if max(self._gaps.values) < self.config.gap else "overfitting"


class Trend:
    """Kendall's test of a trend in the last values of a series, at the cost of a few comparisons per value."""

    def __init__(self, window: int) -> None:
        self.values: deque[float] = deque()
        self._window = window
        self._rising = 0
        """Number of rising pairs minus falling pairs; pairs with NaN count as neither."""

    def append(self, value: float) -> None:
        """Add the next value; a full window drops its oldest one."""
        if len(self.values) == self._window:
            oldest = self.values.popleft()
            self._rising -= sum((later > oldest) - (later < oldest) for later in self.values)
        self._rising += sum((value > earlier) - (value < earlier) for earlier in self.values)
        self.values.append(value)

    @property
    def z(self) -> float:
        """Above 0 when the values rise; standard normal where they have no trend.

        Pairs of equal values count as none. NaN before the window is full, and with a NaN in it.
        """
        n = len(self.values)
        if n < self._window or any(map(math.isnan, self.values)):
            return math.nan
        certain = self._rising - (self._rising > 0) + (self._rising < 0)  # continuity correction
        return certain / math.sqrt(n * (n - 1) * (2 * n + 5) / 18)


def said_gap(metric: str, train: float, valid: float, gap: float) -> str:
    """A gap in words."""
    if math.isnan(gap):
        return f"valid {metric} {valid:.6g}, and no train {metric}, without which overfitting cannot be seen"
    side = "ahead of" if gap >= 0 else "behind"
    return f"train {metric} {train:.6g} is {abs(gap):.1%} {side} valid {metric} {valid:.6g}"


def median_slope(times: Sequence[float], values: Sequence[float]) -> float:
    """Sen's slope: the median over all pairs of times, which ascend; NaN when a value is NaN or there is no pair."""
    if len(times) < 2 or any(map(math.isnan, values)):
        return math.nan
    points = list(zip(times, values, strict=True))
    return median((later[1] - first[1]) / (later[0] - first[0]) for first, later in combinations(points, 2))


def _moves(z: float, up: str, down: str) -> str:
    return up if z >= TREND_Z else down if z <= -TREND_Z else "does not move"
