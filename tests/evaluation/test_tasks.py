"""The evaluation stage on a fabricated training with a planted signal."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mlops_tasks.config import Settings
from mlops_tasks.data.vintages import Vintage
from mlops_tasks.errors import StoreError
from mlops_tasks.evaluation import identity
from mlops_tasks.evaluation.tasks import evaluate_model_task
from tests.evaluation.market import KEY, SEGMENTS, write_training

PLOTS = ["cumulative_ic", "equity", "feature_importance", "quantile_returns", "training_curve"]


def test_a_planted_signal_is_measured(settings: Settings, vintage: Vintage) -> None:
    """IC, rank IC, coverage, backtest and files of a training whose scores correlate with the label by about 0.45."""
    write_training(settings, vintage)
    result = evaluate_model_task(training_key=KEY)
    metrics = result["metrics"]
    assert (result["training_key"], result["model"]) == (KEY, "lightgbm")
    for segment in ("valid", "test"):
        assert 0.3 < metrics[f"{segment}_ic_mean"] < 0.6 and 0.3 < metrics[f"{segment}_rank_ic_mean"] < 0.6
        assert metrics[f"{segment}_icir"] > 1 and metrics[f"{segment}_coverage"] == 1.0
        assert metrics[f"{segment}_rank_ic_p_value"] < 0.01 and metrics[f"{segment}_constant_days_share"] == 0.0
    assert metrics["test_excess_return_after_cost"] > 0 and metrics["test_max_drawdown"] <= 0
    assert 0 < metrics["test_turnover"] < 2 and metrics["test_information_ratio"] > 0
    folder = settings.home / result["path"]
    assert json.loads((folder / "evaluation.json").read_text())["metrics"] == metrics
    assert [p.stem for p in sorted((folder / "plots").iterdir())] == PLOTS
    assert all(p.read_bytes().startswith(b"\x89PNG") for p in (folder / "plots").iterdir())
    daily = pd.read_parquet(folder / "daily.parquet").set_index("datetime")
    assert list(daily.columns) == ["ic", "rank_ic", "return", "bench", "cost", "turnover"]
    assert list(daily.index) == list(SEGMENTS["test"])
    assert daily["rank_ic"].mean() == pytest.approx(metrics["test_rank_ic_mean"])


def test_a_second_run_changes_nothing(settings: Settings, vintage: Vintage) -> None:
    """A repeated task returns the same result and touches no file."""
    folder = write_training(settings, vintage)
    first = evaluate_model_task(training_key=KEY)
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*")}
    assert evaluate_model_task(training_key=KEY) == first
    assert {p: p.stat().st_mtime_ns for p in folder.rglob("*")} == before


def test_other_costs_make_the_evaluation_anew(
    settings: Settings, vintage: Vintage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Costs that changed since change the figures, other code too; a setting that has no part in it changes nothing."""
    folder = write_training(settings, vintage)
    cheap = evaluate_model_task(training_key=KEY)["metrics"]
    written = folder / "evaluation" / "evaluation.json"
    before = written.stat().st_mtime_ns
    monkeypatch.setenv("MLOPS_GATE__ALPHA", "0.01")
    assert evaluate_model_task(training_key=KEY)["metrics"] == cheap and written.stat().st_mtime_ns == before
    monkeypatch.setenv("MLOPS_PORTFOLIO__OPEN_COST_BPS", "100")
    dear = evaluate_model_task(training_key=KEY)["metrics"]
    assert dear["test_excess_return_after_cost"] < cheap["test_excess_return_after_cost"]
    assert dear["test_ic_mean"] == cheap["test_ic_mean"]
    before = written.stat().st_mtime_ns
    monkeypatch.setattr(identity, "_code", lambda: {"evaluation/portfolio.py": "edited"})
    assert evaluate_model_task(training_key=KEY)["metrics"] == dear and written.stat().st_mtime_ns > before
    assert [path.name for path in folder.iterdir() if "evaluation" in path.name] == ["evaluation"]


def test_other_holdings_are_another_evaluation_of_the_same_training(settings: Settings, vintage: Vintage) -> None:
    """What a run asks for beats the settings; asked for again, the first figures come back."""
    write_training(settings, vintage)
    usual = evaluate_model_task(training_key=KEY)["metrics"]
    few = evaluate_model_task(training_key=KEY, topk=2, n_drop=1)["metrics"]
    assert few["test_turnover"] != usual["test_turnover"] and few["test_ic_mean"] == usual["test_ic_mean"]
    assert evaluate_model_task(training_key=KEY)["metrics"] == usual


def test_two_evaluations_are_equal_byte_by_byte(settings: Settings, vintage: Vintage) -> None:
    """The same training evaluated in two folders gives the same files, plots included."""
    contents: list[dict[str, bytes]] = []
    for key in ("a" * 16, "b" * 16):
        write_training(settings, vintage, key=key)
        folder = settings.home / evaluate_model_task(training_key=key)["path"]
        contents.append({p.name: p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.suffix != ".json"})
    assert contents[0] == contents[1]


def test_undefined_metrics_are_null(settings: Settings, vintage: Vintage) -> None:
    """A test segment without labels has no IC, a part without scores lowers the coverage; the rest is measured."""
    folder = write_training(settings, vintage)
    path = folder / "predictions.parquet"
    frame = pd.read_parquet(path)
    frame.loc[frame["segment"] == "test", "label"] = np.nan
    test_rows = frame.index[frame["segment"] == "test"]
    frame.drop(test_rows[-len(test_rows) // 2 :]).to_parquet(path, index=False)
    for name in ("curves.json", "importance.json"):
        (folder / name).unlink()
    result = evaluate_model_task(training_key=KEY)
    assert result["metrics"]["test_ic_mean"] is None and result["metrics"]["test_rank_icir"] is None
    assert result["metrics"]["valid_ic_mean"] > 0 and result["metrics"]["test_turnover"] is not None
    assert not (settings.home / result["path"] / "plots" / "training_curve.png").exists()


def test_missing_input_is_a_clear_error(settings: Settings, vintage: Vintage) -> None:
    """An unknown training, no predictions, no test rows: each names the file and leaves no folder behind."""
    with pytest.raises(StoreError, match="none: no such training"):
        evaluate_model_task(training_key="none")
    folder = write_training(settings, vintage)
    path = folder / "predictions.parquet"
    frame = pd.read_parquet(path)
    frame[frame["segment"] == "valid"].to_parquet(path, index=False)
    with pytest.raises(StoreError, match="no rows of the segment test"):
        evaluate_model_task(training_key=KEY)
    frame.drop(columns="score").to_parquet(path, index=False)
    with pytest.raises(StoreError, match=r"columns \['score'\] are missing"):
        evaluate_model_task(training_key=KEY)
    Path(path).unlink()
    with pytest.raises(StoreError, match=r"predictions\.parquet is missing; run the stage training\.train"):
        evaluate_model_task(training_key=KEY)
    assert not (folder / "evaluation").exists()
