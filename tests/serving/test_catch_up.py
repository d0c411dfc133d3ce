"""Three sessions are missed: the next run does them in their order, with no eye on what came after, and only once."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import date

import pandas as pd
import pytest

from mlops_tasks.columns import DATETIME, INSTRUMENT, SCORE
from mlops_tasks.config import Settings
from mlops_tasks.data.vintages import Vintage, publish, write_vintage
from mlops_tasks.features.store import FeatureStore
from mlops_tasks.monitoring.tasks import check_drift_task
from mlops_tasks.registry.models import load_version
from mlops_tasks.serving import score_files
from mlops_tasks.serving.catch_up import MOST_MISSED, missed_days
from mlops_tasks.serving.client import ScoringClient
from mlops_tasks.serving.score_files import newest_day
from mlops_tasks.serving.tasks import deploy_model_task, score_newest_date_task
from mlops_tasks.state.database import reading
from mlops_tasks.state.tables import DriftReport, ScoreBatch
from tests.operation import bars
from tests.registry.conftest import Operation
from tests.registry.trainings import DAYS, Spec
from tests.serving.test_deployment import promote

ALL = pd.bdate_range(DAYS[0], periods=len(DAYS) + 4)
NEW = [day.date() for day in ALL[len(DAYS) :]]
"""Three days that are missed, and the one of the next run."""
MARKET = bars(ALL)


def published(settings: Settings, last: date) -> Operation:
    """The vintage of a market that is followed up to a day, in use."""
    frame = MARKET[MARKET[DATETIME] <= pd.Timestamp(last)]
    vintage = write_vintage(settings, frame, None, {"source": "planted bars", "quarantined": 0})
    feature_version = FeatureStore(settings).compute(vintage).feature_version
    publish(settings, vintage.data_version)
    return Operation(settings, vintage, feature_version)


def scored(settings: Settings) -> list[tuple[date, int, str]]:
    """Day, version and alias of all scores, in the order in which they were recorded."""
    with reading(settings) as active:
        rows = active.query(ScoreBatch).order_by(ScoreBatch.id)
        return [(row.date, row.model_version, row.alias) for row in rows]


def checked(settings: Settings) -> list[tuple[date, int]]:
    """Day and version of all drift reports, in the order in which they were recorded."""
    with reading(settings) as active:
        return [(row.date, row.model_version) for row in active.query(DriftReport).order_by(DriftReport.id)]


def file_of(settings: Settings, day: date, version: int) -> pd.Series:
    """The scores of a file, by instrument."""
    return pd.read_parquet(settings.scores_dir / str(day) / f"{version}.parquet").set_index(INSTRUMENT)[SCORE]


@pytest.fixture
def before(operation: Operation, client: ScoringClient) -> int:
    """The champion of the last day before the operation is down; it has scored that day."""
    version = operation.register(Spec(key="a" * 16))
    deploy_model_task(gate=promote(operation, version), strategy="blue_green")
    score_newest_date_task(data_version=operation.vintage.data_version)
    check_drift_task(data_version=operation.vintage.data_version)
    return version


def test_missed_sessions_are_caught_up_in_order_and_without_look_ahead(operation: Operation, before: int) -> None:
    """By the champion of the day, though the first run afterwards has trained on the missed days and deployed another
    one; its scores of each are those that a run on that day would have made. Drift is checked for the same days."""
    settings = operation.settings
    after = published(settings, NEW[-1])
    newer = after.register(Spec(key="b" * 16, seed=2))
    deploy_model_task(gate=promote(after, newer), strategy="blue_green")
    result = score_newest_date_task(data_version=after.vintage.data_version)
    assert (result["caught_up"], result["date"]) == ([str(day) for day in NEW[:-1]], str(NEW[-1]))
    expected = [(DAYS[-1].date(), before), *((day, before) for day in NEW[:-1]), (NEW[-1], newer)]
    assert scored(settings) == [(day, version, "champion") for day, version in expected]
    for day in NEW[:-1]:
        on_the_day = newest_day(settings, load_version(settings, before), published(settings, day).vintage).scores()
        found = file_of(settings, day, before)
        pd.testing.assert_series_equal(found, on_the_day, check_names=False, check_exact=True)
    publish(settings, after.vintage.data_version)
    check_drift_task(data_version=after.vintage.data_version)
    assert checked(settings) == expected
    again = score_newest_date_task(data_version=after.vintage.data_version)
    check_drift_task(data_version=after.vintage.data_version)
    assert (again["caught_up"], len(scored(settings)), checked(settings)) == ([], 5, expected)


def test_a_half_finished_catch_up_is_resumed_where_it_was(
    operation: Operation, before: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is killed after the first of three days: the next try leaves that one's file alone and does the rest."""
    settings, after = operation.settings, published(operation.settings, NEW[-1])
    write, written = score_files.write_scores, []

    def killed(settings: Settings, batch: score_files.Batch, scores: pd.Series) -> score_files.ScoreFile:
        if written:
            raise KeyboardInterrupt
        written.append(write(settings, batch, scores))
        return written[0]

    monkeypatch.setattr(score_files, "write_scores", killed)
    with pytest.raises(KeyboardInterrupt):
        score_newest_date_task(data_version=after.vintage.data_version)
    monkeypatch.setattr(score_files, "write_scores", write)
    first = written[0].path.stat().st_mtime_ns
    result = score_newest_date_task(data_version=after.vintage.data_version)
    assert result["caught_up"] == [str(day) for day in NEW[1:-1]]
    assert [day for day, _, _ in scored(settings)] == [DAYS[-1].date(), *NEW]
    assert written[0].path.stat().st_mtime_ns == first


@pytest.mark.parametrize(
    ("done", "missed"),
    [
        ((), []),  # nothing was ever scored: the operation begins now
        ((ALL[-2],), []),
        ((ALL[-5],), [*ALL[-4:-1]]),
        ((ALL[-6], ALL[-3]), [ALL[-5], ALL[-4], ALL[-2]]),  # a gap in between too
        ((ALL[0],), [*ALL[-MOST_MISSED - 1 : -1]]),  # not more than are of use
    ],
)
def test_which_days_were_missed(
    operation: Operation, done: Sequence[pd.Timestamp], missed: Sequence[pd.Timestamp]
) -> None:
    """Those between the first that was ever done and the newest, oldest first."""
    vintage = replace(operation.vintage)
    vintage.__dict__["_calendar"] = ALL
    assert isinstance(vintage, Vintage)
    assert missed_days(vintage, [day.date() for day in done]) == [day.date() for day in missed]
