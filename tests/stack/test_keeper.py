"""The keeper's configuration, its record and its lock."""

import configparser
import stat
import sys

import pytest

from mlops_tasks.config import Settings
from mlops_tasks.errors import StackError
from mlops_tasks.stack import keeper
from mlops_tasks.stack.credentials import ensure_credentials
from mlops_tasks.stack.services import configuration_digest, service_named, services


def parsed(settings: Settings) -> configparser.RawConfigParser:
    parser = configparser.RawConfigParser()
    parser.read_string(keeper.configuration_text(settings))
    return parser


def test_every_service_is_kept(settings: Settings) -> None:
    """Each service has a program that is started again, ends with its whole group, and rotates its log."""
    conf = parsed(settings)
    names = [service.name for service in services(settings)]
    assert conf["group:alphaops"]["programs"].split(",") == names
    assert len(names) == (7 if sys.platform == "linux" else 6)
    for name in names:
        program = conf[f"program:{name}"]
        assert program["command"].endswith(f"-m mlops_tasks.stack exec {name}")
        assert {program[key] for key in ("autorestart", "stopasgroup", "killasgroup", "redirect_stderr")} == {"true"}
        assert program["stdout_logfile"] == str(settings.run_dir / "logs" / f"{name}.log")
        assert program["stdout_logfile_maxbytes"] == "10MB"


def test_no_secret_is_in_a_configuration_or_on_a_command_line(settings: Settings) -> None:
    """Secrets reach a service by its own environment only."""
    made = vars(ensure_credentials(settings)).values()
    shown = keeper.configuration_text(settings) + " ".join(
        word for service in services(settings) for word in service.command
    )
    assert not any(secret in shown for secret in made)


def test_each_service_gets_the_secrets_it_needs_and_no_others(settings: Settings) -> None:
    """The MLflow server has none of Airflow's, the scoring service neither those nor what can write to MLflow."""
    made = ensure_credentials(settings)

    def held(name: str) -> set[str]:
        values = service_named(name, settings).environment(settings, made).values()
        return {field for field, secret in vars(made).items() if secret in values}

    assert held("mlflow") == {"mlflow_password", "mlflow_flask_key"}
    assert held("stages") == set()
    assert held("scoring") == {"mlflow_reader_password", "scoring_token"}
    assert held("airflow-scheduler") >= {"airflow_jwt_secret", "airflow_fernet_key", "mlflow_password", "scoring_token"}


def test_only_the_owner_reaches_the_socket(settings: Settings) -> None:
    """The socket is for its owner, in a folder for its owner."""
    assert parsed(settings)["unix_http_server"]["chmod"] == "0700"
    keeper.read_record(settings)
    assert stat.S_IMODE(settings.run_dir.stat().st_mode) == 0o700


def test_a_percent_sign_in_the_home_is_no_expansion(settings: Settings) -> None:
    """supervisord expands %(name)s: a home that holds one is escaped."""
    odd = Settings(home=settings.home / "50%(x)s", stack=settings.stack)
    assert parsed(odd)["program:mlflow"]["stdout_logfile"].replace("%%", "%").startswith(str(odd.home))


def test_a_deep_home_still_has_a_socket(settings: Settings) -> None:
    """A socket's path is short and private, whatever the home's is; the same at every call."""
    deep = Settings(home=settings.home / ("d" * 60) / ("e" * 60), stack=settings.stack)
    path = keeper.socket_path(deep)
    try:
        assert len(str(path)) < 100
        assert path == keeper.socket_path(deep)
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    finally:
        path.parent.rmdir()


def test_the_id_of_a_home_stays(settings: Settings) -> None:
    """The id is made once; another home has another."""
    record = keeper.read_record(settings)
    assert keeper.read_record(settings) == record
    assert keeper.read_record(Settings(home=settings.home / "other")).stack_id != record.stack_id
    assert not keeper.is_running(settings)


def test_two_at_a_time_are_refused(settings: Settings) -> None:
    """A second start or stop of the same home says so at once; of another home it goes on."""
    with keeper.exclusive(settings):
        with pytest.raises(StackError, match="another `make up` or `make down`"), keeper.exclusive(settings):
            pass
        with keeper.exclusive(Settings(home=settings.home / "other")):
            pass
    with keeper.exclusive(settings):
        pass


def test_the_configuration_changes_with_what_services_depend_on(settings: Settings) -> None:
    """A port changes it, the source of the bars does not: tasks read that themselves."""
    made = ensure_credentials(settings)
    before = configuration_digest(settings, made)
    source = settings.data.model_copy(update={"source": "elsewhere"})
    moved = settings.stack.model_copy(update={"mlflow_port": settings.stack.mlflow_port + 1})
    assert configuration_digest(Settings(home=settings.home, stack=settings.stack, data=source), made) == before
    assert configuration_digest(Settings(home=settings.home, stack=moved), made) != before


def test_stopping_what_never_ran_is_harmless(settings: Settings) -> None:
    """`make down` on a fresh home ends nothing."""
    assert keeper.stop(settings) == 0
