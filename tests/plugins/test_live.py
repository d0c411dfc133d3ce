"""What is live: the event stream over a WebSocket, and the pages in a real browser inside Airflow's own."""

import json
import re
from typing import Any
from urllib.parse import quote

import pytest
from playwright.sync_api import Page, expect
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection, connect

from mlops_tasks.modeling.model_zoo.zoo import model_zoo
from mlops_tasks.state.training_runs import training_commands
from mlops_tasks.training.events import read_events
from tests.plugins.api_server import Airflow
from tests.plugins.conftest import PATIENCE_MS
from tests.plugins.runs import FINISHED, Runs


def stream(airflow: Airflow, run_id: str, after: int = 0, **headers: str) -> ClientConnection:
    """A stream with the viewer's bearer token, unless headers say otherwise."""
    given = headers or {"Authorization": f"Bearer {airflow.token('viewer')}"}
    address = f"{airflow.url.replace('http', 'ws', 1)}/mlops/v1/training/runs/{run_id}/stream?after={after}"
    return connect(address, additional_headers=given, open_timeout=60)


def received(connection: ClientConnection) -> list[tuple[int, str, dict[str, Any]]]:
    """All messages until the server closes."""
    events = [json.loads(message) for message in connection]
    return [(event["sequence"], event["kind"], event["payload"]) for event in events]


def test_the_stream_from_any_number_is_the_database_and_ends_at_the_terminal_event(
    airflow: Airflow, runs: Runs
) -> None:
    """In order and complete, closed with 1000."""
    run_id = runs.finished().run_id
    rows = [(row.sequence, row.kind, dict(row.payload)) for row in read_events(airflow.settings, run_id)]
    for after in (0, 1, 17, len(rows) - 1):
        with stream(airflow, run_id, after) as connection:
            assert received(connection) == rows[after:]
            assert connection.close_code == 1000


def test_events_arrive_as_they_are_recorded(airflow: Airflow, runs: Runs) -> None:
    """Two listeners, of whom one came later, get each event once."""
    run = runs.open()
    with stream(airflow, run.run_id) as first, stream(airflow, run.run_id, after=3) as second:
        assert [json.loads(first.recv(timeout=60))["sequence"] for _ in range(3)] == [1, 2, 3]
        for number in range(1, 6):
            run.iterate(number, number)
            for listener in (first, second):
                assert json.loads(listener.recv(timeout=60))["payload"]["iteration"] == number
        run.add(("finished", FINISHED))
        assert received(first) == received(second) == [(9, "finished", FINISHED)]


def test_a_stream_needs_a_user_our_own_page_and_a_run(airflow: Airflow, runs: Runs) -> None:
    """The cookie counts with this server's Origin alone; refused before anything is sent."""
    run_id = runs.finished().run_id
    cookie = {"Cookie": f"_token={airflow.token('viewer')}"}
    refused = {
        "nobody": {"Origin": airflow.url},
        "a wrong token": {"Cookie": "_token=x.y.z", "Origin": airflow.url},
        "a wrong bearer token": {"Authorization": "Bearer x.y.z"},
        "a foreign page": {**cookie, "Origin": "http://example.org"},
        "another port's page": {**cookie, "Origin": f"http://127.0.0.1:{airflow.settings.stack.mlflow_port}"},
        "no page": cookie,
    }
    for case, headers in refused.items():
        with pytest.raises(InvalidStatus) as error:
            stream(airflow, run_id, **headers)
        assert error.value.response.status_code == 403, case
    with pytest.raises(InvalidStatus) as error:
        stream(airflow, "none")
    assert error.value.response.status_code == 404
    with stream(airflow, run_id, **cookie, Origin=airflow.url) as connection:
        assert received(connection)[-1][1] == "finished"


def test_the_plugin_is_loaded_whole_and_its_packages_are_no_plugins(airflow: Airflow) -> None:
    """Airflow reports the two apps and no import error."""
    with airflow.client("admin") as admin:
        assert admin.get("/api/v2/plugins/importErrors").json()["total_entries"] == 0
        plugins = {plugin["name"]: plugin for plugin in admin.get("/api/v2/plugins").json()["plugins"]}
    assert [app["name"] for app in plugins["mlops"]["fastapi_apps"]] == ["mlops_api", "mlops_ui"]


PAGES = ["models", "training", "reports"]


