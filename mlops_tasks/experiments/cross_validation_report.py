"""The combined results of the folds of a cross-validation: each backtest path with its seed noise, and all of them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlops_tasks.evaluation.fold_inference import inflated, variance_inflation
from mlops_tasks.evaluation.seed_noise import seed_band
from mlops_tasks.evaluation.significance import cosine_mean
from mlops_tasks.evaluation.splits import CombinatorialPurged, Split, WalkForward, backtest_paths
from mlops_tasks.files import digest_of, finite_or_none, read_json, write_json, write_text
from mlops_tasks.plots.cross_validation import BacktestPath, CrossValidationInfo, plot_cross_validation
from mlops_tasks.plots.figure import shown, write_png
from mlops_tasks.registry.cross_validation_run import CrossValidationRun, PathMetrics
from mlops_tasks.registry.training_record import finite, flatten

Floats = NDArray[np.float64]

FOLDS, REPORT, MARKDOWN, PLOT = "folds", "report.json", "report.md", "report.png"
CONFIDENCE = 0.95


def fold_file(folder: Path, seed: int, number: int) -> Path:
    """Where a fold's result is kept; splits are counted from 0."""
    return folder / FOLDS / f"seed-{seed}-split-{number}.json"


@dataclass(frozen=True)
class Backtests:
    """Daily rank ICs on each path, for each seed.

    Attributes
    ----------
    days
        The tested days on which any path has a rank IC.
    rank_ic
        Shape (seeds, paths, days). A day without a rank IC counts as 0: scores that are all the same order nothing.
    inflation
        `fold_inference.variance_inflation` of the splits.
    """

    days: pd.DatetimeIndex
    rank_ic: Floats
    inflation: float

    @classmethod
    def of(
        cls, splitter: CombinatorialPurged | WalkForward, folds: Sequence[Sequence[Floats]], calendar: pd.DatetimeIndex
    ) -> "Backtests":
        """From the rank ICs of each fold's test days, seed by seed; NaN where there is none."""
        if isinstance(splitter, CombinatorialPurged):
            found = np.stack([backtest_paths(splitter, tested, len(calendar)) for tested in folds])
            days = calendar
        else:
            found = np.stack([np.concatenate(tested)[None] for tested in folds])
            days = calendar[splitter.first_test_day :]
        known = np.isfinite(found).any(axis=(0, 1))
        inflation = variance_inflation(list(splitter.splits(len(calendar))), len(calendar))
        return cls(days[known], np.nan_to_num(found[:, :, known]), inflation)

    @property
    def means(self) -> Floats:
        """Mean rank IC, shape (seeds, paths)."""
        means: Floats = self.rank_ic.mean(axis=2)
        return means

    @property
    def icirs(self) -> Floats:
        """Mean over standard deviation, shape (seeds, paths); NaN without spread."""
        spread = self.rank_ic.std(axis=2, ddof=1)
        icirs: Floats = self.means / np.where(spread > 1e-12 * np.abs(self.means), spread, np.nan)
        return icirs


def write_report(
    folder: Path,
    content: Mapping[str, Any],
    splitter: CombinatorialPurged | WalkForward,
    calendar: pd.DatetimeIndex,
) -> None:
    """Write report.json, report.md and report.png from the results of all folds of a request."""
    splits = list(splitter.splits(len(calendar)))
    kept = [[read_json(fold_file(folder, seed, i)) for i in range(len(splits))] for seed in content["seeds"]]
    tested = [[np.array(fold["daily"]["rank_ic"], dtype=np.float64) for fold in folds] for folds in kept]
    backtests = Backtests.of(splitter, tested, calendar)
    report = {
        **content,
        "first_date": str(backtests.days[0].date()),
        "last_date": str(backtests.days[-1].date()),
        **summary(backtests, content["seeds"]),
        "folds": [_fold(split, [folds[i] for folds in kept], calendar) for i, split in enumerate(splits)],
        "verdicts": dict(sorted(Counter(fold["verdict"] for folds in kept for fold in folds).items())),
    }
    write_json(folder / REPORT, report)
    write_text(folder / MARKDOWN, markdown(report))
    write_png(plot_cross_validation(info_of(report, backtests)), folder / PLOT)


