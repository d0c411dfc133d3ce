"""The log of answers in the operational database."""

import datetime
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa

from mlops_tasks.config import Settings
from mlops_tasks.state.database import database_bytes, reading, session
from mlops_tasks.state.predictions import (
    PredictionFilter,
    chosen_bits,
    forget_predictions,
    lost_predictions,
    prediction_counts,
    predictions,
    record_predictions,
    served_scores,
)
from mlops_tasks.state.tables import Prediction, PredictionScores
from tests.postgres import DATABASES, settings_on

DAY = datetime.date(2024, 3, 1)
NOON = datetime.datetime(2024, 3, 1, 12, tzinfo=datetime.UTC)
NAMES = [f"S{number:02d}" for number in range(11)]
ALL = PredictionFilter()


@pytest.fixture(params=DATABASES)
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Settings]:
    """Settings of an empty database."""
    with settings_on(request.param, tmp_path) as made:
        yield made


def table(digest: str, first: float) -> PredictionScores:
    scores = (first + np.arange(len(NAMES)) / 7).astype("<f8")
    return PredictionScores(digest=digest, instruments=json.dumps(NAMES), scores=scores.tobytes())


def answer(sequence: int, **changes: Any) -> Prediction:
    values: dict[str, Any] = {
        "writer": "w1",
        "at": NOON + datetime.timedelta(minutes=sequence),
        "request_id": f"r{sequence}",
        "key_name": "desk",
        "model_version": 3,
        "training_key": "k" * 16,
        "slot": "blue",
        "arm": "champion",
        "date": DAY,
        "data_version": "d1",
        "feature_version": "f1",
        "scores": "t1",
        "chosen": None,
        "instruments": len(NAMES),
        "missing": 0,
        "latency_ms": 1.25,
    }
    return Prediction(sequence=sequence, **(values | changes))


def test_an_answer_that_is_brought_again_is_there_once(settings: Settings) -> None:
    """The same number of the same writer is the same answer, whatever else came with it; its scores too."""
    record_predictions(settings, [answer(1), answer(2)], [table("t1", 0.5)])
    record_predictions(settings, [answer(2), answer(3), answer(3, writer="w2")], [table("t1", 0.5), table("t2", 1.5)])
    found = [(each.prediction.writer, each.prediction.sequence) for each in predictions(settings, ALL, 10)]
    assert sorted(found) == [("w1", 1), ("w1", 2), ("w1", 3), ("w2", 3)]
    with reading(settings) as active:
        assert active.scalar(sa.select(sa.func.count()).select_from(PredictionScores)) == 2
    later = NOON + datetime.timedelta(days=13)
    assert lost_predictions(settings, later) == 0
    record_predictions(settings, [answer(6)], [])
    assert lost_predictions(settings, later) == 2


def test_answers_are_found_by_day_version_and_instrument(settings: Settings) -> None:
    """An instrument has the score that it was answered with, and no answer that left it out."""
    rows = [
        answer(1),
        answer(2, chosen=chosen_bits([0, 9], len(NAMES)), instruments=2),
        answer(3, date=datetime.date(2024, 2, 29), scores="t2"),
        answer(4, model_version=4, scores="t2"),
        answer(5, date=None, scores="t2", chosen=chosen_bits([], len(NAMES)), instruments=0),
    ]
    record_predictions(settings, rows, [table("t1", 0.0), table("t2", 10.0)])

    def found(limit: int = 10, **wanted: Any) -> list[tuple[int, float | None]]:
        return [(e.prediction.sequence, e.score) for e in predictions(settings, PredictionFilter(**wanted), limit)]

    assert found(date=DAY) == [(4, None), (2, None), (1, None)]
    assert found(date=DAY, model_version=3, limit=1) == [(2, None)]
    assert found(instrument="S09") == [(4, 10 + 9 / 7), (3, 10 + 9 / 7), (2, 9 / 7), (1, 9 / 7)]
    assert found(instrument="S08", model_version=3) == [(3, 10 + 8 / 7), (1, 8 / 7)]
    assert found(instrument="nobody") == []
    counts = [(c.date, c.model_version, c.answers, c.scores) for c in prediction_counts(settings, ALL)]
    older = datetime.date(2024, 2, 29)
    assert counts == [(DAY, 4, 1, 11), (DAY, 3, 2, 13), (older, 3, 1, 11), (None, 3, 1, 0)]


