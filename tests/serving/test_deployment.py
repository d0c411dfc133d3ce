"""Blue-green deployment and the daily scores, against a real service, registry and state database."""

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mlops_tasks.cli import main
from mlops_tasks.config import PROJECT, Settings
from mlops_tasks.errors import ConfigError, DeploymentError
from mlops_tasks.features.store import FeatureStore
from mlops_tasks.modeling.artefact import ModelArtefact
from mlops_tasks.registry.approvals import approve_by_gate, approve_model
from mlops_tasks.registry.client import CHAMPION
from mlops_tasks.registry.lifecycle import ModelLifecycleManager
from mlops_tasks.registry.models import claim_of, get_alias_version, load_version
from mlops_tasks.serving.client import ScoringClient
from mlops_tasks.serving.deployment import roll_back
from mlops_tasks.serving.model_day import ModelDay
from mlops_tasks.serving.tasks import deploy_model_task, score_newest_date_task
from mlops_tasks.state.database import reading
from mlops_tasks.state.history import latest_score_batch, newest_alerts
from mlops_tasks.state.tables import Deployment
from mlops_tasks.states import ModelState
from mlops_tasks.status import render_status
from tests.operation import define_own_set, make_champion, publish_vintage, register_model
from tests.registry.conftest import Operation
from tests.registry.trainings import DAYS, Spec
from tests.serving.conftest import RunningService, scores_here


def promote(operation: Operation, version: int) -> dict[str, Any]:
    """What the gate hands on."""
    digest = claim_of(operation.settings, version).digest
    return {"decision": "promote", "rule": "bootstrap", "version": version, "digest": digest}


def steps(settings: Settings) -> list[tuple[int, str]]:
    """The recorded steps of all deployments, oldest first."""
    with reading(settings) as active:
        return [(row.model_version, row.state) for row in active.query(Deployment).order_by(Deployment.id)]


def test_rollbacks_go_back_step_by_step(operation: Operation, client: ScoringClient, capsys) -> None:
    """Each `rollback` serves the champion before, never one that was rolled back from; at the end it says so."""
    versions = [operation.register(Spec(key=letter * 16, seed=n)) for n, letter in enumerate("abc", 1)]
    for version in versions:
        deploy_model_task(gate=promote(operation, version), strategy="blue_green")
    manager = ModelLifecycleManager(operation.settings)
    for bad, good in zip(versions[:0:-1], versions[1::-1], strict=True):
        assert main(["rollback", "--reason", "bad fills", "--yes"]) == 0
        assert client.health()["model_version"] == good
        assert (manager.state(bad), manager.state(good)) == (ModelState.REJECTED, ModelState.CHAMPION)
    capsys.readouterr()
    assert main(["rollback", "--reason", "bad fills", "--yes"]) == 1
    assert "no earlier champion is left" in capsys.readouterr().out
    assert client.health()["model_version"] == versions[0]


def test_the_first_champion_and_its_successor(operation: Operation, client: ScoringClient) -> None:
    """A promoted version serves when the task returns; repeating the task changes nothing."""
    first = operation.register(Spec(key="a" * 16))
    done = deploy_model_task(gate=promote(operation, first), strategy="blue_green")
    assert (done["deployed"], done["version"], done["previous_version"]) == (True, first, None)
    assert done["probe"]["instruments"] == 20
    assert done["probe"]["max_abs_diff"] == 0
    assert done["speed"]["outgoing"] is None
    assert client.health()["model_version"] == first
    second = operation.register(Spec(key="b" * 16, seed=2))
    done = deploy_model_task(gate=promote(operation, second), strategy="blue_green")
    assert done["previous_version"] == first
    assert client.health()["model_version"] == second
    speed = done.pop("speed")
    for side, version in (("outgoing", first), ("incoming", second)):
        found = speed[side]
        assert (found["version"], found["requests"]) == (version, 40)
        assert 0 < found["p50_ms"] <= found["p99_ms"]
        assert found["requests_per_s"] * found["p50_ms"] < 4000 * 2  # four connections: little more than 4 at once
        assert found["day_ms"] > 0
    assert deploy_model_task(gate=promote(operation, second), strategy="blue_green") == done
    assert steps(operation.settings) == [
        (first, "started"),
        (first, "serving"),
        (second, "started"),
        (second, "serving"),
    ]
    assert ModelLifecycleManager(operation.settings).state(first) == ModelState.RETIRED


