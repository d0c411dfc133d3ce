"""What a person does by hand about the models that serve: once, under their name, whatever is killed and run again."""

from datetime import UTC, datetime
from typing import Any

import pytest

from mlops_tasks.config import Settings
from mlops_tasks.errors import ConfigError, DeploymentError, NotApprovedError, OvertakenError
from mlops_tasks.registry.approvals import candidate_permit
from mlops_tasks.registry.lifecycle import ModelLifecycleManager
from mlops_tasks.registry.models import claim_of
from mlops_tasks.serving import operations
from mlops_tasks.serving.client import ScoringClient
from mlops_tasks.serving.deployment import deploy_blue_green, withdraw_model
from mlops_tasks.serving.strategies import Wanted, deploy
from mlops_tasks.serving.tasks import operate_task
from mlops_tasks.stage_results import Operated, check_result
from mlops_tasks.state.approvals import latest_revocation, standing_approval
from mlops_tasks.state.deployments import recorded_champion
from mlops_tasks.state.history import latest_deployment
from mlops_tasks.state.model_history import history_of
from mlops_tasks.state.rollouts import rollout_steps, undecided_rollouts
from mlops_tasks.states import Basis, ModelState, RolloutState, Strategy
from tests.operation import make_champion
from tests.registry.conftest import Operation
from tests.registry.trainings import Spec


@pytest.fixture
def versions(operation: Operation) -> list[int]:
    """Three versions that may serve; none has been champion."""
    return [operation.register(Spec(key=letter * 16, seed=n)) for n, letter in enumerate("abc", 1)]


def ask(action: str, version: int | None = None, reason: str = "bad fills", **more: str) -> dict[str, Any]:
    """The arguments of a stage that ann triggers now."""
    given = {"action": action, "version": version, "reason": reason, "asked_by": "ann"}
    return {**given, "asked_at": datetime.now(UTC).isoformat(), **more}


def done(asked: dict[str, Any]) -> Operated:
    """Its result, which is what it says that it returns."""
    result = operate_task(**asked)
    check_result("serving.operate", Operated, result)
    return result


def killed(asked: dict[str, Any]) -> None:
    """The stage's process ends when its work is done and before anybody hears of it."""
    with pytest.MonkeyPatch.context() as at, pytest.raises(KeyboardInterrupt):
        at.setattr(operations, "_told", lambda *given: (_ for _ in ()).throw(KeyboardInterrupt))
        operate_task(**asked)


def test_a_rollback_happens_once_and_bears_a_name(
    operation: Operation, versions: list[int], client: ScoringClient
) -> None:
    """Run again after a kill, or days later, it does not go one champion further back."""
    settings, (first, second, third) = operation.settings, versions
    for version in versions:
        deploy_blue_green(settings, version)
    asked = ask("rollback")
    killed(asked)
    for _ in range(2):
        assert done(asked)["run_note"] == f"version {second} serves; version {third} is withdrawn already"
    assert recorded_champion(settings) == client.health()["model_version"] == second
    served = latest_deployment(settings, second, "serving")
    assert served is not None and served.reason == "ann: bad fills"
    revoked = latest_revocation(settings, claim_of(settings, third).training_key)
    assert revoked is not None and (revoked.basis, revoked.revoked_by) == (Basis.PERSON, "ann")
    assert history_of(settings, third)[-1].by == "ann"
    told = done(ask("rollback"))
    assert told == {
        "action": "rollback",
        "version": first,
        "run_note": f"version {first} serves; version {second} is withdrawn",
    }


