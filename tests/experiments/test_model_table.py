"""The table of models: trained for real on a small market, and its numbers from known results."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from mlflow.entities import Run

from mlops_tasks.cli import main
from mlops_tasks.config import Settings, TrainingSettings
from mlops_tasks.errors import ConfigError
from mlops_tasks.experiments.model_table import (
    MARKDOWN,
    PLOT,
    TABLE,
    Row,
    TableRequest,
    differences,
    make_model_table,
    write_table,
)
from mlops_tasks.files import read_json
from mlops_tasks.registry.client import connect, experiment_id
from mlops_tasks.registry.models import versions
from mlops_tasks.registry.trial_evidence import seed_noise_of
from tests.registry.conftest import Operation
from tests.training.conftest import Market


def runs(settings: Settings) -> list[Run]:
    return list(connect(settings).search_runs([experiment_id(settings)]))


def test_a_table_is_trained_measured_logged_and_found_again(operation: Operation) -> None:
    """Two seeds beside Qlib's class: equal numbers, one MLflow parent, and a second call trains nothing."""
    settings, request = operation.settings, TableRequest(("linear",), seeds=2, peers=True)
    said: list[str] = []
    folder = make_model_table(settings, request, said.append)
    content = read_json(folder / TABLE)
    ours, theirs = content["rows"]
    assert [line for line in said if not line.startswith(" ")] == [
        f"{number} of 4: {name}, seed {seed}"
        for number, (seed, name) in enumerate([(s, n) for s in (42, 43) for n in ("linear", "qlib linear")], start=1)
    ]
    for metric in ("test_ic_mean", "test_rank_ic_mean"):
        assert ours["metrics"][metric]["values"] == pytest.approx(theirs["metrics"][metric]["values"], abs=5e-3), (
            "20 names and more factors than days leave room for rounding only"
        )
    assert len(content["differences"]) == 3

    band = ours["metrics"]["test_rank_ic_mean"]
    predictions = [
        pd.read_parquet(settings.training_dir / seed["training_key"] / "predictions.parquet")
        for seed in ours["seeds"].values()
    ]
    means = [
        frame[frame["segment"] == "test"]
        .groupby("datetime")[["score", "label"]]
        .corr(method="spearman")["label"]
        .xs("score", level=1)
        .mean()
        for frame in predictions
    ]
    assert (band["mean"], band["standard_deviation"]) == pytest.approx((np.mean(means), np.std(means, ddof=1)))
    known = seed_noise_of(settings, next(iter(ours["seeds"].values()))["training_key"])
    assert known is not None and known.standard_deviation == pytest.approx(band["standard_deviation"])

    (parent,) = [run for run in runs(settings) if "table_digest" in run.data.tags]
    children = [run for run in runs(settings) if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert len(children) == 2 and {run.data.tags["table"] for run in children} == {content["table"]}
    assert parent.data.metrics["linear.test_rank_ic_mean.mean"] == band["mean"]
    assert {each.path for each in connect(settings).list_artifacts(parent.info.run_id)} == {TABLE, MARKDOWN, PLOT}
    assert versions(settings) == [], "nothing is registered"

    before = {path: path.read_bytes() for path in folder.iterdir()}
    trained = {path: path.stat().st_mtime_ns for path in settings.home.glob("**/predictions.parquet")}
    (folder / TABLE).unlink()
    assert make_model_table(settings, request) == folder
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
    assert {path: path.stat().st_mtime_ns for path in settings.home.glob("**/predictions.parquet")} == trained
    assert len(runs(settings)) == 3


@pytest.mark.slow
def test_models_are_within_seed_noise_of_qlibs_own(market: Market, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trees and linear on a market with a signal: seeds differ, ours and Qlib's do not differ beyond them."""
    monkeypatch.setenv("MLOPS_HOME", str(market.settings.home))
    request = TableRequest(("lightgbm", "xgboost", "linear"), seeds=3, peers=True)
    content = read_json(make_model_table(market.settings, request) / TABLE)
    assert [row["failures"] for row in content["rows"]] == [{}] * 6
    assert content["rows"][0]["metrics"]["test_rank_ic_mean"]["standard_deviation"] > 0
    judged = {(each["model"], each["metric"]): each["within_seed_noise"] for each in content["differences"]}
    assert len(judged) == 9 and all(judged.values())


def test_a_model_that_fails_is_said_and_does_not_end_the_table(operation: Operation) -> None:
    """Trainings that run out of time leave a row of dashes and their reason."""
    settings = operation.settings.model_copy(update={"training": TrainingSettings(time_limit_s=0.2)})
    folder = make_model_table(settings, TableRequest(("linear",), seeds=1))
    (row,) = read_json(folder / TABLE)["rows"]
    assert row["metrics"] == {} and "StageTimeoutError" in row["failures"]["42"]
    text = (folder / MARKDOWN).read_text()
    assert "| linear |" + " – |" * 9 in text and "- linear, seed 42, failed: StageTimeoutError" in text
    assert (folder / PLOT).read_bytes().startswith(b"\x89PNG")


def row_of(values: list[float], model: str = "lightgbm", is_peer: bool = False) -> Row:
    results = {seed: {"test_rank_ic_mean": value} for seed, value in enumerate(values)}
    return Row(model, is_peer, results=results)


def test_the_difference_to_qlib_is_judged_by_seed_noise() -> None:
    """Far apart is beyond the noise, near is within, rounding is none, and one seed is not judged."""
    peer = row_of([0.030, 0.032, 0.031], is_peer=True)
    for values, within in (([0.031, 0.030, 0.0325], [True]), ([0.060, 0.061, 0.062], [False]), ([0.03], [])):
        assert [each["within_seed_noise"] for each in differences([row_of(values), peer])] == within
    exact = [row_of([0.03, 0.03], "linear"), row_of([0.03 + 1e-6] * 2, "linear", is_peer=True)]
    (found,) = differences(exact)
    assert found["within_seed_noise"] and found["difference"] == pytest.approx(-1e-6)


def test_the_table_is_markdown_of_means_and_deviations(tmp_path) -> None:
    """A known row is written as mean ± standard deviation, one seed without a deviation, a missing metric as a dash."""
    segments = {"test": ["2024-01-02", "2024-06-28"]}
    plan = {"segments": segments, "data_version": "d1", "feature_set": "alpha158", "horizon": 1, "topk": 5, "n_drop": 1}
    rows = [row_of([0.03, 0.05, 0.04]), replace(row_of([0.02]), model="linear")]
    content = {"plan": plan, "seeds": [0, 1, 2], "confidence": 0.95, "rows": [row.to_json() for row in rows]}
    write_table(tmp_path, json.loads(json.dumps(content | {"differences": list(differences(rows))})))
    lines = (tmp_path / MARKDOWN).read_text().splitlines()
    assert lines[2] == "| lightgbm | – | – | 0.0400 ± 0.0100 | – | – | – | – | – | – |"
    assert lines[3] == "| linear | – | – | 0.0200 | – | – | – | – | – | – |"
    assert "seeds 0, 1, 2; test segment 2024-01-02 to 2024-06-28, vintage d1" in lines[5]


def test_a_request_that_makes_no_table_is_refused(operation: Operation) -> None:
    """No seeds and unknown models are errors before anything is trained."""
    with pytest.raises(ConfigError, match="seeds: 0"):
        make_model_table(operation.settings, TableRequest(("linear",), seeds=0))
    with pytest.raises(ConfigError, match="lightgmb"):
        make_model_table(operation.settings, TableRequest(("lightgmb",)))
    assert not operation.settings.training_dir.exists()


def test_the_zoo_is_listed_and_shown(capsys: pytest.CaptureFixture[str]) -> None:
    """`models list` and `models show` say what the catalogue says, for people and for machines."""
    assert main(["models", "list"]) == 0
    assert "lightgbm" in capsys.readouterr().out
    assert main(["models", "show", "lightgbm", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["json_schema"]["properties"]["num_leaves"]["minimum"] == 2
    assert main(["models", "show", "linear"]) == 0
    assert "estimator = 'ols'" in capsys.readouterr().out
    assert main(["models", "show", "oracle"]) == 1
    assert "ConfigError" in capsys.readouterr().out
