"""Trials and seed noise in the operational database."""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from mlops_tasks.config import Settings
from mlops_tasks.errors import StoreError
from mlops_tasks.state import history
from mlops_tasks.state.tables import SeedNoise, TrainingRun, Trial
from mlops_tasks.state.training_runs import end_run, record_training_run
from mlops_tasks.state.trials import daily_rank_ics, record_trial, studies_of, trials_of, trials_over
from tests.postgres import DATABASES, settings_on


@pytest.fixture(params=DATABASES)
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Settings]:
    """Settings of an empty database."""
    with settings_on(request.param, tmp_path) as made:
        yield made


def trial(study: str, number: int, **changes: object) -> Trial:
    values = {"model": "lightgbm", "data_version": "d1", "horizon": 1, "state": "complete", "configuration": {"a": 1}}
    values |= {"result": {"valid_rank_ic_mean": 0.02, "daily": {"2024-01-05": 0.03, "2024-01-08": None}}}
    return Trial(study=study, number=number, **(values | changes))


def test_trials_come_back_by_study_in_order(settings: Settings) -> None:
    """A number is recorded once; a study has its own trials."""
    for study, number, changes in (("b", 1, {}), ("b", 0, {}), ("a", 0, {}), ("c", 0, {"horizon": 5})):
        assert record_trial(settings, trial(study, number, **changes))
    assert not record_trial(settings, trial("b", 1, result={"daily": {"2024-01-05": 0.9}}))
    assert [each.number for each in trials_of(settings, "b")] == [0, 1]
    assert trials_of(settings, "b")[1].result["daily"] == {"2024-01-05": 0.03, "2024-01-08": None}


def test_trials_of_the_same_days_are_found_on_any_vintage(settings: Settings) -> None:
    """More than half of the days in common, of the same horizon; trials without a series go with their study."""

    def of_days(*days: int) -> dict[str, object]:
        return {"result": {"daily": {f"2024-01-{day:02}": 0.1 for day in days}}}

    for row in (
        trial("later", 1, **of_days(3, 4, 5, 6), data_version="d2"),
        trial("later", 0, state="pruned", result={}, data_version="d2"),
        trial("half", 0, **of_days(4, 5, 8, 9)),
        trial("inside", 0, **of_days(4)),
        trial("horizon", 0, **of_days(2, 3, 4, 5), horizon=5),
        trial("nothing", 0, state="failed", result={}),
    ):
        record_trial(settings, row)
    found = trials_over(settings, 1, pd.date_range("2024-01-02", "2024-01-05"))
    assert [(each.study, each.number) for each in found] == [("inside", 0), ("later", 0), ("later", 1)]


def test_the_studies_of_a_training_are_those_of_all_runs_that_ended_in_it(settings: Settings) -> None:
    """In the order of the runs; runs without a study, of another training or without a result give none."""
    ends = (
        ("first", None, "finished", {"training_key": "k"}),
        ("second", "s2", "finished", {"training_key": "k", "reused": True}),
        ("third", "s1", "finished", {"training_key": "k"}),
        ("again", "s2", "finished", {"training_key": "k"}),
        ("other", "s3", "finished", {"training_key": "other"}),
        ("failed", "s4", "failed", {"reason": "diverged"}),
    )
    for run_id, study, kind, payload in ends:
        row = {"run_id": run_id, "model": "m", "data_version": "d1", "owner": "daily", "priority": 0}
        record_training_run(settings, TrainingRun(**row, request={"plan": {"study": study}}))
        end_run(settings, run_id, kind, payload)
    assert studies_of(settings, "k") == ("s2", "s1")
    assert studies_of(settings, "unknown") == ()


def test_daily_rank_ics_are_one_column_a_trial(settings: Settings) -> None:
    """Days are sorted, nulls are NaN, and a trial without a series is left out."""
    later = {"daily": {"2024-01-09": 0.5, "2024-01-05": 0.1}}
    rows = [trial("a", 0), trial("a", 1, result=later), trial("a", 2, state="failed", result={"reason": "diverged"})]
    for row in rows:
        record_trial(settings, row)
    found = daily_rank_ics(trials_of(settings, "a"))
    expected = pd.DataFrame(
        [[0.03, 0.1], [None, None], [None, 0.5]],
        pd.DatetimeIndex(["2024-01-05", "2024-01-08", "2024-01-09"], name="datetime"),
        pd.MultiIndex.from_tuples([("a", 0), ("a", 1)], names=["study", "number"]),
        dtype=float,
    )
    pd.testing.assert_frame_equal(found, expected, check_index_type=False)
    assert daily_rank_ics(rows[2:]).shape == (0, 0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"state": "won"}, "complete, pruned, failed"), ({"result": {"valid_rank_ic_mean": 1.0}}, "result.daily")],
)
def test_a_trial_that_could_not_be_judged_is_refused(
    settings: Settings, changes: dict[str, object], message: str
) -> None:
    """An unknown state, and a complete trial without its daily series, are errors that name the trial."""
    with pytest.raises(StoreError, match=f"trial 3 of study s: .*{message}"):
        record_trial(settings, trial("s", 3, **changes))


def test_the_newest_seed_noise_of_a_configuration_is_found(settings: Settings) -> None:
    """A second measurement follows the first; the same one again leaves no row."""
    added = []
    for value in (0.01, 0.02, 0.02):
        row = SeedNoise(configuration="c", model="mlp", data_version="d1", result={"test_ic_mean": {"0": value}})
        added.append(history.record_seed_noise(settings, row))
    assert added == [True, True, False]
    newest = history.latest_seed_noise(settings, "c")
    assert newest is not None and newest.result == {"test_ic_mean": {"0": 0.02}}
    assert history.latest_seed_noise(settings, "other") is None
