"""A home in which a day has happened, made by the library's own functions."""

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pandas as pd

from mlops_tasks.config import Settings
from mlops_tasks.data.vintages import Vintage, publish, write_vintage
from mlops_tasks.experiments.lifecycle import create_experiment, create_layer, layers, move_experiment
from mlops_tasks.state.approvals import record_model_approval
from mlops_tasks.state.deployments import record_deployment
from mlops_tasks.state.history import (
    record_drift_report,
    record_gate_decision,
    record_publication,
    record_score_batch,
)
from mlops_tasks.state.model_index import RegisteredVersion, index_versions
from mlops_tasks.state.tables import (
    Deployment,
    DriftReport,
    GateDecision,
    ModelApproval,
    Publication,
    ScoreBatch,
)
from mlops_tasks.states import DeploymentState, ExperimentState, UnitKind
from tests.experiments.designs import design
from tests.operation import bars

DAYS = pd.bdate_range("2026-01-05", periods=20)
LAST = DAYS[-1].date()
NAMES = [f"S{number:03d}" for number in range(5)]
DIGEST = "d" * 64
LAYER = "desk"
STEPS = (ExperimentState.RUNNING, ExperimentState.STOPPED, ExperimentState.DECIDED)
"""Of an experiment, after its draft."""


def publish_bars(settings: Settings, days: pd.DatetimeIndex = DAYS, source: str = "vendor/bars.parquet") -> Vintage:
    """Bring a small vintage into use."""
    origin = {"source": source, "received": len(days) * len(NAMES) + 2, "quarantined": 2}
    vintage = write_vintage(settings, bars(days, NAMES), None, origin)
    publish(settings, vintage.data_version)
    record_publication(settings, Publication(data_version=vintage.data_version))
    return vintage


def serve(settings: Settings, version: int, rule: str = "superiority", indexed: bool = True) -> None:
    """A version of training `k<version>` becomes champion by a rule of the gate."""
    key = f"k{version}"
    if indexed:
        index_versions(settings, [_registered(version, key)])
    approval = ModelApproval(training_key=key, artefact_digest=DIGEST, basis="gate", approved_by=rule, reason="gate")
    record_model_approval(settings, approval)
    row = Deployment(
        model_version=version,
        training_key=key,
        data_version="d",
        strategy="blue_green",
        state=DeploymentState.SERVING,
        attempt=f"a{version}",
        artefact_digest=DIGEST,
    )
    record_deployment(settings, row, by="daily_retraining")


def _registered(version: int, key: str) -> RegisteredVersion:
    return RegisteredVersion(
        version=version,
        training_key=key,
        family="lightgbm",
        data_version="d",
        feature_version="f",
        run_id="r",
        description="",
        registered_at=datetime(2026, 1, 30, tzinfo=UTC),
        metrics={"test_rank_ic_mean": 0.03},
        tags={},
    )


def score(settings: Settings, version: int, day: date = LAST) -> None:
    """The champion's scores of a day."""
    record_score_batch(
        settings, ScoreBatch(date=day, model_version=version, alias="champion", instruments=5, digest=str(day))
    )


def keep(settings: Settings, key: str, champion: int, reason: str, **more: Any) -> None:
    """The gate keeps the champion."""
    decision = {"decision": "keep", "rule": "between_looks", "reasons": [reason], "wait": None, **more}
    row = GateDecision(training_key=key, decision=decision, champion_version=champion, model_name="linear")
    record_gate_decision(settings, row)


def drift(settings: Settings, version: int, beyond: int, day: date = LAST) -> None:
    """A drift report."""
    row = DriftReport(
        date=day,
        model_version=version,
        data_version="d",
        psi_max=0.1,
        n_warn=1,
        n_alert=beyond,
        path=f"reports/drift/{day}-v{version}-0a1b2c3d",
        at_stake=0.12,
    )
    record_drift_report(settings, row)


def experiment(settings: Settings, name: str, state: ExperimentState) -> None:
    """An experiment that has come so far."""
    if LAYER not in layers(settings):
        create_layer(settings, LAYER, UnitKind.ACCOUNT)
    create_experiment(settings, design(name=name, layer=LAYER, share=Decimal("0.1")))
    for to in STEPS[: STEPS.index(state) + 1] if state in STEPS else ():
        move_experiment(settings, name, to, "as planned", "ann")
