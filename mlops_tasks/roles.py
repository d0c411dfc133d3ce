"""Who may do what: the one table of roles, and the permissions of Airflow's FAB auth manager that follow from it.

docs/users.md shows it to people. It is pure: whoever has Airflow gives the permissions to the roles.
"""

from collections.abc import Mapping
from enum import StrEnum

Permission = tuple[str, str]
"""Action and resource, by the names of Flask-AppBuilder."""

SEARCH_DAG = "tune_models"
"""Whoever may run searches may also pause, resume and cancel trainings."""
CHAIN_DAG = "daily_retraining"
"""Ends in a deployment."""
ROLLOUT_DAG = "monitor_champion"
"""Deploys what has passed the steps of its rollout."""


AB_TEST_DAG = "analyze_ab_test"
"""Analyses experiments, and hands winners to the gate."""


class Role(StrEnum):
    """What a person is here."""

    VIEWER = "viewer"
    TRADER = "trader"
    RESEARCHER = "researcher"
    OPERATOR = "operator"
    ADMIN = "admin"


class Right(StrEnum):
    """What somebody may do; a right that nobody is named for is the admin's alone."""

    SEE = "see DAGs, runs, logs, models and trainings"
    SEARCH = "run `tune_models`"
    TRAIN = "pause, resume and cancel trainings"
    APPROVE = "answer approvals that a task asks for"
    HALT = "pause and unpause `daily_retraining` and `monitor_champion`, so that no new champion goes live"
    OPERATE = "run, clear, pause and unpause every DAG: sync, approval of a vintage, retraining, deployment, rollback"
    POOLS = "change pools, see the audit log"
    ADMINISTER = "accounts and roles; connections, variables, configuration; delete runs"


RIGHTS: Mapping[Role, frozenset[Right]] = {
    Role.VIEWER: frozenset({Right.SEE}),
    Role.TRADER: frozenset({Right.SEE, Right.APPROVE, Right.HALT}),
    Role.RESEARCHER: frozenset({Right.SEE, Right.SEARCH, Right.TRAIN}),
    Role.OPERATOR: frozenset(Right) - {Right.ADMINISTER},
    Role.ADMIN: frozenset(Right),
}
"""A researcher makes candidates and cannot put them into service; a trader approves and stops, and makes none."""

_READ = (
    *("DAGs", "DAG Dependencies", "DAG Code", "DAG Runs", "DAG Versions", "DAG Warnings", "Assets", "Asset Aliases"),
    *("Backfills", "Cluster Activity", "Pools", "ImportError", "Jobs", "Task Instances", "Task Logs", "XComs"),
    *("HITL Detail", "Website", "My Password", "My Profile"),
)
_MENU = (
    *("Browse", "DAGs", "DAG Dependencies", "DAG Runs", "Assets", "Cluster Activity", "Documentation", "Docs", "Jobs"),
    *("Task Instances", "HITL Detail"),
)
_PERMISSIONS: Mapping[Right, tuple[Permission, ...]] = {
    Right.SEE: (
        *(("can_read", resource) for resource in _READ),
        *(("menu_access", resource) for resource in _MENU),
        ("can_edit", "My Password"),
    ),
    # For this DAG alone: with "DAG Runs" as a whole, requests that name no DAG, or several, would pass.
    Right.SEARCH: (
        *(("can_edit", f"DAG:{SEARCH_DAG}"), ("can_edit", f"DAG Run:{SEARCH_DAG}")),
        ("can_create", f"DAG Run:{SEARCH_DAG}"),
    ),
    Right.TRAIN: (("can_edit", f"DAG:{SEARCH_DAG}"), ("can_edit", f"DAG Run:{SEARCH_DAG}")),
    Right.APPROVE: (("can_edit", "HITL Detail"),),
    Right.HALT: (("can_edit", f"DAG:{CHAIN_DAG}"), ("can_edit", f"DAG:{ROLLOUT_DAG}")),
    Right.OPERATE: (
        *(("can_edit", resource) for resource in ("DAGs", "DAG Runs", "Task Instances", "Backfills")),
        *(("can_create", resource) for resource in ("DAG Runs", "Backfills", "Assets")),
    ),
    Right.POOLS: (
        *((action, "Pools") for action in ("can_create", "can_edit", "can_delete")),
        *(("menu_access", "Admin"), ("menu_access", "Pools")),
        *(("can_read", "Audit Logs"), ("menu_access", "Audit Logs")),
    ),
}

ADMIN_ROLE = "Admin"
"""FAB's own role with every permission; FAB keeps it up to date."""


def fab_role(role: Role) -> str:
    """The name of a role in FAB."""
    return ADMIN_ROLE if role is Role.ADMIN else role.value


def permissions(role: Role) -> frozenset[Permission]:
    """What FAB lets the role do.

    Raises
    ------
    KeyError
        For the admin, whose permissions FAB itself keeps.
    """
    return frozenset(permission for right in RIGHTS[role] for permission in _PERMISSIONS[right])
