"""Canaries and shadows against a real service, registry and state database."""

import json
from dataclasses import replace
from typing import Any

import httpx
import pytest

from mlops_tasks.cli import main
from mlops_tasks.config import DeploymentSettings, PredictionSettings, Settings
from mlops_tasks.errors import DeploymentError
from mlops_tasks.registry.client import CHAMPION
from mlops_tasks.registry.models import claim_of, get_alias_version
from mlops_tasks.serving import candidates
from mlops_tasks.serving.client import ScoringClient, scores_of
from mlops_tasks.serving.deployment import roll_back, withdraw_model
from mlops_tasks.serving.rollout import is_of_candidate
from mlops_tasks.serving.strategies import Wanted, abort, advance, advance_rollouts, deploy
from mlops_tasks.serving.tasks import deploy_model_task
from mlops_tasks.state.alerts.journal import newest_events
from mlops_tasks.state.history import latest_deployment
from mlops_tasks.state.predictions import PredictionFilter, predictions
from mlops_tasks.state.rollouts import (
    Rollout,
    latest_rollout,
    record_rollout_step,
    rollout_at_work,
    rollout_steps,
    undecided_rollouts,
)
from mlops_tasks.state.scoring_keys import KeyRequest, make_key
from mlops_tasks.states import RolloutState, Scope, Strategy
from tests.operation import make_champion
from tests.registry.conftest import OFTEN_S, Operation
from tests.registry.trainings import INSTRUMENTS, Spec
from tests.serving.conftest import RunningService, scores_here
from tests.waiting import wait_for

POLL_S = OFTEN_S

HALF = DeploymentSettings(canary_steps_pct=(50.0, 100.0), hold_h=0, shadow_h=0)
NEVER = HALF.model_copy(update={"hold_h": 24.0, "shadow_h": 24.0})
UNITS = [f"desk-{number}" for number in range(40)]


