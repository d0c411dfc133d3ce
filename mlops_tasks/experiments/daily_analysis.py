"""An experiment as it is analysed every day: each arm against the control, by the daily values of each metric.

Days are the unit of evidence: the arms are compared on the same days, and what every account has in common on a day
drops out of the difference. Several arms share the level of the primary metric equally, and so do the guards. Where
days themselves are the units, the randomisation test of the switchback is made once, when its schedule is over.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from mlops_tasks.config import Settings
from mlops_tasks.errors import ExperimentError, first_few
from mlops_tasks.experiments.day_schedule import DaySchedule
from mlops_tasks.experiments.design import (
    PORTFOLIO_METRICS,
    Direction,
    ExperimentDesign,
    MetricDesign,
    MetricSource,
    PredictionMetric,
)
from mlops_tasks.experiments.inference.analysis import analyse, look_test
from mlops_tasks.experiments.inference.checks import SampleRatio, sample_ratio
from mlops_tasks.experiments.inference.dated import DailyDifferences
from mlops_tasks.experiments.inference.offers import Case
from mlops_tasks.experiments.inference.results import Result
from mlops_tasks.experiments.inference.switchback import switchback_test
from mlops_tasks.experiments.inference.verdict import Goal, Outcome, Verdict, judge
from mlops_tasks.experiments.lifecycle import Experiment, started_history
from mlops_tasks.experiments.paired_days import CONTROL, TREATMENT, PairedDays, PairedPortfolios
from mlops_tasks.state.metric_events import DAY, UNIT, Sum, metric_sums
from mlops_tasks.state.tables import now

if TYPE_CHECKING:
    from mlops_tasks.experiments.prediction_metrics import ArmScores


class Advice(StrEnum):
    """What the analysis asks of people, in the order of what overrides what."""

    DISTRUST = "distrust"
    """The arms do not have the units that were planned: find out why before reading anything."""
    STOP_HARM = "stop_harm"
    """An arm harms a guard or the primary metric."""
    STOP_WINNER = "stop_winner"
    """An arm is better, and no guard objects: stop it, and let the gate judge what the winner serves."""
    STOP_END = "stop_end"
    """The planned days are over."""
    WAIT = "wait"


@dataclass(frozen=True)
class ArmFinding:
    """One metric of one arm against the control."""

    arm: str
    metric: str
    guard: bool
    days: int
    """On which both arms have a value; of a switchback, on which any arm has one."""
    result: Result | None
    verdict: Verdict | None
    waits_for: str = ""
    """Why there is no result yet."""
    differences: pd.Series = field(default_factory=lambda: pd.Series(dtype=float), compare=False)
    """Treatment minus control by day (`2024-01-31`); empty where days are the units."""
    case: Case | None = None
    """What the differences were analysed as; None where they were not."""
    confidence: float = 0.95

    def said(self) -> str:
        """For people."""
        role = "guard" if self.guard else "primary"
        said = self.waits_for if self.verdict is None else self.verdict.text
        return f"{self.arm} ({role}): {said}"


@dataclass(frozen=True)
class ExperimentAnalysis:
    """All arms and metrics, and what follows."""

    experiment: str
    days: int
    """On which the primary metric compares every arm with the control."""
    planned_days: int
    ratio: SampleRatio | None
    """None: no unit has an event yet, or no metric is of events."""
    findings: tuple[ArmFinding, ...]
    advice: Advice
    arm: str | None
    """That the advice is about."""
    portfolios: tuple[PairedPortfolios, ...] = ()
    """Of each arm, where a metric is of a portfolio."""

    def lines(self) -> list[str]:
        """For people, the advice first."""
        about = "" if self.arm is None else f" ({self.arm})"
        ratio = (
            "no unit has an event yet, so the arms' shares are not checked" if self.ratio is None else self.ratio.said()
        )
        return [
            f"{self.experiment}: {self.advice.replace('_', ' ')}{about}, day {self.days} of {self.planned_days}",
            ratio,
            *(finding.said() for finding in self.findings),
            *(each.said() for each in self.portfolios),
        ]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        found = [
            {
                **{name: getattr(each, name) for name in ("arm", "metric", "guard", "days", "waits_for")},
                "result": None if each.result is None else each.result.to_json(),
                "verdict": None if each.verdict is None else each.verdict.to_json(),
            }
            for each in self.findings
        ]
        ratio = None if self.ratio is None else asdict(self.ratio)
        return {**vars(self), "ratio": ratio, "findings": found, "portfolios": list(map(asdict, self.portfolios))}


def analyse_experiment(settings: Settings, name: str) -> ExperimentAnalysis:
    """Analyse what an experiment has measured so far.

    Raises
    ------
    ExperimentError
        There is none of this name, or it was never started.
    StoreError
        A metric is of predictions, and no vintage is in use.
    """
    history = started_history(settings, name)
    design, measured = history[-1].design, _Measured(settings, history)
    schedule = history[-1].enrolment.schedule
    findings = tuple(
        _finding(design, metric, arm, measured) if schedule is None else _switched(history[-1], metric, arm, measured)
        for metric in design.metrics
        for arm in design.arms
        if arm != design.control
    )
    days = min(each.days for each in findings if not each.guard)
    over = days >= design.planned_days if schedule is None else _is_over(schedule)
    ratio = None if schedule is not None else measured.ratio()
    advice, arm = _advice(over, ratio, findings)
    return ExperimentAnalysis(
        name, days, design.planned_days, ratio, findings, advice, arm, measured.portfolios(findings)
    )


class _Measured:
    """What the metrics of an experiment were: from events, or from the log of predictions."""

    def __init__(self, settings: Settings, history: Sequence[Experiment]) -> None:
        self._settings, self._history, self._newest = settings, history, history[-1]
        self._design = history[-1].design
        self._read: dict[tuple[str, str], Mapping[tuple[str, str], Sum]] = {}

    @cached_property
    def _scores(self) -> "ArmScores":
        from mlops_tasks.experiments.prediction_metrics import ArmScores  # with MLflow, which events do without

        return ArmScores(self._settings, self._history)

    def paired(self, metric: MetricDesign, arm: str) -> PairedDays:
        """The daily values of the control and of another arm.

        Raises
        ------
        ExperimentError
            One of them has none.
        """
        if metric.source is MetricSource.PREDICTIONS:
            return self._scores.paired(PredictionMetric(metric.name), arm)
        means = {(of, day): each.mean for (of, day), each in self._sums(metric.name, DAY).items()}
        both = {
            name: pd.Series({day: mean for (each, day), mean in means.items() if each == of}, dtype=float)
            for name, of in ((CONTROL, self._design.control), (TREATMENT, arm))
        }
        for of in (self._design.control, arm):
            if all(each != of for each, _ in means):
                raise ExperimentError(
                    f"arm {of} has no event of {metric.name}; see whether its units are served, whether their events "
                    f"are sent, and what was refused: alphaops experiments refused {self._design.name}"
                )
        return PairedDays(pd.DataFrame(both).sort_index(), None)

    def by_unit(self, metric: MetricDesign) -> dict[str, float]:
        """Mean of each unit's events."""
        return {unit: each.mean for (_, unit), each in self._sums(metric.name, UNIT).items()}

    def ratio(self) -> SampleRatio | None:
        """Of the units with events of the first metric of events."""
        metric = self._design.unit_metric
        if metric is None:
            return None
        sums, shares = self._sums(metric.name, UNIT), self._newest.enrolment.allocation.shares
        counts = [sum(each == arm for each, _ in sums) for arm in shares]
        try:
            return sample_ratio(counts, [float(share) for share in shares.values()])
        except ExperimentError:
            return None

    def portfolios(self, findings: Sequence[ArmFinding]) -> tuple[PairedPortfolios, ...]:
        """Of each arm whose portfolio a metric measures."""
        computed = {each.name for each in self._design.metrics if each.source is MetricSource.PREDICTIONS}
        wanted = computed & PORTFOLIO_METRICS
        arms = dict.fromkeys(each.arm for each in findings if each.metric in wanted and each.days)
        return tuple(map(self._scores.portfolios, arms))

    def _sums(self, metric: str, of: str) -> Mapping[tuple[str, str], Sum]:
        """Read once, for all arms."""
        if (metric, of) not in self._read:
            self._read[metric, of] = metric_sums(self._settings, self._design.name, metric, of)
        return self._read[metric, of]


