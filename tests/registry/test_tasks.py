"""The registry's stage tasks: log, choose, register, judge."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from mlops_tasks.errors import RegistryError
from mlops_tasks.evaluation.ic import daily_rank_ic
from mlops_tasks.features.store import FeatureStore
from mlops_tasks.files import read_json, write_json
from mlops_tasks.process import RUN_NOTE
from mlops_tasks.registry.approvals import approve_model, candidate_permit, revocation_by_person, standing_of
from mlops_tasks.registry.client import CHALLENGER, CHAMPION, MODEL_NAME, connect
from mlops_tasks.registry.gating import reign_of
from mlops_tasks.registry.lifecycle import LifecycleState, ModelLifecycleManager
from mlops_tasks.registry.models import get_alias_version, get_tags, load_version
from mlops_tasks.registry.tasks import choose, gate_challenger_task, log_run_task, register_challenger_task
from mlops_tasks.state.approvals import record_revocation
from mlops_tasks.state.history import gate_decisions, latest_gate_decision
from mlops_tasks.status import render_status, status_info
from mlops_tasks.training_folder import TrainingFolder
from tests.operation import (
    certify_training,
    define_own_set,
    learning_data,
    make_champion,
    publish_vintage,
    register_model,
)
from tests.registry.conftest import Operation
from tests.registry.trainings import DAYS, Spec, make_training


def candidate(model: str, valid: float | None, test: float = 0.0) -> dict[str, Any]:
    metrics = {"valid_rank_ic_mean": valid, "test_rank_ic_mean": test}
    return {"training_key": model, "run_id": "r", "model": model, "metrics": metrics}


@pytest.mark.parametrize(
    ("candidates", "best"),
    [
        ([candidate("a", 0.01), candidate("b", 0.02)], "b"),
        ([candidate("a", 0.01, test=0.9), candidate("b", 0.02, test=-0.9)], "b"),
        ([candidate("b", 0.02), candidate("a", 0.02)], "a"),
        ([candidate("a", None), candidate("b", -0.5)], "b"),
        ([candidate("b", None), candidate("a", None)], "a"),
        ([candidate("a", float("nan")), candidate("b", -0.5)], "b"),
        ([{**candidate("a", 0), "metrics": {}}, candidate("b", -0.5)], "b"),
    ],
)
def test_the_best_on_validation_is_chosen(candidates: list[dict[str, Any]], best: str) -> None:
    """Validation rank IC decides, the test segment never; ties go by name; no value is the worst."""
    assert choose(candidates)["model"] == best
    assert choose(candidates[::-1])["model"] == best


def test_no_candidate_is_an_error() -> None:
    """Nothing to choose from is said so."""
    with pytest.raises(RegistryError, match="no candidate"):
        choose([])


def test_from_two_trainings_to_a_challenger_and_the_first_champion(
    operation: Operation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two trainings are logged, the better one on validation is registered, and the gate bootstraps."""
    monkeypatch.setenv("MLOPS_GATE__MIN_SKILL_DAYS", "30")
    data = learning_data(operation.settings, operation.feature_version)
    versions = {"data_version": operation.vintage.data_version, "feature_version": operation.feature_version}
    good = Spec(key="a" * 16, metrics={"valid_rank_ic_mean": 0.05}, **versions)
    poor = Spec(key="b" * 16, model="linear", metrics={"valid_rank_ic_mean": 0.01}, **versions)
    for spec in (good, poor):
        make_training(operation.settings, spec, data)
        certificate = certify_training(operation.settings, spec)
    candidates = [log_run_task(training_key=spec.key) for spec in (poor, good)]
    assert [c["model"] for c in candidates] == ["linear", "lightgbm"]

    challenger = register_challenger_task(candidates=candidates)
    assert challenger["training_key"] == good.key
    assert register_challenger_task(candidates=candidates) == challenger
    assert get_alias_version(operation.settings, CHALLENGER) == challenger["version"]
    assert status_info(operation.settings)["certificate"]["key"] == certificate.key

    decision = gate_challenger_task(challenger=challenger)
    assert (decision["decision"], decision["rule"]) == ("promote", "bootstrap")
    assert decision["champion_version"] is None
    assert get_alias_version(operation.settings, CHAMPION) is None
    assert get_tags(operation.settings, challenger["version"])["gate_rule"] == "bootstrap"
    recorded = latest_gate_decision(operation.settings)
    assert recorded is not None
    assert recorded.training_key == good.key


