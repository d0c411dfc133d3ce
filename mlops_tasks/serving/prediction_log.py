"""Every answer is logged before it is sent: to the write-ahead log of this process, and from there to the database.

Logged answers survive the process. They reach the disk within `predictions.sync_s` and the state database within
`predictions.ship_s`, or as soon as it is available again; because each writer numbers them, each appears there once.
The logs of ended processes are transferred by any process that finds them.
"""

import dataclasses
import json
import logging
import struct
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta

from pydantic_core import to_json

from mlops_tasks.config import Settings
from mlops_tasks.errors import DamagedFileError, first_few
from mlops_tasks.serving.caller import Caller
from mlops_tasks.serving.metrics import ServiceMetrics
from mlops_tasks.serving.scored import Scored
from mlops_tasks.serving.write_ahead import BAD, LeftLog, Record, WriteAheadLog, bytes_beside, left_logs
from mlops_tasks.state.alerts.raising import awaits_record, raise_daily_alert
from mlops_tasks.state.database import database_bytes, reason_of
from mlops_tasks.state.predictions import chosen_bits, forget_predictions, record_predictions
from mlops_tasks.state.tables import Prediction, PredictionScores, now

log = logging.getLogger(__name__)

BATCH = 250
"""Answers per transaction."""
LONGEST_PAUSE_S = 30.0
"""Pause between two attempts while the state database is unavailable."""
FORGET_EVERY_S = 3600.0
LAST_S = 5.0
"""How long the service waits at its end for the state database to accept the rest."""
MEMORY_BYTES = 16 << 20
"""Memory for answers that the disk does not take, until the state database has them: some 40,000 of the newest day."""
LAYOUT = 1
"""Version of a record's payload: a newer one is set aside, not guessed at."""
_LENGTHS = struct.Struct("<III")
_COLUMNS = frozenset(each.name for each in dataclasses.fields(Prediction))
_IN_MEMORY = (
    "the disk does not take the log of predictions: answers are in memory alone until the state database has them, and "
    "would not survive this process"
)
_LOST = "predictions_lost"
_OWN, _DISK, _LEFT = "the log of predictions", "the disk of the log of predictions", "the logs of ended processes"
"""Causes of the alert."""