@pytest.mark.parametrize(
    ("decision", "strategy", "reason"),
    [
        ("keep", "blue_green", "decision is keep"),
        ("reject", "shadow", "reject"),
        ("keep", "canary", "decision is keep"),
    ],
)
def test_what_is_not_promoted_is_not_deployed(settings: Settings, decision: str, strategy: str, reason: str) -> None:
    """A kept or rejected challenger touches neither alias nor service, and begins no rollout."""
    done = deploy_model_task(gate={"decision": decision, "rule": "r", "version": 7}, strategy=strategy)
    assert done["deployed"] is False
    assert reason in done["reason"]


def test_an_unknown_strategy_is_named(settings: Settings) -> None:
    """The error lists the strategies."""
    with pytest.raises(ConfigError, match="'big_bang'; use blue_green, canary, shadow, direct"):
        deploy_model_task(gate={"decision": "promote", "rule": "r", "version": 1}, strategy="big_bang")


def test_without_a_service_nothing_moves(operation: Operation) -> None:
    """A service that is down is found before the alias moves."""
    version = operation.register(Spec(key="a" * 16))
    with pytest.raises(DeploymentError, match=r"was not deployed: the scoring service at .* does not answer"):
        deploy_model_task(gate=promote(operation, version), strategy="blue_green")
    assert get_alias_version(operation.settings, CHAMPION) is None
    assert steps(operation.settings) == [(version, "failed")]


