"""`alphaops alerts`: what is open, who takes care of it, what nobody wants to hear."""

import getpass
import json
from pathlib import Path

import pytest

from mlops_tasks.cli import main
from mlops_tasks.config import load_settings
from mlops_tasks.state.alerts import raise_alert


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with three alerts of two kinds."""
    monkeypatch.setenv("MLOPS_HOME", str(tmp_path))
    settings = load_settings()
    for kind, subject in (("leak_found", "f1"), ("run_failed", "sync r1"), ("run_failed", "sync r2")):
        raise_alert(settings, kind=kind, subject=subject, message=f"{kind} of {subject}")
    return tmp_path


def said(capsys: pytest.CaptureFixture[str], *words: str, status: int = 0) -> str:
    """What a command prints."""
    capsys.readouterr()
    assert main(["alerts", *words]) == status
    return capsys.readouterr().out


def test_an_alert_from_its_list_to_its_end(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Named by kind alone where that is enough; each step bears the person's name."""
    listed = json.loads(said(capsys, "list", "--json"))
    assert [each["subject"] for each in listed["open"]] == ["sync r2", "sync r1", "f1"]
    assert listed["open"][2]["severity"] == "critical"
    assert "several are open; give the subject" in said(capsys, "acknowledge", "run_failed", status=1)
    assert "leak_found 'f1' is acknowledged" in said(capsys, "acknowledge", "leak_found")
    assert "already acknowledged" in said(capsys, "acknowledge", "leak_found", status=1)
    assert f"{getpass.getuser()} is handling it" in said(capsys, "list")
    assert json.loads(said(capsys, "resolve", "run_failed", "sync r1", "--json"))["step"] == "resolved"
    assert "no such alert is open" in said(capsys, "resolve", "run_failed", "sync r1", status=1)
    shown = json.loads(said(capsys, "show", "run_failed", "sync r1", "--json"))
    assert [(row["step"], row["by"]) for row in shown] == [("opened", ""), ("resolved", getpass.getuser())]
    assert "there is no such alert" in said(capsys, "show", "run_failed", "sync r9", status=1)


def test_silences_and_checks(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A silence has a reason and an end; a check without a sink says that it tells nobody."""
    assert "needs a reason" in said(capsys, "silence", "run_failed", "--hours", "1", "--reason", " ", status=1)
    assert "at most 90 days" in said(capsys, "silence", "run_failed", "--hours", "9999", "--reason", "x", status=1)
    assert "nobody is notified" in said(capsys, "silence", "run_failed", "--hours", "2", "--reason", "the vendor moves")
    assert "the vendor moves" in said(capsys, "list")
    said(capsys, "silence", "run_failed", "--hours", "0", "--reason", "done")
    assert json.loads(said(capsys, "list", "--json"))["silenced"] == []
    assert "no sink is configured in this environment" in said(capsys, "check", status=1)
    assert "not configured; configured: none" in said(capsys, "test", "webhook", status=1)