def test_a_model_without_proof_serves_as_provisional(operation: Operation) -> None:
    """Too few test days for a proof: it may serve, and the record says as what; no one has to beat it.

    Another training of the same day waits for the next look, and a person's approval makes it a champion.
    """
    settings = operation.settings
    version = register_model(settings, spec_of(operation, "a" * 16), operation.vintage, operation.feature_version)
    decision = gate_challenger_task(challenger={"version": version})
    assert (decision["decision"], decision["rule"]) == ("promote", "provisional")
    assert decision["look"]["kind"] == "skill" and decision["look"]["spent"] == pytest.approx(0.05 / 12)
    assert get_tags(settings, version)["gate_rule"] == "provisional"
    assert gate_challenger_task(challenger={"version": version}) == decision
    make_champion(settings, version)
    loaded = candidate_permit(settings, version).load(settings)
    assert loaded.provisional and loaded.standing == standing_of(settings, version) == "provisional"
    other = register_model(settings, spec_of(operation, "b" * 16), operation.vintage, operation.feature_version)
    waiting = gate_challenger_task(challenger={"version": other})
    assert (waiting["decision"], waiting["rule"], waiting["look"]) == ("keep", "between_looks", None)
    assert waiting["wait"]["days"] == 21
    approve_model(settings, version, "the desk wants it")
    assert candidate_permit(settings, version).load(settings).standing == "champion"


def spec_of(operation: Operation, key: str) -> Spec:
    return Spec(key=key, data_version=operation.vintage.data_version, feature_version=operation.feature_version)


