"""The download engine: what is asked for, when, how often, and what is kept."""

import logging
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mlops_tasks.config import DownloadSettings
from mlops_tasks.data.sources import download
from mlops_tasks.data.sources.download import (
    Download,
    Downloaded,
    Pace,
    TransientError,
    UnavailableError,
    check_answer,
    parse_retry_after,
    read_downloaded,
)
from mlops_tasks.errors import SourceError, StoreError

FAST = DownloadSettings(concurrency=3, requests_per_s=10_000, attempts=3, backoff_s=0.001, max_failed_share=0.5)
NAMES = [f"S{i:02d}" for i in range(12)]


class Shop:
    """Answers with one row an instrument, after the given errors; counts what it is asked."""

    def __init__(self, errors: dict[str, list[Exception]] | None = None, delay_s: float = 0.0) -> None:
        self.errors = errors or {}
        self.delay_s = delay_s
        self.asked: list[str] = []
        self.asked_at: list[float] = []
        self.under_way = self.most_under_way = 0
        self.lock = threading.Lock()
        self.pace: Pace

    def __call__(self, instrument: str) -> pd.DataFrame:
        self.pace.wait()
        with self.lock:
            self.asked.append(instrument)
            self.asked_at.append(time.monotonic())
            self.under_way += 1
            self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            time.sleep(self.delay_s)
            if errors := self.errors.get(instrument):
                raise errors.pop(0)
            return pd.DataFrame({"close": [float(len(instrument))]})
        finally:
            with self.lock:
                self.under_way -= 1

    def sell(
        self, folder: Path, limits: DownloadSettings = FAST, names: list[str] = NAMES, fetch: Callable | None = None
    ) -> Downloaded:
        """Run one download."""
        self.pace = Pace(limits.requests_per_s)
        return Download("shop", folder, fetch or self, limits, self.pace).run(names)


def test_every_instrument_has_its_file(tmp_path: Path) -> None:
    """Files are in the order asked for, whatever their names hold, and none lies outside the folder."""
    names = ["^GSPC", "A/B", "..", "BRK.B", "a b", "EURUSD=X"]
    done = Shop().sell(tmp_path / "d", names=names)
    assert list(done.files) == names and not done.failed
    assert {path.parent for path in done.files.values()} == {tmp_path / "d"}
    assert [read_downloaded(path)["close"].item() for path in done.files.values()] == [len(n) for n in names]


def test_an_interrupted_download_goes_on_where_it_stopped(tmp_path: Path) -> None:
    """What is finished is not asked for again."""
    shop = Shop({"S06": [SourceError("the vendor shut the door")]})
    with pytest.raises(SourceError, match="shut the door"):
        shop.sell(tmp_path, FAST.model_copy(update={"concurrency": 1}))
    assert shop.asked == NAMES[:7]
    again = Shop()
    assert list(again.sell(tmp_path).files) == NAMES
    assert sorted(again.asked) == NAMES[6:]


def test_passing_errors_are_tried_again(tmp_path: Path) -> None:
    """Any error but a final one is retried, up to the number of attempts; the report says what it was."""
    shop = Shop(
        {
            "S00": [TransientError("busy"), KeyError("body")],
            "S01": [ConnectionError("torn"), TimeoutError("slow"), ValueError("the third\n time")],
            "S02": [UnavailableError("HTTP 404: no such symbol")],
        }
    )
    done = shop.sell(tmp_path)
    assert Counter(shop.asked) == Counter(NAMES) + Counter({"S00": 2, "S01": 2})
    assert done.failed == {"S01": "ValueError: the third time", "S02": "HTTP 404: no such symbol"}
    assert list(done.files) == ["S00", *NAMES[3:]]


def test_pauses_between_tries_double_and_vary(tmp_path: Path) -> None:
    """With a first pause of 40 ms the tries lie 40 to 80, 80 to 120 and, at the limit, 100 ms apart."""
    shop = Shop({"A": [TimeoutError()] * 3})
    shop.sell(tmp_path, FAST.model_copy(update={"attempts": 4, "backoff_s": 0.04, "max_backoff_s": 0.1}), ["A"])
    pauses = np.diff(shop.asked_at)
    assert (pauses >= [0.04, 0.08, 0.1]).all() and (pauses < np.array([0.08, 0.12, 0.1]) + 0.5).all()


def test_requests_are_bounded(tmp_path: Path) -> None:
    """As many are under way at once as allowed, and never more."""
    shop = Shop(delay_s=0.05)
    shop.sell(tmp_path)
    assert shop.most_under_way == 3


