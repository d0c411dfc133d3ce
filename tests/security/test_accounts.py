"""Accounts outlive a start, and their passwords are seen once."""

import json
from pathlib import Path

import pytest

from mlops_tasks.config import Settings, StackSettings
from mlops_tasks.errors import AccountError, StackError
from mlops_tasks.roles import RIGHTS, Right, Role, permissions
from mlops_tasks.stack.credentials import airflow_users_file, ensure_credentials
from mlops_tasks.stack.environment import airflow_environment
from mlops_tasks.stack.users import Desk


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home")


def test_a_start_keeps_the_accounts_of_the_simple_manager(settings: Settings) -> None:
    """Whoever was added to Airflow's list keeps the password; the admin's is the one in the secrets."""
    made = ensure_credentials(settings)
    users = airflow_users_file(settings)
    users.write_text(json.dumps({"ann": "hers", "admin": "forgotten"}))
    ensure_credentials(settings)
    assert json.loads(users.read_text()) == {"ann": "hers", "admin": made.airflow_password}


@pytest.mark.parametrize("content", ["{", "[]", '"admin"'])
def test_a_damaged_list_of_accounts_is_not_overwritten(settings: Settings, content: str) -> None:
    """It may be all there is of somebody's account: the message names it and what to do."""
    ensure_credentials(settings)
    airflow_users_file(settings).write_text(content)
    with pytest.raises(StackError, match=r"airflow_users.json.*correct it, or delete it"):
        ensure_credentials(settings)
    assert airflow_users_file(settings).read_text() == content


def test_one_account_is_one(settings: Settings) -> None:
    """With the simple manager, orders about accounts say how to have several people."""
    desk = Desk(settings, ensure_credentials(settings))
    with pytest.raises(AccountError, match=r"login: fab"):
        desk.add("ann", Role.VIEWER)


@pytest.mark.parametrize("name", ["admin", "", "Ann", "../ann", "ann smith", "-ann", "a" * 33, "ann\n"])
def test_names_that_cannot_be_accounts_are_refused(settings: Settings, name: str) -> None:
    """And no order touches the stack's own account."""
    desk = Desk(Settings(home=settings.home, stack=StackSettings(login="fab")), ensure_credentials(settings))
    for order in (desk.remove, desk.reset_password, lambda name: desk.add(name, Role.ADMIN)):
        with pytest.raises(AccountError, match=r"account"):
            order(name)


def test_the_setting_alone_chooses_the_manager(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable that happens to be in the caller's shell opens no other door."""
    monkeypatch.setenv("AIRFLOW__CORE__AUTH_MANAGER", "elsewhere.OpenToAll")
    for login, manager in (("simple", "SimpleAuthManager"), ("fab", "FabAuthManager")):
        chosen = Settings(home=settings.home, stack=StackSettings.model_validate({"login": login}))
        environ = airflow_environment(chosen, ensure_credentials(chosen))
        assert environ["AIRFLOW__CORE__AUTH_MANAGER"].endswith(f".{manager}")
    assert environ["AIRFLOW__FAB__SESSION_MAX_LIFETIME_MINUTES"] == "720", "Airflow's default ends no session in use"


def test_only_the_admin_gets_at_secrets_and_accounts() -> None:
    """No permission of another role names connections, variables, configuration, users or roles, or deletes a run."""
    secret = {"Connections", "Variables", "Configurations", "Users", "Roles", "Passwords", "Permissions", "Plugins"}
    for role in set(Role) - {Role.ADMIN}:
        assert not {resource for _, resource in permissions(role)} & secret
        deleted = {resource for action, resource in permissions(role) if action == "can_delete"}
        assert deleted <= {"Pools"}
        assert Right.ADMINISTER not in RIGHTS[role]
