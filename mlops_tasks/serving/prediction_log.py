"""Every answer is logged before it is given: into this process's write-ahead log, from there to the state database.

What was answered outlives the process. It reaches the disk within `predictions.sync_s` and the state database within
`predictions.ship_s`, or as soon as that is there again; a number a writer makes it appear there once. What ended
processes have left is brought there by whoever finds it.
"""

import json
import logging
import struct
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta

from pydantic_core import to_json

from mlops_tasks.config import Settings
from mlops_tasks.serving.caller import Caller
from mlops_tasks.serving.metrics import ServiceMetrics
from mlops_tasks.serving.scored import Scored
from mlops_tasks.serving.write_ahead import Record, WriteAheadLog, bytes_beside, left_logs
from mlops_tasks.state.alerts.raising import raise_daily_alert
from mlops_tasks.state.predictions import chosen_bits, forget_predictions, record_predictions
from mlops_tasks.state.tables import Prediction, PredictionScores, now
from mlops_tasks.states import Arm

log = logging.getLogger(__name__)

BATCH = 250
"""Answers of one transaction."""
LONGEST_PAUSE_S = 30.0
"""Between two tries while the state database is away."""
FORGET_EVERY_S = 3600.0
LAST_S = 5.0
"""How long the end of the service waits for the state database to take the rest."""
_LENGTHS = struct.Struct("<III")


class PredictionLog:
    """The log of one service; `add` is called on its event loop, the rest happens in two threads."""

    def __init__(self, settings: Settings, metrics: ServiceMetrics) -> None:
        self.settings = settings
        self.metrics = metrics
        self.error = ""
        """Why answers are not logged at present."""
        self.trouble = ""
        """Why the state database does not take what is logged."""
        self._wal = WriteAheadLog(settings.predictions_dir, int(settings.predictions.max_disk_mb * 10**6))
        metrics.prediction_backlog.set_function(lambda: self._wal.backlog)
        self._known: set[str] = set()
        """Digests of the tables that are in the present file."""
        self._file = 0
        self._untold = ""
        self._shrunk: set[str] = set()
        """Ended processes whose files take no more of the disk than they hold."""
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self._forgot = -FORGET_EVERY_S

    def start(self) -> None:
        """Begin to bring answers to the disk and to the state database."""
        limits = self.settings.predictions
        for work, pause_s in ((self._sync, limits.sync_s), (self._ship_all, limits.ship_s)):
            thread = threading.Thread(target=self._repeat, args=(work, pause_s), name="prediction log", daemon=True)
            thread.start()
            self._threads.append(thread)

    def stop(self) -> None:
        """Bring the rest to the state database, if that takes it soon; else the next process does."""
        self._stop.set()
        until = time.monotonic() + LAST_S
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))
        if not any(thread.is_alive() for thread in self._threads):
            self._wal.close()

    def add(self, scored: Scored, caller: Caller) -> None:
        """Log an answer that is about to be given; what cannot be logged is counted, and told."""
        table = scored.table
        chosen = b"" if scored.chosen is None else chosen_bits(scored.chosen, len(table.scores))
        about = to_json(_about(scored, caller))
        names, scores = table.encoded
        size = _LENGTHS.size + len(about) + len(chosen) + len(names) + len(scores)
        try:
            with self._wal.appending(size) as file:
                if file != self._file:
                    self._known.clear()
                    self._file = file
                if table.digest in self._known:
                    names, scores = b"", b""
                lengths = _LENGTHS.pack(len(about), len(chosen), len(names))
                self._wal.append(b"".join((lengths, about, chosen, names, scores)))
                self._known.add(table.digest)
        except OSError as error:
            self._drop(error)
        else:
            self.error = ""
            self.metrics.predictions_logged.inc()

    def _drop(self, error: OSError) -> None:
        self.metrics.predictions_dropped.inc()
        self.error = self._untold = f"answers are not logged: {error}"

    def _repeat(self, work: Callable[[], bool], pause_s: float) -> None:
        """Until the service ends, and once more then; after a failure with growing pauses."""
        pause, last = pause_s, False
        while not last:
            last = self._stop.wait(pause)
            try:
                fine = work()
            except Exception:  # the thread must not end
                log.exception("the log of predictions")
                fine = False
            pause = pause_s if fine else min(2 * pause, max(pause_s, LONGEST_PAUSE_S))

    def _sync(self) -> bool:
        self._wal.others_bytes = bytes_beside(self._wal)
        self.metrics.prediction_disk.set(self._wal.size + self._wal.others_bytes)
        try:
            self._wal.sync()
            self._wal.prepare()
        except OSError as error:
            log.warning("the log of predictions: %s", error)
        return True

    def _ship_all(self) -> bool:
        self._tell()
        fine = self._ship_own() and self._ship_left()
        if fine and time.monotonic() - self._forgot >= FORGET_EVERY_S:
            self._forgot = time.monotonic()
            self._forget()
        return fine

    def _tell(self) -> None:
        """Of answers that are not logged: people are told once a day, and the log with every new reason."""
        message, self._untold = self._untold, ""
        if message:
            told = f"{message}; see that the state database answers and that there is room on the disk"
            raise_daily_alert(self.settings, kind="predictions_lost", cause="the log of predictions", message=told)

    def _ship_own(self) -> bool:
        while batch := self._wal.waiting(BATCH):
            if not self._record(self._wal.writer, batch):
                return False
            self._wal.take(batch[-1])
        return True

    def _ship_left(self) -> bool:
        with left_logs(self.settings.predictions_dir) as found:
            for left in found:
                if left.writer not in self._shrunk:
                    left.shrink()
                    self._shrunk.add(left.writer)
                for batch in left.batches(BATCH):
                    if self._stop.is_set() or not self._record(left.writer, batch):
                        return False
                left.remove()
                log.info("the log of predictions of an ended process, %s, is in the state database", left.writer)
        return True

    def _record(self, writer: str, batch: Sequence[Record]) -> bool:
        rows, tables = [], {}
        for each in batch:
            row, table = _decoded(writer, each)
            rows.append(row)
            if table is not None:
                tables[table.digest] = table
        try:
            record_predictions(self.settings, rows, list(tables.values()))
        except Exception as error:
            self.metrics.prediction_failures.inc()
            message = f"{type(error).__name__}: {error}"
            if message != self.trouble:
                log.warning("the state database does not take what was answered, which is kept: %s", message)
            self.trouble = message
            return False
        self.trouble = ""
        self.metrics.predictions_shipped.inc(len(batch))
        return True

    def _forget(self) -> None:
        before = now() - timedelta(days=self.settings.predictions.kept_days)
        try:
            count = forget_predictions(self.settings, before)
        except Exception as error:
            log.warning("old predictions were not removed: %s: %s", type(error).__name__, error)
        else:
            if count:
                log.info("%d predictions from before %s were removed", count, before.date())


