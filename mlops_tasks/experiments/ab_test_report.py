"""The report of an A/B test: its analysis, its looks and its plots, below `<home>/reports/ab_test` and in MLflow.

There is one report of an experiment, which a newer one replaces, and one run in MLflow.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from mlops_tasks.config import Settings
from mlops_tasks.experiments.daily_analysis import ArmFinding, ExperimentAnalysis
from mlops_tasks.experiments.design import MetricDesign
from mlops_tasks.experiments.inference.analysis import course
from mlops_tasks.experiments.inference.checks import ratio_band
from mlops_tasks.experiments.inference.results import Result
from mlops_tasks.experiments.lifecycle import HOLDS_UNITS, Experiment
from mlops_tasks.files import digest_of, finite_or_none, new_folder, read_json, retire_folder, write_json
from mlops_tasks.plots.experiments import (
    ArmCourse,
    ExperimentInfo,
    MetricCourse,
    plot_differences,
    plot_effects,
    plot_shares,
    shares_info,
)
from mlops_tasks.plots.figure import write_png
from mlops_tasks.registry.ab_test_run import AbTestRun, LoggedAbTest, LookNumbers, log_ab_test
from mlops_tasks.registry.training_record import flatten
from mlops_tasks.reports import LAYOUTS, ReportKind
from mlops_tasks.state.metric_events import new_units
from mlops_tasks.states import ExperimentState

log = logging.getLogger(__name__)

REPORT = "report.json"


class Look(NamedTuple):
    """What a look has found."""

    day: int
    """How many days it counts."""
    on: str
    """The last of them, as an ISO date."""
    result: Result


@dataclass(frozen=True)
class AbTestReport:
    """What is told of an experiment, as it stands."""

    settings: Settings
    experiment: Experiment
    """After its newest step."""
    analysis: ExperimentAnalysis

    @property
    def name(self) -> str:
        """Of the experiment, and of the report."""
        return self.experiment.design.name

    @cached_property
    def looks(self) -> dict[tuple[str, str], list[Look]]:
        """By metric and arm, oldest first."""
        return {(each.metric, each.arm): list(self._looks_at(each)) for each in self.analysis.findings}

    def _looks_at(self, finding: ArmFinding) -> Iterator[Look]:
        schedule = self.experiment.enrolment.schedule
        if schedule is not None:
            if finding.result is not None:
                yield Look(len(schedule.days), schedule.days[-1], finding.result)
        elif finding.case is not None:
            method = self.experiment.design.method
            for result in course(finding.differences, finding.case, method, finding.confidence):
                yield Look(result.n, str(finding.differences.index[result.n - 1]), result)

    @cached_property
    def content(self) -> dict[str, Any]:
        """What `report.json` holds, as plain JSON values."""
        experiment = self.experiment
        return {
            "experiment": self.name,
            "state": str(experiment.state),
            "winner": experiment.winner,
            "reason": experiment.reason,
            "date": self._newest,
            "advice": str(self.analysis.advice),
            "lines": self.analysis.lines(),
            "design": experiment.design.to_json(),
            "analysis": self.analysis.to_json(),
            "looks": [
                {"metric": metric, "arm": arm, "day": look.day, "on": look.on, **_numbers(look.result)}
                for (metric, arm), looks in self.looks.items()
                for look in looks
            ],
            "differences": [
                {"metric": each.metric, "arm": each.arm, "days": each.differences.to_dict()}
                for each in self.analysis.findings
            ],
            "units": [
                {"day": str(day.date()), **{str(arm): int(count) for arm, count in row.items()}}
                for day, row in self._units.iterrows()
            ],
        }

    @cached_property
    def _units(self) -> pd.DataFrame:
        """New units by datetime; columns: arms. Empty without a metric of events, or where days are the units."""
        design, enrolment = self.experiment.design, self.experiment.enrolment
        metric, counts = design.unit_metric, {}
        if metric is not None and enrolment.schedule is None:
            counts = new_units(self.settings, self.name, metric.name)
        table = pd.Series(counts, dtype=float).unstack() if counts else pd.DataFrame(dtype=float)
        table = table.set_axis(pd.DatetimeIndex(table.index)).reindex(columns=list(design.arms)).sort_index()
        last = pd.Timestamp(self._newest)
        if len(table) and last > table.index[-1]:
            table.loc[last] = 0.0  # none is new since
        return table.fillna(0.0)

    @cached_property
    def _newest(self) -> str:
        """The last day that a difference is of, or that of the newest step."""
        daily = [each.differences for each in self.analysis.findings]
        return max((str(each.index[-1]) for each in daily if len(each)), default=str(self.experiment.at.date()))

    def write(self, folder: Path) -> list[Path]:
        """Write report.json and the plots into a folder; returns their paths."""
        write_json(folder / REPORT, self.content)
        return [folder / REPORT, *self.write_plots(folder)]

    def write_plots(self, folder: Path) -> list[Path]:
        """Write effect.png, difference.png and, where units are assigned, sample_ratio.png; returns their paths."""
        info, design = self._info(), self.experiment.design
        figures = {"effect.png": plot_effects(info)}
        if self.experiment.enrolment.schedule is None:
            figures["difference.png"] = plot_differences(info)
        if len(self._units):
            shares = {arm: float(share) for arm, share in design.arms.items()}
            figures["sample_ratio.png"] = plot_shares(shares_info(self._units, shares, ratio_band, self.name))
        for name, figure in figures.items():
            write_png(figure, folder / name)
        return [folder / name for name in figures]

    def _info(self) -> ExperimentInfo:
        design, analysis = self.experiment.design, self.analysis
        courses = []
        for metric in design.metrics:
            arms = [
                ArmCourse(each.arm, _dated(each.differences), _table(self.looks[each.metric, each.arm]))
                for each in analysis.findings
                if each.metric == metric.name
            ]
            courses.append(MetricCourse(_title(metric, metric is not design.primary), metric.smallest_effect, arms))
        title = f"{self.name}, day {analysis.days} of {analysis.planned_days}: {str(analysis.advice).replace('_', ' ')}"
        return ExperimentInfo(title, courses)

    def run(self, files: list[Path]) -> AbTestRun:
        """What MLflow stores of it."""
        design, state = self.experiment.design, self.experiment.state
        looks = [
            LookNumbers(look.day, look.on, {f"{metric}.{arm}.{name}": value for name, value in _known(look.result)})
            for (metric, arm), found in self.looks.items()
            for look in found
        ]
        tags = {
            "state": str(state),
            "advice": str(self.analysis.advice),
            "arm": self.analysis.arm or "",
            "winner": self.experiment.winner or "",
            "day": f"{self.analysis.days} of {self.analysis.planned_days}",
        }
        return AbTestRun(
            name=self.name,
            digest=digest_of(self.content),
            hypothesis=design.hypothesis,
            parameters={name: str(value) for name, value in flatten(design.to_json()) if name != "hypothesis"},
            looks=looks,
            tags=tags,
            ended=state not in HOLDS_UNITS,
            files=files,
        )


def publish_report(report: AbTestReport) -> LoggedAbTest:
    """Write a report, unless an equal one is there, and bring its run in MLflow up to date.

    The report is in its place only once MLflow has it, so whoever is killed in between begins again.

    Raises
    ------
    RegistryError
        MLflow refuses, or cannot be reached.
    """
    target = _folder(report.settings, report.name)
    if (target / REPORT).is_file() and digest_of(read_json(target / REPORT)) == digest_of(report.content):
        files = [path for name in LAYOUTS[ReportKind.AB_TEST].files if (path := target / name).is_file()]
        return log_ab_test(report.settings, report.run(files))
    with new_folder(target) as beside:
        logged = log_ab_test(report.settings, report.run(report.write(beside)))
        retire_folder(target)
    log.info("report of %s: %s", report.name, target)
    return logged


def published_state(settings: Settings, name: str) -> ExperimentState | None:
    """The state that an experiment's report tells of; None without a report."""
    path = _folder(settings, name) / REPORT
    return ExperimentState(read_json(path)["state"]) if path.is_file() else None


def _folder(settings: Settings, name: str) -> Path:
    return settings.home / LAYOUTS[ReportKind.AB_TEST].folder / name


def _title(metric: MetricDesign, guard: bool) -> str:
    return f"{metric.name} ({'guard' if guard else 'primary'}; better: {metric.better})"


def _numbers(result: Result) -> dict[str, float | None]:
    numbers = {"effect": result.effect, "lower": result.lower, "upper": result.upper, "p_value": result.p_value}
    return {name: None if value is None else finite_or_none(value) for name, value in numbers.items()}


def _known(result: Result) -> Iterator[tuple[str, float]]:
    for name, value in _numbers(result).items():
        if value is not None:
            yield name, value


def _dated(differences: pd.Series) -> pd.Series:
    return differences.set_axis(pd.DatetimeIndex(differences.index))


def _table(looks: list[Look]) -> pd.DataFrame:
    rows = [(look.result.effect, look.result.lower, look.result.upper) for look in looks]
    index = pd.DatetimeIndex([look.on for look in looks])
    return pd.DataFrame(rows, index, ["effect", "lower", "upper"], dtype=float)
