"""The decision about the alias, in every situation there is."""

from itertools import permutations, product

import pytest

from mlops_tasks.serving.champion import Action, Decision, Situation, decide
from mlops_tasks.state.deployments import DeploymentStep
from mlops_tasks.states import DeploymentState

VERSIONS = (None, 1, 2, 3)
LASTS = [None] + [
    DeploymentStep(state, version, proven)
    for state, version, proven in product(
        (DeploymentState.STARTED, DeploymentState.SERVING, DeploymentState.ROLLED_BACK, DeploymentState.RESTORED),
        (1, 2, 3),
        VERSIONS,
    )
]
WAYS_BACK = [order for length in range(4) for order in permutations((1, 2, 3), length)]
SITUATIONS = [Situation(*each) for each in product(LASTS, VERSIONS, (False, True), WAYS_BACK)]


def done(found: Situation, decision: Decision) -> Situation:
    """The situation after a decision was carried out."""
    last = found.last
    if decision.action is Action.UNDO:
        assert last is not None
        last = DeploymentStep(DeploymentState.ROLLED_BACK, last.version, decision.champion)
    elif decision.action is Action.RESTORE:
        last = DeploymentStep(DeploymentState.RESTORED, decision.champion or 9, decision.champion)
    else:
        return found
    return Situation(last, decision.champion, running=False, ways_back=found.ways_back)


def test_one_decision_is_enough() -> None:
    """In each of all situations, what was decided and done leaves nothing to do, and the same version in service."""
    assert len(SITUATIONS) > 6000
    for found in SITUATIONS:
        first = decide(found)
        again = decide(done(found, first))
        assert again.champion == first.champion, found
        assert again.action in (Action.KEEP, Action.WAIT, Action.LEAVE), found


def test_the_champion_is_what_was_proven_or_can_be_gone_back_to() -> None:
    """Without a living deployment nobody serves a version that neither the record nor the ways back vouch for."""
    for found in SITUATIONS:
        if found.last is None or (found.last.state == DeploymentState.STARTED and found.running):
            continue
        champion = decide(found).champion
        assert champion in (None, found.last.champion, *found.ways_back), found
        if found.last.champion in found.ways_back:
            assert champion == found.last.champion, found
        if champion is None:
            assert not found.ways_back or found.alias is None is found.last.champion, found


def test_an_unproven_version_is_served_under_a_living_deployment_only() -> None:
    """What a started deployment has put there is left while the lease is held, and undone once it is free."""
    for found in SITUATIONS:
        if found.last is None or found.last.state != DeploymentState.STARTED:
            continue
        decision = decide(found)
        assert not found.is_settled, found
        if found.running:
            known = (found.last.version, found.last.proven)
            assert decision == Decision(Action.WAIT, found.alias if found.alias in known else found.last.proven)
        else:
            assert decision.action is Action.UNDO


@pytest.mark.parametrize("alias", VERSIONS)
def test_before_the_first_deployment_the_alias_is_left(alias: int | None) -> None:
    """Without a record there is nothing to reconcile with, and nothing that may serve, whatever the alias names."""
    assert decide(Situation(None, alias, running=False)) == Decision(Action.LEAVE, None)


@pytest.mark.parametrize(
    ("last", "alias", "running", "ways_back", "expected"),
    [
        (DeploymentStep(DeploymentState.STARTED, 2, 1), 2, True, (1,), Decision(Action.WAIT, 2)),
        (DeploymentStep(DeploymentState.STARTED, 2, 1), 3, True, (1,), Decision(Action.WAIT, 1)),
        (DeploymentStep(DeploymentState.STARTED, 2, 1), 2, False, (1,), Decision(Action.UNDO, 1)),
        (DeploymentStep(DeploymentState.STARTED, 2, 1), 1, False, (1,), Decision(Action.UNDO, 1)),
        (DeploymentStep(DeploymentState.STARTED, 1, None), 1, False, (), Decision(Action.UNDO, None)),
        (DeploymentStep(DeploymentState.STARTED, 3, 2), 3, False, (1,), Decision(Action.UNDO, 1)),
        (DeploymentStep(DeploymentState.SERVING, 2, 1), 2, False, (), Decision(Action.KEEP, 2)),
        (DeploymentStep(DeploymentState.SERVING, 2, 1), 3, False, (2, 1), Decision(Action.RESTORE, 2)),
        (DeploymentStep(DeploymentState.SERVING, 2, 1), None, False, (2, 1), Decision(Action.RESTORE, 2)),
        (DeploymentStep(DeploymentState.SERVING, 2, 1), None, False, (1,), Decision(Action.RESTORE, 1)),
        (DeploymentStep(DeploymentState.ROLLED_BACK, 2, 1), 1, False, (), Decision(Action.KEEP, 1)),
        (DeploymentStep(DeploymentState.ROLLED_BACK, 2, 1), 2, True, (1,), Decision(Action.RESTORE, 1)),
        (DeploymentStep(DeploymentState.ROLLED_BACK, 1, None), None, False, (), Decision(Action.KEEP, None)),
    ],
)
def test_known_situations(
    last: DeploymentStep, alias: int | None, running: bool, ways_back: tuple[int, ...], expected: Decision
) -> None:
    """As the table says: what a killed, failed, undone or finished deployment, or a hand on the alias, leads to."""
    assert decide(Situation(last, alias, running, ways_back)) == expected