def run_of(folder: Path) -> CrossValidationRun:
    """What MLflow stores of a written report."""
    report = read_json(folder / REPORT)
    named = ("model", "seeds", "splits", "horizon", "data_version", "feature_version", "feature_set", "config")
    groups = {name: report[name] for name in ("rank_ic", "between_paths", "between_seeds")}
    numbers = {**dict(flatten(groups)), "rank_icir": report["rank_icir"]}
    numbers |= {f"trainings_{verdict}": count for verdict, count in report["verdicts"].items()}
    return CrossValidationRun(
        name=report["name"],
        digest=digest_of(report),
        model=report["model"],
        data_version=report["data_version"],
        parameters={name: str(value) for name, value in flatten({name: report[name] for name in named})},
        metrics=finite(numbers),
        paths=[PathMetrics(each["mean"], each["rank_icir"], each["standard_deviation"]) for each in report["paths"]],
        files=sorted(folder.glob("report.*")),
    )


def summary(backtests: Backtests, seeds: Sequence[int]) -> dict[str, Any]:
    """The numbers of all paths.

    `rank_ic` is the mean over days of the mean over paths and seeds, with a standard error that is robust to
    autocorrelation and allows for folds that train each other's models, by `variance_inflation`;
    `between_paths` describes the means of the paths, each over its seeds; `between_seeds` is the band of the means of
    the seeds, each over its paths.
    """
    means, icirs = backtests.means, backtests.icirs
    by_path = means.mean(axis=0)
    daily = cosine_mean(backtests.rank_ic.mean(axis=(0, 1)), confidence=CONFIDENCE)
    test = inflated(daily, backtests.inflation)
    return {
        "confidence": CONFIDENCE,
        "rank_ic": test.to_json(),
        "variance_inflation": backtests.inflation,
        "rank_icir": finite_or_none(float(icirs.mean())),
        "between_paths": {
            "n": len(by_path),
            "mean": float(by_path.mean()),
            "standard_deviation": float(by_path.std(ddof=1)) if len(by_path) > 1 else None,
            "least": float(by_path.min()),
            "median": float(np.median(by_path)),
            "largest": float(by_path.max()),
            "share_not_positive": float((by_path <= 0).mean()),
        },
        "between_seeds": _band(means.mean(axis=1)),
        "paths": [
            {
                "rank_ic": {str(seed): float(value) for seed, value in zip(seeds, means[:, path], strict=True)},
                "rank_icir": finite_or_none(float(icirs[:, path].mean())),
                **_band(means[:, path]),
            }
            for path in range(means.shape[1])
        ],
    }


def info_of(report: Mapping[str, Any], backtests: Backtests) -> CrossValidationInfo:
    """What the plot shows of a report."""
    cumulative = backtests.rank_ic.cumsum(axis=2)
    paths = [
        BacktestPath(
            values=list(band["rank_ic"].values()),
            mean=band["mean"],
            interval=None if band["lower"] is None else (band["lower"], band["upper"]),
            cumulative=cumulative[:, number].mean(axis=0),
            least=cumulative[:, number].min(axis=0),
            largest=cumulative[:, number].max(axis=0),
        )
        for number, band in enumerate(report["paths"])
    ]
    test, seeds = report["rank_ic"], len(report["seeds"])
    title = f"{report['model']} on {report['data_version']}: {_method(report)}, {seeds} seeds"
    return CrossValidationInfo(title, backtests.days, paths, (test["lower"], test["upper"]))


