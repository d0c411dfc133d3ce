"""Late scores: the answers say that they are stale, by the clock alone, and the dead-man's alert is raised."""

import io
from datetime import UTC, date, datetime, timedelta

import pyarrow
import pytest

from mlops_tasks.config import Settings
from mlops_tasks.data.exchanges.calendars import last_closed_session
from mlops_tasks.registry.client import CHAMPION
from mlops_tasks.serving.client import ScoringClient
from mlops_tasks.serving.tasks import deploy_model_task
from mlops_tasks.serving.watch import due_date
from mlops_tasks.state.history import newest_alerts, record_score_batch
from mlops_tasks.state.tables import ScoreBatch, now
from tests.registry.conftest import Operation
from tests.registry.trainings import DAYS, Spec
from tests.serving.conftest import RunningService
from tests.serving.test_deployment import promote

NEWEST = DAYS[-1].date()
"""A Tuesday in 2020."""


@pytest.mark.parametrize(
    ("moment", "due"),
    [
        (datetime(2020, 7, 1, 7, 59, tzinfo=UTC), date(2020, 6, 29)),  # New York closes at 20:00 UTC
        (datetime(2020, 7, 1, 8, 0, tzinfo=UTC), date(2020, 6, 30)),
        (datetime(2020, 7, 6, 12, 0, tzinfo=UTC), date(2020, 7, 2)),  # the holiday on the 3rd, and a weekend
    ],
)
def test_scores_are_due_twelve_hours_after_the_close(settings: Settings, moment: datetime, due: date) -> None:
    """Of sessions of the exchange only."""
    assert due_date(settings, moment) == due


def test_the_alerts_rule_says_when_scores_are_due(settings: Settings) -> None:
    """A file of rules that cannot be read leaves the usual time."""
    moment = datetime(2020, 7, 1, 7, 59, tzinfo=UTC)
    rule = "scores_overdue: {type: absence, signal: scores, after_close_min: 60}"
    (settings.home / "alerts.yaml").write_text(rule)
    assert due_date(settings, moment) == date(2020, 6, 30)
    (settings.home / "alerts.yaml").write_text("scores_overdue: {type: absent}")
    assert due_date(settings, moment) == date(2020, 6, 29)


def test_the_last_champions_scores_are_served_marked_stale(
    operation: Operation, service: RunningService, client: ScoringClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the moment at which newer ones are due, in both forms of an answer; no run and no scheduler is needed."""
    version = operation.register(Spec(key="a" * 16))
    deploy_model_task(gate=promote(operation, version), strategy="blue_green")
    clock = {"now": datetime(2020, 7, 2, 7, 0, tzinfo=UTC)}
    monkeypatch.setattr("mlops_tasks.serving.service.now", lambda: clock["now"])
    fresh = client.refresh()
    answer = client.score()
    assert (answer["date"], answer["due_date"], answer["stale"]) == (str(NEWEST), str(NEWEST), False)
    assert (fresh["due_date"], fresh["stale"]) == (str(NEWEST), False)
    clock["now"] += timedelta(hours=1)
    late, scores = client.refresh(), answer["scores"]
    answer = client.score()
    assert (answer["date"], answer["due_date"], answer["stale"]) == (str(NEWEST), "2020-07-01", True)
    assert (late["status"], late["newest_date"], late["due_date"], late["stale"]) == (
        *("ok", str(NEWEST), "2020-07-01"),
        True,
    )
    assert answer["scores"] == scores and answer["model_version"] == version
    accepts = {"Accept": "application/vnd.apache.arrow.stream"}
    found = client._http.post("/v1/score", json={}, headers=accepts)
    about = pyarrow.ipc.open_stream(io.BytesIO(found.content)).schema.metadata[b"about"]
    assert b'"stale":true' in about.replace(b" ", b"") and b'"2020-07-01"' in about


def test_a_dead_operation_is_told_by_the_service_alone(operation: Operation, service: RunningService) -> None:
    """There were scores of a week ago, and nothing has run since: no task, no schedule and no request."""
    settings = operation.settings
    last = last_closed_session(settings.calendar.schedule, now(), timedelta(days=6))
    record_score_batch(settings, ScoreBatch(date=last, model_version=1, alias=CHAMPION, instruments=20, digest="d"))
    watch = service.scoring.watch
    watch.is_due = lambda: True  # type: ignore[method-assign]
    service.scoring.follow()
    (alert,) = [each for each in newest_alerts(settings, 20) if each.kind == "scores_overdue"]
    assert alert.severity == "critical" and f"the newest are of {last}" in alert.message
    assert str(due_date(settings, now())) in alert.message