@pytest.fixture
def settings(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """With steps that last for a day, and a log that is brought to the database at once."""
    for name, value in (("CANARY_STEPS_PCT", "50,100"), ("HOLD_H", "24"), ("SHADOW_H", "24")):
        monkeypatch.setenv(f"MLOPS_DEPLOYMENT__{name}", value)
    quick = PredictionSettings(sync_s=0.05, ship_s=0.05)
    return settings.model_copy(update={"predictions": quick, "deployment": NEVER})


@pytest.fixture
def versions(operation: Operation) -> tuple[int, int]:
    """A champion and a candidate that may serve."""
    champion, candidate = (operation.register(Spec(key=letter * 16, seed=n)) for n, letter in enumerate("ab", 1))
    make_champion(operation.settings, champion)
    return champion, candidate


@pytest.fixture
def raw(versions: tuple[int, int], service: RunningService, client: ScoringClient) -> httpx.Client:
    """The client's own HTTP connection."""
    client.refresh()
    return client._http


def begin(settings: Settings, version: int, strategy: Strategy = Strategy.CANARY) -> Rollout:
    """Let a rollout begin."""
    deploy(settings, Wanted(version, strategy))
    last = latest_rollout(settings)
    assert last is not None and last.version == version
    return next(each for each in rollout_steps(settings, last.rollout_id) if each.state == RolloutState.HOLDING)


def candidate_is(raw: httpx.Client, version: int | None) -> bool:
    """Whether the service has this candidate ready; None: none."""
    return ((raw.get("/health").json()["candidate"] or {}).get("model_version")) == version


def ask(raw: httpx.Client, unit: str = "", body: dict[str, Any] | None = None) -> dict[str, Any]:
    response = raw.post("/v1/score", json=body or {}, headers={"X-Unit": unit} if unit else {})
    content: dict[str, Any] = response.raise_for_status().json()
    return content


def arms(settings: Settings) -> set[tuple[int, str, str]]:
    """Version, arm and key of what is logged."""
    rows = (each.prediction for each in predictions(settings, PredictionFilter(), 10_000))
    return {(row.model_version, row.arm, row.key_name) for row in rows}


def test_a_canary_is_led_to_its_promotion(
    operation: Operation, versions: tuple[int, int], raw: httpx.Client, settings: Settings
) -> None:
    """Each client is answered by the model that its draw says, the operation itself by the champion, until the
    candidate is deployed; a retraining's candidate meanwhile waits, and has its turn."""
    champion, candidate = versions
    begun = begin(settings, candidate)
    wait_for(lambda: candidate_is(raw, candidate))
    expected = {version: scores_here(operation, version) for version in versions}
    for unit in UNITS:
        answer = ask(raw, unit)
        drawn = is_of_candidate(begun, f"unit {unit}")
        assert answer["model_version"] == (candidate if drawn else champion)
        assert answer["standing"] == ("canary" if drawn else "champion")
        assert scores_of(answer).to_dict() == expected[answer["model_version"]]
        assert (
            ask(raw, unit, {"instruments": ["S003"], "date": "2020-05-29"})["model_version"] == answer["model_version"]
        )
    assert ask(raw)["model_version"] == champion
    wait_for(lambda: {(candidate, "canary", "admin"), (candidate, "shadow", "rollout")} <= arms(settings))
    assert (champion, "champion", "admin") in arms(settings)

    next_one = operation.register(Spec(key="c" * 16, seed=3))
    gate = {"decision": "promote", "rule": "r", "version": next_one, "digest": claim_of(settings, next_one).digest}
    done = deploy_model_task(gate=gate, strategy="blue_green")
    assert (done["deployed"], done["rollout"]) == (False, "waiting")
    assert deploy_model_task(gate=gate, strategy="blue_green") == done
    assert advance(settings) == []

    hurry(settings, begun)
    taken = advanced_to_the_end(settings)
    assert taken == [
        (candidate, RolloutState.HOLDING, 1),
        (candidate, RolloutState.PROMOTING, 2),
        (candidate, RolloutState.PROMOTED, 2),
        (next_one, RolloutState.PROMOTING, 0),
        (next_one, RolloutState.PROMOTED, 0),
    ]
    assert ask(raw, UNITS[0])["model_version"] == get_alias_version(settings, CHAMPION) == next_one
    assert advance_rollouts(settings) == {"steps": [], "under_way": []}


def test_a_step_is_over_only_once_the_service_has_taken_it_up(
    versions: tuple[int, int], raw: httpx.Client, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A service that does not hear of a step goes on with the one before; its answers do not count for the new one."""
    _, candidate = versions
    begun = begin(settings, candidate)
    wait_for(lambda: {(candidate, "shadow", "rollout")} <= arms(settings))
    with monkeypatch.context() as deaf:
        deaf.setattr(candidates, "rollout_at_work", lambda settings: begun)
        hurry(settings, begun)
        assert [(each.state, each.step) for each in advance(settings)] == [(RolloutState.HOLDING, 1)]
        drawn = next(unit for unit in UNITS if is_of_candidate(begun, f"unit {unit}"))
        assert ask(raw, drawn)["model_version"] == candidate
        wait_for(lambda: {(candidate, "canary", "admin")} <= arms(settings))
        assert advance(settings) == []
    assert advanced_to_the_end(settings) == [
        (candidate, RolloutState.PROMOTING, 2),
        (candidate, RolloutState.PROMOTED, 2),
    ]


def advanced_to_the_end(settings: Settings) -> list[tuple[int, RolloutState, int]]:
    """The steps of evaluations until nothing is under way."""
    taken: list[tuple[int, RolloutState, int]] = []

    def is_over() -> bool:
        taken.extend((each.version, each.state, each.step) for each in advance(settings))
        return undecided_rollouts(settings) == []

    wait_for(is_over)
    return taken


def hurry(settings: Settings, begun: Rollout) -> None:
    """Let the steps of a rollout last for no time."""
    last = rollout_steps(settings, begun.rollout_id)[-1]
    assert record_rollout_step(settings, last, replace(last, plan=replace(last.plan, hold_s=0.0)))


def test_a_client_with_a_key_is_a_unit(versions: tuple[int, int], raw: httpx.Client, settings: Settings) -> None:
    """By the name of its key, all through a step."""
    begun = begin(settings, versions[1])
    wait_for(lambda: candidate_is(raw, versions[1]))
    for name in ("desk-a", "desk-b", "desk-c", "desk-d"):
        text, _ = make_key(settings, KeyRequest(name, frozenset({Scope.SCORE}), 6000), "ann")
        raw.post("/v1/refresh")
        seen = {
            raw.post("/v1/score", json={}, headers={"Authorization": f"Bearer {text}"}).json()["model_version"]
            for _ in range(5)
        }
        assert seen == {versions[1] if is_of_candidate(begun, f"key {name}") else versions[0]}


def test_a_shadow_scores_what_the_champion_is_asked_and_answers_nobody(
    versions: tuple[int, int], raw: httpx.Client, settings: Settings
) -> None:
    """It is in the log beside the answer, with the same request id; at its end it does not serve."""
    champion, candidate = versions
    begun = begin(settings, candidate, Strategy.SHADOW)
    wait_for(lambda: candidate_is(raw, candidate))
    response = raw.post("/v1/score", json={"instruments": INSTRUMENTS[:3]}, headers={"X-Request-ID": "one"})
    assert response.json()["model_version"] == champion
    assert {ask(raw, unit)["model_version"] for unit in UNITS[:10]} == {champion}

    def logged() -> dict[str, tuple[int, int]]:
        rows = [each.prediction for each in predictions(settings, PredictionFilter(), 100)]
        return {row.arm: (row.model_version, row.instruments) for row in rows if row.request_id == "one"}

    wait_for(lambda: len(logged()) == 2)
    assert logged() == {"champion": (champion, 3), "shadow": (candidate, 3)}
    hurry(settings, begun)
    assert [each.state for each in advance(settings)] == [RolloutState.COMPLETED]
    wait_for(lambda: candidate_is(raw, None))
    assert get_alias_version(settings, CHAMPION) == champion


def test_what_a_candidate_cannot_answer_the_champion_answers(
    versions: tuple[int, int], raw: httpx.Client, service: RunningService, settings: Settings, monkeypatch
) -> None:
    """Whatever goes wrong with it; the log says so."""
    champion, candidate = versions
    begun = begin(settings, candidate)
    unit = next(each for each in UNITS if is_of_candidate(begun, f"unit {each}"))
    wait_for(lambda: candidate_is(raw, candidate))

    def broken(*given: object) -> None:
        raise ZeroDivisionError("broken")

    monkeypatch.setattr(service.scoring.candidates._market_view, "score", broken)
    assert ask(raw, unit)["model_version"] == candidate, "the newest day's scores are there"
    assert ask(raw, unit, {"date": "2020-05-29"})["model_version"] == champion
    table = {"instruments": ["X"], "feature_names": ["KMID"], "values": [[0.1]]}
    assert raw.post("/v1/score", json={"table": table}, headers={"X-Unit": unit}).status_code == 422
    wait_for(lambda: (champion, "fallback", "admin") in arms(settings))


def test_a_candidate_that_scores_nothing_is_rejected_on_the_spot(
    versions: tuple[int, int], raw: httpx.Client, service: RunningService, settings: Settings, monkeypatch
) -> None:
    """No evaluation is needed for that; people are told, and the champion serves as before."""
    champion, candidate = versions
    honest = service.scoring.candidates._market_view.score
    monkeypatch.setattr(service.scoring.candidates._market_view, "score", lambda *given: honest(*given) * float("nan"))
    begun = begin(settings, candidate)
    wait_for(lambda: rollout_at_work(settings) is None)
    last = rollout_steps(settings, begun.rollout_id)[-1]
    assert (last.state, "no finite score" in last.reason) == (RolloutState.REJECTED, True)
    assert "rollout_rejected" in {event.kind for event in newest_events(settings, 10)}
    assert {ask(raw, unit)["model_version"] for unit in UNITS} == {champion}
    assert raw.get("/health").json()["status"] == "ok"


@pytest.mark.parametrize("how", ["abort", "rollback", "withdraw", "direct"])
def test_each_way_back_ends_the_candidates_share(
    how: str, operation: Operation, versions: tuple[int, int], raw: httpx.Client
) -> None:
    """A person aborts the rollout, the champion is rolled back, the candidate withdrawn, or another one deployed."""
    (champion, candidate), settings = versions, operation.settings
    other = operation.register(Spec(key="c" * 16, seed=3))
    if how == "rollback":
        make_champion(settings, other)
        raw.post("/v1/refresh")
    begun = begin(settings, candidate)
    wait_for(lambda: candidate_is(raw, candidate))
    if how == "abort":
        assert main(["abort", "--reason", "not today"]) == 0
        with pytest.raises(DeploymentError, match="no rollout is under way"):
            abort(settings, "once more")
    elif how == "rollback":
        roll_back(settings)
    elif how == "withdraw":
        withdraw_model(settings, candidate, "bad news")
    else:
        assert main(["deploy", str(other), "--strategy", "direct"]) == 0
    advance(settings)
    wait_for(lambda: candidate_is(raw, None))
    serves = other if how == "direct" else champion
    assert {ask(raw, unit)["model_version"] for unit in UNITS[:10]} == {serves}
    last = rollout_steps(settings, begun.rollout_id)[-1]
    assert last.state == (RolloutState.REJECTED if how == "withdraw" else RolloutState.ABORTED)
    assert last.reason


def test_a_retraining_does_not_begin_once_more_what_was_decided(
    versions: tuple[int, int], raw: httpx.Client, settings: Settings, capsys
) -> None:
    """A person may."""
    version = versions[1]
    gate = {"decision": "promote", "rule": "r", "version": version, "digest": claim_of(settings, version).digest}
    assert deploy_model_task(gate=gate, strategy="canary")["rollout"] == "holding"
    abort(settings, "not today")
    done = deploy_model_task(gate=gate, strategy="canary")
    assert (done["deployed"], done["rollout"]) == (False, "aborted")
    capsys.readouterr()
    assert main(["deploy", str(version), "--strategy", "canary", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rollout"] == "holding"
    assert main(["status"]) == 0
    assert f"rollout     canary of version {version}, holding until" in capsys.readouterr().out


def test_who_has_approved_is_kept(
    operation: Operation, versions: tuple[int, int], raw: httpx.Client, settings: Settings
) -> None:
    """With the rollout, or with the deployment that ends well."""
    version = versions[1]
    gate = {"decision": "promote", "rule": "r", "version": version, "digest": claim_of(settings, version).digest}
    deploy_model_task(gate=gate, strategy="canary", approved_by="ann")
    begun = rollout_at_work(settings)
    assert begun is not None and begun.asked_by == "daily_retraining, approved by ann"
    deploy_model_task(version=version, strategy="direct", asked_by="joe", approved_by="ann")
    served = latest_deployment(settings, version, "serving")
    assert served is not None and served.reason == "approved by ann"


def test_without_a_champion_a_canary_is_deployed(operation: Operation, client: ScoringClient) -> None:
    """There is nobody to be measured against."""
    version = operation.register(Spec(key="a" * 16))
    assert deploy(operation.settings, Wanted(version, Strategy.CANARY))["deployed"]
    assert client.score()["model_version"] == version
    done = deploy(operation.settings, Wanted(version, Strategy.CANARY))
    assert (done["deployed"], done["rollout"]) == (True, "promoted")


def test_a_broken_rule_ends_a_canary_within_one_evaluation(
    versions: tuple[int, int], raw: httpx.Client, service: RunningService, settings: Settings, monkeypatch
) -> None:
    """The candidate's scores have the wrong sign: the log says so, and the champion answers all again."""
    champion, candidate = versions
    view = service.scoring.candidates._market_view
    honest = service.scoring.market_view.score
    model = service.scoring.slots.active
    assert model is not None
    monkeypatch.setattr(view, "score", lambda _, market, day: -honest(model.model, market, day))
    begun = begin(settings, candidate)
    wait_for(lambda: candidate_is(raw, candidate))
    assert ask(raw)["model_version"] == champion
    wait_for(lambda: {(champion, "champion", "admin"), (candidate, "shadow", "rollout")} <= arms(settings))
    assert [each.state for each in advance(settings)] == [RolloutState.REJECTED]
    last = rollout_steps(settings, begun.rollout_id)[-1]
    assert "the rank correlation with the champion's scores is -1.000, limit 0, on 2020-06-30" in last.reason
    wait_for(lambda: candidate_is(raw, None))
    assert {ask(raw, unit)["model_version"] for unit in UNITS} == {champion}