@pytest.mark.parametrize("count", [1, 2, 3, 99, 100, 101, 250])
def test_latencies_are_counted_exactly(settings: Settings, count: int) -> None:
    """By kind: what half and 99% of the answers did not exceed, as numpy's inverted distribution function has it."""
    chance = random.Random(count)
    latencies = [round(chance.expovariate(1), 3) for _ in range(count)]
    rows = [answer(number, latency_ms=each) for number, each in enumerate(latencies, 1)]
    others = [answer(1000 + number, arm="canary", latency_ms=99.0) for number in range(3)]
    record_predictions(settings, [*others, *rows], [table("t1", 0.0)])
    found = {each.arm: (each.answers, each.p50_ms, each.p99_ms) for each in prediction_counts(settings, ALL)}
    wanted = np.percentile(latencies, [50, 99], method="inverted_cdf").tolist()
    assert found == {"champion": (count, *wanted), "canary": (3, 99.0, 99.0)}


def test_scores_that_were_served_are_a_frame(settings: Settings) -> None:
    """Each once by day, version and arm, whoever was asked for how often; given features have no day."""
    rows = [
        answer(1, chosen=chosen_bits([0, 10], len(NAMES)), instruments=2),
        answer(2, chosen=chosen_bits([10, 3], len(NAMES)), instruments=2),
        answer(3, chosen=chosen_bits([3], len(NAMES)), instruments=1, arm="canary", model_version=4, scores="t2"),
        answer(4, date=None, scores="t2"),
    ]
    record_predictions(settings, rows, [table("t1", 0.0), table("t2", 10.0)])
    frame = served_scores(settings, ALL)
    kept = list(frame[["model_version", "arm", "instrument", "score"]].itertuples(index=False, name=None))
    assert kept == [
        (3, "champion", "S00", 0.0),
        (3, "champion", "S03", 3 / 7),
        (3, "champion", "S10", 10 / 7),
        (4, "canary", "S03", 10 + 3 / 7),
    ]
    assert set(frame["datetime"].dt.date) == {DAY}
    assert len(served_scores(settings, PredictionFilter(instrument="S03"))) == 2
    assert served_scores(settings, PredictionFilter(date=datetime.date(2020, 1, 1))).empty


def test_old_answers_are_removed_with_the_scores_that_nobody_needs(settings: Settings) -> None:
    """What is younger keeps the scores that it refers to; nothing else can change or remove a row's content."""
    rows = [answer(number, scores="t1" if number % 2 else "t2") for number in range(1, 9)]
    record_predictions(settings, rows, [table("t1", 0.0), table("t2", 10.0)])
    before = NOON + datetime.timedelta(minutes=8)
    assert forget_predictions(settings, before) == 7
    assert [each.prediction.sequence for each in predictions(settings, ALL, 10)] == [8]
    with reading(settings) as active:  # what was recorded after that moment is kept, needed or not
        assert sorted(active.scalars(sa.select(PredictionScores.digest))) == ["t1", "t2"]
    late = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=1)
    assert forget_predictions(settings, NOON) == 0
    assert forget_predictions(settings, late) == 1
    with reading(settings) as active:
        assert list(active.scalars(sa.select(PredictionScores.digest))) == []


def test_answers_about_given_features_are_kept_for_less_long(settings: Settings) -> None:
    """With the scores that are theirs alone; what is removed so is no loss."""
    rows = [answer(1), answer(2, date=None, scores="t2"), answer(3), answer(4, date=None, scores="t2")]
    record_predictions(settings, rows, [table("t1", 0.0), table("t2", 10.0)])
    late = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=1)
    assert forget_predictions(settings, NOON, late) == 2
    assert [each.prediction.sequence for each in predictions(settings, ALL, 10)] == [3, 1]
    with reading(settings) as active:
        assert list(active.scalars(sa.select(PredictionScores.digest))) == ["t1"]
    assert lost_predictions(settings, late) == 0
    assert database_bytes(settings) > 10_000


@pytest.mark.parametrize("table_name", ["prediction", "prediction_scores"])
def test_no_row_is_changed(settings: Settings, table_name: str) -> None:
    """The database itself refuses."""
    record_predictions(settings, [answer(1)], [table("t1", 0.0)])
    column = "arm" if table_name == "prediction" else "instruments"
    with pytest.raises(sa.exc.DBAPIError, match="append-only"), session(settings) as active:
        active.execute(sa.text(f"UPDATE {table_name} SET {column} = 'x'"))