def test_a_refresh_is_compared_with_the_anchor(
    operation: Operation, noise_champion: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who comes after a refreshed champion has to beat the one before the refresh, not the refreshed one."""
    monkeypatch.setenv("MLOPS_GATE__NON_INFERIORITY_MARGIN", "1")
    monkeypatch.setenv("MLOPS_GATE__LOOKS", "daily")
    settings = operation.settings
    second = operation.register(Spec(key="c" * 16, skill=0.0, seed=4))
    refreshed = gate_challenger_task(challenger={"version": second})
    assert (refreshed["rule"], refreshed["anchor_version"]) == ("refresh", noise_champion)
    make_champion(settings, second)
    assert reign_of(settings, load_version(settings, second)).anchor == noise_champion
    third = gate_challenger_task(challenger={"version": operation.register(Spec(key="d" * 16, skill=0.0, seed=5))})
    assert (third["champion_version"], third["anchor_version"]) == (second, noise_champion)
    assert (third["rule"], third["champion_age_days"]) == ("no_proven_gain", 0)


def test_one_look_is_spent_once(operation: Operation, noise_champion: int) -> None:
    """A challenger judged again takes the same look; another one on the same day waits."""
    settings = operation.settings
    first = operation.register(Spec(key="c" * 16, skill=0.0, seed=4))
    decisions = [gate_challenger_task(challenger={"version": first}) for _ in range(2)]
    assert decisions[0] == decisions[1] and decisions[0]["look"]["number"] == 1
    assert len([row for row in gate_decisions(settings) if row.decision["look"]]) == 1
    better = operation.register(Spec(key="b" * 16))
    assert gate_challenger_task(challenger={"version": better})["rule"] == "between_looks"
    assert "next look about" in render_status(settings)


@pytest.fixture
def noise_champion(operation: Operation) -> int:
    """A champion that has learned noise, over the whole learning period of its challengers."""
    version = operation.register(Spec(key="n" * 16, skill=0.0, seed=3))
    make_champion(operation.settings, version)
    return version


def test_a_better_model_is_promoted_and_a_repeated_gate_agrees(operation: Operation, noise_champion: int) -> None:
    """The planted signal is worth more than noise, beyond the gate's test; the second call says the same."""
    version = operation.register(Spec(key="b" * 16))
    decision = gate_challenger_task(challenger={"version": version})
    assert (decision["decision"], decision["rule"]) == ("promote", "superiority")
    assert decision["champion_version"] == noise_champion
    assert decision["gain"] > 0.1
    said = f"version {version} (lightgbm) is promoted by rule superiority: "
    assert decision[RUN_NOTE].startswith(said) and decision["reasons"][0] in decision[RUN_NOTE]  # type: ignore[literal-required]
    assert gate_challenger_task(challenger={"version": version}) == decision


def test_the_champion_is_scored_as_its_own_predictions_say(operation: Operation, noise_champion: int) -> None:
    """The gain is the difference of the mean daily rank ICs in the two trainings' prediction files."""
    version = operation.register(Spec(key="b" * 16))
    decision = gate_challenger_task(challenger={"version": version})
    means = []
    for key in ("b" * 16, "n" * 16):
        frame = TrainingFolder.of(operation.settings, key).segment("test")
        daily = [day["score"].corr(day["label"], method="spearman") for _, day in frame.groupby("datetime")]
        means.append(np.mean(daily))
    assert decision["gain"] == pytest.approx(means[0] - means[1], abs=1e-12)


def test_no_gain_keeps_the_champion(operation: Operation) -> None:
    """Noise does not replace the planted signal."""
    champion = operation.register(Spec(key="b" * 16))
    make_champion(operation.settings, champion)
    version = operation.register(Spec(key="n" * 16, skill=0.0, seed=3))
    decision = gate_challenger_task(challenger={"version": version})
    assert (decision["decision"], decision["rule"]) == ("keep", "no_proven_gain")
    assert ModelLifecycleManager(operation.settings).state(version) == LifecycleState.CHALLENGER


def test_the_champion_itself_is_unchanged(operation: Operation, noise_champion: int) -> None:
    """The same training again is no challenge, and the champion's tags stay."""
    before = get_tags(operation.settings, noise_champion)
    decision = gate_challenger_task(challenger={"version": noise_champion})
    assert (decision["decision"], decision["rule"]) == ("keep", "unchanged")
    assert get_tags(operation.settings, noise_champion) == before


def test_constant_scores_are_rejected(operation: Operation) -> None:
    """A model that scores every name alike on many days is rejected, and its version says so."""
    version = operation.register(Spec(key="c" * 16))
    path = operation.settings.training_dir / ("c" * 16) / "predictions.parquet"
    frame = pd.read_parquet(path)
    frame.loc[frame["datetime"] > frame["datetime"].unique()[-15], "score"] = 0.5
    frame.to_parquet(path, index=False)
    decision = gate_challenger_task(challenger={"version": version})
    for _ in range(2):  # judged anew each time, since the policy may have changed
        assert gate_challenger_task(challenger={"version": version}) == decision
    assert (decision["decision"], decision["rule"]) == ("reject", "constant_scores")
    assert ModelLifecycleManager(operation.settings).state(version) == LifecycleState.REJECTED


def test_a_version_that_was_rolled_back_is_not_promoted_again(operation: Operation, noise_champion: int) -> None:
    """After a person has withdrawn a promoted version, the next run on the same bars leaves it where it is."""
    settings = operation.settings
    version = operation.register(Spec(key="b" * 16))
    assert gate_challenger_task(challenger={"version": version})["decision"] == "promote"
    make_champion(settings, version)
    make_champion(settings, noise_champion)
    record_revocation(settings, revocation_by_person(settings, version, "it was bad"))
    for _ in range(2):
        decision = gate_challenger_task(challenger={"version": version})
        assert (decision["decision"], decision["rule"]) == ("keep", "withdrawn")


def test_the_champion_is_judged_on_the_features_of_its_own_set(operation: Operation) -> None:
    """A champion of the user's own set against a challenger of another one: the same test days, its own columns.

    The set has another definition by now, and the challenger's vintage another day of bars.
    """
    settings, store = operation.settings, FeatureStore(operation.settings)
    define_own_set(settings)
    champion = operation.register(Spec(key="c" * 16, skill=0.0), "mine")
    make_champion(settings, champion)
    define_own_set(settings, days=9)
    vintage, feature_version = publish_vintage(settings, DAYS.append(DAYS[-1:] + (DAYS[-1] - DAYS[-2])))
    version = register_model(settings, Spec(key="b" * 16), vintage, feature_version)
    decision = gate_challenger_task(challenger={"version": version})
    test = TrainingFolder.of(settings, "b" * 16).segment("test")
    define_own_set(settings)
    own = store.load(store.compute(vintage, "mine").feature_version)
    score = load_version(settings, champion).artefact.predict(own).reindex(test.index)
    gain = (daily_rank_ic(test["score"], test["label"]) - daily_rank_ic(score, test["label"])).dropna()
    assert decision["champion_version"] == champion
    assert (decision["n_days"], decision["gain"]) == (len(gain), pytest.approx(gain.mean()))


def test_a_champion_without_its_features_is_not_compared(operation: Operation) -> None:
    """A champion whose training's features are gone and whose set has other columns stays; the reason names them."""
    make_training(operation.settings, Spec(key="o" * 16, feature_names=["ALIEN1", "ALIEN2"]))
    manager = ModelLifecycleManager(operation.settings)
    run_id = log_run_task(training_key="o" * 16)["run_id"]
    champion = manager.challenge("o" * 16, run_id)
    approve_model(operation.settings, champion, "it was the first one")
    make_champion(operation.settings, champion)
    version = operation.register(Spec(key="b" * 16))
    decision = gate_challenger_task(challenger={"version": version})
    assert (decision["decision"], decision["rule"]) == ("keep", "not_comparable")
    assert "ALIEN1" in decision["reasons"][0]


def test_days_that_the_champion_learned_from_are_left_out(operation: Operation) -> None:
    """Test days inside the champion's own learning period do not count, and the reasons say so."""
    champion = operation.register(Spec(key="n" * 16, skill=0.0, seed=3, later_days=10))
    make_champion(operation.settings, champion)
    version = operation.register(Spec(key="b" * 16))
    days = TrainingFolder.of(operation.settings, "b" * 16).segment("test").index.get_level_values("datetime").unique()
    decision = gate_challenger_task(challenger={"version": version})
    assert decision["n_days"] == len(days) - 10
    assert "10 test days up to 2020-05-19 are left out" in decision["reasons"][-1]


def test_a_model_without_a_certificate_is_not_promoted(operation: Operation) -> None:
    """Registered by hand, without the stage that certifies: rejected, with the reason; judged anew once certified."""
    spec = Spec(data_version=operation.vintage.data_version, feature_version=operation.feature_version)
    make_training(operation.settings, spec, learning_data(operation.settings, spec.feature_version))
    version = ModelLifecycleManager(operation.settings).challenge(
        spec.key, log_run_task(training_key=spec.key)["run_id"]
    )
    decision = gate_challenger_task(challenger={"version": version})
    assert (decision["decision"], decision["rule"]) == ("reject", "leak_certificate")
    assert f"training {spec.key} has no leak certificate; run daily_retraining" in decision["reasons"][0]
    assert get_alias_version(operation.settings, CHAMPION) is None

    certify_training(operation.settings, spec)
    decision = gate_challenger_task(challenger={"version": version})
    assert (decision["decision"], decision["rule"]) == ("promote", "provisional")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"data_version": "another"}, "about another data_version than"),
        ({"feature_version": "another", "horizon": 5}, "about another feature_version, horizon than"),
        ({"models": ["linear"]}, "about another model than"),
        ({"segments": {"train": ["2020-01-01", "2020-06-29"]}}, "about another segments than"),
    ],
)
def test_a_certificate_of_something_else_does_not_count(
    operation: Operation, changes: dict[str, Any], reason: str
) -> None:
    """The certificate must be about the vintage, features, horizon, segments and model of the training."""
    version = operation.register(Spec())
    rewrite_certificate(operation, {"subject": changes})
    decision = gate_challenger_task(challenger={"version": version})
    assert (decision["decision"], decision["rule"]) == ("reject", "leak_certificate")
    assert reason in decision["reasons"][0]