def _finding(design: ExperimentDesign, metric: MetricDesign, arm: str, measured: _Measured) -> ArmFinding:
    guard, differences, confidence = metric is not design.primary, pd.Series(dtype=float), 1 - _level(design, metric)
    case = Case(design.planned_days, design.looks)
    try:
        found = measured.paired(metric, arm)
        case = Case(design.planned_days, design.looks, found.data)
        pairs = DailyDifferences.of(found.values[CONTROL], found.values[TREATMENT])
        differences = pairs.values.iloc[: design.planned_days]
        result = analyse(differences, case, design.method, confidence)
    except ExperimentError as error:
        about = (differences, case, confidence)
        return ArmFinding(arm, metric.name, guard, len(differences), None, None, str(error), *about)
    goal, test = _goal(metric, len(differences) >= design.planned_days), look_test(case, result.method)
    verdict = judge(result, goal, differences.to_numpy(), test)
    return ArmFinding(arm, metric.name, guard, len(differences), result, verdict, "", differences, case, confidence)


def _switched(experiment: Experiment, metric: MetricDesign, arm: str, measured: _Measured) -> ArmFinding:
    """Of an experiment whose units are days: nothing before the schedule is over."""
    design, enrolment = experiment.design, experiment.enrolment
    schedule, guard = enrolment.schedule, metric is not design.primary
    assert schedule is not None
    by_day = measured.by_unit(metric)
    values = np.array([by_day.get(day, np.nan) for day in schedule.days])
    days = int(np.isfinite(values).sum())
    try:
        if not _is_over(schedule):
            raise ExperimentError(f"the schedule ends on {schedule.days[-1]}, and is looked at once, after it: wait")
        missing = [day for day, value in zip(schedule.days, values, strict=True) if not np.isfinite(value)]
        if missing:
            raise ExperimentError(
                f"{first_few(missing)} of the schedule have no event of {metric.name}; send them (the day is their "
                "unit), or register the experiment anew: the test counts every day, as a gap could depend on the arm"
            )
        first = schedule.first(enrolment.salt)
        result = switchback_test(values, first, schedule.design, 1 - _level(design, metric))
    except ExperimentError as error:
        return ArmFinding(arm, metric.name, guard, days, None, None, str(error))
    return ArmFinding(arm, metric.name, guard, days, result, judge(result, _goal(metric, final=True)))


