"""What is live: the event stream over a WebSocket, and the pages in a real browser inside Airflow's own."""

import json
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from urllib.parse import quote, unquote, urlsplit

import pytest
from playwright.sync_api import Locator, Page, Route, WebSocketRoute, expect
from websockets.exceptions import InvalidStatus

from mlops_tasks.modeling.model_zoo.zoo import model_zoo
from mlops_tasks.state.alerts import raise_alert
from mlops_tasks.state.alerts.episodes import Key
from mlops_tasks.state.alerts.handling import resolve
from mlops_tasks.state.deployments import record_deployment
from mlops_tasks.state.rollouts import record_rollout, record_rollout_step
from mlops_tasks.state.training_runs import training_commands
from mlops_tasks.states import RolloutState
from mlops_tasks.training.events import read_events
from tests.plugins.api_server import Airflow
from tests.plugins.conftest import HEARTBEAT_S, PATIENCE_MS, TOPICS
from tests.plugins.runs import DAG_RUN, FINISHED, Runs
from tests.plugins.streams import WAITING, deployment, open_stream, run_topic


def test_the_stream_from_any_number_is_the_database_and_ends_at_the_terminal_event(
    airflow: Airflow, runs: Runs
) -> None:
    """In order and complete; then it is told that the run has ended, and the stream takes other topics."""
    run_id = runs.finished().run_id
    rows = [(row.sequence, row.kind, dict(row.payload)) for row in read_events(airflow.settings, run_id)]
    with open_stream(airflow) as stream:
        for after in (0, 1, 17, len(rows) - 1, len(rows), 10_000):
            stream.subscribe(run_topic(run_id), after)
            found = [(each["sequence"], each["kind"], each["payload"]) for each in stream.events(run_topic(run_id))]
            assert found == rows[after:]


def test_events_arrive_as_they_are_recorded(airflow: Airflow, runs: Runs) -> None:
    """Two listeners, of whom one came later, get each event once."""
    run = runs.open()
    topic = run_topic(run.run_id)
    with open_stream(airflow) as first, open_stream(airflow) as second:
        assert [each["sequence"] for each in first.subscribe(topic).take(topic, 3)] == [1, 2, 3]
        second.subscribe(topic, after=3)
        for number in range(1, 6):
            run.iterate(number, number)
            for listener in (first, second):
                assert [each["payload"]["iteration"] for each in listener.take(topic, 1)] == [number]
        run.add(("finished", FINISHED))
        for listener in (first, second):
            assert [(each["sequence"], each["kind"]) for each in listener.events(topic)] == [(9, "finished")]


def test_one_connection_follows_runs_alerts_and_deployments(airflow: Airflow, runs: Runs) -> None:
    """Each topic with its own numbers; what is unsubscribed from is silent, and goes on from any number later."""
    one, other = runs.open(), runs.open()
    with open_stream(airflow) as stream:
        heads = {}
        for topic in ("alerts", "deployments", "rollouts"):
            stream.ask("subscribe", topic, after=2**31)
            heads[topic] = stream.message()["newest"]
            assert stream.ask("unsubscribe", topic).message() == {"type": "unsubscribed", "topic": topic}
            stream.subscribe(topic, heads[topic])
        stream.subscribe(run_topic(one.run_id), 3).subscribe(run_topic(other.run_id), 3)
        raise_alert(airflow.settings, kind="leak_found", subject="of one stream", message="it knows")
        assert stream.take("alerts", 1)[0]["subject"] == "of one stream"
        record_deployment(airflow.settings, deployment(state="started"))
        assert [each["state"] for each in stream.take("deployments", 1)] == ["started"]
        record_rollout(airflow.settings, WAITING)
        assert [each["rollout_id"] for each in stream.take("rollouts", 1)] == [WAITING.rollout_id]

        assert stream.ask("unsubscribe", run_topic(one.run_id)).message()["type"] == "unsubscribed"
        one.iterate(1, 4)
        other.iterate(1, 2)
        assert [each["sequence"] for each in stream.take(run_topic(other.run_id), 2)] == [4, 5]
        again = stream.subscribe(run_topic(one.run_id), 4).take(run_topic(one.run_id), 3)
        assert [each["sequence"] for each in again] == [5, 6, 7]
        record_deployment(airflow.settings, deployment(state="failed"))
        newest = stream.take("deployments", 1)[0]
        assert newest["state"] == "failed" and newest["id"] > heads["deployments"] + 1
        assert record_rollout_step(airflow.settings, WAITING, replace(WAITING, state=RolloutState.ABORTED))
        assert [each["state"] for each in stream.take("rollouts", 1)] == ["aborted"]
        resolve(airflow.settings, Key("leak_found", "of one stream"), "admin")
        assert [each["step"] for each in stream.take("alerts", 1)] == ["resolved"]


