"""One frame per instrument from the network: bounded, paced, retried, resumable.

This knows nothing of bars or vendors: it is given a function that fetches one instrument, and keeps each finished
instrument as a parquet file, so that an interrupted download resumes where it stopped.
"""

import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from pathlib import Path
from urllib.parse import quote

import pandas as pd
import pyarrow.parquet as pq
import tenacity

from mlops_tasks.config import DownloadSettings
from mlops_tasks.errors import ErrorKind, MlopsError, StoreError, excerpt
from mlops_tasks.files import new_file

log = logging.getLogger(__name__)

PROGRESS_EVERY_S = 5.0

_NO_SUCH_THING = (HTTPStatus.BAD_REQUEST, HTTPStatus.NOT_FOUND, HTTPStatus.UNPROCESSABLE_ENTITY)


class TransientError(MlopsError, ConnectionError):
    """The vendor did not answer as it should. A retry may help, after `retry_after_s` if the vendor said so."""

    kind = ErrorKind.TRANSIENT

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class UnavailableError(MlopsError, LookupError):
    """The vendor has nothing for this instrument. A retry does not help."""

    kind = ErrorKind.DATA


class StoppedError(MlopsError, RuntimeError):
    """The download was ended while this request waited."""

    kind = ErrorKind.TRANSIENT


def check_answer(status: int, reason: str, retry_after: str | None) -> None:
    """Raise for an HTTP status that says that there is nothing, or nothing now. Others are left to the caller.

    Raises
    ------
    UnavailableError, TransientError
        400, 404 and 422; 429 and 5xx, with the vendor's Retry-After (seconds or a date).
    """
    if status in _NO_SUCH_THING:
        raise UnavailableError(f"HTTP {status}: {reason}")
    if status == HTTPStatus.TOO_MANY_REQUESTS or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        raise TransientError(f"HTTP {status}: {reason}", parse_retry_after(retry_after))


def parse_retry_after(value: str | None) -> float | None:
    """Seconds to wait. None where the header is missing, or is neither a number of seconds nor a date."""
    if value is None:
        return None
    if value.strip().isdigit():
        return float(value)
    try:
        until = parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, (until - datetime.now(UTC)).total_seconds()) if until.tzinfo else None


class Pace:
    """When the next request may be sent: at most `requests_per_s`, and none in a pause that the vendor asked for."""

    def __init__(self, requests_per_s: float) -> None:
        self._interval_s = 1 / requests_per_s
        self._next = 0.0
        self._lock = threading.Lock()
        self._stopped = threading.Event()

    def wait(self) -> None:
        """Wait until a request may be sent.

        Raises
        ------
        StoppedError
            The download was ended.
        """
        while (pause_s := self._claim()) > 0:
            self.sleep(pause_s)

    def hold(self, seconds: float) -> None:
        """Send no request for any instrument for this long."""
        with self._lock:
            self._next = max(self._next, time.monotonic() + seconds)

    def sleep(self, seconds: float) -> None:
        """Wait. Raises StoppedError as soon as the download is ended."""
        if self._stopped.wait(seconds):
            raise StoppedError("the download was ended")

    def stop(self) -> None:
        """End every wait, now and later."""
        self._stopped.set()

    def _claim(self) -> float:
        """Take the next slot and return 0, or return the seconds until it."""
        if self._stopped.is_set():
            raise StoppedError("the download was ended")
        with self._lock:
            now = time.monotonic()
            if self._next <= now:
                self._next = now + self._interval_s
                return 0.0
            return self._next - now


@dataclass(frozen=True)
class Downloaded:
    """The result of a download: the file of each fetched instrument, and why the others are missing."""

    files: dict[str, Path]
    failed: dict[str, str]
    not_asked: int = 0
    """Instruments that were left out, because too many others had failed for good."""


