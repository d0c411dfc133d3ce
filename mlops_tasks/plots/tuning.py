"""What a search shows: its history, its trade-offs, which hyper-parameters mattered, and where the good ones lie."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from mlops_tasks.plots.figure import BLUE, GREY, ORANGE, RED, draw, no_data, shown, styled
from mlops_tasks.states import TrialOutcome

_MARKS = {TrialOutcome.PRUNED: (ORANGE, "x"), TrialOutcome.FAILED: (RED, "|")}


@dataclass(frozen=True)
class HistoryInfo:
    """A study's trials in the order of their numbers."""

    objective: str
    values: pd.Series
    """Of complete trials, by number."""
    best: pd.Series
    """Best value so far, by number."""
    others: Mapping[str, Sequence[int]]
    """Numbers of the pruned and of the failed trials."""


@dataclass(frozen=True)
class ParetoInfo:
    """Complete trials in the plane of the first two objectives."""

    objectives: tuple[str, str]
    points: pd.DataFrame
    """Columns as `objectives`, and `front`: whether no other trial is better in all objectives; by number."""


@dataclass(frozen=True)
class ParallelInfo:
    """Complete trials as lines over hyper-parameters, each scaled to 0 to 1."""

    positions: pd.DataFrame
    """Trials x hyper-parameters, 0: the smallest value tried, 1: the largest; logarithmic where the search was."""
    ranges: Mapping[str, tuple[str, str]]
    """Smallest and largest value of each hyper-parameter, or its first and last word."""
    quality: pd.Series
    """0: the worst trial, 1: the best one."""


def history_info(trials: Sequence[Mapping[str, Any]], objective: str, minimised: bool) -> HistoryInfo:
    """From a study's trials: `number`, `state` and, if complete, `values`, of which the first is the objective's."""
    complete = {each["number"]: each["values"][0] for each in trials if each["state"] == TrialOutcome.COMPLETE}
    values = pd.Series(complete, dtype=float).sort_index()
    best = values.cummin() if minimised else values.cummax()
    others = {state.value: [each["number"] for each in trials if each["state"] == state] for state in _MARKS}
    return HistoryInfo(objective, values, best, others)


@styled
def plot_history(info: HistoryInfo) -> Figure:
    """Each trial's value, and the best so far."""
    figure, (axes,) = draw()
    axes.set(title="Trials", xlabel="trial", ylabel=f"validation {info.objective}")
    if info.values.empty:
        no_data(axes, "no trial is complete")
        return figure
    axes.plot(info.values.index, info.values, "o", color=GREY, markersize=4, label="complete")
    axes.step(info.best.index, info.best, where="post", color=BLUE, label=f"best, {shown(info.best.iloc[-1], '.5f')}")
    for state, (colour, marker) in _MARKS.items():
        numbers = info.others[state]
        if numbers:
            floor = np.full(len(numbers), info.values.min())
            axes.plot(numbers, floor, marker, color=colour, markersize=6, label=f"{state}, {len(numbers)}")
    axes.legend(loc="best")
    return figure


def pareto_info(trials: Sequence[Mapping[str, Any]], objectives: Sequence[str], front: Sequence[int]) -> ParetoInfo:
    """From a study's trials with two or more objectives, and the numbers of its Pareto front."""
    first, second = objectives[:2]
    rows = {each["number"]: each["values"][:2] for each in trials if each["state"] == TrialOutcome.COMPLETE}
    points = pd.DataFrame.from_dict(rows, orient="index", columns=[first, second], dtype=float)
    points["front"] = points.index.isin(list(front))
    return ParetoInfo((first, second), points)


@styled
def plot_pareto(info: ParetoInfo) -> Figure:
    """The cost of one objective in terms of the other."""
    figure, (axes,) = draw()
    first, second = info.objectives
    axes.set(title="Pareto front", xlabel=f"validation {second}", ylabel=f"validation {first}")
    if info.points.empty:
        no_data(axes, "no trial is complete")
        return figure
    rest, front = info.points[~info.points["front"]], info.points[info.points["front"]].sort_values(second)
    axes.plot(rest[second], rest[first], "o", color=GREY, markersize=4, label="other trials")
    axes.plot(front[second], front[first], "o-", color=BLUE, label=f"front, {len(front)} trials")
    axes.legend(loc="best")
    return figure


def parallel_info(trials: Sequence[Mapping[str, Any]], minimised: bool, log: Sequence[str]) -> ParallelInfo:
    """From a study's trials (`params`, first of `values`); `log` names the parameters searched on a log scale."""
    complete = [each for each in trials if each["state"] == TrialOutcome.COMPLETE]
    table = pd.DataFrame([each["params"] for each in complete], index=[each["number"] for each in complete])
    values = pd.Series([each["values"][0] for each in complete], table.index, dtype=float)
    quality = _scaled(-values if minimised else values)
    positions, ranges = {}, {}
    for name in table.columns:
        column = table[name]
        if pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column):
            positions[name] = _scaled(np.log(column.astype(float)) if name in log else column.astype(float))
            ranges[name] = (f"{column.min():.4g}", f"{column.max():.4g}")
        else:
            words = sorted(column.astype(str).unique())
            positions[name] = _scaled(column.astype(str).map(words.index).astype(float))
            ranges[name] = (words[0], words[-1])
    return ParallelInfo(pd.DataFrame(positions, index=table.index), ranges, quality)


@styled
def plot_parallel(info: ParallelInfo) -> Figure:
    """One line per trial; better trials are bluer."""
    figure, (axes,) = draw(size=(max(9.0, 1.4 * len(info.ranges)), 4.5))
    axes.set(title="Where the good trials lie", xlabel="hyper-parameter", ylabel="smallest to largest value tried")
    if info.positions.empty:
        no_data(axes, "no trial is complete")
        return figure
    places = np.arange(len(info.ranges))
    for number in info.quality.sort_values(kind="stable").index:
        share = float(info.quality[number])
        axes.plot(places, info.positions.loc[number], color=BLUE, alpha=0.08 + 0.85 * share**3, linewidth=1.2)
    labels = [f"{name}\n{low} to {high}" for name, (low, high) in info.ranges.items()]
    axes.set_xticks(places, labels, fontsize=8)
    return figure


@styled
def plot_parameter_importance(importance: Mapping[str, float]) -> Figure:
    """Share of the objective's variance that each hyper-parameter explains, the largest on top."""
    figure, (axes,) = draw()
    axes.set(title="What mattered", xlabel="share of the variance", ylabel="hyper-parameter")
    if not importance:
        no_data(axes, "too few trials, or all are alike")
        return figure
    ordered = pd.Series(dict(importance), dtype=float).sort_values(kind="stable")
    axes.barh(list(ordered.index), ordered.to_numpy(), color=BLUE)
    return figure


def _scaled(values: pd.Series) -> pd.Series:
    """Values scaled to 0 to 1; one half if all are the same."""
    spread = values.max() - values.min()
    return (values - values.min()) / spread if spread > 0 else values * 0 + 0.5
