"""`alphaops keys`: a client's key from its making to its end."""

import getpass
import json
from pathlib import Path

import pytest

from mlops_tasks.cli import main


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty home."""
    monkeypatch.setenv("MLOPS_HOME", str(tmp_path))


def said(capsys: pytest.CaptureFixture[str], *words: str, status: int = 0) -> str:
    """What a command prints."""
    capsys.readouterr()
    assert main(["keys", *words]) == status
    return capsys.readouterr().out


@pytest.mark.parametrize("days", ["nan", "inf", "1e10", "99999", "-1e300"])
def test_a_number_of_days_that_is_none_is_refused(capsys: pytest.CaptureFixture[str], days: str) -> None:
    """With words about the days; no key is made."""
    capsys.readouterr()
    assert main(["keys", "add", "desk-a", f"--days={days}"]) == 1
    assert "does not expire" in "".join(capsys.readouterr())
    assert "no key except the token" in said(capsys, "list")


def test_a_key_from_its_making_to_its_end(capsys: pytest.CaptureFixture[str]) -> None:
    """It is shown once; the list has its scopes, its rate and who made it; the second takes the first one's place."""
    assert "no key except the token" in said(capsys, "list")
    first = json.loads(said(capsys, "add", "desk-a", "--json"))
    assert (first["scopes"], first["requests_per_minute"], first["expires_at"]) == (["read", "score"], 600, None)
    second = said(capsys, "add", "desk-a", "--scope", "score_rows", "--requests-per-minute", "5", "--days", "90")
    key = second.splitlines()[0]
    assert key.startswith("alphaops_") and "shown only once" in second
    listed = said(capsys, "list")
    assert first["key"] not in listed and key not in listed
    rows = json.loads(said(capsys, "list", "--json"))
    assert [(row["standing"], row["scopes"]) for row in rows] == [
        ("valid", ["read", "score"]),
        ("valid", ["score_rows"]),
    ]
    assert {row["made_by"] for row in rows} == {getpass.getuser()}
    assert "desk-a has 2 valid keys" in said(capsys, "add", "desk-a", status=1)
    assert first["id"] in said(capsys, "revoke", "desk-a", "--id", first["id"], "--reason", "the new one is in use")
    assert [row["standing"] for row in json.loads(said(capsys, "list", "--json"))] == ["revoked", "valid"]
    assert "no unrevoked key of" in said(capsys, "revoke", "desk-b", "--reason", "x", status=1)
