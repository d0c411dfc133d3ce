"""The executor for one machine: the scheduler's loop goes on when a task ends, and waits otherwise."""

import threading
import time
from multiprocessing import SimpleQueue
from types import SimpleNamespace

import pytest

from mlops_tasks.operators import prompt_executor
from mlops_tasks.operators.prompt_executor import PromptLocalExecutor

KEY = "a task"


@pytest.fixture
def executor(monkeypatch):
    """One whose workers the test is; it waits 0.3 s while a task is at work, and 1.5 s while none is."""
    monkeypatch.setattr(prompt_executor, "BUSY_WAIT_S", 0.3)
    monkeypatch.setattr(prompt_executor, "IDLE_WAIT_S", 1.5)
    made = PromptLocalExecutor(parallelism=1)
    made.activity_queue, made.result_queue, made.workers = SimpleQueue(), SimpleQueue(), {}
    made._unread_messages = SimpleValue()
    yield made
    made.activity_queue.close()
    made.result_queue.close()


class SimpleValue:
    """A counter that is entered like a lock, as multiprocessing's is."""

    value = 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None


def begin(executor):
    """Hand a task to a worker, which has taken it."""
    executor.queued_tasks[KEY] = object()
    executor._process_workloads([SimpleNamespace(key=KEY)])
    executor.activity_queue.get()
    executor._unread_messages.value = 0


def seconds(action):
    """How long it takes."""
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def test_a_loop_goes_on_as_soon_as_a_task_ends(executor):
    executor.parallelism = 0  # no process is started
    begin(executor)
    threading.Timer(0.1, executor.result_queue.put, [(KEY, "success", None)]).start()
    assert 0.05 < seconds(executor.sync) < 0.25
    assert executor.event_buffer == {KEY: ("success", None)}


def test_a_loop_looks_again_soon_while_a_task_is_at_work(executor):
    executor.parallelism = 0
    begin(executor)
    assert 0.25 < seconds(executor.sync) < 1
    executor.result_queue.put((KEY, "failed", None))
    executor.sync()
    assert seconds(executor.sync) > 1.4, "nothing is at work any more, so it waits long"
