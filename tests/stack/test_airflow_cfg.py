"""airflow.cfg holds what differs from Airflow's defaults, each with its why."""

import configparser
import importlib.util
import runpy
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import pytest
import yaml

from mlops_tasks.config import PROJECT, Settings, StackSettings
from mlops_tasks.stack.credentials import ensure_credentials
from mlops_tasks.stack.environment import airflow_environment


@pytest.fixture(scope="module")
def known() -> dict[str, dict[str, Any]]:
    """Section to option to description, from Airflow's own reference; Airflow itself is not imported."""
    spec = importlib.util.find_spec("airflow")
    assert spec is not None
    assert spec.origin is not None
    reference = yaml.safe_load(Path(spec.origin).with_name("config_templates").joinpath("config.yml").read_text())
    return {name: section["options"] for name, section in reference.items()}


def options() -> dict[tuple[str, str], str]:
    parser = configparser.RawConfigParser()
    parser.read(PROJECT / "airflow.cfg")
    return {(section, key): parser[section][key] for section in parser.sections() for key in parser[section]}


def test_every_option_exists_and_differs(known: dict[str, dict[str, Any]]) -> None:
    """An option that Airflow does not know, or that says what holds anyway, misleads."""
    for (section, key), value in options().items():
        assert key in known[section], f"[{section}] {key}"
        if (section, key) != ("api", "port"):  # named beside the addresses that follow from it
            assert str(known[section][key]["default"]) != value, f"[{section}] {key} is the default"


def provided(provider: str) -> dict[str, Any]:
    """Sections and options of one of Airflow's providers."""
    package = distribution(f"apache-airflow-providers-{provider}")
    module = package.locate_file(f"airflow/providers/{provider}/get_provider_info.py")
    config = runpy.run_path(str(module))["get_provider_info"]()["config"]
    return {name: section["options"] for name, section in config.items()}


def test_every_variable_names_an_option(known: dict[str, dict[str, Any]], settings: Settings) -> None:
    """A variable with a typing error would be ignored without a word."""
    every = known | provided("fab") | provided("celery")
    credentials = ensure_credentials(settings)
    for login, profile in (("simple", "local"), ("fab", "local"), ("simple", "celery")):
        stack = StackSettings.model_validate({"login": login, "profile": profile})
        for name in airflow_environment(settings.model_copy(update={"stack": stack}), credentials):
            if name != "AIRFLOW_HOME":
                _, section, key = name.lower().split("__")
                assert key in every[section], name


def test_no_secret_is_shipped() -> None:
    """Secrets are made for each home: in a shipped file, an empty one makes every process invent its own."""
    assert not {key for _, key in options() if key in {"fernet_key", "jwt_secret", "secret_key"}}


def test_what_follows_from_the_home_points_below_it(settings: Settings) -> None:
    """Nothing is written into the project when MLOPS_HOME is elsewhere."""
    environment = airflow_environment(settings, ensure_credentials(settings))
    from_cfg = {f"AIRFLOW__{s}__{k}".upper() for (s, k), value in options().items() if "$AIRFLOW_HOME/var" in value}
    assert from_cfg <= set(environment)
    assert all(str(settings.home) in environment[name] for name in from_cfg)


def test_another_executor_gets_the_pause_back(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it the scheduler would loop without rest, for only ours waits in it."""
    pause, credentials = "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME", ensure_credentials(settings)
    assert pause not in airflow_environment(settings, credentials)
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", "LocalExecutor")
    assert airflow_environment(settings, credentials)[pause] == "1"
    monkeypatch.setenv(pause, "3")
    assert airflow_environment(settings, credentials)[pause] == "3"
