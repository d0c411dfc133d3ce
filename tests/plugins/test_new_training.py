"""The form of a new training in a real Airflow: drawn from schemas, checked while it is typed, and it starts DAGs."""

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from playwright.sync_api import Browser, Page, expect

from mlops_tasks.config import Settings, StackSettings
from mlops_tasks.modeling.model_zoo.zoo import model_zoo
from mlops_tasks.tuning.recommendations import record_recommendation
from tests.operation import free_ports, publish_vintage
from tests.plugins.accessibility import serious
from tests.plugins.api_server import Airflow, start_airflow
from tests.plugins.conftest import PATIENCE_MS, sign_in
from tests.plugins.runs import FINISHED, Runs
from tests.plugins.test_screens import WIDE

API, PAGE = "/mlops/v1/training", "/mlops/ui/training/new"
EVIL = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def airflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Airflow]:
    """A server of its own, with a vintage in its home."""
    airflow_port, mlflow_port, scoring_port = free_ports(3)
    stack = StackSettings(airflow_port=airflow_port, mlflow_port=mlflow_port, scoring_port=scoring_port)
    settings = Settings(home=tmp_path_factory.mktemp("new_training"), stack=stack)
    publish_vintage(settings)
    with start_airflow(settings) as server:
        yield server


@pytest.fixture(scope="module")
def runs(airflow: Airflow) -> Runs:
    """Of that server."""
    return Runs(airflow.settings, datetime(2026, 3, 2, 9, 30, tzinfo=UTC))


@pytest.fixture
def view(airflow: Airflow, browser: Browser) -> Iterator[Page]:
    """A page of the admin's; a script's error fails."""
    context = sign_in(browser, airflow)
    page, errors = context.new_page(), []
    page.on("pageerror", lambda error: errors.append(str(error)))
    yield page
    context.close()
    assert errors == []


@pytest.fixture(scope="module")
def suggested(airflow: Airflow) -> None:
    """A recommendation on record."""
    ranked = {"kind": "trees", "expected_rank_ic": 0.031, "reasons": [f"trees did best {EVIL}"]}
    ranking = [{**ranked, "model": "lightgbm", "hyperparameters": {"num_leaves": 33, "learning_rate": 0.05}}]
    said = {"skill_found": True, "summary": "Trees find skill.", "ranking": ranking, "refused": {"gru": "too large"}}
    record_recommendation(airflow.settings, "v0", {"profile": {}, "recommendation": said})


def conf_of(airflow: Airflow, dag_id: str, run_id: str) -> dict[str, object]:
    """The form of a DAG run, as Airflow has it."""
    with airflow.client("admin") as admin:
        found = admin.get(f"/api/v2/dags/{dag_id}/dagRuns/{run_id}").raise_for_status().json()
    assert found["triggering_user_name"] == "admin"
    conf: dict[str, object] = found["conf"]
    return conf


def test_the_api_starts_a_training_and_a_search(airflow: Airflow) -> None:
    """As runs of their DAGs, with the fields that were given; what the zoo or a form refuses starts nothing."""
    with airflow.client("admin") as admin, airflow.client("viewer") as viewer:
        asked = {"models": ["linear"], "hyperparameters": "linear.estimator=ridge", "seed": 7}
        assert viewer.post(f"{API}/runs", json=asked).status_code == 403
        assert viewer.post(f"{API}/searches", json={}).status_code == 403
        answer = admin.post(f"{API}/runs", json=asked)
        assert answer.status_code == 202, answer.text
        assert conf_of(airflow, "daily_retraining", answer.json()["run_id"]).items() >= asked.items()
        searched = admin.post(f"{API}/searches", json={"model": "linear", "trials": 3})
        assert searched.status_code == 202, searched.text
        found = conf_of(airflow, "tune_models", searched.json()["run_id"])
        assert found.items() >= {"model": "linear", "trials": 3}.items()
        wrong = [
            ({"models": []}, "models"),
            ({"models": ["none"]}, "models"),
            ({"models": ["linear"], "hyperparameters": "linear.alpha=-1"}, "hyperparameters.linear.alpha"),
            ({"models": ["linear"], "hyperparameters": "lineal.alpha=1"}, "lineal"),
            ({"models": ["linear"], "stopping": "linear.patience=x"}, "stopping.linear"),
            ({"models": ["linear"], "train": "yesterday"}, "train"),
            ({"models": ["linear"], "seed": 10**30}, "seed"),
            ({"models": ["linear"], "owner": "a\0b"}, "owner"),
            ({"models": ["linear"], "deployment_strategy": "none"}, "deployment_strategy"),
            ({"models": ["linear"], "else": 1}, "else"),
        ]
        for body, place in wrong:
            refused = admin.post(f"{API}/runs", json=body)
            assert refused.status_code == 422 and place in refused.json()["detail"], (body, refused.text)


