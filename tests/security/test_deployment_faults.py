"""No fault at any step of a deployment, its undoing or a rollback leaves an unproven champion."""

import json
import os
from collections import Counter
from typing import Any

import pytest

from mlops_tasks.registry.models import load_version
from tests import programs
from tests.registry.conftest import Operation
from tests.registry.trainings import Spec
from tests.security.faults import KINDS
from tests.serving.conftest import migrated_mlflow, operation, settings, vintage_template

__all__ = ["migrated_mlflow", "operation", "settings", "vintage_template"]


@pytest.mark.parametrize(
    ("count", "scenarios"),
    [
        pytest.param(5, ["undo"], id="twin"),
        pytest.param(240, [], marks=[pytest.mark.slow, pytest.mark.timeout(3600)], id="all"),
    ],
)
def test_after_any_fault_the_alias_names_a_proven_version_within_one_look(
    operation: Operation, count: int, scenarios: list[str]
) -> None:
    """Killed, interrupted, or with an error, a full disk, MLflow, database or service away, at any edge of any process.

    One reconciliation later the alias names a version that has passed its proof, the service serves it, the history
    tells how each attempt ended and nothing of it was changed; and a calm retry ends as it would have ended.
    """
    found = try_out(operation, count, scenarios)
    assert len(found) == count
    assert [each for each in found if each["wrong"]] == []
    assert {each["kind"] for each in found} <= set(KINDS)
    print(Counter((each["scenario"], each["kind"], each["ended"], tuple(each["steps"])) for each in found))


def try_out(operation: Operation, count: int, scenarios: list[str]) -> list[dict[str, Any]]:
    """So many faults in a home with two good versions and one that the service cannot load."""
    for letter, seed in (("a", 1), ("b", 2), ("c", 3)):
        version = operation.register(Spec(key=letter * 16, seed=seed))
    load_version(operation.settings, version)  # the copy that is proved here; the service has to fetch its own
    stored = operation.settings.home / "mlflow" / "artifacts" / "models"
    max(stored.rglob("processors.json"), key=lambda path: path.stat().st_mtime).write_text("{}")
    environment = {
        **os.environ,
        "MLOPS_SERVING__POLL_S": "3600",
        "MLOPS_SERVING__DEPLOY_TIMEOUT_S": "0.2",
        "MLOPS_SCORING_TOKEN": "token-of-the-tests",
        # The service's own home has no key.
        "MLOPS_VERIFYING_KEYS": (operation.settings.secrets_dir / "verifying_keys").read_text().strip(),
    }
    faults = programs.module("tests.security.deployment_faults")
    done = programs.run(faults, operation.settings.home, count, *scenarios, environment=environment, timeout=3000)
    assert done.returncode == 0, done.stderr[-5000:]
    return [json.loads(line) for line in done.stdout.splitlines()]