def test_a_service_that_cannot_load_the_model_is_rolled_back(
    operation: Operation, service: RunningService, client: ScoringClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The service keeps the old model, the alias goes back, and the reason is recorded."""
    monkeypatch.setenv("MLOPS_SERVING__DEPLOY_TIMEOUT_S", "1")
    first = operation.register(Spec(key="a" * 16))
    deploy_model_task(gate=promote(operation, first), strategy="blue_green")
    second = operation.register(Spec(key="b" * 16, seed=2))
    load_version(operation.settings, second)
    stored = operation.settings.home / "mlflow" / "artifacts" / "models"
    for path in stored.rglob("processors.json"):
        path.write_text("{}")
    # A service on another machine has no copy of its own yet, and fetches the damaged one.
    here = operation.settings
    elsewhere = Settings(home=here.home / "x", mlflow_tracking_uri=here.registry_uri, state_url=here.state_database)
    shutil.copytree(here.secrets_dir, elsewhere.secrets_dir)
    monkeypatch.setattr(service.scoring.slots, "settings", elsewhere)
    with pytest.raises(
        DeploymentError, match=f"version {second} was rolled back, champion is again {first}: .*DigestMismatch"
    ):
        deploy_model_task(gate=promote(operation, second), strategy="blue_green")
    assert get_alias_version(operation.settings, CHAMPION) == first
    assert client.score()["model_version"] == first
    assert steps(operation.settings)[-1] == (second, "rolled_back")
    assert "champion_refused" not in [alert.kind for alert in newest_alerts(operation.settings, 10)]


DIFFERENT: dict[str, tuple[Callable[[pd.Series], pd.Series], str]] = {
    "numbers": (lambda scores: scores + 1e-6, "differ by up to 1e-06"),
    "names": (lambda scores: scores.rename({"S001": "S001x"}), r"the service scores \d+ instruments of .*, not the"),
}


@pytest.mark.parametrize("case", DIFFERENT)
def test_scores_that_differ_are_rolled_back(
    operation: Operation, client: ScoringClient, service: RunningService, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    """A service that answers with other numbers than the artefact's, or of other instruments, does not keep the model;
    nor does the alias."""
    version = operation.register(Spec(key="a" * 16))
    (change, said), honest = DIFFERENT[case], service.scoring._score_day
    monkeypatch.setattr(service.scoring, "_score_day", lambda plan: change(honest(plan)))
    with pytest.raises(DeploymentError, match=f"champion is again none: .*{said}"):
        deploy_model_task(gate=promote(operation, version), strategy="blue_green")
    assert get_alias_version(operation.settings, CHAMPION) is None
    assert client.health()["status"] == "no_model"
    assert ModelLifecycleManager(operation.settings).state(version) == ModelState.CHALLENGER
    monkeypatch.undo()


def test_an_answer_by_another_version_or_without_numbers_is_no_proof(
    operation: Operation, client: ScoringClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The service may have been switched since it said what it serves; and what is no number differs."""
    version, honest = operation.register(Spec(key="a" * 16)), ScoringClient.score

    def without_numbers(self: ScoringClient) -> dict[str, Any]:
        answer = honest(self)
        return {**answer, "scores": [{**row, "score": None} for row in answer["scores"]]}

    answers: dict[str, Callable[[ScoringClient], dict[str, Any]]] = {
        "the service answered with version 9": lambda self: {**honest(self), "model_version": 9},
        "the service's scores differ by up to nan": without_numbers,
    }
    for said, answer in answers.items():
        with monkeypatch.context() as patch, pytest.raises(DeploymentError, match=f"champion is again none: {said}"):
            patch.setattr(ScoringClient, "score", answer)
            deploy_model_task(gate=promote(operation, version), strategy="blue_green")


def test_a_candidate_without_scores_of_the_day_moves_nothing(
    operation: Operation, client: ScoringClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is found here, before the service is asked to try it: scores that are no numbers, none at all, and none of a
    row without features."""
    version, honest, predict = operation.register(Spec(key="a" * 16)), ModelDay.scores, ModelArtefact.predict
    changes: dict[str, tuple[type, str, Callable[..., pd.Series]]] = {
        "20 scores of 2020-06-30, not all finite": (ModelDay, "scores", lambda self: honest(self) * np.nan),
        "0 scores of 2020-06-30, not all finite": (ModelDay, "scores", lambda self: honest(self)[:0]),
        "scores probe rows with": (
            ModelArtefact,
            "predict",
            lambda self, rows: predict(self, rows).where(rows.notna().any(axis=1).to_numpy()),
        ),
    }
    for said, (owner, name, change) in changes.items():
        with monkeypatch.context() as patch, pytest.raises(DeploymentError, match=f"was not deployed: .*{said}"):
            patch.setattr(owner, name, change)
            deploy_model_task(gate=promote(operation, version), strategy="blue_green")
    assert set(steps(operation.settings)) == {(version, "failed")}


def test_daily_scores_of_champion_and_challenger(operation: Operation, client: ScoringClient) -> None:
    """Both models' scores of the members lie in files that are equal when they are written again."""
    champion = operation.register(Spec(key="a" * 16))
    deploy_model_task(gate=promote(operation, champion), strategy="blue_green")
    challenger = operation.register(Spec(key="b" * 16, seed=2))
    done = score_newest_date_task(data_version=operation.vintage.data_version)
    assert done == {
        "date": "2020-06-30",
        "champion_version": champion,
        "standing": "champion",
        "challenger_version": challenger,
        "instruments": 20,
        "path": f"scores/2020-06-30/{champion}.parquet",
        "caught_up": [],
    }
    for version, standing in ((champion, "champion"), (challenger, "challenger")):
        path = operation.settings.scores_dir / "2020-06-30" / f"{version}.parquet"
        frame = pd.read_parquet(path)
        assert list(frame.columns) == ["instrument", "score", "standing"]
        assert set(frame["standing"]) == {standing}
        assert dict(zip(frame["instrument"], frame["score"], strict=True)) == scores_here(operation, version)
    folder = operation.settings.scores_dir / "2020-06-30"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert score_newest_date_task(data_version=operation.vintage.data_version) == done
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    batch = latest_score_batch(operation.settings, model_version=champion)
    assert batch is not None
    assert (batch.alias, batch.instruments, str(batch.date)) == ("champion", 20, "2020-06-30")


def test_a_provisional_model_says_so_wherever_it_serves(operation: Operation, client: ScoringClient) -> None:
    """Its answers, the service's health and metrics, the score file and the status have the word."""
    settings = operation.settings
    version = operation.register(Spec(key="a" * 16))
    approve_by_gate(settings, load_version(settings, version), "provisional", None)
    deploy_model_task(gate=promote(operation, version), strategy="blue_green")
    assert client.score()["standing"] == client.health()["standing"] == "provisional"
    done = score_newest_date_task(data_version=operation.vintage.data_version)
    assert done["standing"] == "provisional"
    assert set(pd.read_parquet(settings.home / done["path"])["standing"]) == {"provisional"}
    said = render_status(settings)
    assert f"champion    version {version}, " in said and "provisional: it has proven no skill" in said


def test_each_model_is_scored_on_the_features_of_its_own_set(operation: Operation, client: ScoringClient) -> None:
    """A champion of another set than the runs are on serves the newest vintage too, with its own columns.

    Nobody computed its set on that vintage, and its name stands for another definition by now.
    """
    settings, store = operation.settings, FeatureStore(operation.settings)
    define_own_set(settings)
    champion = operation.register(Spec(key="a" * 16), "mine")
    deploy_model_task(gate=promote(operation, champion), strategy="blue_green")
    define_own_set(settings, days=9)
    vintage, feature_version = publish_vintage(settings, DAYS.append(DAYS[-1:] + (DAYS[-1] - DAYS[-2])))
    store.compute(vintage, "mine")
    challenger = register_model(settings, Spec(key="b" * 16, seed=2), vintage, feature_version)
    approve_model(settings, challenger, "the test deploys it")
    done = score_newest_date_task(data_version=vintage.data_version)
    assert (done["champion_version"], done["challenger_version"]) == (champion, challenger)
    assert client.score()["date"] == done["date"] == "2020-07-01"
    define_own_set(settings)
    own = store.compute(vintage, "mine").feature_version
    for version, features in ((champion, own), (challenger, feature_version)):
        frame = pd.read_parquet(settings.scores_dir / "2020-07-01" / f"{version}.parquet")
        day = store.load(features, start="2020-07-01").droplevel("datetime")
        assert frame["score"].to_list() == load_version(settings, version).artefact.predict(day).to_list()

    deploy_model_task(gate=promote(operation, challenger), strategy="blue_green")
    assert client.score()["feature_version"] == feature_version
    assert roll_back(settings)["version"] == champion
    assert client.score()["feature_version"] == own


def test_daily_scores_before_the_first_champion(operation: Operation) -> None:
    """Without a champion the challenger is scored, and the result says that there is no champion."""
    challenger = operation.register(Spec(key="a" * 16))
    done = score_newest_date_task(data_version=operation.vintage.data_version)
    assert (done["champion_version"], done["path"], done["challenger_version"]) == (None, None, challenger)
    assert (operation.settings.scores_dir / "2020-06-30" / f"{challenger}.parquet").is_file()


def test_the_module_serves_until_it_is_told_to_end(operation: Operation, tmp_path: Path) -> None:
    """`python -m mlops_tasks.serving` answers on the configured port and ends on SIGTERM."""
    version = operation.register(Spec(key="a" * 16))
    make_champion(operation.settings, version)
    said = tmp_path / "scoring.log"
    with said.open("w") as log:
        process = subprocess.Popen([sys.executable, "-m", "mlops_tasks.serving"], cwd=PROJECT, stdout=log, stderr=log)
    try:
        with ScoringClient(operation.settings) as client:
            until = time.monotonic() + 120
            while not _serves(client, version):
                assert time.monotonic() < until and process.poll() is None, said.read_text()
                time.sleep(0.2)
            assert len(client.score()["scores"]) == 20
    finally:
        process.terminate()
    assert process.wait(20) in (0, -signal.SIGTERM)


def test_the_module_says_why_it_does_not_start(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a token the exit status is 1 and the log names the variable."""
    monkeypatch.delenv("MLOPS_SCORING_TOKEN")
    done = subprocess.run(
        [sys.executable, "-m", "mlops_tasks.serving"], cwd=PROJECT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "MLOPS_SCORING_TOKEN" in done.stderr


def _serves(client: ScoringClient, version: int) -> bool:
    try:
        health = client.health()
    except Exception:
        return False
    return health["model_version"] == version and health["newest_date"] is not None