def test_a_rollback_that_is_interrupted_is_undone_and_can_be_run_again(
    operation: Operation, versions: list[int], client: ScoringClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill during the proof leaves the champion in service; another try is the same rollback."""
    settings, (first, second, _) = operation.settings, versions
    for version in (first, second):
        deploy_blue_green(settings, version)
    asked = ask("rollback")
    with monkeypatch.context() as at, pytest.raises(KeyboardInterrupt):
        at.setattr("mlops_tasks.serving.proof.Proof.of_service", lambda self: (_ for _ in ()).throw(KeyboardInterrupt))
        operate_task(**asked)
    assert recorded_champion(settings) == second
    assert done(asked)["version"] == first == client.health()["model_version"]


def test_a_rollback_means_the_champion_of_its_time(
    operation: Operation, versions: list[int], client: ScoringClient
) -> None:
    """Not one that was deployed since, and not one to itself; without a champion there is nothing to do."""
    settings, (first, second, third) = operation.settings, versions
    early = ask("rollback")
    deploy_blue_green(settings, first)
    with pytest.raises(OvertakenError, match="there was no champion"):
        operate_task(**early)
    with pytest.raises(ConfigError, match=f"{first} is the champion itself"):
        operate_task(**ask("rollback", first))
    deploy_blue_green(settings, second)
    late = ask("rollback")
    deploy_blue_green(settings, third)
    with pytest.raises(OvertakenError, match=f"version {second} was to be rolled back, and version {third} serves"):
        operate_task(**late)
    assert recorded_champion(settings) == third
    assert done(ask("rollback", first))["version"] == first
    with pytest.raises(DeploymentError, match="may not serve"):
        operate_task(**ask("rollback", third))


def test_an_abort_ends_the_rollout_that_was_meant(
    operation: Operation, versions: list[int], client: ScoringClient
) -> None:
    """Once, under a name; not the one after it; and it says where a rollout was decided otherwise."""
    settings, (first, second, third) = operation.settings, versions
    make_champion(settings, first)
    client.refresh()
    for version in (second, third):
        deploy(settings, Wanted(version, Strategy.CANARY))
    begun, waiting = undecided_rollouts(settings)
    asked = ask("abort", reason="not today")
    killed(asked)
    assert operate_task(**ask("advance", reason=""))["run_note"].startswith(f"canary of version {third}, holding until")
    assert done(asked) == {
        "action": "abort",
        "version": second,
        "run_note": f"canary of version {second}, aborted: not today",
    }
    assert [each.version for each in undecided_rollouts(settings)] == [third]
    assert history_of(settings, second)[-1].by == "ann"
    assert rollout_steps(settings, begun.rollout_id)[-1].asked_by == "ann"
    assert waiting.version == third
    asked = ask("abort", third)
    withdraw_model(settings, third, "bad news")
    operate_task(**ask("advance"))
    assert rollout_steps(settings, waiting.rollout_id)[-1].state == RolloutState.REJECTED
    with pytest.raises(OvertakenError, match=r"decided before it could be aborted: .*rejected"):
        operate_task(**asked)
    with pytest.raises(DeploymentError, match="no rollout is under way"):
        operate_task(**ask("abort"))


def test_approvals_and_withdrawals_are_kept_and_nothing_is_done_anew_after_them(
    operation: Operation, versions: list[int], client: ScoringClient
) -> None:
    """Each once, under a name; run again, it does not undo what came after it."""
    settings, (first, second, _) = operation.settings, versions
    make_champion(settings, first)
    claim = claim_of(settings, second)
    withdrawal = ask("withdraw", second)
    killed(withdrawal)
    done(withdrawal)
    with pytest.raises(NotApprovedError):
        candidate_permit(settings, second)
    revoked = latest_revocation(settings, claim.training_key)
    assert revoked is not None and (revoked.number, revoked.revoked_by, revoked.reason) == (1, "ann", "bad fills")
    assert ModelLifecycleManager(settings).state(second) == ModelState.REJECTED

    approval = ask("approve", second, "fills are explained")
    killed(approval)
    assert done(approval)["version"] == second
    approved = standing_approval(settings, claim.training_key, claim.digest)
    assert approved is not None and (approved.approved_by, approved.reason) == ("ann", "fills are explained")
    with pytest.raises(OvertakenError, match="approved by ann after its withdrawal was asked for: fills are explained"):
        operate_task(**withdrawal)
    assert candidate_permit(settings, second)

    withdraw_model(settings, second, "once more", "bob")
    with pytest.raises(OvertakenError, match="withdrawn by bob after its approval was asked for: once more"):
        operate_task(**approval)
    with pytest.raises(NotApprovedError):
        candidate_permit(settings, second)
    with pytest.raises(DeploymentError, match=f"version {first} is the champion"):
        operate_task(**ask("withdraw", first))


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (ask("deploy", 1), "action: unknown 'deploy'; use rollback, abort, advance, approve, withdraw"),
        (ask("rollback", reason=" "), "reason: it is empty"),
        (ask("abort", reason="a\0"), "reason: it has a NUL character"),
        (ask("approve"), "version: it is empty; say which version to approve"),
        (ask("withdraw"), "version: it is empty; say which version to withdraw"),
        (ask("advance", 1), "version: rollouts are advanced all together"),
    ],
)
def test_what_makes_no_sense_is_refused(settings: Settings, asked: dict[str, Any], said: str) -> None:
    """With the field's name, before anything is read."""
    with pytest.raises(ConfigError, match=said):
        operate_task(**asked)


def test_nobody_by_name_is_the_dag(operation: Operation, versions: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that no account has triggered leaves the DAG's name."""
    monkeypatch.setenv("AIRFLOW_CTX_DAG_ID", "operate_models")
    monkeypatch.setenv("AIRFLOW_CTX_DAG_RUN_ID", "manual__1")
    done(ask("withdraw", versions[1], asked_by=""))
    revoked = latest_revocation(operation.settings, claim_of(operation.settings, versions[1]).training_key)
    assert revoked is not None and revoked.revoked_by == "operate_models"
