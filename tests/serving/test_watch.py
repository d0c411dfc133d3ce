"""Late scores, old data and a missing champion are told, once a day and not before their time."""

import json
import time
from dataclasses import replace
from datetime import date

import httpx
import pytest

from mlops_tasks.config import AlertSettings, Settings
from mlops_tasks.registry.client import CHAMPION, MODEL_NAME, connect
from mlops_tasks.serving.client import ScoringClient
from mlops_tasks.serving.tasks import deploy_model_task, score_newest_date_task
from mlops_tasks.serving.watch import View, Watch, complaints
from mlops_tasks.state.history import newest_alerts
from tests.operation import publish_vintage
from tests.registry.conftest import OFTEN_S, Operation
from tests.registry.trainings import DAYS, Spec
from tests.serving.conftest import RunningService
from tests.serving.test_deployment import promote

POLL_S = OFTEN_S

LIMITS = AlertSettings(stale_after_s=100, scores_due_s=1000)
WELL = View(champion=1, served=date(2024, 6, 3), vintage=date(2024, 6, 3), scored=True)


@pytest.mark.parametrize(
    ("view", "kinds"),
    [
        (WELL, []),
        (replace(WELL, vintage=None, served=None), []),
        (replace(WELL, champion=None, served=None), ["champion_missing"]),
        (replace(WELL, served=date(2024, 5, 31)), ["service_stale"]),
        (replace(WELL, served=None), ["service_stale"]),
        (replace(WELL, scored=False), ["scores_late"]),
        (replace(WELL, served=date(2024, 5, 31), scored=False), ["service_stale", "scores_late"]),
    ],
)
def test_what_is_wrong(view: View, kinds: list[str]) -> None:
    """Each thing that is wrong is one complaint, and what follows from it is none."""
    assert [each.kind for each in complaints(view, LIMITS)] == kinds


def kinds(settings: Settings) -> list[str]:
    return [alert.kind for alert in newest_alerts(settings, 20)][::-1]


def test_only_what_lasts_is_told_and_only_once(settings: Settings) -> None:
    """What is over before its limit is not told; what lasts is, once a day, however often somebody looks."""
    patient = settings.model_copy(update={"alerts": AlertSettings(stale_after_s=0.3, scores_due_s=100)})
    watch = Watch(patient)
    watch.look(replace(WELL, champion=None))
    time.sleep(0.4)
    watch.look(WELL)
    watch.look(replace(WELL, champion=None))
    assert kinds(patient) == []
    time.sleep(0.4)
    for number in range(3):
        watch.look(replace(WELL, champion=None, scored=False, error=f"MLflow is away, look {number}"))
    Watch(patient).look(replace(WELL, champion=None))
    assert kinds(patient) == ["champion_missing"]


@pytest.fixture
def impatient(service: RunningService) -> RunningService:
    """A service that looks out at every look, and waits for nothing."""
    alerts = AlertSettings(stale_after_s=0, scores_due_s=0)
    service.scoring.watch.settings = service.scoring.settings.model_copy(update={"alerts": alerts})
    service.scoring.watch.is_due = lambda: True  # type: ignore[method-assign]
    return service


def test_the_service_tells_of_itself(operation: Operation, impatient: RunningService, client: ScoringClient) -> None:
    """A service without a champion, scores that are not there, data behind the vintage: each is one alert, not more."""
    settings = operation.settings
    client.refresh()
    assert kinds(settings) == ["champion_missing"]
    version = operation.register(Spec(key="a" * 16))
    deploy_model_task(gate=promote(operation, version), strategy="blue_green")
    client.refresh()
    assert kinds(settings) == ["champion_missing", "scores_late"]
    score_newest_date_task(data_version=operation.vintage.data_version)
    client.refresh()
    pointers = settings.features_dir / "by_vintage"
    pointers.rename(pointers.with_name("hidden"))
    vintage, _ = publish_vintage(settings, DAYS.append(DAYS[-1:] + (DAYS[-1] - DAYS[-2])))
    pointers.rename(pointers.with_name("made"))
    for _ in range(3):
        client.refresh()
    assert kinds(settings)[2:] == ["service_stale", "scores_late"]
    assert vintage.last_date in newest_alerts(settings, 2)[1].message
    dates = seconds(client._http)
    assert dates == {"data": 1593475200.0, "vintage": 1593561600.0}  # 2020-06-30 and 2020-07-01


def test_the_metrics_carry_the_dates_of_the_data(operation: Operation, client: ScoringClient) -> None:
    """Unix time of midnight UTC of the newest date served and of the vintage's last; 0 for the former while none."""
    assert client.refresh()["status"] == "no_model"
    assert seconds(client._http) == {"data": 0.0, "vintage": 1593475200.0}
    version = operation.register(Spec(key="a" * 16))
    deploy_model_task(gate=promote(operation, version), strategy="blue_green")
    client.refresh()
    assert seconds(client._http) == {"data": 1593475200.0, "vintage": 1593475200.0}
    connect(operation.settings).delete_registered_model_alias(MODEL_NAME, CHAMPION)
    assert client.refresh()["model_version"] == version
    assert json.loads(client._http.get("/health").text)["status"] == "ok"


def seconds(http: httpx.Client) -> dict[str, float]:
    """The two gauges."""
    lines = dict(line.rsplit(" ", 1) for line in http.get("/metrics").text.splitlines() if line.startswith("alphaops_"))
    return {name: float(lines[f"alphaops_{name}_date_seconds"]) for name in ("data", "vintage")}
