"""What was answered is judged by labels that exist, as known then, against closed forms and planted skill."""

import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pydantic_core import to_json
from scipy import stats

from mlops_tasks.cli import main
from mlops_tasks.config import Settings
from mlops_tasks.data.vintages import Vintage, write_vintage
from mlops_tasks.features.labels import forward_return
from mlops_tasks.monitoring.performance import (
    LEAST_DAYS,
    daily_performance,
    live_scores,
    mature_performance,
    performance,
)
from mlops_tasks.monitoring.performance_files import newest_performance, performance_path
from mlops_tasks.state.history import record_publication
from mlops_tasks.state.predictions import PredictionFilter, record_predictions, served_scores
from mlops_tasks.state.tables import Prediction, PredictionScores, Publication
from mlops_tasks.states import Arm
from tests.operation import bars
from tests.registry.conftest import Operation, migrated_mlflow, operation, settings, vintage_template
from tests.registry.trainings import DAYS, INSTRUMENTS, Spec

__all__ = ["migrated_mlflow", "operation", "settings", "vintage_template"]

DAY = pd.Timestamp("2020-03-02")


def one_day(values: list[float], day: pd.Timestamp = DAY) -> pd.Series:
    names = [f"S{number:03d}" for number in range(len(values))]
    return pd.Series(values, pd.MultiIndex.from_product([[day], names], names=["datetime", "instrument"]), dtype=float)


@given(arrays(np.float64, (2, 25), elements=st.floats(-1, 1), unique=True))
def test_a_days_measures_equal_their_definitions(values: np.ndarray) -> None:
    """Of scipy and of the words of the docstring."""
    score, label = values
    found = daily_performance(one_day(score.tolist()), one_day(label.tolist())).loc[DAY]
    if np.var(score) < 1e-20 or np.var(label) < 1e-20:
        return
    assert found["names"] == 25
    assert found["rank_ic"] == pytest.approx(stats.spearmanr(score, label).statistic)
    assert found["slope"] == pytest.approx(stats.linregress(score, label).slope, rel=1e-6, abs=1e-9)
    best = np.argsort(-score)[:2]
    assert found["top_return"] == pytest.approx(label[best].mean() - label.mean())
    above = [(score > np.median(score)) == (label > np.median(label))]
    told = (score != np.median(score)) & (label != np.median(label))
    assert found["hit_rate"] == pytest.approx(above[0][told].mean())


def test_scores_that_are_the_labels_are_perfect_and_their_opposite_is_not() -> None:
    """The ends of every scale."""
    label = one_day(list(np.linspace(-0.05, 0.06, 30)))
    right, wrong = (daily_performance(sign * label, label).loc[DAY] for sign in (1, -1))
    assert (right["ic"], right["rank_ic"], right["hit_rate"], right["slope"]) == pytest.approx((1, 1, 1, 1))
    assert (wrong["ic"], wrong["rank_ic"], wrong["hit_rate"], wrong["slope"]) == pytest.approx((-1, -1, 0, -1))
    assert right["top_return"] > 0 > wrong["top_return"]


def test_nothing_is_said_of_days_that_say_nothing() -> None:
    """Scores that are all the same, two names, no label, no day."""
    label = one_day([0.01, -0.02, 0.03, 0.0])
    assert daily_performance(one_day([1.0] * 4), label).loc[DAY, ["ic", "hit_rate", "top_return", "slope"]].isna().all()
    assert daily_performance(one_day([1.0, 2.0]), label[:2]).loc[DAY, ["ic", "hit_rate", "slope"]].isna().all()
    assert daily_performance(one_day([1.0, 2.0, 3.0]), label[:3] * np.nan).empty
    assert daily_performance(label[:0], label).empty


def vintage_of(settings: Settings, days: pd.DatetimeIndex, instruments: list[str] = INSTRUMENTS) -> Vintage:
    """Written, without features."""
    return write_vintage(settings, bars(days, instruments), None, {"source": "planted bars", "quarantined": 0})


def answer(vintage: Vintage, scores: pd.Series, number: int, **other: object) -> tuple[Prediction, PredictionScores]:
    """As the service logs it, of a vintage's newest day if nothing else is said."""
    table = PredictionScores(
        digest=f"t{number}",
        instruments=to_json(list(scores.index)).decode(),
        scores=scores.to_numpy("<f8").tobytes(),
    )
    about = {
        "writer": "w",
        "sequence": number,
        "at": datetime(2026, 1, 2, tzinfo=UTC),
        "request_id": f"r{number}",
        "key_name": "desk",
        "model_version": 1,
        "training_key": "a" * 16,
        "slot": "blue",
        "arm": Arm.CHAMPION.value,
        "date": pd.Timestamp(vintage.last_date).date(),
        "data_version": vintage.data_version,
        "feature_version": "f",
        "scores": table.digest,
        "chosen": None,
        "instruments": len(scores),
        "missing": 0,
        "latency_ms": 1.0,
    }
    return Prediction(**(about | other)), table  # type: ignore[arg-type]


def scores_of(vintage: Vintage, skill: float, label: pd.Series) -> pd.Series:
    """Of the newest day: the label that nobody knows yet, and noise."""
    day = label.xs(pd.Timestamp(vintage.last_date))
    noise = np.random.default_rng(len(day) + pd.Timestamp(vintage.last_date).day_of_year).standard_normal(len(day))
    return skill * day.astype(np.float64) + 0.02 * (1 - skill) * noise