def test_the_api_estimates_and_recommends(airflow: Airflow, runs: Runs, suggested: None) -> None:
    """Memory grows with the leaves; time is that of the trainings before; a wrong value is refused."""
    with airflow.client("viewer") as viewer:
        said = viewer.get(f"{API}/recommendation").raise_for_status().json()
        assert said["ranking"][0]["model"] == "lightgbm" and said["refused"] == {"gru": "too large"}
        refused = viewer.post(f"{API}/estimate", json={"model": "lightgbm", "hyperparameters": "lightgbm.num_leaves=0"})
        assert refused.status_code == 422 and "num_leaves" in refused.json()["detail"]
        runs.finished("lightgbm")
        runs.open("lightgbm").add(("finished", {**FINISHED, "seconds": 1.0, "reused": True}))

        def estimate(lines: str) -> dict[str, object]:
            answer = viewer.post(f"{API}/estimate", json={"model": "lightgbm", "hyperparameters": lines})
            found: dict[str, object] = answer.raise_for_status().json()
            return found

        small, large = (estimate(f"lightgbm.num_leaves={leaves}\nlightgbm.max_depth=-1") for leaves in (8, 4096))
        assert small["memory_mb"] < large["memory_mb"] and small["features"] == 158  # type: ignore[operator]
        seconds = small["seconds"]
        assert isinstance(seconds, dict) and seconds["median"] == 61.5 and seconds["trainings"] >= 1


def test_the_form_is_drawn_from_the_schemas(airflow: Airflow, view: Page, suggested: None) -> None:
    """A widget for each hyper-parameter of each model, advanced ones folded away; it fits a phone; axe is content."""
    view.goto(f"{airflow.url}{PAGE}?model=lightgbm")
    zoo = model_zoo(airflow.settings)
    expect(view.locator(".model")).to_have_count(len(zoo))
    for name, entry in zoo.items():
        card = view.locator(f".model[data-model='{name}']")
        expect(card).to_contain_text(entry.description)
        expect(card).to_contain_text(entry.recommended_for[0])
        shown = card.locator("[data-widget]").evaluate_all("all => all.map(each => each.id)")
        assert set(shown) == {f"{name}.{parameter}" for parameter in entry.hyperparameters}
    field = view.locator("[id='lightgbm.num_leaves']")
    assert [field.get_attribute(name) for name in ("type", "min", "max", "step", "value")] == [
        "number",
        "2",
        "4096",
        "1",
        "210",
    ]
    expect(view.locator("[id='lightgbm.num_boost_round']")).to_be_hidden()
    expect(view.locator("[id='linear.estimator']")).to_be_hidden()
    view.locator("[data-choose='linear']").check()
    expect(view.locator("[id='linear.estimator'] option")).to_have_text(["ols", "ridge", "lasso"])
    expect(view.locator("#suggestion")).to_contain_text(EVIL)
    for width in (1280, 390):
        view.set_viewport_size({"width": width, "height": 900})
        found = view.evaluate(WIDE)
        assert (found["body"], found["outside"]) == (0, [])
    assert serious(view) == []


def test_a_person_starts_a_training(airflow: Airflow, view: Page, suggested: None) -> None:
    """The suggestion is taken over, a wrong value is told at its field while it is typed, and what differs from its
    default is sent."""
    view.goto(f"{airflow.url}{PAGE}?model=linear")
    view.get_by_role("button", name="Take lightgbm").click()
    expect(view.locator("[data-choose='linear']")).not_to_be_checked()
    expect(view.locator("[id='lightgbm.num_leaves']")).to_have_value("33")
    card = view.locator(".model[data-model='lightgbm']")
    expect(card.locator("[data-estimate]")).to_contain_text("of memory", timeout=PATIENCE_MS)
    view.locator("[id='lightgbm.max_depth']").fill("99")
    problem = card.locator("[data-problem='lightgbm.max_depth']")
    expect(problem).to_contain_text("from -1 to 32, got 99", timeout=PATIENCE_MS)
    expect(view.locator("#train button.main")).to_be_disabled()
    view.locator("[id='lightgbm.max_depth']").fill("6")
    expect(problem).to_be_hidden(timeout=PATIENCE_MS)
    expect(view.locator("#train button.main")).to_be_enabled()
    # What is typed just before the form is sent is sent, however quick the person is.
    view.evaluate(
        """() => {
          const field = document.getElementById("lightgbm.num_boost_round");
          const button = document.querySelector("#train button.main");
          field.value = "63";
          field.dispatchEvent(new Event("input", { bubbles: true }));
          button.click();
          button.click();
        }"""
    )
    link = view.locator("#train > output a")
    expect(link).to_contain_text("daily_retraining", timeout=PATIENCE_MS)
    conf = conf_of(airflow, "daily_retraining", (link.text_content() or "").partition(" ")[2])
    assert conf["models"] == ["lightgbm"]
    lines = str(conf["hyperparameters"]).split("\n")
    assert sorted(lines) == [
        "lightgbm.learning_rate=0.05",
        "lightgbm.max_depth=6",
        "lightgbm.num_boost_round=63",
        "lightgbm.num_leaves=33",
    ]


def test_who_may_not_start_sees_no_form(airflow: Airflow) -> None:
    """The page says who may."""
    with airflow.client("viewer") as viewer:
        answer = viewer.get(PAGE)
    assert answer.status_code == 200 and "<form" not in answer.text and "not start them" in answer.text
