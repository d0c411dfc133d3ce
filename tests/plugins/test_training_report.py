"""The report of a training in a real Airflow: all of it on one page, by the API too, and what is missing is said."""

import re

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.plugins.accessibility import serious
from tests.plugins.api_server import Airflow
from tests.plugins.conftest import PATIENCE_MS, sign_in
from tests.plugins.runs import DAG_RUN, Runs
from tests.plugins.test_screens import WIDE
from tests.plugins.trainings import EVIL, METRICS, VERSION, Finished, bare_training, whole_training

UI, API = "/mlops/ui/training", "/mlops/v1/training/runs"


@pytest.fixture(scope="module")
def whole(runs: Runs) -> Finished:
    """A training of which everything is known."""
    return whole_training(runs, "c" * 16)


@pytest.fixture(scope="module")
def bare(runs: Runs) -> Finished:
    """A training of which nothing is known but its own folder."""
    return bare_training(runs, "d" * 16)


def test_the_api_tells_all_that_the_page_shows(airflow: Airflow, whole: Finished) -> None:
    """In answers of bounded size, with null where something is undefined; a viewer may ask."""
    with airflow.client("viewer") as viewer:
        answer = viewer.get(f"{API}/{whole.run_id}/report")
        report = answer.raise_for_status().json()
        signal = viewer.get(f"{API}/{whole.run_id}/report/signal").raise_for_status().json()
    assert len(answer.content) < 200_000
    assert report["training_key"] == whole.key and report["versions"] == [VERSION] and report["metrics"] == METRICS
    assert len(report["steps"]) == 1000 and report["steps"][-1]["iteration"] == 3000
    assert report["steps"][-1]["metrics"].keys() == {"train.loss", "valid.loss", "valid.rank_ic"}
    ics, account = report["signal"], report["account"]
    assert ics["values"]["ic"][3] is None and ics["values"]["ic_sum"][3] == ics["values"]["ic_sum"][2]
    assert len(ics["days"]) == len(account["days"]) == 40
    assert account["values"]["excess"][-1] == pytest.approx(
        account["values"]["portfolio"][-1] - account["values"]["universe"][-1], abs=1e-5
    )
    assert max(account["values"]["drawdown"]) <= 0
    assert report["n_features"] == 61 and len(report["importance"]) == 30
    assert report["importance"][0]["name"] == "F0"
    assert report["decisions"][0]["gain"] == 0.0123 and report["certificate"]["passed"]
    assert report["certificate"]["covers_scores"]
    assert [each["lag"] for each in signal["decay"]] == list(range(11)) and signal["decay"][0]["mean"] > 0.1
    assert abs(signal["decay"][5]["mean"]) < 0.1, "the planted signal is of one day"
    assert [each["quantile"] for each in signal["groups"]] == list(range(1, 7))
    assert signal["groups"][-1]["mean_bps"] > signal["groups"][0]["mean_bps"]


def test_a_run_without_a_training_has_no_report(airflow: Airflow, runs: Runs) -> None:
    """409 with the reason, on the page too; an unknown run is a 404; a picture has a known name."""
    run = runs.open()
    run.add(("failed", {"error": "TrainingError", "reason": "the loss is not finite"}))
    gone = runs.finished()
    with airflow.client("viewer") as viewer:
        for run_id in (run.run_id, gone.run_id):
            for path in (f"{API}/{run_id}/report", f"{API}/{run_id}/report/signal", f"{UI}/{run_id}/report"):
                answer = viewer.get(path)
                assert answer.status_code == 409 and "has left no training" in answer.text, path
        assert viewer.get(f"{API}/none/report").status_code == 404
        assert viewer.get(f"{UI}/none/report").status_code == 404


def test_pictures_are_shown_by_their_known_names(airflow: Airflow, whole: Finished) -> None:
    """A picture of the evaluation, and nothing else of the folder."""
    with airflow.client("viewer") as viewer:
        answer = viewer.get(f"{UI}/{whole.run_id}/plots/equity.png")
        assert answer.headers["Content-Type"] == "image/png" and answer.content.startswith(b"\x89PNG")
        for name in ("none.png", "..%2Fevaluation.json", "evaluation.json", "%00"):
            assert viewer.get(f"{UI}/{whole.run_id}/plots/{name}").status_code == 404, name