def test_pages_load_nothing_from_elsewhere_and_escape_what_they_show(airflow: Airflow, runs: Runs) -> None:
    """No script or style stands in a page, every address is our own, and the policy forbids all else."""
    run_id = runs.open("<i>x&").run_id
    with airflow.client("viewer") as viewer:
        answers = [viewer.get(f"/mlops/ui/{path}") for path in [*PAGES, f"training/{quote(run_id)}"]]
    for answer in answers:
        assert answer.status_code == 200, answer.text
        policy = answer.headers["Content-Security-Policy"].split("; ")
        assert {"default-src 'none'", "script-src 'self'", "style-src 'self'", "form-action 'self'"} <= set(policy)
        assert {"base-uri 'none'", "frame-ancestors 'self'"} <= set(policy), "no foreign page frames one"
        assert not re.search(r"<style|<script>|\sstyle=|\son\w+=|<i>x", answer.text)
        addresses = re.findall(r'(?:src|href)="([^"]*)"', answer.text)
        assert all(address.startswith(("/mlops/", "/dags/")) for address in addresses)
    assert all("&lt;i&gt;x&amp;" in answers[number].text for number in (1, 3))


def test_a_runs_page_draws_its_curves_as_they_come(airflow: Airflow, runs: Runs, page: Page) -> None:
    """Inside Airflow's frame and in its theme: curves grow, a person pauses the run, and the end is shown at once."""
    run = runs.open("gru")
    run.iterate(1, 10)
    page.goto(f"{airflow.url}/plugin/training/mlops/ui/training/{run.run_id}")
    frame = page.frame_locator("iframe")
    expect(frame.locator("html")).to_have_attribute("data-theme", "dark", timeout=PATIENCE_MS)
    expect(frame.locator("figcaption strong")).to_have_text(["loss", "ic", "rank_ic"], timeout=PATIENCE_MS)
    expect(frame.locator("#link")).to_have_text("live")
    loss = frame.locator("figure").first
    expect(loss.locator("path.line")).to_have_count(2)
    expect(frame.locator("#commands button:visible")).to_have_text(["Pause", "Cancel"])
    assert len(_corners(loss.locator("path.valid").get_attribute("d"))) == 10
    assert frame.locator("figure").nth(1).locator("path.valid").get_attribute("d").count("M") == 2, "an undefined IC"

    frame.get_by_role("button", name="Pause").click()
    expect(frame.locator("#commands output")).to_contain_text("pause requested")
    assert [row.asked_by for row in training_commands(airflow.settings, run.run_id)] == ["admin"]

    run.add(("paused", {"iteration": 10}))
    expect(frame.locator("#commands button:visible")).to_have_text(["Resume", "Cancel"])
    run.add(("resumed", {"iteration": 10}))
    expect(frame.locator("#commands button:visible")).to_have_text(["Pause", "Cancel"])
    run.iterate(11, 20)
    run.add(("finished", FINISHED))
    expect(loss.locator(".key.valid")).to_have_text("valid 0.96122")
    expect(frame.locator("#events tr").first).to_contain_text("finished")
    expect(frame.locator("#summary .state")).to_have_text("finished", timeout=PATIENCE_MS)
    expect(frame.locator("#commands")).to_have_count(0)
    assert len(_corners(loss.locator("path.valid").get_attribute("d"))) == 20


def _corners(path: str | None) -> list[str]:
    return re.findall(r"[ML]", path or "")


def test_without_a_websocket_the_page_asks_again_and_again(airflow: Airflow, runs: Runs, page: Page) -> None:
    """A proxy that lets none through costs seconds, no event."""
    run = runs.open()
    run.iterate(1, 3)
    page.route_web_socket("**/stream*", lambda socket: socket.close())
    page.goto(f"{airflow.url}/mlops/ui/training/{run.run_id}")
    expect(page.locator("#link")).to_have_text("every few seconds", timeout=PATIENCE_MS)
    run.iterate(4, 6)
    expect(page.locator("figure").first.locator(".key.train")).to_have_text("train 0.96065", timeout=PATIENCE_MS)
    run.add(("cancelled", {"asked_by": "admin", "forced": False}))
    expect(page.locator("#events tr").first).to_contain_text("cancelled", timeout=PATIENCE_MS)


def test_the_models_page_has_a_card_for_each_model(airflow: Airflow, page: Page) -> None:
    """With advanced hyper-parameters folded away, and an estimate of memory."""
    page.goto(f"{airflow.url}/mlops/ui/zoo?rows=1000&features=10")
    zoo = model_zoo(airflow.settings)
    expect(page.locator("section.card")).to_have_count(len(zoo))
    for name, entry in zoo.items():
        card = page.locator(f"section#{name}")
        expect(card).to_contain_text(entry.description)
        for parameter, schema in entry.hyperparameters.items():
            cell = card.get_by_text(parameter, exact=True)
            assert cell.is_visible() != bool(schema.get("advanced")), (name, parameter)
    expect(page.locator("section#lightgbm .memory output")).to_have_text(
        re.compile(r"^\d+ MB$"), timeout=2 * PATIENCE_MS
    )
