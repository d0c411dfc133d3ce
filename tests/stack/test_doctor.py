"""The doctor names what is wrong and what to do."""

import os
import socket
import time

import pytest

from mlops_tasks.config import (
    CalendarSettings,
    DataSettings,
    FeatureSettings,
    PostgresqlSource,
    Settings,
    TableSource,
    TrainingSettings,
    VendorSource,
)
from mlops_tasks.stack import doctor
from mlops_tasks.stack.doctor import Finding, check


@pytest.fixture(autouse=True)
def lightgbm_is_well(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """LightGBM is imported in a process of its own, seconds each time: the first test looks at it for all."""
    if request.node.name != "test_a_fresh_home_lacks_its_services_only":
        monkeypatch.setattr(doctor, "_lightgbm", lambda: Finding("lightgbm", "ok", "as in the first test"))


def by_name(settings: Settings) -> dict[str, Finding]:
    return {finding.name: finding for finding in check(settings)}


def test_a_fresh_home_lacks_its_services_only(settings: Settings) -> None:
    """On a machine that can run the tests, all is well but that nothing runs yet, and that root might run it."""
    findings = by_name(settings)
    assert {name for name, finding in findings.items() if finding.state == "error"} == set()
    assert findings["services"].remedy == "make up"
    looked_at = {"python", "lightgbm", "memory", "disk", "user", "home", "data", "clock", "source", "feature sets"}
    looked_at |= {"models", "calendars", "alert rules", "airflow_port", "mlflow_port", "scoring_port", "services"}
    assert set(findings) == looked_at
    root = os.geteuid() == 0
    assert (findings["user"].state, "chown" in findings["user"].remedy) == ("warning" if root else "ok", root)


def test_every_trouble_has_a_remedy(settings: Settings) -> None:
    """A taken port and a source that is gone are found, each with what to do."""
    troubled = Settings(home=settings.home, stack=settings.stack, data=DataSettings(source="/nowhere/bars.csv"))
    with socket.socket() as held:
        held.bind(("127.0.0.1", settings.stack.airflow_port))
        held.listen()
        findings = by_name(troubled)
    errors = {name for name, finding in findings.items() if finding.state == "error"}
    assert errors == {"airflow_port", "source"}
    assert "MLOPS_STACK__AIRFLOW_PORT" in findings["airflow_port"].remedy
    assert "SOURCE=" in findings["source"].remedy
    assert all(finding.remedy for finding in findings.values() if finding.state != "ok")


def test_a_named_source_is_looked_at_by_its_kind(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """A database needs its connection string, a file its path; a vendor is known by name. No secret is shown."""
    sources = {
        "warehouse": PostgresqlSource(kind="postgresql", table="bars"),
        "files": TableSource(kind="table", path="/nowhere/bars.csv"),
        "shares": VendorSource(kind="yahoo", instruments=("AAPL",)),
    }
    monkeypatch.delenv("BARS_DSN", raising=False)

    def found(name: str) -> Finding:
        chosen = DataSettings(source=name, sources=sources)
        return by_name(Settings(home=settings.home, stack=settings.stack, data=chosen))["source"]

    assert (found("warehouse").state, found("files").state, found("shares").state) == ("error", "error", "ok")
    assert "BARS_DSN" in found("warehouse").remedy and "/nowhere/bars.csv" in found("files").detail
    monkeypatch.setenv("BARS_DSN", "postgresql://u:s3cret@db/bars")
    assert found("warehouse").state == "ok" and "s3cret" not in repr(found("warehouse"))


def test_a_wrong_feature_set_is_found(settings: Settings) -> None:
    """A warning while the chain computes another one; that there is none of the chain's name is an error."""
    assert by_name(settings)["feature sets"].state == "ok"
    head = "  version: 1\n  owner: Desk A\n  description: Mine.\n"
    settings.home.mkdir(parents=True, exist_ok=True)
    (settings.home / "feature_sets.yaml").write_text(f"mine:\n{head}  factors:\n    X: Maen($close, 5)\n")
    unused = by_name(settings)["feature sets"]
    assert (unused.state, "mine.factors.X" in unused.detail) == ("warning", True)
    (settings.home / "feature_sets.yaml").write_text(f"mine:\n{head}  factors:\n    X: Mean($close, 5)\n")
    for name, state in (("mine", "ok"), ("yours", "error")):
        chosen = FeatureSettings(feature_set=name)
        found = by_name(Settings(home=settings.home, stack=settings.stack, features=chosen))["feature sets"]
        assert (found.state, name in found.detail) == (state, True)


@pytest.mark.parametrize(
    ("models", "entry", "state", "words"),
    [
        (("lightgbm", "linear"), "", "ok", "lightgbm, linear"),
        (("lightgmb",), "", "error", "no model 'lightgmb'; did you mean lightgbm"),
        (("linear",), "mine: 5\n", "warning", "mine"),
        (("mine",), "mine: 5\n", "error", "mine"),
        (("linear",), "linear: 5\n", "warning", "linear is the name of a shipped model"),
        (("linear",), "\tmine: 5\n", "error", "cannot be read as YAML"),
    ],
)
def test_unknown_models_are_found(
    models: tuple[str, ...], entry: str, state: str, words: str, settings: Settings
) -> None:
    """An error where the chain would train them, a warning where an entry of no use is wrong."""
    settings.home.mkdir(parents=True, exist_ok=True)
    (settings.home / "models.yaml").write_text(entry)
    chosen = Settings(home=settings.home, stack=settings.stack, training=TrainingSettings(models=models))
    finding = doctor._models(chosen)
    assert finding.state == state and words in finding.detail
    assert bool(finding.remedy) == (state != "ok")


@pytest.mark.parametrize(
    ("key", "name", "state"),
    [
        ("name", "auto", "ok"),
        ("name", "NYSE", "ok"),
        ("name", "24/7", "ok"),
        ("name", "XNYC", "error"),
        ("schedule", "XSHG", "ok"),
        ("schedule", "auto", "error"),
        ("schedule", "Shanghai", "error"),
    ],
)
def test_unknown_calendars_are_found(key: str, name: str, state: str, settings: Settings) -> None:
    """Before a sync or a schedule meets them."""
    calendar = CalendarSettings(**{key: name})
    finding = doctor._calendars(Settings(home=settings.home, stack=settings.stack, calendar=calendar))
    assert (finding.state, name in finding.detail) == (state, True)
    assert (f"calendar.{key}" in finding.remedy) == (state == "error")


def test_a_clock_that_was_set_back_is_found(settings: Settings) -> None:
    """A file of the home that is newer than now says that the clock was ahead."""
    (settings.home / "run").mkdir(parents=True)
    newer = settings.home / "run" / "stack.json"
    newer.write_text('{"stack_id": "x"}')
    os.utime(newer, (time.time() + 7200, time.time() + 7200))
    finding = by_name(settings)["clock"]
    assert finding.state == "error"
    assert "stack.json" in finding.detail