@pytest.mark.parametrize("width", [1280, 390])
def test_the_report_shows_everything(airflow: Airflow, browser: Browser, whole: Finished, width: int) -> None:
    """Overview, the gate's evidence, plots of the right data, Shapley values and groups, certificate, lineage; texts
    are escaped, nothing is wider than the screen."""
    context = sign_in(browser, airflow, width)
    page, errors = context.new_page(), []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(f"{airflow.url}{UI}/{whole.run_id}/report")
    expect(page.locator("#overview")).to_contain_text(f"version {VERSION}")
    expect(page.locator(".measures tbody tr")).to_have_count(2)
    expect(page.locator("#gate .badge")).to_have_text("promote")
    expect(page.locator("#gate")).to_contain_text(f"it gains 0.01 a day {EVIL}")
    expect(page.locator("#gate")).to_contain_text("one-sided p 0.004")
    expect(page.locator("#certificate")).to_contain_text(f"Not proven: who was a member {EVIL}")
    expect(page.locator("#lineage rect")).to_have_count(8)
    expect(page.locator("#lineage")).to_contain_text(f"version {VERSION}")
    titles = page.locator("#signal figcaption strong")
    expect(titles).to_have_text(
        ["Daily IC", "Running sum", "Decay of the rank IC", "Return by group"], timeout=PATIENCE_MS
    )
    expect(page.locator("#curves figcaption strong")).to_have_text(["loss", "rank_ic"])
    expect(page.locator("#account figcaption strong")).to_have_text(["After costs", "Drawdown"])
    expect(page.locator("figure.coming")).to_have_count(0)
    drawn = "figures => figures.map(each => each.plot.chart.data.map(line => line.length))"
    page.wait_for_function("[...document.querySelectorAll('figure')].every(each => !each.plot || each.plot.chart)")
    assert page.locator("#curves figure").evaluate_all(drawn) == [[999, 999, 999], [200, 200]]
    assert page.locator("#account figure").evaluate_all(drawn) == [[40, 40, 40, 40], [40, 40]]
    captions = page.locator("#features figcaption strong")
    expect(captions).to_have_text(["Importance", "Shapley values", "Factor groups"])
    expect(page.locator("#features")).to_contain_text(EVIL)
    found = page.evaluate(WIDE)
    assert (found["body"], found["outside"]) == (0, [])
    assert serious(page) == []
    page.get_by_text("Pictures, as in MLflow").click()
    expect(page.locator("img.plot")).to_be_visible()
    context.close()
    assert errors == []


def test_what_is_not_known_is_said(airflow: Airflow, page: Page, bare: Finished) -> None:
    """No evaluation by day, no certificate, no decision, no importance, no explanation: a page all the same."""
    page.goto(f"{airflow.url}{UI}/{bare.run_id}/report")
    expect(page.locator("#gate")).to_contain_text("None yet")
    expect(page.locator("#certificate")).to_contain_text("None: the task certify_learning_data makes it")
    expect(page.locator("#features")).to_contain_text("no importance of its own", timeout=PATIENCE_MS)
    expect(page.locator("#signal figcaption strong")).to_have_text(
        ["Decay of the rank IC", "Return by group"], timeout=PATIENCE_MS
    )
    expect(page.locator("figure.coming")).to_have_count(0)
    page.goto(f"{airflow.url}{UI}/{bare.run_id}")
    page.get_by_role("link", name="Report", exact=True).click()
    expect(page).to_have_url(re.compile("/report$"))


def test_airflows_page_of_a_dag_run_has_its_trainings(airflow: Airflow, page: Page, whole: Finished) -> None:
    """With links to each and to its report; another DAG's run says that it has none."""
    page.goto(f"{airflow.url}/mlops/ui/dag-run/{DAG_RUN.dag_id}/{DAG_RUN.run_id.replace('+', '%2B')}")
    row = page.locator(f"tr[data-run='{whole.run_id}']")
    row.get_by_role("link", name="report").click()
    expect(page.locator("#overview")).to_contain_text(whole.key)
    page.goto(f"{airflow.url}/mlops/ui/dag-run/sync_market_data/{DAG_RUN.run_id.replace('+', '%2B')}")
    expect(page.locator("#runs")).to_contain_text("started no training; daily_retraining and tune_models do")
    with airflow.client("viewer") as viewer:
        assert viewer.get("/mlops/ui/dag-run/%00/x").status_code == 200