def test_a_lost_connection_costs_no_event_and_repeats_none(airflow: Airflow, runs: Runs) -> None:
    """Whenever it breaks, the next one goes on after the newest event that came: a thousand events over many
    connections are a thousand events, while they are being recorded."""
    run = runs.open()
    topic, found = run_topic(run.run_id), [1, 2, 3]

    def train() -> None:
        for first in range(1, 1001, 10):
            run.iterate(first, first + 9, total=1000)
        run.add(("finished", FINISHED))

    with ThreadPoolExecutor(1) as pool:
        writer, ended = pool.submit(train), False
        while not ended:
            with open_stream(airflow) as stream:
                stream.subscribe(topic, found[-1])
                for _ in range(4):
                    message = stream.message()
                    ended = message["type"] == "ended"
                    if ended:
                        break
                    found += [each["sequence"] for each in message["events"]]
        writer.result()
    assert found == list(range(1, 1005))


def test_a_quiet_stream_has_a_heartbeat(airflow: Airflow, runs: Runs) -> None:
    """So that a client knows a dead connection from a quiet one."""
    with open_stream(airflow) as stream:
        stream.subscribe(run_topic(runs.open().run_id), 3)
        beats = [json.loads(stream.connection.recv(timeout=10 * HEARTBEAT_S + 60)) for _ in range(2)]
        assert beats == [{"type": "heartbeat"}] * 2


def test_a_stream_takes_only_so_many_topics_and_knows_those_there_are(airflow: Airflow, runs: Runs) -> None:
    """What is refused is told, with the topic, and ends nothing."""
    with open_stream(airflow) as stream:
        for topic in ("runs/none", "runs/", "none", "runs"):
            answer = stream.ask("subscribe", topic).message()
            assert (answer["type"], answer["topic"], answer["status"]) == ("refused", topic, 404)
        made = [run_topic(runs.open().run_id) for _ in range(TOPICS)]
        for topic in made:
            stream.subscribe(topic, 3)
        assert stream.ask("subscribe", "alerts").message()["status"] == 429
        assert stream.ask("unsubscribe", made[0]).message()["type"] == "unsubscribed"
        stream.subscribe("alerts", 2**31)


def test_a_stream_needs_a_user_and_our_own_page(airflow: Airflow) -> None:
    """The cookie counts with this server's Origin alone; refused before anything is sent."""
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
        with pytest.raises(InvalidStatus) as error, open_stream(airflow, **headers):
            pass
        assert error.value.response.status_code == 403, case
    with open_stream(airflow, **cookie, Origin=airflow.url) as stream:
        stream.subscribe("alerts", 2**31)


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
        assert not re.search(r"<style|<script>|<[^>]*\s(style|on\w+)=|<i>x", answer.text)
        addresses = re.findall(r'(?:src|href)="([^"]*)"', answer.text)
        assert all(address.startswith(("/mlops/", "/dags/", "#")) for address in addresses)
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
    expect(loss.locator("canvas")).to_be_visible()
    expect(frame.locator("#commands button:visible")).to_have_text(["Pause", "Cancel"])
    iterations, *lines = drawn(loss)
    assert iterations == list(range(1, 11)) and [len(line) for line in lines] == [10, 10]
    ic = drawn(frame.locator("figure").nth(1))[1]
    assert [number for number, value in enumerate(ic, 1) if value is None] == [3], "an undefined IC"

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
    assert drawn(loss)[0] == list(range(1, 21))


def test_a_page_that_loses_its_connection_goes_on_where_it_was(airflow: Airflow, runs: Runs, page: Page) -> None:
    """Cut after every few messages, it connects again: every iteration is drawn, and every event listed, once."""
    run = runs.open()
    lost: list[WebSocketRoute] = []

    def breaking(socket: WebSocketRoute) -> None:
        server, passed = socket.connect_to_server(), [0]

        def back(message: str | bytes) -> None:
            passed[0] += 1
            socket.send(message)
            if passed[0] == 3:
                lost.append(socket)
                server.close()
                socket.close()

        server.on_message(back)

    page.route_web_socket("**/stream", breaking)
    page.goto(f"{airflow.url}/mlops/ui/training/{run.run_id}")
    expect(page.locator("#link")).to_have_text("live", timeout=PATIENCE_MS)
    for number in range(1, 41):
        run.iterate(number, number)
        run.add(("checkpoint", {"iteration": number}))
        page.wait_for_timeout(100)
    expect(page.locator("#events tr").first).to_contain_text("iteration 40", timeout=PATIENCE_MS)
    page.unroute_all()
    assert len(lost) >= 2
    plot = page.locator("figure").first
    expect(plot.locator(".key.train")).to_have_text("train 0.90357")
    assert drawn(plot)[0] == list(range(1, 41))
    checkpoints = page.locator("#events tr").filter(has_text="checkpoint")
    said = checkpoints.evaluate_all("rows => rows.map(row => row.cells[3].textContent)")
    assert said == [f"iteration {number}" for number in range(40, 0, -1)]