def _about(scored: Scored, caller: Caller) -> dict[str, object]:
    """What is logged of an answer, scores and choice excepted: columns of `Prediction`."""
    slot, plan = scored.slot, scored.plan
    return {
        "at": time.time(),
        "request_id": caller.request_id,
        "key_name": caller.holder.name,
        "model_version": slot.model.version,
        "training_key": slot.model.training_key,
        "slot": slot.name,
        "arm": Arm.CHAMPION,
        "date": None if plan is None else plan.date.isoformat(),
        "data_version": "" if plan is None else plan.market.data_version,
        "feature_version": "" if plan is None else plan.market.feature_version,
        "scores": scored.table.digest,
        "instruments": scored.count,
        "missing": len(scored.missing),
        "latency_ms": round(caller.seconds * 1000, 3),
    }


def _decoded(writer: str, record: Record) -> tuple[Prediction, PredictionScores | None]:
    payload = record.payload
    parts, at = [], _LENGTHS.size
    for length in _LENGTHS.unpack_from(payload):
        parts.append(payload[at : at + length])
        at += length
    about, chosen, names = parts
    values = json.loads(about)
    values["at"] = datetime.fromtimestamp(values["at"], UTC)
    values["date"] = None if values["date"] is None else date.fromisoformat(values["date"])
    row = Prediction(writer=writer, sequence=record.sequence, chosen=chosen or None, **values)
    if not names:
        return row, None
    return row, PredictionScores(digest=row.scores, instruments=names.decode(), scores=payload[at:])