def markdown(report: Mapping[str, Any]) -> str:
    """The report for people."""
    test, paths, seeds = report["rank_ic"], report["between_paths"], report["between_seeds"]
    level = f"{report['confidence']:.0%}"
    lines = [
        f"# {report['model']}: {_method(report)}",
        "",
        f"Mean daily rank IC **{test['mean']:+.4f}** ({level} interval {test['lower']:+.4f} to {test['upper']:+.4f}, "
        f"one-sided p {shown(test['p_one_sided'], '.4f')}) over {test['n']} days from {report['first_date']} to "
        f"{report['last_date']}, rank ICIR {shown(report['rank_icir'], '.3f')}. Vintage {report['data_version']}, "
        f"features {report['feature_set']}, horizon {report['horizon']}. Folds that train each other's models multiply "
        f"the mean's variance by {report['variance_inflation']:.2f}; the interval allows for it.",
        "",
        f"Between {paths['n']} backtest paths: {paths['least']:+.4f} to {paths['largest']:+.4f}, standard deviation "
        f"{shown(paths['standard_deviation'], '.4f')}; {paths['share_not_positive']:.0%} of them not above 0. Between "
        f"{seeds['n']} seeds: standard deviation {shown(seeds['standard_deviation'], '.4f')}, {level} band of their "
        f"mean {shown(seeds['lower'], '+.4f')} to {shown(seeds['upper'], '+.4f')}.",
        "",
        "Trainings: " + ", ".join(f"{count} {verdict}" for verdict, count in report["verdicts"].items()) + ".",
        "",
        *_grid(["path", "rank IC", "between seeds", "rank ICIR"]),
    ]
    for number, path in enumerate(report["paths"], start=1):
        spread, icir = shown(path["standard_deviation"], ".4f"), shown(path["rank_icir"], ".3f")
        lines.append(_line([str(number), format(path["mean"], "+.4f"), f"± {spread}", icir]))
    lines += ["", *_grid(["fold", "tested", "days to learn from", "rank IC by seed", "best iteration"])]
    for number, fold in enumerate(report["folds"], start=1):
        ics = ", ".join(shown(value, "+.4f") for value in fold["rank_ic"])
        kept = ", ".join(map(str, fold["kept_iterations"]))
        lines.append(_line([str(number), "; ".join(fold["tested"]), str(fold["train_days"]), ics, kept]))
    lines += [
        "",
        "The paths share trainings and days, so their spread is not a standard error. All days are tested here, "
        "including those of the test segment: if a configuration is chosen by this report, they are used up for the "
        "gate.",
    ]
    return "\n".join(lines) + "\n"


def _fold(split: Split, results: Sequence[Mapping[str, Any]], calendar: pd.DatetimeIndex) -> dict[str, Any]:
    """One split over its seeds."""
    breaks = np.flatnonzero(np.diff(split.test) > 1) + 1
    spans = [calendar[part] for part in np.split(split.test, breaks)]
    ics = [pd.Series(result["daily"]["rank_ic"], dtype=np.float64).mean() for result in results]
    return {
        "tested": [f"{days[0].date()} to {days[-1].date()}" for days in spans],
        "train_days": len(split.train),
        "rank_ic": [finite_or_none(value) for value in ics],
        "kept_iterations": [result["kept_iteration"] for result in results],
        "verdicts": [result["verdict"] for result in results],
        "explanations": [result["explanation"] for result in results],
    }


def _band(values: Floats) -> dict[str, Any]:
    band = seed_band([float(value) for value in values], CONFIDENCE)
    numbers = {name: finite_or_none(getattr(band, name)) for name in ("standard_deviation", "lower", "upper")}
    return {"n": band.n, "mean": band.mean, **numbers}


def _method(report: Mapping[str, Any]) -> str:
    splits = report["splits"]
    if splits["method"] == "walk_forward":
        return f"walk-forward in {len(report['folds'])} steps"
    return f"{splits['test_groups']} of {splits['groups']} groups tested at a time"


def _grid(titles: Sequence[str]) -> list[str]:
    return [_line(titles), _line(["---"] * len(titles))]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
