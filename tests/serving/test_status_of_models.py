"""The status tells who serves and who waits, and rollbacks keep their reasons."""

import json
from pathlib import Path

import pytest

from mlops_tasks.cli import main
from mlops_tasks.files import write_json
from mlops_tasks.registry.models import load_version
from mlops_tasks.registry.tasks import LATEST_CANDIDATES, gate_challenger_task
from mlops_tasks.serving.client import ScoringClient
from mlops_tasks.serving.tasks import deploy_model_task, score_newest_date_task
from mlops_tasks.state.history import latest_deployment
from mlops_tasks.status import render_status, status_info
from tests.registry.conftest import Operation
from tests.registry.trainings import DAYS, Spec

DAY = str(DAYS[-1].date())


@pytest.fixture
def kept(operation: Operation, client: ScoringClient) -> Operation:
    """Version 1 serves; the gate has kept it against version 2, which is scored beside it."""
    settings = operation.settings
    first = operation.register(Spec(key="a" * 16, metrics={"valid_rank_ic_mean": 0.0312, "test_ic_mean": 0.01}))
    digest = load_version(settings, first).digest
    gate = {"decision": "promote", "rule": "bootstrap", "version": first, "digest": digest}
    deploy_model_task(gate=gate, strategy="blue_green")
    metrics = {"valid_rank_ic_mean": 0.0511, "test_ic_mean": 0.02}
    second = operation.register(Spec(key="b" * 16, model="linear", seed=2, metrics=metrics))
    write_json(settings.home / LATEST_CANDIDATES, {"training_keys": ["b" * 16]})
    assert gate_challenger_task(challenger={"version": second})["decision"] == "keep"
    score_newest_date_task(data_version=operation.vintage.data_version)
    return operation


def test_the_champion_stays_the_champion_when_the_gate_keeps_it(kept: Operation) -> None:
    """Version, family, since when, data, scores and their file are the champion's; the challenger's are beside it."""
    settings = kept.settings
    info = status_info(settings)
    champion, challenger = info["champion"], info["challenger"]
    served = latest_deployment(settings, 1, "serving")
    assert served is not None
    assert (champion["version"], champion["model"], champion["training_key"]) == (1, "lightgbm", "a" * 16)
    assert (champion["last_date"], champion["since"]) == (DAY, served.at.isoformat(timespec="seconds"))
    assert (challenger["version"], challenger["model"], challenger["verdict"][:4]) == (2, "linear", "keep")
    for model, version in ((champion, 1), (challenger, 2)):
        assert (model["scores"]["date"], model["scores"]["instruments"]) == (DAY, 20)
        assert Path(model["scores"]["path"]) == settings.scores_dir / DAY / f"{version}.parquet"
        assert Path(model["scores"]["path"]).is_file()
    lines = render_status(settings).splitlines()
    (told,) = [number for number, line in enumerate(lines) if line.startswith("champion ")][:1]
    assert lines[told].startswith(f"champion    version 1, lightgbm, of data up to {DAY}, serving since ")
    assert f"its scores: 20 instruments for {DAY}, {settings.scores_dir / DAY / '1.parquet'}" in lines[told + 1]
    assert lines[told + 2].startswith(f"challenger  version 2, linear, of data up to {DAY}, gate: keep (")
    assert not [line for line in lines if line.startswith("scores ")]
    kept.register(Spec(key="c" * 16, seed=3))
    waiting = status_info(settings)["challenger"]
    assert (waiting["version"], waiting["scores"]) == (3, None), "nobody else's scores are shown for its own"


def test_the_result_table_says_who_is_what_and_by_which_figure(kept: Operation) -> None:
    """The validation figure that chose the challenger, both models marked, a line for each term, what to do next."""
    text = render_status(kept.settings)
    table = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]
    columns = {name: number for number, name in enumerate(table[0])}
    rows = {row[columns["model"]]: row for row in table[2:]}
    assert {name: row[columns["is"]] for name, row in rows.items()} == {"lightgbm": "champion", "linear": "challenger"}
    found = {name: row[columns["valid rank IC"]] for name, row in rows.items()}
    assert found == {"lightgbm": "0.0312", "linear": "0.0511"}
    explained = text.split("|\n\n")[-1]
    for term in table[0][2:-1]:
        word = term.removesuffix(" (sum)").removesuffix(" p.a.")
        assert any(word in line[:16].strip() for line in explained.splitlines()), term
    reports = f"http://127.0.0.1:{kept.settings.stack.airflow_port}/plugin/reports/mlops/ui/reports"
    assert [line for line in text.splitlines() if line.startswith("next ")] and reports in text.split("\nnext ")[-1]


def test_a_rollback_asks_why_and_whether(kept: Operation, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    """Without a reason or a yes nothing moves; the reason is kept with the step that puts the other one in service."""
    settings = kept.settings
    assert main(["rollback", "--version", "2", "--yes"]) == 1
    assert "--reason is missing" in capsys.readouterr().out
    assert main(["rollback", "--version", "2", "--reason", " ", "--yes"]) == 1
    assert main(["rollback", "--version", "2", "--reason", "index change"]) == 1
    assert "--yes is missing" in capsys.readouterr().out
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda question: "n")
    assert main(["rollback", "--version", "2", "--reason", "index change"]) == 1
    assert status_info(settings)["champion"]["version"] == 1
    answers = iter(["bad fills", "y"])
    asked: list[str] = []
    monkeypatch.setattr("builtins.input", lambda question: (asked.append(question), next(answers))[1])
    capsys.readouterr()
    assert main(["rollback", "--version", "2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["version"] == 2
    assert "Version 2 takes the champion's place" in asked[1]
    row = latest_deployment(settings, 2, "serving")
    assert row is not None and row.reason.endswith(": bad fills")
