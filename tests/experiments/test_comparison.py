"""The paired comparison of two registered models on a small operation."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mlops_tasks.evaluation.ic import daily_rank_ic
from mlops_tasks.evaluation.significance import cosine_mean
from mlops_tasks.experiments.comparison import compare, conclusion
from mlops_tasks.experiments.tasks import compare_models_task
from mlops_tasks.features.labels import forward_return
from mlops_tasks.features.store import FeatureStore
from mlops_tasks.registry.client import connect
from mlops_tasks.registry.models import get_run_id, load_version
from mlops_tasks.state.history import latest_model_comparison
from tests.operation import define_own_set, make_champion
from tests.registry.conftest import Operation
from tests.registry.trainings import SEGMENTS, Spec


@pytest.fixture
def versions(operation: Operation) -> tuple[int, int]:
    """A champion and another model as challenger."""
    champion = operation.register(Spec(key="a" * 16))
    make_champion(operation.settings, champion)
    return champion, operation.register(Spec(key="b" * 16, seed=2, skill=0.0))


def run(operation: Operation, **gate: int | None) -> dict[str, object]:
    """Run the stage on the operation's data."""
    return compare_models_task(data_version=operation.vintage.data_version, gate=dict(gate) if gate else None)


def test_nothing_to_compare_is_said(operation: Operation) -> None:
    """No champion, no challenger, the same version: each is skipped with its reason."""
    assert "no champion" in str(run(operation)["skipped"])
    version = operation.register(Spec())
    assert "no champion" in str(run(operation, version=version, champion_version=None)["skipped"])
    make_champion(operation.settings, version)
    assert "the same version 1" in str(run(operation)["skipped"])
    assert latest_model_comparison(operation.settings) is None


def test_the_comparison_is_that_of_out_of_sample_rank_ics(operation: Operation, versions: tuple[int, int]) -> None:
    """The report equals the test of daily rank ICs computed here, on test days with labels only."""
    result = run(operation)
    label = forward_return(operation.vintage, 1).dropna().loc[SEGMENTS["test"][0] :]
    features = FeatureStore(operation.settings).load(operation.feature_version)
    ics = [
        daily_rank_ic(load_version(operation.settings, v).artefact.predict(features).loc[label.index], label)
        for v in versions
    ]
    expected = cosine_mean(ics[1] - ics[0])
    assert result["difference"] == pytest.approx(expected.mean) and result["p_two_sided"] == pytest.approx(
        expected.p_two_sided
    )
    assert (result["champion_version"], result["challenger_version"]) == versions
    client, run_id = connect(operation.settings), get_run_id(operation.settings, versions[1])
    name = Path(str(result["path"])).name
    logged = [Path(each.path).name for each in client.list_artifacts(run_id, f"reports/comparison/{name}")]
    assert sorted(logged) == ["comparison.png", "daily.parquet", "report.json"]
    assert result["first_date"] == str(SEGMENTS["test"][0].date()) and result["n_days"] == len(SEGMENTS["test"]) - 2
    assert result["last_date"] == str(SEGMENTS["test"][-3].date())


def test_each_model_is_judged_on_the_features_of_its_own_set(operation: Operation) -> None:
    """Also when the champion's set was redefined under its name since: its rank ICs are those of its own columns."""
    define_own_set(operation.settings)
    champion = operation.register(Spec(key="a" * 16), "mine")
    make_champion(operation.settings, champion)
    store, vintage = FeatureStore(operation.settings), operation.vintage
    own = store.load(store.compute(vintage, "mine").feature_version)
    define_own_set(operation.settings, days=9)
    store.compute(vintage, "mine")
    challenger = operation.register(Spec(key="b" * 16, seed=2, skill=0.0))
    result = run(operation)
    label = forward_return(vintage, 1).dropna().loc[SEGMENTS["test"][0] :]
    ics = [
        daily_rank_ic(load_version(operation.settings, version).artefact.predict(features).loc[label.index], label)
        for version, features in ((champion, own), (challenger, store.load(operation.feature_version)))
    ]
    assert result["champion_rank_ic_mean"] == pytest.approx(ics[0].mean())
    assert result["challenger_rank_ic_mean"] == pytest.approx(ics[1].mean())


def test_files_and_state_do_not_change_in_a_second_run(operation: Operation, versions: tuple[int, int]) -> None:
    """Report, daily values, picture and state row are written once."""
    result = run(operation)
    folder = operation.settings.home / str(result["path"])
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*")}
    assert sorted(p.name for p in before) == ["comparison.png", "daily.parquet", "report.json"]
    assert run(operation) == result and {p: p.stat().st_mtime_ns for p in folder.rglob("*")} == before
    row = latest_model_comparison(operation.settings, versions[1])
    assert row is not None and row.result == json.loads(json.dumps(result))
    daily = pd.read_parquet(folder / "daily.parquet")
    np.testing.assert_allclose(daily["challenger"] - daily["champion"], daily["difference"])


def test_a_promoted_challenger_is_compared_with_whom_it_replaced(
    operation: Operation, versions: tuple[int, int]
) -> None:
    """With the gate's result the pair is the gate's, also when both aliases name the challenger by now."""
    before = run(operation)
    make_champion(operation.settings, versions[1])
    assert "the same version 2" in str(run(operation)["skipped"])
    assert run(operation, version=versions[1], champion_version=versions[0]) == before


@pytest.mark.parametrize(
    ("shift", "text"), [(0.05, "the challenger orders"), (-0.05, "the champion orders"), (0.0, "no difference")]
)
def test_the_conclusion_follows_the_interval(shift: float, text: str) -> None:
    """A difference beyond the interval names the better model; one within it names none."""
    noise = np.random.default_rng(0).normal(size=100) * 0.05
    difference = noise - noise.mean() + shift
    days = pd.bdate_range("2024-01-01", periods=100, name="datetime")
    daily = pd.DataFrame({"champion": 0.0, "challenger": difference, "difference": difference}, days)
    assert conclusion(compare(daily).test).startswith(text)