def _is_over(schedule: DaySchedule) -> bool:
    """Whether the last day has ended, in UTC."""
    return now().date().isoformat() > schedule.days[-1]


def _goal(metric: MetricDesign, final: bool) -> Goal:
    return Goal(metric.name, metric.smallest_effect, metric.better == Direction.HIGHER, final)


def _level(design: ExperimentDesign, metric: MetricDesign) -> float:
    """Two-sided level of one comparison: the arms share it, and the guards share another one (Bonferroni)."""
    return design.alpha / (len(design.arms) - 1) / (1 if metric is design.primary else len(design.guards))


def _advice(over: bool, ratio: SampleRatio | None, findings: tuple[ArmFinding, ...]) -> tuple[Advice, str | None]:
    if ratio is not None and ratio.mismatch:
        return Advice.DISTRUST, None
    by_outcome = {
        outcome: [each for each in findings if each.verdict is not None and each.verdict.outcome == outcome]
        for outcome in Outcome
    }
    if harmful := by_outcome[Outcome.WORSE]:
        return Advice.STOP_HARM, harmful[0].arm
    if winners := [each for each in by_outcome[Outcome.BETTER] if not each.guard]:
        best = max(winners, key=lambda each: abs(each.result.effect) if each.result is not None else 0.0)
        return Advice.STOP_WINNER, best.arm
    return (Advice.STOP_END, None) if over else (Advice.WAIT, None)
