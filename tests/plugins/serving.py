"""Registered versions, deployments, rollouts and experiments in a home, as the library itself records them."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import count
from typing import Any

import numpy as np
import pytest

from mlops_tasks.config import DeploymentSettings, Settings
from mlops_tasks.experiments.ab_test_report import AbTestReport
from mlops_tasks.experiments.daily_analysis import analyse_experiment
from mlops_tasks.experiments.lifecycle import (
    create_experiment,
    create_layer,
    experiments,
    move_experiment,
    running_traffic,
)
from mlops_tasks.experiments.metric_events import ingest_events
from mlops_tasks.files import write_json
from mlops_tasks.serving.rollout_plan import plan_of
from mlops_tasks.state.approvals import record_model_approval, record_revocation
from mlops_tasks.state.deployments import record_deployment
from mlops_tasks.state.experiments import record_analysis
from mlops_tasks.state.history import record_gate_decision
from mlops_tasks.state.model_index import RegisteredVersion, index_versions, indexed_versions
from mlops_tasks.state.predictions import record_predictions
from mlops_tasks.state.replays import record_replay
from mlops_tasks.state.rollouts import Rollout, record_rollout, record_rollout_step
from mlops_tasks.state.tables import (
    Deployment,
    ExperimentAnalysis,
    GateDecision,
    ModelApproval,
    ModelReplay,
    ModelRevocation,
    Prediction,
    VersionOrigin,
    VintageInput,
    now,
)
from mlops_tasks.state.version_origins import record_origin
from mlops_tasks.states import ExperimentState, RolloutState, Strategy, UnitKind
from mlops_tasks.training_folder import TrainingFolder, TrainingManifest
from tests.experiments.designs import design
from tests.plugins.api_server import Airflow
from tests.plugins.reports import EVIL, picture

FIRST, BEFORE, CHAMPION, CANDIDATE, WAITING, WITHDRAWN, PLAIN = range(101, 108)
"""The versions that the tests are about; the champion before is `BEFORE`."""
MANY = range(1001, 2001)
"""Versions besides them, that only make the list long."""
DATA_VERSION = "desk0123456789ab"
EXPERIMENT = "sizing"
UNITS = [f"account-{number}" for number in range(40)]
BEGAN = datetime(2026, 1, 5, tzinfo=UTC)


@pytest.fixture(scope="module")
def airflow(desk_server: Airflow) -> Airflow:
    """The server of the modules that import this, with all that is made here."""
    make_desk(desk_server.settings)
    return desk_server


def key_of(version: int) -> str:
    """The training key of a version."""
    return f"{version:016x}"


def digest_of(version: int) -> str:
    """The digest of a version's artefact."""
    return f"{version:064x}"


def make_desk(settings: Settings) -> None:
    """All of it, once."""
    if CHAMPION in indexed_versions(settings):
        return
    _register(settings)
    _judge(settings)
    _deploy(settings, FIRST, None)
    _deploy(settings, BEFORE, FIRST)
    _deploy(settings, CHAMPION, BEFORE)
    _roll_out(settings)
    _answer(settings)
    _trained(settings)
    _experiment(settings)


def _version(number: int, family: str = "lightgbm", **tags: str) -> RegisteredVersion:
    draw = np.random.default_rng(number)
    metrics = ("test_rank_ic_mean", "test_ic_mean", "valid_rank_ic_mean", "test_information_ratio")
    return RegisteredVersion(
        version=number,
        training_key=key_of(number),
        family=family,
        data_version=DATA_VERSION,
        feature_version="f0",
        run_id=f"run{number}",
        description=f"Model {number} of the desk. {EVIL if number == PLAIN else ''}",
        registered_at=BEGAN + timedelta(days=number % 60, minutes=number),
        metrics={name: float(draw.normal(0.03, 0.02)) for name in metrics},
        tags={"digest": digest_of(number), "training_key": key_of(number), "leak_certificate": "passed", **tags},
    )


