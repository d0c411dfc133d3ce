"""Pages as a person sees them: on a wide and a narrow screen, with what a page has to tell, and where links lead."""

import re
from itertools import pairwise

import pytest
from playwright.sync_api import Browser, expect

from tests.plugins.api_server import Airflow
from tests.plugins.conftest import PATIENCE_MS, sign_in
from tests.plugins.reports import Reports
from tests.plugins.runs import DAG_RUN, FINISHED, Runs

UI = "/mlops/ui"
WIDE = """() => ({
    body: document.documentElement.scrollWidth - document.documentElement.clientWidth,
    outside: [...document.querySelectorAll('main *')].filter(each =>
        !each.closest('.box') && each.getBoundingClientRect().right > innerWidth + 1
    ).map(each => each.outerHTML.slice(0, 90)),
})"""

AXES = """figure => {
    const chart = figure.plot.chart;
    return {
        marked: figure.plot.best,
        titles: chart.axes.map(axis => axis.label ?? null),
        size: parseFloat(chart.axes[0].font[0]) / devicePixelRatio,
        inside: chart.width <= figure.getBoundingClientRect().width,
        labels: chart.axes.map(axis => axis._values.filter(Boolean)),
        boxes: chart.axes.map((axis, number) => axis._splits.map((value, place) => {
            const at = chart.valToPos(value, axis.scale);
            chart.ctx.font = axis.font[0];
            const { width } = chart.ctx.measureText(axis._values[place] ?? "");
            const half = (number === 0 ? width / devicePixelRatio : 12) / 2;
            return [at - half, at + half, width / devicePixelRatio, axis._size];
        })),
    };
}"""


@pytest.mark.parametrize("width", [1280, 390])
def test_no_page_scrolls_sideways(airflow: Airflow, runs: Runs, reports: Reports, browser: Browser, width: int) -> None:
    """Whatever is wide has a box that scrolls; nothing else reaches beyond the screen."""
    run_id = runs.finished("lightgbm").run_id
    runs.open("gru").iterate(1, 10)
    context = sign_in(browser, airflow, width)
    page = context.new_page()
    for path in ("training", f"training/{run_id}", "models", "reports", *reports.paths, "training/none", "none"):
        page.goto(f"{airflow.url}{UI}/{path}")
        page.wait_for_load_state("load")
        if path.endswith(run_id):
            expect(page.locator("figure canvas").first).to_be_visible(timeout=PATIENCE_MS)
        found = page.evaluate(WIDE)
        assert (found["body"], found["outside"]) == (0, []), path
    context.close()


@pytest.mark.parametrize("width", [1280, 390])
def test_a_chart_can_be_read(airflow: Airflow, runs: Runs, browser: Browser, width: int) -> None:
    """Labels of an axis differ, do not touch one another and lie on the picture; the axis has a name, the best
    iteration a mark. On a loss that moves in the fifth digit, too."""
    run = runs.open("lightgbm")
    events = [
        {"iteration": number, "total": 1000, "percent": number / 10, "eta_s": 990.0, "eta_stop_s": 20.0}
        | {"best": {"iteration": min(number, 400), "metric": "valid.loss", "value": 0.99712}}
        | {"metrics": {"valid.loss": 0.99712 + abs(number - 400) * 1e-7, "train.loss": 0.99708 - number * 1e-8}}
        for number in range(1, 601)
    ]
    run.add(*(("iteration", event) for event in events))
    context = sign_in(browser, airflow, width)
    page = context.new_page()
    page.goto(f"{airflow.url}{UI}/training/{run.run_id}")
    chart = page.locator("figure").first
    expect(chart.locator(".key.valid")).to_have_text("valid 0.99714", timeout=PATIENCE_MS)
    shown = chart.evaluate(AXES)
    assert shown["marked"] == 400
    assert shown["titles"] == ["iteration", None] and shown["inside"] and shown["size"] >= 11
    for texts, boxes in zip(shown["labels"], shown["boxes"], strict=True):
        assert len(set(texts)) == len(texts) >= 3, texts
        assert all(one[1] <= other[0] + 1 for one, other in pairwise(sorted(boxes))), boxes
    assert all(width <= size for _, _, width, size in shown["boxes"][1]), "a label is cut off"
    context.close()


def test_a_runs_page_tells_what_was_asked_and_what_came_of_it(airflow: Airflow, runs: Runs, browser: Browser) -> None:
    """Kept iteration with its value, seed, data, parameters; time left knows early stopping; its DAG's run and MLflow
    are reached from within Airflow's frame, which lets no page open a window."""
    run = runs.open("lightgbm")
    run.iterate(1, 24)
    context = sign_in(browser, airflow)
    page = context.new_page()
    page.goto(f"{airflow.url}/plugin/training/mlops/ui/training/{run.run_id}")
    frame = page.frame_locator("iframe")
    summary = frame.locator("#summary")
    expect(summary).to_contain_text("0:00:04 left unless validation improves, 0:00:24 at most", timeout=PATIENCE_MS)
    expect(summary).to_contain_text("best so far: iteration 22, valid loss 0.96099")
    asked = frame.locator("#details")
    for text in ("Seed42", "v1 up to 2026-02-27", "train 2020-01-02 to 2023-12-29", "50 iterations"):
        expect(asked).to_contain_text(re.compile(re.escape(text).replace("Seed42", r"Seed\s*42")))
    expect(frame.locator("#parameters tr", has_text="num_leaves")).to_contain_text("31")
    with context.expect_page() as opened:
        asked.get_by_role("link", name=DAG_RUN.run_id).click()
    assert "/dags/daily_retraining/runs/scheduled__" in opened.value.url

    run.iterate(25, 27)
    run.add(("finished", FINISHED))
    expect(summary).to_contain_text("kept: iteration 22, valid loss 0.96099", timeout=PATIENCE_MS)
    with context.expect_page() as opened:
        summary.get_by_role("link", name="Run in MLflow").click()
    opened.value.wait_for_load_state()
    assert opened.value.url.endswith(f"/mlflow/trainings/{FINISHED['training_key']}")
    expect(opened.value.locator("#problem")).to_contain_text("MLflow at 127.0.0.1")
    context.close()


def test_what_does_not_exist_has_a_page_of_ours(airflow: Airflow) -> None:
    """A run, a report, an address, a wrong parameter: the status, what is wrong and where to go, under our policy."""
    asked = {"training/none": 404, "none": 404, "reports/drift/none": 404, "assets/none": 404, "zoo?rows=0": 422}
    with airflow.client("viewer") as viewer:
        answers = {path: viewer.get(f"{UI}/{path}") for path in asked}
    assert {path: answer.status_code for path, answer in answers.items()} == asked
    for answer in answers.values():
        assert answer.headers["Content-Type"].startswith("text/html")
        assert 'id="problem"' in answer.text and f'href="{UI}/training"' in answer.text
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