def test_requests_are_paced(tmp_path: Path) -> None:
    """Twelve requests at fifty a second leave within no less than eleven fiftieths of a second."""
    shop = Shop()
    begun = time.monotonic()
    shop.sell(tmp_path, FAST.model_copy(update={"requests_per_s": 50}))
    assert time.monotonic() - begun >= 11 / 50


def test_a_vendors_pause_holds_for_all(tmp_path: Path) -> None:
    """After Retry-After no request of any instrument leaves before its end."""
    shop = Shop({"S00": [TransientError("HTTP 429", retry_after_s=0.6)]}, delay_s=0.01)
    done = shop.sell(tmp_path)
    assert not done.failed
    begun = shop.asked_at[0]
    assert not [at for at in shop.asked_at if begun + 0.3 < at < begun + 0.6]
    assert max(shop.asked_at) > begun + 0.6


def test_a_vendor_that_is_down_is_left_alone(tmp_path: Path) -> None:
    """When more than allowed were given up, the rest is not asked for."""
    names = [f"S{i}" for i in range(100)]
    shop = Shop({name: [TimeoutError()] * 3 for name in names})
    done = shop.sell(tmp_path, FAST.model_copy(update={"max_failed_share": 0.05, "concurrency": 2}), names)
    assert len(done.failed) == 6 and done.not_asked == 94
    assert len(set(shop.asked)) <= 8


def test_unknown_instruments_do_not_end_it(tmp_path: Path) -> None:
    """However many names are unknown, the others are fetched."""
    shop = Shop({name: [UnavailableError("unknown")] for name in NAMES[:10]})
    done = shop.sell(tmp_path, FAST.model_copy(update={"max_failed_share": 0.0}))
    assert list(done.files) == NAMES[10:] and len(done.failed) == 10 and not done.not_asked


def test_ending_it_wakes_those_that_wait(tmp_path: Path) -> None:
    """An error in the main thread ends pauses of minutes at once."""
    shop = Shop({"S00": [TimeoutError()], "S01": [SourceError("over")]}, delay_s=0.02)
    begun = time.monotonic()
    with pytest.raises(SourceError, match="over"):
        shop.sell(tmp_path, FAST.model_copy(update={"backoff_s": 60.0}))
    assert time.monotonic() - begun < 2
    time.sleep(0.1)
    asked = len(shop.asked)
    time.sleep(0.1)
    assert len(shop.asked) == asked


def test_what_cannot_be_written_is_said(tmp_path: Path) -> None:
    """A store that fails ends the download with its path and a remedy; it is no failure of an instrument."""

    def remove(_: str) -> pd.DataFrame:
        shutil.rmtree(tmp_path / "d", ignore_errors=True)
        return pd.DataFrame({"close": [1.0]})

    with pytest.raises(StoreError, match=r"S\d\d.parquet: rule writable_store: .*free space"):
        Shop().sell(tmp_path / "d", fetch=remove)


def test_progress_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every so often a line counts what is done, kept, failed and left."""
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(download, "PROGRESS_EVERY_S", 0.03)
    Shop().sell(tmp_path, names=NAMES[:2])
    Shop({"S05": [UnavailableError("unknown")]}, delay_s=0.05).sell(tmp_path)
    lines = [r.getMessage() for r in caplog.records if "instruments (" in r.getMessage()]
    assert len(lines) >= 4
    assert lines[-1].startswith("shop: 11 of 12 instruments (2 kept from before), 1 failed, 9 rows, ")
    assert "shop: S05: not fetched: unknown" in caplog.text


@pytest.mark.parametrize(("header", "seconds"), [(None, None), ("7", 7), (" 0 ", 0), ("soon", None), ("-3", None)])
def test_retry_after_is_read(header: str | None, seconds: float | None) -> None:
    """Seconds are seconds; what is neither seconds nor a date is nothing."""
    assert parse_retry_after(header) == seconds


def test_retry_after_may_be_a_date() -> None:
    """A date is the time until then; one in the past is no wait."""
    now = datetime.now(UTC)
    assert parse_retry_after(format_datetime(now + timedelta(seconds=90), usegmt=True)) == pytest.approx(90, abs=2)
    assert parse_retry_after(format_datetime(now - timedelta(seconds=90), usegmt=True)) == 0


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, UnavailableError),
        (404, UnavailableError),
        (429, TransientError),
        (500, TransientError),
        (503, TransientError),
    ],
)
def test_bad_answers_are_told_apart(status: int, error: type[Exception]) -> None:
    """What is not there is final, what is busy or broken may pass; good answers are left alone."""
    with pytest.raises(error, match=f"HTTP {status}: reason"):
        check_answer(status, "reason", None)
    check_answer(200, "OK", None)
    check_answer(401, "left to the client", None)
