"""What forbids a deployment, and what is only told: by a real service, from the command line and the daily chain."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pandas as pd
import pytest

from mlops_tasks.cli import main
from mlops_tasks.errors import DeploymentError
from mlops_tasks.modeling.environment import Environment
from mlops_tasks.registry.client import CHAMPION, connect
from mlops_tasks.registry.compatibility import Check, Finding, Judgement, compare_scores, environment_findings
from mlops_tasks.registry.models import get_alias_version, get_run_id, load_version
from mlops_tasks.serving.client import ScoringClient
from mlops_tasks.serving.compatible import require_compatible
from mlops_tasks.serving.tasks import deploy_model_task
from tests.operation import define_own_set
from tests.registry.conftest import Operation
from tests.registry.trainings import Spec
from tests.serving.conftest import RunningService

HERE = Environment.of_family("lightgbm")
OTHER_LOCK = "0" * 64


def differing(**changes: Any) -> dict[Check, Finding]:
    """By check, what differs for LightGBM where this process serves and something else trained."""
    trained = replace(HERE, **changes)
    found = environment_findings(trained, HERE, "lightgbm")
    return {each.check: each for each in found if each.judgement is not Judgement.EQUAL}


def with_package(name: str, version: str) -> dict[str, str]:
    """The packages of this process, with one other version."""
    return {**HERE.packages, name: version}


def test_what_can_change_a_score_is_refused_and_what_cannot_is_a_warning() -> None:
    """Each difference alone: package that scores, one that only trains, a build, the interpreter, the lock."""
    assert differing() == {}
    scoring = differing(packages=with_package("lightgbm", "4.6.0"), lock=OTHER_LOCK)
    assert {check: each.judgement for check, each in scoring.items()} == {
        Check.PACKAGES: Judgement.REFUSED,
        Check.LOCK: Judgement.REFUSED,
    }
    assert "install lightgbm==4.6.0" in scoring[Check.PACKAGES].remedy
    assert "lock of its training" in scoring[Check.LOCK].remedy
    for harmless in (
        {"packages": with_package("pyqlib", "0.9.6")},
        {"packages": with_package("numpy", f"{HERE.packages['numpy']}+mkl")},
        {"lock": OTHER_LOCK},
        {"python": HERE.python.rpartition(".")[0] + ".99"},
    ):
        (only,) = differing(**harmless).values()
        assert only.judgement is Judgement.WARNING
        assert ":" in only.said  # the reason
    assert differing(python="3.9.1")[Check.PYTHON].judgement is Judgement.REFUSED
    assert differing(packages=with_package("numba", "0.1"))[Check.PACKAGES].judgement is Judgement.REFUSED
    (unknown,) = environment_findings(None, HERE, "lightgbm")
    assert unknown.judgement is Judgement.WARNING


def test_scores_may_differ_by_rounding_and_no_more() -> None:
    """The limit is absolute, or a share of the day's spread."""
    index = pd.MultiIndex.from_product([[pd.Timestamp("2020-06-30")], list("abc")], names=["datetime", "instrument"])
    then = pd.Series([-1.0, 0.0, 1.0], index)
    for shift, judgement in ((0.0, Judgement.EQUAL), (5e-6, Judgement.EQUAL), (2e-5, Judgement.REFUSED)):
        assert compare_scores(then, then + shift, 1e-9).judgement is judgement
    assert compare_scores(then, then.iloc[:2], 1e-9).judgement is Judgement.REFUSED


def refused(version: int) -> str:
    """The reason for which neither the command line nor the chain deploys a version."""
    with pytest.raises(DeploymentError) as first:
        deploy_model_task(version=version, strategy="blue_green")
    with pytest.raises(DeploymentError) as second:
        deploy_model_task(version=version, strategy="canary")
    assert main(["deploy", str(version)]) == 1
    for text in (str(first.value), str(second.value)):
        assert f"version {version} was not deployed" in text
    return str(first.value)