def _register(settings: Settings) -> None:
    own = [_version(FIRST, "linear"), *(_version(each) for each in range(BEFORE, PLAIN)), _version(PLAIN, "linear")]
    many = [_version(each, "xgboost" if each % 3 else "linear") for each in MANY]
    index_versions(settings, [*own, *many])
    for version in range(FIRST, PLAIN):
        approval = ModelApproval(
            training_key=key_of(version),
            artefact_digest=digest_of(version),
            basis="gate",
            approved_by="superiority",
            reason="promoted by rule superiority",
        )
        record_model_approval(settings, approval, version)
    revoked = ModelRevocation(
        training_key=key_of(WITHDRAWN),
        artefact_digest=digest_of(WITHDRAWN),
        basis="person",
        revoked_by="ann",
        reason=f"its fills were bad {EVIL}",
    )
    record_revocation(settings, revoked, WITHDRAWN)
    origin = VersionOrigin(
        version=CHAMPION,
        training_key=key_of(CHAMPION),
        data_version=DATA_VERSION,
        feature_version="f0",
        definition="",
        code="3ec27c8a",
        dirty=False,
        lock="98d0371c",
        horizon=1,
        segments={"train": ["2020-01-01", "2024-03-24"], "test": ["2025-01-02", "2026-02-27"]},
    )
    file = VintageInput(data_version=DATA_VERSION, sha256="ab" * 32, name="/data/bars.csv", rows=1000)
    record_origin(settings, origin, [file], [])


def _judge(settings: Settings) -> None:
    decided = {"decision": "promote", "rule": "superiority", "reasons": ["mean daily rank IC changes by +0.00812"]}
    row = GateDecision(training_key=key_of(CHAMPION), decision=decided, champion_version=BEFORE)
    record_gate_decision(settings, row, CHAMPION)


def _deploy(settings: Settings, version: int, before: int | None) -> None:
    about = {
        "model_version": version,
        "training_key": key_of(version),
        "data_version": DATA_VERSION,
        "strategy": "blue_green",
        "proven_version": before,
        "attempt": f"attempt-{version}-{now():%H%M%S%f}",
        "artefact_digest": digest_of(version),
    }
    record_deployment(settings, Deployment(state="started", **about))
    record_deployment(settings, Deployment(state="serving", reason="approved by bob", **about), "bob")


def _roll_out(settings: Settings) -> None:
    """A canary that holds its second step, a shadow that waits behind it, and one that was rejected."""
    limits = DeploymentSettings()
    for version, strategy in ((PLAIN, Strategy.CANARY), (CANDIDATE, Strategy.CANARY), (WAITING, Strategy.SHADOW)):
        moment = now()
        asked = Rollout(
            rollout_id=f"{version:016x}",
            version=version,
            training_key=key_of(version),
            digest=digest_of(version),
            strategy=strategy,
            plan=plan_of(strategy, limits),
            state=RolloutState.WAITING,
            asked_at=moment,
            at=moment,
            asked_by="ann, approved by bob",
        )
        record_rollout(settings, asked)
        if version == WAITING:
            return
        begun = replace(asked, state=RolloutState.HOLDING, began_at=moment, champion=CHAMPION)
        record_rollout_step(settings, asked, begun)
        begun = replace(begun, sequence=2)
        if version == PLAIN:
            ended = replace(begun, state=RolloutState.REJECTED, reason=f"it failed on 2.00% of 300 requests {EVIL}")
            record_rollout_step(settings, begun, ended)
        else:
            record_rollout_step(settings, begun, replace(begun, step=1, at=now()))


def _answer(settings: Settings) -> None:
    """Answers of the last hour: 300 of the champion, 20 of the candidate."""
    moment = now() - timedelta(minutes=2)
    rows = [
        Prediction(
            writer="desk",
            sequence=number,
            at=moment + timedelta(milliseconds=number),
            request_id=f"desk-{number}",
            key_name="desk-a",
            model_version=CHAMPION if number < 300 else CANDIDATE,
            training_key=key_of(CHAMPION),
            slot="blue" if number < 300 else "green",
            arm="champion" if number < 300 else "canary",
            date=None,
            data_version=DATA_VERSION,
            feature_version="f0",
            scores="0" * 32,
            chosen=None,
            instruments=20,
            missing=0,
            latency_ms=1.0 + number % 10,
        )
        for number in range(320)
    ]
    record_predictions(settings, rows, [])


