"""Experiments that tests register."""

from decimal import Decimal
from typing import Any

from mlops_tasks.config import Settings
from mlops_tasks.experiments.design import ExperimentDesign
from mlops_tasks.experiments.lifecycle import create_experiment, create_layer, move_experiment
from mlops_tasks.states import ExperimentState, UnitKind

VALUES: dict[str, Any] = {
    "name": "orders",
    "owner": "desk",
    "hypothesis": "Orders sized by the new scores cost less.",
    "layer": "accounts",
    "arms": {"control": "0.5", "treatment": "0.5"},
    "primary": {"name": "cost_bps", "better": "lower", "smallest_effect": 0.5},
    "guards": [{"name": "errors", "better": "lower", "smallest_effect": 0.01}],
    "planned_days": 60,
}


def design(**changes: Any) -> ExperimentDesign:
    """The design, with changes."""
    return ExperimentDesign.from_json(VALUES | changes)


def running(settings: Settings, **changes: Any) -> ExperimentDesign:
    """The experiment, registered and started; its layer is made."""
    create_layer(settings, "accounts", UnitKind.ACCOUNT, Decimal(0))
    made = create_experiment(settings, design(**changes)).design
    move_experiment(settings, made.name, ExperimentState.RUNNING, "go")
    return made
