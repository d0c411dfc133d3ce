"""How the log of predictions reaches the state database, and what it says when it does not: without a service."""

import json
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from mlops_tasks.config import Settings
from mlops_tasks.serving.metrics import ServiceMetrics
from mlops_tasks.serving.prediction_log import _LENGTHS, LAYOUT, PredictionLog
from mlops_tasks.serving.write_ahead import WriteAheadLog
from mlops_tasks.state.alerts.journal import newest_events
from mlops_tasks.state.database import session
from mlops_tasks.state.predictions import PredictionFilter, predictions
from tests.state.test_predictions import answer


@pytest.fixture
def log(tmp_path: Path) -> Iterator[PredictionLog]:
    """Of an empty home; its threads are not started."""
    made = PredictionLog(Settings(home=tmp_path), ServiceMetrics())
    yield made
    made._wal.close()


def payload(request_id: str, **changes: Any) -> bytes:
    row = answer(1, request_id=request_id)
    names = ("request_id", "key_name", "model_version", "training_key", "slot", "arm", "data_version")
    values = {name: getattr(row, name) for name in (*names, "feature_version", "scores", "instruments", "missing")}
    about = json.dumps({"at": time.time(), "date": None, "latency_ms": 1.0, **values, **changes}).encode()
    return _LENGTHS.pack(len(about), 0, 0) + about


def leave(settings: Settings, *payloads: bytes) -> Path:
    """The log of a process that has ended."""
    left = WriteAheadLog(settings.predictions_dir, 1 << 30)
    for each in payloads:
        with left.appending(len(each)):
            left.append(each)
    left.close()
    return left.folder


def names(settings: Settings) -> set[str]:
    return {each.prediction.request_id for each in predictions(settings, PredictionFilter(), 100)}


@pytest.mark.parametrize("bad", [b"no record", payload("newer", layout=LAYOUT + 1), payload("odd", date="yesterday")])
def test_a_left_log_that_cannot_be_read_holds_up_no_other(log: PredictionLog, bad: bytes) -> None:
    """It is kept aside, told once and shown until it is removed; columns that are unknown here are left out."""
    settings = log.settings
    leave(settings, payload("first"))
    folder = leave(settings, bad)
    leave(settings, payload("last", layout=LAYOUT, of_a_newer_release=1))
    assert log._ship_all() and log._ship_all()
    assert names(settings) == {"first", "last"}
    aside = folder.with_suffix(".bad")
    assert [each for each in settings.predictions_dir.iterdir() if each.is_dir()] == [aside]
    assert list(aside.glob("*.wal")) and aside.name in "".join(log.errors)
    (told,) = (event for event in newest_events(settings, 10) if event.kind == "predictions_lost")
    assert str(aside) in told.message
    for each in [*aside.iterdir(), aside]:
        each.rmdir() if each.is_dir() else each.unlink()
    assert log._ship_all() and log.errors == ()


def test_a_torn_end_is_counted_and_told(log: PredictionLog) -> None:
    """What was before it is in the database."""
    settings = log.settings
    (file,) = leave(settings, payload("whole"), payload("torn")).glob("*.wal")
    content = file.read_bytes()
    file.write_bytes(content.replace(b'"torn"', b'"TORN"'))
    assert log._ship_all() and log._ship_all()
    assert names(settings) == {"whole"}
    assert b"alphaops_predictions_torn_total 1.0" in log.metrics.render()
    assert "torn end" in next(each.message for each in newest_events(settings, 10) if each.kind == "predictions_lost")


def test_what_the_database_refuses_is_named_by_no_value(log: PredictionLog, caplog: pytest.LogCaptureFixture) -> None:
    """Neither clients nor the log see whose request it was: both have the error's class, the log the driver's words."""
    settings = log.settings
    assert names(settings) == set()
    with session(settings) as active:
        active.execute(sa.text("DROP TABLE prediction"))
    leave(settings, payload("a-clients-own-name", key_name="the-other-desk"))
    with caplog.at_level(logging.DEBUG):
        assert not log._ship_all()
    assert "(OperationalError)" in log.trouble and "table" not in log.trouble
    assert "no such table: prediction" in caplog.text
    assert "a-clients" not in log.trouble + caplog.text and "other-desk" not in log.trouble + caplog.text


def test_the_way_to_the_database_says_that_it_is_stuck(log: PredictionLog) -> None:
    """Whatever stops it, `errors` has it."""
    with log._wal.appending(100):
        log._wal.append(payload("mine"))
    next(log._wal.folder.glob("*.wal")).write_bytes(b"x" * 4096)
    with pytest.raises(Exception, match="no record begins"):
        log._ship_all()
    assert log.errors and "(DamagedFileError)" in log.errors[0]