def _trained(settings: Settings) -> None:
    """The champion's training folder with a plot, its explanation with a picture, and two replays."""
    folder = TrainingFolder.of(settings, key_of(CHAMPION))
    folder.path.mkdir(parents=True)
    manifest = TrainingManifest(
        training_key=key_of(CHAMPION),
        model="lightgbm",
        data_version=DATA_VERSION,
        last_date="2026-02-27",
        feature_set="alpha158",
        feature_version="f0",
        horizon=1,
        segments={"train": ("2020-01-01", "2024-03-24")},
        seed=7,
        model_config={"hyperparameters": {"num_leaves": 31}},
    )
    folder.write_manifest(manifest)
    folder.evaluation.plots.mkdir(parents=True)
    picture(folder.evaluation.plots / "ic.png")
    explained = settings.reports_dir / "explanation" / f"2026-02-27-v{CHAMPION}-0a1b2c3d"
    report = {
        **{"date": "2026-02-27", "model_version": CHAMPION, "training_key": key_of(CHAMPION), "data_version": "v1"},
        "sample": {"rows": 6000, "days": 120, "span": ["2025-01-02", "2026-02-27"]},
        "features": {"VSUMD60": 0.31, "KMID": 0.12},
    }
    write_json(explained / "report.json", report)
    picture(explained / "influence.png")
    for verdict, reason in (("equal", ""), ("different", f"scores: 3 of 6,000 values {EVIL}")):
        row = ModelReplay(
            model_version=CHAMPION,
            training_key=key_of(CHAMPION),
            verdict=verdict,
            reason=reason,
            report={"verdict": verdict},
            by="ann",
        )
        record_replay(settings, row)


def _experiment(settings: Settings) -> None:
    """One that has run for 45 of 60 days, with its analysis and its report, and a draft."""
    with pytest.MonkeyPatch.context() as at:
        at.setattr("mlops_tasks.experiments.lifecycle.now", lambda: BEGAN)
        # The same units in the same arm on each run: with salts of chance the effect would be found now and then.
        salts = count(1)
        at.setattr("mlops_tasks.experiments.lifecycle.secrets.token_hex", lambda size: f"{next(salts):032x}")
        create_layer(settings, "desk_accounts", UnitKind.ACCOUNT, Decimal("0.1"))
        changes: dict[str, Any] = {"layer": "desk_accounts", "share": "0.5", "looks": "weekly"}
        create_experiment(settings, design(name=EXPERIMENT, **changes))
        create_experiment(settings, design(name="execution", **{**changes, "share": "0.25"}))
        move_experiment(settings, EXPERIMENT, ExperimentState.RUNNING, "approved by the desk")
    assert ingest_events(settings, EXPERIMENT, _events(settings)).refused == 0
    found = analyse_experiment(settings, EXPERIMENT)
    record_analysis(settings, ExperimentAnalysis(experiment=EXPERIMENT, days=found.days, result=found.to_json()))
    report = AbTestReport(settings, experiments(settings)[EXPERIMENT], found)
    folder = settings.reports_dir / "ab_test" / EXPERIMENT
    folder.mkdir(parents=True)
    report.write(folder)


def _events(settings: Settings) -> Iterator[dict[str, Any]]:
    arms = running_traffic(settings).assign(EXPERIMENT, UNITS)
    draw = np.random.default_rng(3)
    for day in range(45):
        at = (BEGAN + timedelta(days=day, hours=10)).isoformat()
        for row, unit in enumerate(UNITS):
            for metric, effect in (("cost_bps", -0.05), ("errors", 0.0)):
                if arms.arm_of(row) is not None:
                    value = draw.normal() + effect * (arms.arm_of(row) == "treatment")
                    sent = {"event_id": f"{metric}{day}-{row}", "unit": unit, "metric": metric}
                    yield {**sent, "value": value, "at": at}
