"""What the workers of a service tell each other, without a service: shared memory, forked processes."""

import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from mlops_tasks.config import ServingSettings
from mlops_tasks.serving.board import CLIENTS, Board
from mlops_tasks.serving.keys import Holder, Rates
from mlops_tasks.serving.workers import InStep, Worker, WorkerState, health_of
from mlops_tasks.states import Scope

NOTHING = WorkerState(0, 1.0, 0, "no model is in service", [], None, None, None, None, None, None, None, None)
SERVING = WorkerState(0, 1.0, 0, "", [], 3, "k", "champion", "blue", None, "2020-06-30", "v", "f")
DESK = Holder("desk", frozenset({Scope.SCORE}), 600)


def in_processes(count: int, work: Callable[[], int]) -> list[int]:
    """Fork, and the exit status of each, which is what the work returns."""
    pids = []
    for _ in range(count):
        pid = os.fork()
        if pid == 0:
            os._exit(work())
        pids.append(pid)
    return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]


def test_permits_are_given_once_whoever_draws_them(tmp_path: Path) -> None:
    """By processes that ask at the same time."""
    rates = Rates(lambda: 5.0, Board(3, tmp_path))
    given = in_processes(3, lambda: sum(rates.wait_s(DESK) == 0 for _ in range(70)))
    assert sum(given) == 100 and rates.wait_s(DESK) == pytest.approx(0.1)


def test_of_too_many_clients_the_one_that_asked_longest_ago_is_forgotten(tmp_path: Path) -> None:
    """Who asks now and then keeps its bucket."""
    moment = 0.0
    rates, steady = Rates(lambda: moment, Board(1, tmp_path)), replace(DESK, name="steady")
    while rates.wait_s(steady) == 0:
        pass
    for number in range(3 * CLIENTS):
        moment += 1e-6
        assert rates.wait_s(replace(DESK, name=f"client {number}")) == 0
        assert number % 16 or rates.wait_s(steady) > 0


def test_a_worker_joins_once_it_answers_as_the_others_do(tmp_path: Path) -> None:
    """One without a model waits for it as long as others have one, and looks again when it was called meanwhile."""
    board = Board(2, tmp_path)
    state, looks, pauses = NOTHING, list[int](), list[int]()

    def look() -> None:
        nonlocal state
        looks.append(1)
        if len(looks) == 3:
            state = replace(SERVING, worker=1)
            board.raise_call()

    board.tell(0, SERVING.to_card())
    InStep(Worker(1, board), board, lambda answered: replace(state, answered=answered), look).join(
        lambda: pauses.append(1)
    )
    assert (len(looks), len(pauses)) == (4, 3)
    assert [each.answered for each in Worker(0, board).with_others(SERVING)] == [0, 1]
    board.forget(1)
    assert Worker(0, board).with_others(SERVING) == [SERVING]


def test_a_first_worker_answers_whatever_there_is(tmp_path: Path) -> None:
    """Nobody is there who would answer better."""
    board = Board(2, tmp_path)
    InStep(Worker(0, board), board, lambda answered: NOTHING, lambda: None).join(partial(pytest.fail, "it waits"))
    assert board.beat(0) > 0 and set(board.cards()) == {0}


def test_health_is_ok_when_all_agree() -> None:
    """Else it names the version of who has not switched for the longest time, and what each serves."""
    late, new = replace(SERVING, since=5.0), replace(SERVING, worker=1, since=9.0, model_version=4, training_key="n")
    agreed = health_of([new, replace(new, worker=0, since=10.0)], 2)
    assert (agreed["status"], agreed["model_version"], agreed["errors"]) == ("ok", 4, [])
    found = health_of([late, new], 2)
    assert (found["status"], found["model_version"]) == ("degraded", 3)
    assert "worker 0 version 3 on v, worker 1 version 4 on v" in found["errors"][0]
    assert [each["model_version"] for each in found["workers"]] == [3, 4]
    alone = health_of([new], 2)
    assert alone["status"] == "degraded" and "1 of 2 workers" in alone["errors"][0]
    assert health_of([replace(new, since=11.0), replace(NOTHING, since=2.0)], 2)["status"] == "no_model"


def test_long_errors_are_cut_on_the_board(tmp_path: Path) -> None:
    """A worker with much to complain of is seen all the same."""
    board = Board(1, tmp_path)
    board.tell(0, replace(SERVING, errors=["x" * 100_000] * 30).to_card())
    (seen,) = Worker(1, board).with_others(replace(SERVING, worker=1))[:1]
    assert seen.model_version == 3 and len(seen.errors) == 10


def test_each_worker_has_its_part_of_the_places() -> None:
    """All together no more than there are, where there is one for each; else each has one."""
    of_one = ServingSettings(workers=4, connections=258, requests_at_once=16, cold_dates_at_once=3).of_one_worker()
    assert (of_one.connections, of_one.requests_at_once, of_one.cold_dates_at_once, of_one.dates_kept) == (64, 4, 1, 64)
