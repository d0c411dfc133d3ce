"""Cross-validation of a model of the zoo: the report of a small market, gone on with, logged, and its numbers."""

import json
from datetime import date

import numpy as np
import pandas as pd
import pytest

from mlops_tasks.cli import main
from mlops_tasks.errors import ConfigError
from mlops_tasks.evaluation.fold_inference import inflated, variance_inflation
from mlops_tasks.evaluation.ic import daily_rank_ic
from mlops_tasks.evaluation.significance import cosine_mean
from mlops_tasks.evaluation.splits import CombinatorialPurged, Gap, WalkForward, backtest_paths
from mlops_tasks.experiments.cross_validation import (
    SplitRequest,
    ValidationRequest,
    cross_validate_task,
    split_request,
    validate_model,
)
from mlops_tasks.experiments.cross_validation_report import Backtests, fold_file, summary
from mlops_tasks.files import read_json
from mlops_tasks.modeling.configuration import resolve_config
from mlops_tasks.modeling.cross_validation import cross_validate, load_panel
from mlops_tasks.plots.cross_validation import BacktestPath, CrossValidationInfo, plot_cross_validation
from mlops_tasks.plots.figure import png_bytes
from mlops_tasks.registry.client import connect, experiment_id
from mlops_tasks.registry.models import versions
from mlops_tasks.state.resource_requests import resource_events
from tests.registry.conftest import Operation

SPLITS = SplitRequest(groups=3, test_groups=1, valid_days=10, embargo_days=1)