@dataclass(frozen=True)
class Download:
    """How instruments are fetched into `folder`, one parquet file each.

    `fetch` returns the frame of one instrument, calling `pace.wait` before each request; every error except
    an `UnavailableError` or another `MlopsError` is retried. The latter end the download.
    """

    label: str
    folder: Path
    fetch: Callable[[str], pd.DataFrame]
    limits: DownloadSettings
    pace: Pace

    def run(self, instruments: Sequence[str]) -> Downloaded:
        """Fetch what is not in the folder yet.

        Ends early once more instruments than allowed have failed in spite of retries: then the vendor is down, not the
        instrument missing.

        Raises
        ------
        MlopsError
            Raised by `fetch` for the whole source. A StoreError if a file could not be written.
        """
        files = {name: self.folder / f"{quote(name, safe='')}.parquet" for name in instruments}
        missing = [name for name, path in files.items() if not path.is_file()]
        progress = _Progress(self.label, total=len(files), done=len(files) - len(missing))
        not_asked = self._fetch_all({name: files[name] for name in missing}, progress) if missing else 0
        progress.log()
        fetched = {name: path for name, path in files.items() if path.is_file()}
        return Downloaded(fetched, dict(sorted(progress.failed.items())), not_asked)

    def _fetch_all(self, files: dict[str, Path], progress: "_Progress") -> int:
        """Number of instruments that were not requested."""
        self.folder.mkdir(parents=True, exist_ok=True)
        waiting: queue.SimpleQueue[tuple[str, Path]] = queue.SimpleQueue()
        outcomes: queue.SimpleQueue[tuple[str, int | Exception]] = queue.SimpleQueue()
        for item in files.items():
            waiting.put(item)
        for _ in range(min(self.limits.concurrency, len(files))):
            # Daemons: a request under way must not keep a process alive that was told to end.
            threading.Thread(target=self._work, args=(waiting, outcomes), daemon=True).start()
        allowed = max(self.limits.concurrency, int(self.limits.max_failed_share * progress.total))
        try:
            for left in range(len(files), 0, -1):
                progress.count(*_next_outcome(outcomes, progress))
                if progress.given_up > allowed:
                    return left - 1
            return 0
        finally:
            self.pace.stop()

    def _work(
        self, waiting: "queue.SimpleQueue[tuple[str, Path]]", outcomes: "queue.SimpleQueue[tuple[str, int | Exception]]"
    ) -> None:
        while True:
            try:
                instrument, path = waiting.get_nowait()
            except queue.Empty:
                return
            try:
                frame = self._fetch_patiently(instrument)
                _write_parquet(frame, path)
                outcomes.put((instrument, len(frame)))
            except StoppedError:
                return
            except Exception as error:
                if _ends_all(error):
                    self.pace.stop()
                outcomes.put((instrument, error))

    def _fetch_patiently(self, instrument: str) -> pd.DataFrame:
        def heed(state: tenacity.RetryCallState) -> None:
            error = state.outcome.exception() if state.outcome else None
            log.debug("%s: %s: try %s: %s", self.label, instrument, state.attempt_number, error)
            if isinstance(error, TransientError) and error.retry_after_s is not None:
                self.pace.hold(error.retry_after_s)

        retrying = tenacity.Retrying(
            stop=tenacity.stop_after_attempt(self.limits.attempts),
            wait=tenacity.wait_exponential_jitter(
                multiplier=self.limits.backoff_s, max=self.limits.max_backoff_s, jitter=self.limits.backoff_s
            ),
            retry=tenacity.retry_if_exception(_may_pass),
            before_sleep=heed,
            sleep=self.pace.sleep,
            reraise=True,
        )
        return retrying(self.fetch, instrument)


@dataclass
class _Progress:
    label: str
    total: int
    done: int
    rows: int = 0
    given_up: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    started: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.kept = self.done
        self.next_log = self.started + PROGRESS_EVERY_S

    def count(self, instrument: str, outcome: int | Exception) -> None:
        if isinstance(outcome, int):
            self.done += 1
            self.rows += outcome
            return
        if _ends_all(outcome):
            raise outcome
        self.given_up += _may_pass(outcome)
        kind = "" if isinstance(outcome, MlopsError) else f"{type(outcome).__name__}: "
        self.failed[instrument] = kind + excerpt(" ".join(str(outcome).split()), limit=300)[1:-1]
        log.warning("%s: %s: not fetched: %s", self.label, instrument, self.failed[instrument])

    def log(self) -> None:
        self.next_log = time.monotonic() + PROGRESS_EVERY_S
        elapsed_s = time.monotonic() - self.started
        asked = self.done - self.kept + len(self.failed)
        rate = asked / elapsed_s if elapsed_s > 0 else 0.0
        left = self.total - self.done - len(self.failed)
        log.info(
            "%s: %s of %s instruments (%s kept from before), %s failed, %s rows, %.1f instruments/s, %s left",
            *(self.label, self.done, self.total, self.kept, len(self.failed), self.rows, rate),
            timedelta(seconds=round(left / rate)) if rate else left,
        )


def _next_outcome(
    outcomes: "queue.SimpleQueue[tuple[str, int | Exception]]", progress: _Progress
) -> tuple[str, int | Exception]:
    """Wait for the next finished instrument, and report progress every few seconds."""
    while True:
        try:
            return outcomes.get(timeout=max(0.0, progress.next_log - time.monotonic()))
        except queue.Empty:
            progress.log()


def _ends_all(error: Exception) -> bool:
    """Whether an error is about the source or our store, not about one instrument."""
    return isinstance(error, MlopsError) and not isinstance(error, TransientError | UnavailableError)


def _may_pass(error: BaseException) -> bool:
    """Whether a retry may help: always, unless one of our own errors says otherwise."""
    return isinstance(error, TransientError) or not isinstance(error, MlopsError)


def _write_parquet(frame: pd.DataFrame, path: Path) -> None:
    """Write a file completely or not at all."""
    try:
        with new_file(path) as beside:
            frame.to_parquet(beside, index=False)
    except OSError as error:
        raise StoreError(
            f"{path}: rule writable_store: {error}; free space or permissions there and run the sync again"
        ) from error


def read_downloaded(path: Path) -> pd.DataFrame:
    """The frame that `Download` wrote."""
    return pq.read_table(path).to_pandas()
