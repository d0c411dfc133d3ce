"""`alphaops predictions`: what was answered, and how much of it."""

import json
from pathlib import Path

import pytest

from mlops_tasks.cli import main
from mlops_tasks.config import load_settings
from mlops_tasks.state.predictions import chosen_bits, record_predictions
from mlops_tasks.state.tables import now
from tests.state.test_predictions import NAMES, answer, table


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with three answers of two versions; the number of a fourth is missing."""
    monkeypatch.setenv("MLOPS_HOME", str(tmp_path))
    rows = [
        answer(1, at=now()),
        answer(2, at=now(), model_version=4, chosen=chosen_bits([5], len(NAMES)), instruments=1),
        answer(4, at=now(), date=None, scores="t2", key_name="night batch"),
    ]
    record_predictions(load_settings(), rows, [table("t1", 0.0), table("t2", 1.0)])
    return tmp_path


def said(capsys: pytest.CaptureFixture[str], *words: str, status: int = 0) -> str:
    """What a command prints."""
    capsys.readouterr()
    assert main(["predictions", *words]) == status
    return capsys.readouterr().out


def test_answers_are_listed_and_counted(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The newest first, by day, version and instrument; what is missing is said."""
    lines = said(capsys, "list").splitlines()
    assert [line.split()[3] for line in lines] == ["r4", "r2", "r1"]
    assert "night batch: given features, version 3 (blue, champion), 11 scores in 1.2 ms" in lines[0]
    found = json.loads(said(capsys, "list", "--instrument", "S05", "--date", "2024-03-01", "--json"))
    assert [(each["request_id"], each["score"]) for each in found] == [("r2", 5 / 7), ("r1", 5 / 7)]
    assert len(said(capsys, "list", "--version", "3", "--limit", "1").splitlines()) == 1
    assert "no such answer" in said(capsys, "list", "--date", "2020-01-01")
    assert "--limit 0: ask for at least one" in said(capsys, "list", "--limit", "0", status=1)
    counted = json.loads(said(capsys, "counts", "--json"))
    assert [(each["date"], each["model_version"], each["scores"]) for each in counted["counts"]] == [
        ("2024-03-01", 4, 1),
        ("2024-03-01", 3, 11),
        (None, 3, 11),
    ]
    assert counted["lost"] == 1
    assert "the same process: 1;" in said(capsys, "counts")