def test_a_report_is_made_of_folds_that_are_kept(operation: Operation, capsys: pytest.CaptureFixture[str]) -> None:
    """Its numbers are those of `cross_validate`; lost folds alone are trained again; MLflow has it once."""
    settings, vintage = operation.settings, operation.vintage
    request = ValidationRequest("linear", SPLITS, seeds=2)
    said: list[str] = []
    folder = validate_model(settings, request, said.append)
    report = read_json(folder / "report.json")
    calendar = vintage.calendar()
    panel = load_panel(settings, vintage, operation.feature_version, 1)
    splitter = CombinatorialPurged(3, 1, valid_days=10, gap=Gap(1, 1))
    folds = list(cross_validate(panel, splitter.splits(len(calendar)), resolve_config("linear", seed=42), settings))
    series = pd.concat([daily_rank_ic(fold.score, panel.label) for fold in folds]).dropna()
    inflation = variance_inflation(list(splitter.splits(len(calendar))), len(calendar))
    expected = inflated(cosine_mean(series), inflation)
    assert report["variance_inflation"] == inflation > 1.8, "each third is trained on when another one is tested"
    assert report["rank_ic"]["mean"] == pytest.approx(expected.mean)
    assert report["rank_ic"]["standard_error"] == pytest.approx(expected.standard_error)
    assert len(report["paths"]) == 1 and report["between_paths"]["n"] == 1
    assert report["between_seeds"]["standard_deviation"] == pytest.approx(0), "the linear model has no randomness"
    assert report["verdicts"] == {"unknown": 6} and len([line for line in said if "rank IC" in line]) == 6
    first = calendar[splitter.blocks(len(calendar))[0]]
    assert report["folds"][0]["tested"] == [f"{first[0].date()} to {first[-1].date()}"]
    assert versions(settings) == []
    for seed in (42, 43):  # each fold had its turn in the machine's queue
        events = [resource_events(settings, f"{folder.name}-{seed}-{number}") for number in range(3)]
        assert [[event.kind for event in each] for each in events] == [["asked", "granted", "released"]] * 3

    kept = {path: path.read_bytes() for path in folder.glob("report.*")}
    times = {path: path.stat().st_mtime_ns for path in folder.glob("folds/*.json")}
    lost = fold_file(folder, 43, 1)
    lost.unlink()
    (folder / "report.json").unlink()
    assert cross_validate_task(folder=str(folder)) == {"folds": 6, "trained": 1}
    chosen = ["--groups", "3", "--test-groups", "1", "--valid-days", "10", "--embargo-days", "1"]
    assert main(["models", "validate", "linear", *chosen, "--seeds", "2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["path"] == str(folder)
    assert {path: path.read_bytes() for path in folder.glob("report.*")} == kept
    assert [path for path, at in times.items() if path.stat().st_mtime_ns != at] == [lost]

    client = connect(settings)
    (run,) = client.search_runs([experiment_id(settings)], "tags.cross_validation LIKE '%'")
    assert run.data.metrics["rank_ic.mean"] == report["rank_ic"]["mean"]
    assert run.data.params["splits.groups"] == "3" and run.data.params["config.family"] == "linear"
    assert [each.path for each in client.list_artifacts(run.info.run_id)] == ["report.json", "report.md", "report.png"]
    said_by_it = (folder / "report.md").read_text()
    assert f"**{report['rank_ic']['mean']:+.4f}**" in said_by_it and "are used up for the gate" in said_by_it


def test_paths_hold_each_seeds_own_numbers() -> None:
    """Seeds and paths with known means: bands, distribution and level are those of NumPy; days without any IC are
    left out, those of one path count as 0."""
    splitter, calendar = CombinatorialPurged(4, 2), pd.bdate_range("2022-01-03", periods=40)
    random = np.random.default_rng(0)
    folds = [[random.normal(0.02 + seed / 100, 0.1, 20) for _ in range(6)] for seed in range(3)]
    for tested in folds:
        tested[0][0] = np.nan
        for number, split in enumerate(splitter.splits(40)):
            tested[number][split.test == 39] = np.nan
    found = Backtests.of(splitter, folds, calendar)
    expected = np.stack([backtest_paths(splitter, tested, 40) for tested in folds])[:, :, :39]
    np.testing.assert_array_equal(found.rank_ic, np.nan_to_num(expected))
    assert found.days[-1].date() == date(2022, 2, 24)
    content = summary(found, [1, 2, 3])
    means = found.rank_ic.mean(axis=2)
    assert [path["mean"] for path in content["paths"]] == pytest.approx(means.mean(axis=0))
    assert content["between_seeds"]["standard_deviation"] == pytest.approx(means.mean(axis=1).std(ddof=1))
    assert content["between_paths"]["standard_deviation"] == pytest.approx(means.mean(axis=0).std(ddof=1))
    assert content["paths"][2]["rank_ic"]["3"] == pytest.approx(means[2, 2])
    assert content["rank_ic"]["mean"] == pytest.approx(found.rank_ic.mean())


def test_a_walk_forward_is_one_path_over_its_tested_days() -> None:
    """Days before the first test are no part of it."""
    splitter, calendar = WalkForward(10, 5, gap=Gap(1)), pd.bdate_range("2022-01-03", periods=27)
    tested = [np.full(len(split.test), 0.1) for split in splitter.splits(27)]
    found = Backtests.of(splitter, [tested, tested], calendar)
    assert found.rank_ic.shape == (2, 1, 15) and found.days[0] == calendar[12]
    assert summary(found, [0, 1])["paths"][0]["rank_icir"] is None, "no spread"


def test_splits_follow_from_the_calendar_unless_they_are_given() -> None:
    """Shares of its days by default; what belongs to the other method, or is out of range, is refused by name."""
    default = SplitRequest().splitter(1000, horizon=2)
    assert isinstance(default, CombinatorialPurged)
    assert (default.groups, default.test_groups, default.valid_days, default.gap) == (6, 2, 80, Gap(2, 5))
    walk = SplitRequest(method="walk_forward", expanding=False).splitter(1000, horizon=1)
    assert isinstance(walk, WalkForward)
    assert (walk.train_days, walk.test_days, walk.expanding) == (400, 100, False)
    assert split_request(walk_forward=True, expanding=True, test_days=7).test_days == 7
    for given, message in (
        ({"walk_forward": True, "expanding": True, "groups": 5}, "groups: a walk-forward has no groups"),
        ({"walk_forward": False, "expanding": True, "test_days": 5}, "test_days: only a walk-forward"),
        ({"walk_forward": False, "expanding": False}, "rolling: only a walk-forward"),
        ({"walk_forward": False, "expanding": True, "groups": 1}, "groups: .*greater than or equal to 2"),
    ):
        with pytest.raises(ConfigError, match=message):
            split_request(**given)  # type: ignore[arg-type]


def test_what_cannot_be_validated_is_refused_before_any_work(operation: Operation) -> None:
    """No seed, an unknown model, a calendar that is too short."""
    with pytest.raises(ConfigError, match="seeds: 0"):
        validate_model(operation.settings, ValidationRequest("linear", SPLITS, seeds=0))
    with pytest.raises(ConfigError, match="nonesuch"):
        validate_model(operation.settings, ValidationRequest("nonesuch", SPLITS))
    with pytest.raises(ConfigError, match="longer history"):
        validate_model(operation.settings, ValidationRequest("linear", SplitRequest(valid_days=5000)))
    assert not (operation.settings.reports_dir / "cross_validation").exists()


def test_the_plot_is_a_labelled_png_with_the_same_bytes_each_time() -> None:
    """Of several seeds, and of one."""
    days = pd.bdate_range("2022-01-03", periods=50)
    walk = np.linspace(0, 1, 50)
    for interval in ((0.01, 0.03), None):
        path = BacktestPath([0.01, 0.03], 0.02, interval, walk, walk - 0.1, walk + 0.1)
        info = CrossValidationInfo("two paths", days, [path, path], (0.0, 0.04))
        figure = plot_cross_validation(info)
        assert png_bytes(figure) == png_bytes(plot_cross_validation(info))
        assert figure.axes[0].get_title("left") and figure.axes[0].get_ylabel() and figure.axes[-1].get_xlabel()
