"""An experiment as it is analysed every day: each arm against the control, by the daily means of each metric.

Days are the unit of evidence: the arms are compared on the same days, and what every account has in common on a day
drops out of the difference. Several arms share the level of the primary metric equally, and so do the guards.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

import pandas as pd

from mlops_tasks.config import Settings
from mlops_tasks.errors import ExperimentError
from mlops_tasks.experiments.design import Direction, ExperimentDesign, MetricDesign
from mlops_tasks.experiments.inference.analysis import analyse
from mlops_tasks.experiments.inference.checks import SampleRatio, sample_ratio
from mlops_tasks.experiments.inference.dated import DailyDifferences
from mlops_tasks.experiments.inference.offers import Case
from mlops_tasks.experiments.inference.results import Result
from mlops_tasks.experiments.inference.verdict import Goal, Outcome, Verdict, judge
from mlops_tasks.experiments.lifecycle import Experiment, started_history
from mlops_tasks.state.metric_events import DAY, UNIT, Sum, metric_sums


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
    """On which both arms have events."""
    result: Result | None
    verdict: Verdict | None
    waits_for: str = ""
    """Why there is no result yet."""

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
    """With events of the primary metric in every arm."""
    planned_days: int
    ratio: SampleRatio | None
    """None: no unit has an event yet."""
    findings: tuple[ArmFinding, ...]
    advice: Advice
    arm: str | None
    """That the advice is about."""

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
        return {**vars(self), "ratio": ratio, "findings": found}


def analyse_experiment(settings: Settings, name: str) -> ExperimentAnalysis:
    """Analyse what an experiment has measured so far.

    Raises
    ------
    ExperimentError
        There is none of this name, or it was never started.
    """
    history = started_history(settings, name)
    design = history[-1].design
    means = {metric.name: _daily_means(settings, design, metric) for metric in design.metrics}
    findings = tuple(
        _finding(design, metric, arm, means[metric.name])
        for metric in design.metrics
        for arm in design.arms
        if arm != design.control
    )
    days = len(means[design.primary.name].dropna())
    ratio = _ratio(settings, history[-1])
    advice, arm = _advice(design, days, ratio, findings)
    return ExperimentAnalysis(name, days, design.planned_days, ratio, findings, advice, arm)


def _daily_means(settings: Settings, design: ExperimentDesign, metric: MetricDesign) -> pd.DataFrame:
    """By day and arm; NaN where an arm has no event."""
    sums: Mapping[tuple[str, str], Sum] = metric_sums(settings, design.name, metric.name, DAY)
    found = pd.Series({(day, arm): each.mean for (arm, day), each in sums.items()}, dtype=float)
    table = found.unstack() if len(found) else pd.DataFrame(dtype=float)
    return table.reindex(columns=list(design.arms)).sort_index()


def _finding(design: ExperimentDesign, metric: MetricDesign, arm: str, means: pd.DataFrame) -> ArmFinding:
    guard, days, case = metric is not design.primary, 0, Case(design.planned_days, design.looks)
    try:
        differences = DailyDifferences.of(means[design.control], means[arm]).values.iloc[: design.planned_days]
        days = len(differences)
        result = analyse(differences, case, confidence=1 - _level(design, guard))
    except ExperimentError as error:
        return ArmFinding(arm, metric.name, guard, days, None, None, str(error))
    goal = Goal(
        metric=metric.name,
        least=metric.smallest_effect,
        higher_is_better=metric.better == Direction.HIGHER,
        final=days >= design.planned_days,
    )
    return ArmFinding(arm, metric.name, guard, days, result, judge(result, goal, differences.to_numpy()))


def _level(design: ExperimentDesign, guard: bool) -> float:
    """Two-sided level of one comparison: the arms share it, and the guards share another one (Bonferroni)."""
    return design.alpha / (len(design.arms) - 1) / (len(design.guards) if guard else 1)


def _ratio(settings: Settings, experiment: Experiment) -> SampleRatio | None:
    sums = metric_sums(settings, experiment.design.name, experiment.design.primary.name, UNIT)
    shares = experiment.enrolment.allocation.shares
    counts = [sum(each == arm for each, _ in sums) for arm in shares]
    try:
        return sample_ratio(counts, [float(share) for share in shares.values()])
    except ExperimentError:
        return None


def _advice(
    design: ExperimentDesign, days: int, ratio: SampleRatio | None, findings: tuple[ArmFinding, ...]
) -> tuple[Advice, str | None]:
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
    return (Advice.STOP_END, None) if days >= design.planned_days else (Advice.WAIT, None)
