"""Approvals, and the revocations that end them, on SQLite and on PostgreSQL."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from mlops_tasks.config import Settings
from mlops_tasks.state.approvals import (
    approved_artefacts,
    latest_revocation,
    record_model_approval,
    record_revocation,
    standing_approval,
)
from mlops_tasks.state.deployments import (
    Deployed,
    deployed_as,
    last_step,
    record_deployment,
    recorded_champion,
    settle_attempt,
    versions_that_served,
)
from mlops_tasks.state.tables import Deployment, ModelApproval, ModelRevocation
from mlops_tasks.states import Basis, DeploymentState
from tests.postgres import DATABASES, settings_on

ONE, OTHER = ("k1", "1" * 64), ("k2", "2" * 64)


@pytest.fixture(params=DATABASES)
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Settings]:
    """Settings of an empty database of its own."""
    with settings_on(request.param, tmp_path) as made:
        yield made


def approve(settings: Settings, what: tuple[str, str], basis: str = Basis.PERSON) -> bool:
    row = ModelApproval(
        training_key=what[0], artefact_digest=what[1], basis=basis, approved_by="ann", reason="it is good"
    )
    return record_model_approval(settings, row)


def revoke(settings: Settings, what: tuple[str, str], basis: str = Basis.PERSON) -> bool:
    row = ModelRevocation(training_key=what[0], artefact_digest=what[1], basis=basis, revoked_by="ann", reason="bad")
    return record_revocation(settings, row)


def test_an_approval_stands_until_the_next_revocation(settings: Settings) -> None:
    """However often, and with the same words each time; each fact is one row; another model's stand by themselves."""
    assert approve(settings, OTHER)
    for _ in range(3):
        assert [approve(settings, ONE), approve(settings, ONE)] == [True, False]
        assert standing_approval(settings, *ONE) is not None
        assert approved_artefacts(settings) == {ONE, OTHER}
        assert [revoke(settings, ONE), revoke(settings, ONE)] == [True, False]
        assert standing_approval(settings, *ONE) is None
        assert approved_artefacts(settings) == {OTHER}
    assert standing_approval(settings, ONE[0], OTHER[1]) is None
    last = latest_revocation(settings, ONE[0])
    assert last is not None and (last.number, last.basis) == (3, Basis.PERSON)
    assert latest_revocation(settings, OTHER[0]) is None


def test_a_person_may_revoke_what_the_gate_has_revoked_or_never_approved(settings: Settings) -> None:
    """So that it is not promoted again; the gate's later word does not hide the person's."""
    assert revoke(settings, ONE, Basis.GATE) and revoke(settings, ONE, Basis.PERSON)
    last = latest_revocation(settings, ONE[0])
    assert last is not None and (last.number, last.basis) == (2, Basis.PERSON)


def test_a_version_is_what_was_deployed_under_its_number(settings: Settings) -> None:
    """Also while it is under proof; the champion is the version that was proven last and is not replaced."""

    def step(version: int, state: str, digest: str, proven: int | None = None) -> None:
        row = Deployment(
            model_version=version,
            training_key=f"k{version}",
            artefact_digest=digest,
            data_version="d",
            strategy="blue_green",
            state=state,
            proven_version=proven,
        )
        record_deployment(settings, row)

    assert recorded_champion(settings) is deployed_as(settings, 1) is None
    step(1, DeploymentState.STARTED, "1")
    assert (recorded_champion(settings), deployed_as(settings, 1)) == (None, Deployed(1, "k1", "1"))
    assert deployed_as(settings, 1, (DeploymentState.SERVING,)) is None
    step(1, DeploymentState.SERVING, "1")
    step(2, DeploymentState.STARTED, "2", proven=1)
    assert recorded_champion(settings) == 1
    step(2, DeploymentState.SERVING, "2", proven=1)
    assert recorded_champion(settings) == 2
    step(1, DeploymentState.STARTED, "1", proven=2)
    step(1, DeploymentState.ROLLED_BACK, "1", proven=2)
    step(3, DeploymentState.FAILED, "")
    assert recorded_champion(settings) == 2
    assert versions_that_served(settings) == [Deployed(2, "k2", "2"), Deployed(1, "k1", "1")]


def test_an_attempt_ends_once(settings: Settings) -> None:
    """Who comes second, or after the next attempt has begun, adds nothing and revokes nobody's approval."""

    def step(attempt: str, state: str) -> Deployment:
        about = {"model_version": 1, "training_key": "k1", "data_version": "d", "strategy": "blue_green"}
        return Deployment(attempt=attempt, state=state, **about)

    def settle(attempt: str, state: str) -> bool:
        revoked = ModelRevocation(
            training_key=ONE[0], artefact_digest=ONE[1], basis=Basis.PERSON, revoked_by="ann", reason="it was replaced"
        )
        return settle_attempt(settings, step(attempt, state), revoked)

    assert approve(settings, ONE)
    assert not settle("a", DeploymentState.SERVING), "it has not begun"
    record_deployment(settings, step("a", DeploymentState.STARTED))
    record_deployment(settings, step("b", DeploymentState.STARTED))
    assert not settle("a", DeploymentState.SERVING)
    assert standing_approval(settings, *ONE) is not None
    assert settle("b", DeploymentState.SERVING) and not settle("b", DeploymentState.ROLLED_BACK)
    last = last_step(settings)
    assert last is not None and (last.attempt, last.state) == ("b", DeploymentState.SERVING)
    assert standing_approval(settings, *ONE) is None
