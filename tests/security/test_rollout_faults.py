"""No kill of a process that leads a rollout, or serves it, leaves one between two states."""

from collections import Counter

import pytest

from tests.registry.conftest import Operation
from tests.security.test_deployment_faults import try_out
from tests.serving.conftest import migrated_mlflow, operation, settings, vintage_template

__all__ = ["migrated_mlflow", "operation", "settings", "vintage_template"]

SETTINGS = {
    "MLOPS_DEPLOYMENT__CANARY_STEPS_PCT": "50,100",
    "MLOPS_DEPLOYMENT__HOLD_H": "0",
    "MLOPS_DEPLOYMENT__SHADOW_H": "0",
    "MLOPS_DEPLOYMENT__WATCH_H": "0",
    "MLOPS_PREDICTIONS__SYNC_S": "0.05",
    "MLOPS_PREDICTIONS__SHIP_S": "0.05",
    "MLOPS_SERVING__POLL_S": "0.2",
    "MLOPS_SERVING__DEPLOY_TIMEOUT_S": "3",
}
"""A step is over as soon as the candidate was seen to score."""
RULES = "deployment: {rules: {min_answers: 1000000, min_rank_correlation: null, max_psi: null}}\n"
"""The models here score as they like, on a machine that may be busy."""


@pytest.mark.parametrize(
    ("count", "scenarios"),
    [
        pytest.param(4, ["canary's next step"], id="twin"),
        pytest.param(240, [], marks=[pytest.mark.slow, pytest.mark.timeout(3600)], id="all"),
    ],
)
def test_a_killed_rollout_is_in_its_old_or_its_new_state_and_goes_on(
    operation: Operation, count: int, scenarios: list[str]
) -> None:
    """Whoever begins, leads, aborts or ends a rollout, or rolls the champion back, is killed before or after any of
    its writes and requests, or the service is at any point of its looks.

    At the next look the alias names a proven version, the service serves it, one rollout at most is at work, and the
    history of each makes sense; the next run ends as it would have ended. All the time a client is answered by the
    champion, by one whose proof is under way, or by a candidate in its share, and people are told of what went wrong.
    """
    (operation.settings.home / "settings.yaml").write_text(RULES)
    found = try_out(operation, "rollout_faults", count, scenarios, SETTINGS)
    assert len(found) == count
    assert [each for each in found if each["wrong"]] == []
    print(Counter((each["scenario"], each["process"], each["ended"], str(each["states"])) for each in found))
