"""The commands of the page about the API, as they are written."""

import json
from pathlib import Path

from tests.commands import commands_of, in_bash
from tests.plugins.api_server import Airflow
from tests.plugins.runs import Runs


def test_the_commands_of_the_api(airflow: Airflow, runs: Runs, tmp_path: Path) -> None:
    """docs/user_interface.md in a folder with the password where `make up` puts it: a token, a model, events, a pause;
    only the port is another one."""
    run = runs.open()
    run.iterate(1, 50)
    secrets = tmp_path / "var" / "secrets"
    secrets.mkdir(parents=True)
    (secrets / "airflow_password").write_text("admin")
    commands = [command for command in commands_of("docs/user_interface.md") if command.text[:4] != "alph"]
    assert len(commands) == 6
    port = str(airflow.settings.stack.airflow_port)
    lines = [command.filled({"run": run.run_id}).replace("8080", port) for command in commands]
    said = in_bash("; echo; ".join(lines), tmp_path)
    model, events, paused = (json.loads(line) for line in said.splitlines() if line.startswith("{"))
    assert model["name"] == "lightgbm" and model["memory"]["bytes"] > 0
    assert events["events"][0]["sequence"] == 41
    assert paused["run_id"] == run.run_id
