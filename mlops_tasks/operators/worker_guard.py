"""A Celery worker takes no task while its disk is nearly full: it would fail each at once, and then take the next.

Celery imports this module where a worker starts (`stack/environment.py`), and calls `look` with each of the worker's
heartbeats, every two seconds, in the thread that also takes tasks.
"""

import logging
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from celery.signals import heartbeat_sent, worker_ready

from mlops_tasks.config import Settings, load_settings

log = logging.getLogger(__name__)


def full_disk(settings: Settings, folders: Iterable[Path]) -> str:
    """The first of the folders whose disk has less than `celery.least_disk_mb` left, and how much; empty: none."""
    least = settings.celery.least_disk_mb
    for folder in folders:
        free = shutil.disk_usage(folder).free // 2**20
        if free < least:
            return f"{free} MiB are free below {folder}, less than the {least} MiB of celery.least_disk_mb"
    return ""


class DiskGuard:
    """Lets one worker take tasks, or not.

    Parameters
    ----------
    consumer
        Celery's consumer of the worker.
    """

    def __init__(self, settings: Settings, consumer: Any) -> None:
        self.settings = settings
        self.consumer = consumer
        self.queues = tuple(settings.celery.queues)
        self.folders = (settings.home, settings.home / "airflow" / "logs", Path(tempfile.gettempdir()))
        self.holds_back = ""

    def look(self) -> None:
        """Take no more tasks once the disk is full, and take them again once it is not."""
        found = full_disk(self.settings, (folder for folder in self.folders if folder.exists()))
        if bool(found) == bool(self.holds_back):
            return
        for queue in self.queues:
            if found:
                self.consumer.cancel_task_queue(queue)
            else:
                self.consumer.add_task_queue(queue)
        self.holds_back = found
        if found:
            log.error("this worker takes no tasks: %s; free some space, and it goes on", found)
        else:
            log.warning("this worker takes tasks again: its disk has space")


_guards: dict[str, DiskGuard] = {}


@worker_ready.connect
def begin(sender: Any = None, **_: Any) -> None:
    """Guard the worker that has started."""
    _guards["this"] = DiskGuard(load_settings(), sender)
    look()


@heartbeat_sent.connect
def look(**_: Any) -> None:
    """Look at the disk; an error of the guard never ends the worker."""
    if guard := _guards.get("this"):
        try:
            guard.look()
        except Exception:
            log.exception("the disk of this worker cannot be looked at")