def test_the_end_of_the_tasks_log_is_shown_while_somebody_looks(airflow: Airflow, runs: Runs, page: Page) -> None:
    """That of the mapped task that trains this model, brought up to date; what Airflow refuses is told."""
    run, asked = runs.open("gru"), []
    lines = [
        {"timestamp": f"2026-03-02T09:30:{second:02}Z", "level": "info", "event": "<i>x"} for second in range(60)
    ] * 5

    def answer(route: Route) -> None:
        address = urlsplit(route.request.url)
        asked.append(address)
        if address.path.endswith("/taskInstances"):
            about = {"task_id": "build_model.train_model", "try_number": 2, "start_date": "2026-03-02T09:30:00Z"}
            mapped = [{**about, "map_index": n, "rendered_map_index": name} for n, name in enumerate(("linear", "gru"))]
            other = {**about, "task_id": "plan_run", "map_index": -1, "rendered_map_index": None}
            return route.fulfill(json={"task_instances": [other, *mapped]})
        return route.fulfill(json={"content": lines, "continuation_token": None})

    page.route("**/api/v2/**", answer)
    page.goto(f"{airflow.url}/mlops/ui/training/{run.run_id}")
    page.wait_for_timeout(500)
    assert asked == [], "nothing is asked before somebody looks"
    page.get_by_text("Its task's log in Airflow").click()
    log = page.locator("#task-log pre")
    expect(log).to_contain_text("09:30:59 info <i>x")
    assert log.evaluate("each => each.textContent.split('\\n').length") == 200
    assert log.evaluate("each => each.scrollTop + each.clientHeight >= each.scrollHeight - 2")
    logs = asked[-1]
    assert unquote(logs.path) == (
        f"/api/v2/dags/{DAG_RUN.dag_id}/dagRuns/{DAG_RUN.run_id}/taskInstances/build_model.train_model/logs/2"
    )
    assert logs.query == "map_index=1"
    lines.append({"event": "the newest"})
    expect(log).to_contain_text("the newest")
    page.unroute_all()
    expect(log).to_have_text("Airflow answers 404")
    with airflow.client("viewer") as viewer:
        found = viewer.get(f"/api/v2/dags/{DAG_RUN.dag_id}/dagRuns/none/taskInstances?limit=200")
    assert found.status_code == 404, "it is Airflow's own answer"


SILENT = """async (silenceMs) => {
    const { TrainingProgressWebSocket } = await import("/mlops/ui/assets/stream.js");
    const states = [];
    const onState = state => states.push(state);
    const stream = new TrainingProgressWebSocket("/mlops/v1/stream", { silenceMs, onState });
    stream.subscribe("alerts", 2 ** 40, { onEvents: () => {} });
    while (states.filter(state => state === "live").length < 2) await new Promise(done => setTimeout(done, 20));
    stream.close();
    return states;
}"""


def test_a_connection_on_which_nothing_comes_is_given_up(airflow: Airflow, page: Page) -> None:
    """A dead connection may look open for minutes: the client connects again, and after its end no more."""
    opened: list[WebSocketRoute] = []

    def silent(socket: WebSocketRoute) -> None:
        opened.append(socket)

    page.route_web_socket("**/stream", silent)
    page.goto(f"{airflow.url}/mlops/ui/reports")
    assert page.evaluate(SILENT, 300) == ["connecting", "live", "waiting", "connecting", "live", "closed"]
    page.wait_for_timeout(1000)
    assert len(opened) == 2


def drawn(plot: Locator) -> list[list[float | None]]:
    """What a plot shows: its places, and the values of each line."""
    found: list[list[float | None]] = plot.evaluate("each => each.plot.chart.data")
    return found


def test_the_list_of_trainings_moves_by_itself(airflow: Airflow, runs: Runs, page: Page) -> None:
    """Progress of a run comes as it is recorded, a new run by itself, and an end in the server's words."""
    run = runs.open("gru")
    run.iterate(1, 2)
    page.goto(f"{airflow.url}/mlops/ui/training")
    row = page.locator(f"tr[data-run='{run.run_id}']")
    expect(row.locator(".number")).to_have_text("5%, 2 of 40 at most", timeout=PATIENCE_MS)
    run.iterate(3, 10)
    expect(row.locator(".number")).to_have_text("25%, 10 of 40 at most")
    expect(row.locator(".kept")).to_have_text("best so far: iteration 10, valid loss 0.96942")
    expect(row.locator(".outcome")).to_have_text("0:00:08 left unless validation improves, 0:00:45 at most")
    run.add(("paused", {"iteration": 10}))
    expect(row.locator(".state")).to_have_text("paused")
    later = runs.open("lstm")
    expect(page.locator(f"tr[data-run='{later.run_id}'] .state")).to_have_text("running", timeout=PATIENCE_MS)
    later.iterate(1, 1)
    expect(page.locator(f"tr[data-run='{later.run_id}'] .number")).to_have_text("2%, 1 of 40 at most")
    run.add(("cancelled", {"asked_by": "ann", "forced": False}))
    expect(row).to_contain_text("by ann", timeout=PATIENCE_MS)
    expect(row.locator(".state")).to_have_class("state cancelled")


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
