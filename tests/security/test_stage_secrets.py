"""A stage's process is given the secrets that it needs, by name, and no others."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from mlops_tasks.config import load_settings
from mlops_tasks.errors import ConfigError, StageError
from mlops_tasks.operators.stage import StageOperator
from mlops_tasks.process import INNER_STAGES, STAGES, run_stage, stage_environment
from mlops_tasks.secret_variables import without_secrets
from mlops_tasks.stack.credentials import ensure_credentials
from mlops_tasks.stack.environment import airflow_environment, client_environment, mlflow_environment
from tests.security.example_stages import PRINT_NAMES

NAMES = "tests.security.example_stages:names"
REGISTRY = {"MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"}
STATE = {"MLOPS_STATE_URL", "PGPASSWORD"}
ALERTS = {*STATE, "MLOPS_ALERTS__WEBHOOK_URL", "ALERTS_SMTP_PASSWORD", "HTTPS_PROXY"}

STUDIES = {*STATE, "MLOPS_TUNING__STORAGE_URL"}
JUDGING = {*REGISTRY, *STATE}
SERVING = {*JUDGING, *ALERTS, "MLOPS_SCORING_TOKEN"}

NEEDED = {
    "data.read_source": {*ALERTS, "BARS_DSN", "DESK_LOGIN"},
    "data.validate_bars": ALERTS,
    "data.compare_vintages": ALERTS,
    "data.publish_vintage": ALERTS,
    "training.plan": STATE,
    "training.certify": ALERTS,
    "training.train": {*ALERTS, "MLOPS_SIGNING_KEY"},
    "tuning.choose_algorithm": STATE,
    "tuning.create_study": STUDIES,
    "tuning.run_worker": STUDIES,
    "tuning.finish_study": STUDIES,
    "registry.log_run": JUDGING,
    "registry.log_study": REGISTRY,
    "registry.register_challenger": JUDGING,
    "registry.prune_features": REGISTRY,
    "registry.gate_challenger": JUDGING,
    "registry.choose_replays": JUDGING,
    "registry.replay": JUDGING | ALERTS,
    "registry.explain_model": REGISTRY,
    "monitoring.profile_training": REGISTRY,
    "monitoring.check_drift": JUDGING | ALERTS,
    "monitoring.monitor": SERVING,
    "experiments.compare_models": JUDGING,
    "experiments.analyze": JUDGING | ALERTS,
    "experiments.judge_winners": JUDGING | ALERTS,
    "serving.deploy": SERVING,
    "serving.operate": SERVING,
    "serving.score_newest_date": SERVING,
}
"""What each stage needs of `secrets`; the others need none."""


@pytest.fixture
def secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[set[str]]:
    """An Airflow task's environment with what the stack and a person put there; the secrets' names."""
    home = tmp_path / "home"
    sources = {
        "desk": {"kind": "postgresql", "table": "bars"},
        "other": {"kind": "postgresql", "table": "bars", "dsn_variable": "DESK_LOGIN"},
    }
    home.mkdir()
    (home / "settings.yaml").write_text(yaml.safe_dump({"data": {"sources": sources}}))
    monkeypatch.setenv("MLOPS_HOME", str(home))
    settings = load_settings()
    credentials = ensure_credentials(settings)
    stack = {
        **airflow_environment(settings, credentials),
        **mlflow_environment(settings, credentials),
        **client_environment(settings, credentials),
    }
    persons = {
        "MLOPS_STATE_URL": "postgresql+psycopg2://desk:s3cret@127.0.0.1/state",
        "MLFLOW_BACKEND_STORE_URI": "postgresql+psycopg2://desk:s3cret@127.0.0.1/mlflow",
        "MLOPS_CELERY__DATABASE_URL": "postgresql://desk:s3cret@127.0.0.1",
        "MLOPS_CELERY__BROKER_URL": "redis://:s3cret@127.0.0.1/0",
        "MLOPS_TUNING__STORAGE_URL": "postgresql+psycopg2://127.0.0.1/x?user=desk&password=s3cret",
        "MLOPS_ALERTS__WEBHOOK_URL": "http://127.0.0.1:1/T0KEN",
        "ALERTS_SMTP_PASSWORD": "s3cret",
        "MLOPS_SIGNING_KEY": "s3cret",
        "BARS_DSN": "host=127.0.0.1 password=s3cret",
        "DESK_LOGIN": "host=127.0.0.1 password=s3cret",
        "HTTPS_PROXY": "http://desk:s3cret@127.0.0.1:1",
        "AIRFLOW_CONN_DESK": "postgres://desk:s3cret@127.0.0.1/x",
        "AWS_SECRET_ACCESS_KEY": "s3cret",
        "AWS_ACCESS_KEY_ID": "s3cret",
        "VENDOR_API_KEY": "s3cret",
        "PGPASSWORD": "s3cret",
        "github_token": "s3cret",
        "MY_SECRETS_2": "s3cret",
        "DESK_DB_PASSWD": "s3cret",
        "SSH_PASSPHRASE": "s3cret",
        "MAIL_PASS": "s3cret",
        "GOOGLE_APPLICATION_CREDENTIALS": "/home/desk/key.json",
        "OTHER__SQL_ALCHEMY_CONN": "s3cret",
        "VENDOR_TOKENS": "s3cret",
    }
    for name, value in {**stack, **persons}.items():
        monkeypatch.setenv(name, value)
    harmless = {
        "AIRFLOW_HOME",
        "MLFLOW_TRACKING_URI",
        "MLOPS_MLFLOW_TRACKING_URI",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION",
        "MLFLOW_BASIC_AUTH_FAIL_CLOSED",
    }
    return {*stack, *persons} - harmless - {"MLFLOW_AUTH_CONFIG_PATH"}


def given_to(stage: str) -> set[str]:
    """The names that a real process with a stage's environment prints."""
    environment = stage_environment(stage, load_settings())
    done = subprocess.run(
        [sys.executable, "-ISc", PRINT_NAMES], env=environment, capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_is_given_what_it_needs_and_no_other_secret(stage: str, secrets: set[str]) -> None:
    """Of all secrets in the task's environment a stage's process has those that its work needs."""
    expected = NEEDED.get(stage, set()) | ({"PGPASSWORD"} if NEEDED.get(stage, set()) >= STATE else set())
    found = given_to(stage)
    assert found & secrets == expected
    assert {"MLOPS_HOME", "PATH", "MLFLOW_TRACKING_URI"} <= found


def test_a_stage_of_ones_own_and_its_children_are_given_none(secrets: set[str]) -> None:
    """A real stage by `module:function` has no secret, nor what it starts."""
    found = run_stage(NAMES, {}, time_limit_s=60)
    assert not secrets.intersection(found["own"]) and not secrets.intersection(found["child"])


def test_models_are_fitted_with_the_key_that_signs_them_and_no_other_secret(secrets: set[str]) -> None:
    """The process that fits a model, of whatever class, has no other, though the stage that starts it has."""
    assert given_to("mlops_tasks.training.fit:fit_stage") & secrets == {"MLOPS_SIGNING_KEY"}
    assert all(STAGES.get(name) is None for name in INNER_STAGES)


def test_a_replay_trains_without_any_secret(secrets: set[str]) -> None:
    """Whoever may ask for one cannot have anything signed, or read a store's password, by it."""
    assert "mlops_tasks.registry.replay.work:replay_stage" in INNER_STAGES
    assert given_to("mlops_tasks.registry.replay.work:replay_stage") & secrets == set()


@pytest.mark.parametrize("store", ["s3://bucket/desk", "/mnt/desk"])
def test_a_bucket_is_reached_by_the_stages_that_share_what_they_make(
    secrets: set[str], store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not by those that read a vendor's bars, nor by what fits a model: that works on what was fetched for it."""
    monkeypatch.setenv("MLOPS_SHARED__STORE", store)
    keys = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}
    expected = keys if store.startswith("s3:") else set()
    settings = load_settings()
    for stage in STAGES:
        found = stage_environment(stage, settings)
        reaches = stage not in {"data.read_source", "data.validate_bars", "data.render_docs"}
        assert keys.intersection(found) == (expected if reaches else set()), stage
        assert found["MLOPS_SHARED__STORE"] == store
    for stage in INNER_STAGES:
        found = stage_environment(stage, settings)
        assert not keys.intersection(found) and found["MLOPS_SHARED__STORE"] == ""
        assert load_settings(found).shared.store == ""
    assert not keys.intersection(stage_environment(NAMES, settings))


def test_the_settings_can_give_a_stage_more(secrets: set[str]) -> None:
    """`stage_secrets` adds by name; they go to that stage alone, to none that it runs."""
    home = load_settings().home
    outer = "tests.security.example_stages:nested"
    with (home / "settings.yaml").open("a") as file:
        file.write(yaml.safe_dump({"stage_secrets": {outer: ["VENDOR_API_KEY"]}}))
    assert given_to(outer) & secrets == {"VENDOR_API_KEY"}
    assert not secrets.intersection(run_stage(outer, {}, time_limit_s=60)["own"])


def test_secrets_for_a_stage_that_there_is_not_are_refused(secrets: set[str]) -> None:
    """A mistyped or renamed stage would be started without them, and fail far from the reason."""
    with (load_settings().home / "settings.yaml").open("a") as file:
        file.write(yaml.safe_dump({"stage_secrets": {"registry.prune_feature": ["VENDOR_API_KEY"]}}))
    with pytest.raises(ConfigError, match=r"stage_secrets\.registry\.prune_feature: .* registry\.prune_features"):
        run_stage(NAMES, {}, time_limit_s=60)


def test_a_database_that_is_withheld_is_not_replaced_by_another(secrets: set[str]) -> None:
    """A stage that is not given the state database's address fails when it reaches for it, and so does one that it
    runs itself; no new file appears."""
    with pytest.raises(StageError, match=r"ConfigError: state_url: withheld from this stage: MLOPS_STATE_URL"):
        run_stage("tests.security.example_stages:open_state", {}, time_limit_s=60)
    with pytest.raises(StageError, match=r"ConfigError: state_url: withheld from this stage: MLOPS_STATE_URL"):
        run_stage("tests.security.example_stages:open_state_inside", {}, time_limit_s=60)
    assert not (load_settings().home / "state").exists()


def test_what_was_withheld_before_stays_named() -> None:
    """A stage that a stage runs is told of what neither of them was given."""
    left = without_secrets({"MLOPS_WITHHELD": "MLOPS_STATE_URL", "MLOPS_SCORING_TOKEN": "s3cret", "PATH": "/bin"}, ())
    assert left == {"MLOPS_WITHHELD": "MLOPS_SCORING_TOKEN MLOPS_STATE_URL", "PATH": "/bin"}


def test_a_path_of_sqlite_is_no_secret(secrets: set[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An address without a password is every stage's."""
    monkeypatch.setenv("MLOPS_STATE_URL", f"sqlite:///{tmp_path / 'state.db'}")
    assert run_stage("tests.security.example_stages:open_state", {}, time_limit_s=60) == {"dialect": "sqlite"}


def test_no_form_names_a_stage() -> None:
    """Which function a task runs stands in the DAG's file: no template and no param reaches it."""
    assert set(StageOperator.template_fields) == {"arguments", "subject"}
    with pytest.raises(TypeError):
        StageOperator(task_id="any", stage="training.plan", function="os:system")


def test_a_secret_under_a_mistyped_name_stays_unsaid(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error about an unknown setting names it and not its value."""
    monkeypatch.setenv("MLOPS_SCORING_TOKENN", "s3cret")
    monkeypatch.setenv("MLOPS_STACK__PASSWORD", "s3cret")
    with pytest.raises(ConfigError, match="scoring_tokenn") as caught:
        load_settings()
    assert "s3cret" not in str(caught.value)
