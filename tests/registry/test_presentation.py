"""What MLflow's pages show first: names, ways to Airflow and to the reports, columns; in its own UI, too."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest
from playwright.sync_api import expect

from mlops_tasks.config import Settings
from mlops_tasks.errors import RegistryError
from mlops_tasks.files import write_json, write_text
from mlops_tasks.links import MlflowPages
from mlops_tasks.registry.client import connect, experiment_id
from mlops_tasks.registry.lifecycle import ModelLifecycleManager
from mlops_tasks.registry.mlflow_pages import NoRunError, ab_test_page, runs_page, training_page
from mlops_tasks.registry.presentation import COLUMNS, EXPERIMENT_TAGS, show_columns
from mlops_tasks.registry.runs import log_run
from tests.browsers import chromium
from tests.registry.test_server import PASSWORD, server
from tests.registry.trainings import Spec, make_training

__all__ = ["server"]

PATIENCE_MS = 60_000
HEAD = '[role=columnheader][col-id="{}"]'
"""A heading of MLflow's table of runs."""


def test_runs_are_told_apart_and_lead_back_to_airflow(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Model, newest day and number; Airflow's run as tags and as a link, and links to the training and the data docs,
    which lie in the run too."""
    folder = settings.data_dir / "quarantine" / "0123456789abcdef"
    write_json(folder / "report.json", {"data_version": "data0"})
    write_text(folder / "docs" / "index.html", "<p>docs</p>")
    write_text(folder / "docs" / "notes.txt", "not part of them")
    monkeypatch.setenv("AIRFLOW_CTX_DAG_ID", "daily_retraining")
    monkeypatch.setenv("AIRFLOW_CTX_DAG_RUN_ID", "manual [x](http://evil) 2020-07-01T00:00:00+00:00")
    client = connect(settings)
    made = [make_training(settings, Spec(key=letter * 16)) for letter in "abc"]
    write_json(made[0] / "metrics.json", {"run_id": "lightgbm-20200701T000000-abcdef", "best_iteration": 20})
    runs = [client.get_run(log_run(settings, folder.name)) for folder in made]
    assert [run.info.run_name for run in runs] == [f"lightgbm 2020-06-30 #{number}" for number in (1, 2, 3)]
    tags = runs[0].data.tags
    assert tags["airflow_dag_id"] == "daily_retraining" and tags["airflow_run_id"].startswith("manual [x]")
    note, airflow = tags["mlflow.note.content"], f"http://127.0.0.1:{settings.stack.airflow_port}"
    assert f"({airflow}/dags/daily_retraining/runs/manual%20%5Bx%5D%28http%3A%2F%2Fevil%29" in note
    assert "[x](http" not in note, "a run's id is no Markdown"
    assert f"[training]({airflow}/plugin/training/mlops/ui/training/lightgbm-20200701T000000-abcdef)" in note
    assert f"[data docs]({airflow}/plugin/reports/mlops/ui/reports/data_docs/0123456789abcdef)" in note
    docs = client.list_artifacts(runs[0].info.run_id, "reports/data_docs/0123456789abcdef")
    assert [Path(each.path).name for each in docs] == ["index.html"]


def test_tasks_that_log_at_once_do_not_get_in_each_others_way(settings: Settings) -> None:
    """All of them find a new experiment without its tags, and set them."""
    client, together = connect(settings), Barrier(8)

    def show(experiment: str) -> None:
        together.wait()
        show_columns(client, experiment)

    with ThreadPoolExecutor(8) as pool:
        for number in range(12):
            experiment = client.create_experiment(f"new {number}")
            list(pool.map(show, [experiment] * 8))
            assert client.get_experiment(experiment).tags.items() >= EXPERIMENT_TAGS.items()


def test_mlflow_opens_where_the_models_are_and_shows_what_matters_first(
    server: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In MLflow's own pages in a browser: the links open on runs and models, not on language models; the columns are
    ours, the one that picks the challenger first; a training's link leads to its run."""
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "admin")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", PASSWORD)
    with pytest.raises(NoRunError, match="no such experiment"):
        runs_page(server)
    with pytest.raises(NoRunError, match="no such experiment"):
        ab_test_page(server, "orders")
    make_training(server, Spec(metrics={"valid_rank_ic_mean": 0.0311, "test_rank_ic_mean": 0.0199}))
    run_id = log_run(server, Spec().key)
    ModelLifecycleManager(server).challenge(Spec().key, run_id)
    with pytest.raises(NoRunError, match="no run of training"):
        training_page(server, "f" * 16)
    with pytest.raises(NoRunError):
        training_page(server, "x' or '1'='1")
    assert training_page(server, Spec().key) == MlflowPages.of(server).run(experiment_id(server), run_id)
    with chromium() as browser:
        context = browser.new_context(
            viewport={"width": 1900, "height": 900}, http_credentials={"username": "admin", "password": PASSWORD}
        )
        context.set_default_timeout(PATIENCE_MS)
        page = context.new_page()
        page.goto(runs_page(server))
        expect(page.locator(HEAD.format(COLUMNS[0]))).to_be_visible(timeout=PATIENCE_MS)
        expect(page.get_by_text("lightgbm 2020-06-30 #1").first).to_be_visible(timeout=PATIENCE_MS)
        places = [
            (int(head.get_attribute("aria-colindex") or 0), head.get_attribute("col-id"))
            for head in page.locator("[role=columnheader][col-id]").all()
        ]
        metrics = [name for _, name in sorted(places) if name in COLUMNS]
        assert metrics == [name for name in COLUMNS if name in metrics] and len(metrics) >= 2, places
        page.goto("about:blank")
        page.goto(MlflowPages.of(server).models)
        expect(page.get_by_text("alphaops").first).to_be_visible(timeout=PATIENCE_MS)
        page.goto("about:blank")
        page.goto(training_page(server, Spec().key))
        expect(page.get_by_text("lightgbm 2020-06-30 #1").first).to_be_visible(timeout=PATIENCE_MS)


def test_an_mlflow_that_does_not_answer_is_said(tmp_path: Path) -> None:
    """Its host and port; a password in the address is in no message and no link."""
    settings = Settings(home=tmp_path, mlflow_tracking_uri="http://me:hidden@127.0.0.1:9")
    with pytest.raises(RegistryError, match=r"127\.0\.0\.1:9 does not answer") as error:
        runs_page(settings)
    assert "hidden" not in f"{error.value} {MlflowPages.of(settings).models}"
    assert MlflowPages.of(settings).models.startswith("http://127.0.0.1:9/#/models?")