def test_live_scores_are_judged_when_their_label_exists(
    operation: Operation, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two days are pending; a skilled arm is told from one without; what was asked of past days does not count."""
    settings, days = operation.settings, DAYS[:130]
    operation.register(Spec(key="a" * 16))
    last = operation.vintage
    label = forward_return(last, 1)
    number, rows, tables = 0, [], []
    for count in range(len(days) - 6, len(days) + 1):
        vintage = last if count == len(days) else vintage_of(settings, days[:count])
        record_publication(settings, Publication(data_version=vintage.data_version))
        known = label if count < len(days) - 1 else label.fillna(0.0)
        for arm, skill in (("champion", 0.9), ("canary", 0.0)):
            number += 1
            row, table = answer(vintage, scores_of(vintage, skill, known), number, arm=arm)
            rows.append(row)
            tables.append(table)
    past, table = answer(last, label.xs(days[50]), 100, date=days[50].date())
    record_predictions(settings, [*rows, past], [*tables, table])

    found = {each.arm: each for each in performance(settings, last)}
    assert set(found) == {"champion", "canary"}
    for each in found.values():
        assert list(each.daily.index) == list(days[-7:-2])
        assert each.pending_days == tuple(day.date() for day in days[-2:])
        assert (each.horizon, each.rank_ic_lower) == (1, None)
    assert found["champion"].rank_ic_mean > 0.9
    assert abs(found["canary"].rank_ic_mean) < 0.5
    assert found["champion"].hit_rate > 0.8
    said = found["champion"].to_json()
    assert said["mature_days"] == 5
    assert said["pending_days"] == [str(day.date()) for day in days[-2:]]
    assert said["daily"][0]["date"] == str(days[-7].date())
    assert said["daily"][0]["names"] == len(INSTRUMENTS)

    capsys.readouterr()
    assert main(["performance", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["data_version"] == last.data_version
    assert told["performance"] == [found[arm].to_json() for arm in ("canary", "champion")]
    assert main(["performance", "--data-version", last.data_version]) == 0
    pending = f"2 pending ({days[-2].date()} to {days[-1].date()})"
    assert f"version 1, champion: 5 mature days, {pending}" in capsys.readouterr().out

    figures = mature_performance(settings, last)
    kept = newest_performance(settings)
    assert kept is not None and (kept.data_version, str(kept.last_date)) == (last.data_version, last.last_date)
    for row, each in zip(figures, kept.served, strict=True):
        assert (each.arm, each.mature_days, each.rank_ic_mean) == (row["arm"], 5, found[row["arm"]].rank_ic_mean)
        assert [(str(day.date), day.rank_ic) for day in each.days] == [
            (day["date"], day["rank_ic"]) for day in found[row["arm"]].to_json()["daily"]
        ]


def test_performance_that_an_older_release_kept_has_no_days(tmp_path: Path) -> None:
    """Its figures are there; nothing was kept before the first."""
    home = Settings(home=tmp_path)
    assert newest_performance(home) is None
    figures = {"model_version": 1, "arm": "champion", "mature_days": 3, "last_mature_day": "2026-01-30"}
    figures |= dict.fromkeys(("rank_ic_mean", "rank_ic_lower", "rank_ic_upper", "hit_rate"))
    path = performance_path(home, "2026-02-03", "0" * 16)
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"performance": [figures]}))
    kept = newest_performance(home)
    assert kept is not None and [(each.mature_days, list(each.days)) for each in kept.served] == [(3, [])]


def test_the_first_answer_of_a_day_counts_and_a_restated_price_as_it_is_known_now(operation: Operation) -> None:
    """A correction of the newest day, answered again, does not better what was said before it."""
    settings = operation.settings
    first, second = (vintage_of(settings, DAYS[:100], INSTRUMENTS[:count]) for count in (10, 12))
    for each in (first, second):
        record_publication(settings, Publication(data_version=each.data_version))
    early = pd.Series(np.arange(10.0), INSTRUMENTS[:10])
    late = pd.Series(-np.arange(12.0), INSTRUMENTS[:12])
    answers = [answer(second, late, 1), answer(first, early, 2)]
    record_predictions(settings, [row for row, _ in answers], [table for _, table in answers])
    live = live_scores(settings, served_scores(settings, PredictionFilter()))
    assert live["score"].tolist() == list(np.arange(10.0))
    assert set(live["data_version"]) == {first.data_version}


def test_answers_on_a_vintage_that_is_gone_are_left_out_and_told(
    operation: Operation, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody knows whether it was the newest day."""
    row, table = answer(operation.vintage, pd.Series([1.0], ["S000"]), 1, data_version="0" * 16)
    record_predictions(operation.settings, [row], [table])
    with caplog.at_level("WARNING"):
        assert performance(operation.settings, operation.vintage) == []
    assert "0000000000000000" in caplog.text


def test_a_version_that_is_gone_is_left_out_and_told(operation: Operation, caplog: pytest.LogCaptureFixture) -> None:
    """Its label's horizon is not known any more."""
    row, table = answer(operation.vintage, pd.Series([1.0], ["S000"]), 1, model_version=99)
    record_predictions(operation.settings, [row], [table])
    with caplog.at_level("WARNING"):
        assert performance(operation.settings, operation.vintage) == []
    assert "version 99 is not evaluated" in caplog.text


def test_an_interval_is_given_from_twenty_days_on() -> None:
    """That is what the docs promise."""
    assert LEAST_DAYS == 20