def test_a_certificate_with_a_failed_check_does_not_count(operation: Operation) -> None:
    """What says `passed` is what was checked, not a word in the file."""
    version = operation.register(Spec())
    rewrite_certificate(operation, {"passed": True, "checks": {0: {"passed": False}}})
    decision = gate_challenger_task(challenger={"version": version})
    assert (decision["decision"], decision["rule"]) == ("reject", "leak_certificate")
    assert "has not passed" in decision["reasons"][0]


def test_a_certificate_of_the_data_alone_does_not_count(operation: Operation) -> None:
    """The second half is about the very model: without it, and with that of another one, the gate rejects."""
    version = operation.register(Spec())
    record = TrainingFolder.of(operation.settings, Spec().key).certificate
    content = read_json(record)
    for changed in ({"key": content["key"]}, {**content, "artefact": "another"}):
        write_json(record, changed)
        decision = gate_challenger_task(challenger={"version": version})
        assert (decision["decision"], decision["rule"]) == ("reject", "leak_certificate")
        assert "does not cover this model's scores" in decision["reasons"][0]


def test_what_no_certificate_can_prove_is_a_warning(operation: Operation) -> None:
    """Among the gate's reasons, in tags, and on the version's page: the source's dates, and that nobody ever leaves."""
    version = operation.register(Spec())
    decision = gate_challenger_task(challenger={"version": version})
    warned = [each for each in decision["reasons"] if each.startswith("warning: not proven: ")]
    assert [each.split(": ")[2] for each in warned] == ["vendor stamps", "membership"]
    assert "vendor stamps: that open" in get_tags(operation.settings, version)["leak_unproven"]
    page = connect(operation.settings).get_model_version(MODEL_NAME, str(version)).description
    assert page.count("Warning: not proven: ") == 2


def rewrite_certificate(operation: Operation, changes: dict[str, Any]) -> None:
    """Change the one certificate of a home; the file keeps its name."""

    def change(content: Any, changes: dict[Any, Any]) -> None:
        for key, value in changes.items():
            if isinstance(value, dict):
                change(content[key], value)
            else:
                content[key] = value

    (path,) = (operation.settings.home / "certificates").glob("*.json")
    content = read_json(path)
    change(content, changes)
    write_json(path, content)