def test_a_version_trained_with_another_lock_is_refused_if_a_package_that_scores_differs(
    operation: Operation, client: ScoringClient, caplog: pytest.LogCaptureFixture
) -> None:
    """The champion stays; a lock that differs elsewhere is a warning, and is deployed."""
    harmless = operation.register(Spec(key="a" * 16, environment={"lock": OTHER_LOCK}))
    assert deploy_model_task(version=harmless, strategy="blue_green")["deployed"]
    assert "no package that scores differs" in caplog.text
    packages = with_package("lightgbm", "4.6.0")
    other = operation.register(Spec(key="b" * 16, environment={"lock": OTHER_LOCK, "packages": packages}))
    said = refused(other)
    assert "lightgbm 4.6.0 trained it" in said
    assert "train it again with the present lock" in said
    assert get_alias_version(operation.settings, CHAMPION) == harmless
    assert client.health()["model_version"] == harmless


def without_first(text: str) -> str:
    """The set without its first factor."""
    return "".join(line for line in text.splitlines(keepends=True) if "ROC5" not in line)


def other_way_round(text: str) -> str:
    """The set with its factors in the other order."""
    lines = text.splitlines(keepends=True)
    place = next(number for number, line in enumerate(lines) if "ROC5" in line)
    lines[place], lines[place + 1] = lines[place + 1], lines[place]
    return "".join(lines)


def other_window(text: str) -> str:
    """The set with another window under the same name."""
    return text.replace("Ref($close, 5)", "Ref($close, 7)")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (without_first, "lacks (ROC5)"),
        (other_way_round, "another order: ROC5 was number 1 in the training, and GAP is now"),
        (other_window, "was trained on the definition"),
    ],
    ids=["missing", "order", "definition"],
)
def test_features_that_are_not_those_of_the_training_are_refused(
    operation: Operation, service: RunningService, change: Callable[[str], str], reason: str
) -> None:
    """A set that was changed, once the features of the training are gone: with what is wrong and the remedy."""
    define_own_set(operation.settings)
    version = operation.register(Spec(), "mine")
    features = load_version(operation.settings, version).artefact.manifest["feature_version"]
    shutil.rmtree(operation.settings.features_dir / features)
    path = operation.settings.home / "feature_sets.yaml"
    path.write_text(change(path.read_text()))
    said = refused(version)
    assert reason in said
    assert "train" in said.rpartition(reason)[2]


def test_a_tampered_artefact_and_a_deleted_run_are_refused(operation: Operation, service: RunningService) -> None:
    """With what to restore; once it is restored, the version is deployed."""
    settings = operation.settings
    version = operation.register(Spec())
    (stored,) = (settings.home / "mlflow" / "artifacts").rglob("processors.json")
    before = stored.read_text()
    stored.write_text(before + " ")
    assert "restore MLflow's artefact store from a backup" in refused(version)
    assert main(["compatibility", str(version)]) == 1
    stored.write_text(before)
    run_id = get_run_id(settings, version)
    connect(settings).delete_run(run_id)
    assert f"mlflow runs restore --run-id {run_id}" in refused(version)
    connect(settings).restore_run(run_id)
    assert deploy_model_task(version=version, strategy="blue_green")["deployed"]


def test_a_version_that_no_longer_scores_as_in_its_training_is_refused(
    operation: Operation, client: ScoringClient
) -> None:
    """The scores that the training left are a golden day; where they are gone, that is a warning."""
    version = operation.register(Spec())
    path = operation.settings.training_dir / Spec().key / "predictions.parquet"
    frame = pd.read_parquet(path)
    frame.assign(score=frame["score"] * 1.01).to_parquet(path, index=False)
    assert "differ from those of its training" in refused(version)
    path.unlink()
    model = load_version(operation.settings, version)
    found = require_compatible(operation.settings, model, client)
    assert [each.check for each in found.warnings] == [Check.SCORES]
