"""Airflow's executor for one machine, which lets the scheduler act as soon as a task ends."""

from collections.abc import Sequence
from multiprocessing.connection import Connection, wait
from typing import Any

from airflow.executors.local_executor import LocalExecutor

IDLE_WAIT_S = 1.0
"""Longest wait while no task is at work; then the scheduler looks for new runs."""
BUSY_WAIT_S = 0.5
"""Longest wait while a task is at work. Its success is in the database before its supervisor has noticed that it ended,
sometimes by a second."""


class PromptLocalExecutor(LocalExecutor):
    """`LocalExecutor` without the pause between a task's end and the start of the next.

    Airflow's scheduler sleeps for `scheduler_idle_sleep_time` after a loop in which nothing happened, whatever ends
    meanwhile: half a second for each task of a chain. Here each loop waits for the next result instead, and goes on as
    soon as it is there. The scheduler's own sleep has to be short then (`airflow.cfg`); an idle one loops as often as
    before.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._at_work: set[Any] = set()
        """Keys of what was handed to a worker and has no result yet."""

    def _process_workloads(self, workload_list: Sequence[Any]) -> None:
        self._at_work.update(workload.key for workload in workload_list)
        super()._process_workloads(workload_list)

    def change_state(self, key: Any, *args: Any, **kwargs: Any) -> None:
        """Note that a workload ended, and pass it on."""
        self._at_work.discard(key)
        super().change_state(key, *args, **kwargs)

    def sync(self) -> None:
        """Wait for a result, then read all that are there."""
        # A SimpleQueue has no wait of its own; it is a pipe.
        results: Connection = self.result_queue._reader
        wait([results], BUSY_WAIT_S if self._at_work else IDLE_WAIT_S)
        super().sync()