class PredictionLog:
    """The log of one service; `add` is called on its event loop, the rest runs in two threads."""

    def __init__(self, settings: Settings, metrics: ServiceMetrics) -> None:
        self.settings = settings
        self.metrics = metrics
        self.error = ""
        """Why answers are currently not logged."""
        self.trouble = ""
        """That the state database accepts no answers; clients read this, so it names only the class of the error."""
        self.unsynced = ""
        """That the disk has not stored logged answers."""
        self.aside = ""
        """That logs of ended processes cannot be read."""
        most_bytes = int(settings.predictions.max_disk_mb * 10**6)
        self._wal = WriteAheadLog(settings.predictions_dir, most_bytes, MEMORY_BYTES)
        self._known: set[str] = set()
        """Digests of the tables that are in the current file."""
        self._file = 0
        self._untold: dict[str, str] = {}
        """Messages still to be reported, by cause."""
        self._told = ""
        """Why the state database accepts nothing, as last logged."""
        self._unprepared = ""
        """Why there is no space for the next file, as last logged."""
        self._shrunk: set[str] = set()
        """Ended processes whose files have been trimmed to their content."""
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self._forgot = -FORGET_EVERY_S

    @property
    def errors(self) -> tuple[str, ...]:
        """All current faults."""
        volatile = _IN_MEMORY if self._wal.in_memory else ""
        return tuple(each for each in (self.error, self.unsynced, volatile, self.trouble, self.aside) if each)

    def count_backlog(self) -> None:
        """Tell the metrics what the state database does not have yet."""
        self.metrics.prediction_backlog.set(self._wal.backlog)

    def start(self) -> None:
        """Begin to write answers to the disk and to the state database."""
        limits = self.settings.predictions
        for work, pause_s in ((self._sync, limits.sync_s), (self._ship_all, limits.ship_s)):
            thread = threading.Thread(target=self._repeat, args=(work, pause_s), name="prediction log", daemon=True)
            thread.start()
            self._threads.append(thread)

    def stop(self) -> None:
        """Transfer the rest to the state database, if it accepts it soon; otherwise the next process does."""
        self._stop.set()
        until = time.monotonic() + LAST_S
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))
        if self._wal.in_memory:
            log.error("the state database has not taken the answers in memory in time: they are lost")
        if not any(thread.is_alive() for thread in self._threads):
            self._wal.close()

    def add(self, scored: Scored, caller: Caller) -> None:
        """Log an answer that is about to be sent; one that cannot be logged is counted and reported."""
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
            self._wal.skip()
            self._drop(error)
        else:
            self.error = ""
            self.metrics.predictions_logged.inc()

    def _drop(self, error: OSError) -> None:
        self.metrics.predictions_dropped.inc()
        self.error = f"answers are not logged: {error}"
        remedy = "check that the state database answers and that the disk has free space"
        self._untold[_OWN] = f"{self.error}; {remedy}"

    def _repeat(self, work: Callable[[], bool], pause_s: float) -> None:
        """Repeat until the service ends, and once more then; after a failure with growing pauses."""
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
        self.count_backlog()  # any worker may be asked for the metrics of all
        self._wal.others_bytes = bytes_beside(self._wal)
        self.metrics.prediction_disk.set(self._wal.size + self._wal.others_bytes)
        try:
            self._wal.sync()
        except OSError as error:
            if not self.unsynced:
                log.error("the disk does not store the log of predictions: %s", error)
            self.unsynced = f"a power failure would lose logged answers ({type(error).__name__})"
            self._untold[_DISK] = f"{self.unsynced}: {error}; check the disk"
        else:
            self.unsynced = self.unsynced if self._wal.unsynced else ""
        try:
            self._wal.prepare()
        except OSError as error:
            if str(error) != self._unprepared:
                log.warning("there is no space for the next file of the log of predictions: %s", error)
            self._unprepared = str(error)
            if self._wal.in_memory:
                self._untold[_DISK] = f"{_IN_MEMORY}: {error}; make room on the disk"
        else:
            self._unprepared = ""
        return True

    def _ship_all(self) -> bool:
        self._tell()
        try:
            fine = self._ship_own() and self._ship_left()
        except Exception as error:
            self.trouble = _kept(error)
            raise
        if fine:
            self.trouble = self._told = ""
        if fine and time.monotonic() - self._forgot >= FORGET_EVERY_S:
            self._forgot = time.monotonic()
            self._forget()
        return fine

    def _tell(self) -> None:
        """Report answers that are lost or at risk: once per day and cause, and once more when the state database is
        back, which records it then."""
        for cause, message in list(self._untold.items()):
            raise_daily_alert(self.settings, kind=_LOST, cause=cause, message=message)
            if not awaits_record(self.settings, kind=_LOST, cause=cause):
                del self._untold[cause]

    def _ship_own(self) -> bool:
        while batch := self._wal.waiting(BATCH):
            if not self._record(self._wal.writer, batch):
                return False
            self._wal.take(batch)
        return True

    def _ship_left(self) -> bool:
        fine, root = True, self.settings.predictions_dir
        with left_logs(root) as found:
            for left in found:
                try:
                    if not self._ship_one(left):
                        return False
                except OSError as error:  # an error of the disk, which may be over soon
                    reason = f"{left.writer}: {error}"
                    if reason != self._told:
                        log.warning("the log of predictions of an ended process, %s", reason)
                    self._told, self.trouble, fine = reason, _kept(error), False
                except Exception as error:
                    self._set_aside(left, error)
        bad = sorted(folder.name for folder in root.glob(f"*{BAD}"))
        self.aside = f"logs of ended processes cannot be read, and are kept: {first_few(bad)}" if bad else ""
        return fine

    def _ship_one(self, left: LeftLog) -> bool:
        if left.writer not in self._shrunk:
            torn = left.shrink()
            self._shrunk.add(left.writer)
            if torn:
                self.metrics.predictions_torn.inc(torn)
                lost = "an answer that was never sent, or answers lost in a power failure"
                self._untold[_LEFT] = f"{torn} files of {left.writer} had a torn end: {lost}"
        for batch in left.batches(BATCH):
            if self._stop.is_set() or not self._record(left.writer, batch):
                return False
        left.remove()
        log.info("the log of predictions of an ended process, %s, is in the state database", left.writer)
        return True

    def _set_aside(self, left: LeftLog, error: Exception) -> None:
        log.error("the log of predictions of an ended process, %s", left.writer, exc_info=error)
        kept = left.set_aside()
        self._untold[_LEFT] = (
            f"a log of an ended process cannot be read ({reason_of(error)}) and is kept in {kept}; install the release "
            "that wrote it and rename the folder as before, or remove it"
        )

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
            reason = reason_of(error)
            if reason != self._told:
                log.warning("the state database does not accept the answers, which are kept: %s", reason)
            self._told, self.trouble = reason, _kept(error)
            return False
        self.metrics.predictions_shipped.inc(len(batch))
        return True

    def _forget(self) -> None:
        limits = self.settings.predictions
        before = now() - timedelta(days=limits.kept_days)
        try:
            count = forget_predictions(self.settings, before, now() - timedelta(days=limits.kept_rows_days))
            size = database_bytes(self.settings)
        except Exception as error:
            log.warning("old predictions were not removed: %s", reason_of(error))
        else:
            if count:
                log.info("%d old predictions were removed", count)
            self.metrics.state_database.set(size)
            if size > limits.alert_database_gb * 10**9:
                told = (
                    f"the state database uses {size / 10**9:.1f} GB of the disk, more than "
                    "predictions.alert_database_gb; alphaops predictions counts shows whose answers fill it"
                )
                raise_daily_alert(self.settings, kind="state_database_large", cause="the state database", message=told)


def _kept(error: Exception) -> str:
    """What an error on the way to the state database means, for people and clients; the log has the rest."""
    return (
        f"answers are kept, but not transferred to the state database ({type(error).__name__}); the service's log "
        "says more"
    )


def _about(scored: Scored, caller: Caller) -> dict[str, object]:
    """The logged fields of an answer, except scores and choice: columns of `Prediction`."""
    slot, plan = scored.slot, scored.plan
    return {
        "layout": LAYOUT,
        "at": time.time(),
        "request_id": caller.request_id,
        "key_name": caller.holder.name,
        "model_version": slot.model.version,
        "training_key": slot.model.training_key,
        "slot": slot.name,
        "arm": slot.arm,
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
    if values.get("layout", LAYOUT) > LAYOUT:
        raise DamagedFileError(f"record {record.sequence} of {writer} is from a newer release; this one cannot read it")
    values = {name: value for name, value in values.items() if name in _COLUMNS}
    values["at"] = datetime.fromtimestamp(values["at"], UTC)
    values["date"] = None if values["date"] is None else date.fromisoformat(values["date"])
    row = Prediction(writer=writer, sequence=record.sequence, chosen=chosen or None, **values)
    if not names:
        return row, None
    return row, PredictionScores(digest=row.scores, instruments=names.decode(), scores=payload[at:])
