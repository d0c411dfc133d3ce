"""The error policy: every error has a kind, what passes by itself is known, and the document shows the table."""

import ast
import errno
import importlib
import socket
import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures.process import BrokenProcessPool
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from urllib.request import urlopen

import httpx
import pytest
import requests
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE, REQUEST_LIMIT_EXCEEDED, TEMPORARILY_UNAVAILABLE
from sqlalchemy import create_engine, text

from mlops_tasks import error_policy
from mlops_tasks.config import PROJECT, Settings
from mlops_tasks.error_policy import DECISIONS, FAILURES, MOST_RETRIES, RUN_FAILED, kind_of
from mlops_tasks.errors import CapacityError, ConfigError, ErrorKind, SourceError, StageError, StoreError
from mlops_tasks.state.alerts.episodes import Severity
from mlops_tasks.state.alerts.rules import read_rules

TRANSIENT, DATA, CONFIGURATION, BUG, DECIDED = ErrorKind
NOBODY = "127.0.0.1:9"
"""Where nobody listens."""


class _Refuses(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_error(int(self.path.strip("/")))

    def log_message(self, *given: object) -> None:
        pass


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """A real server that answers with the status in the path."""
    made = HTTPServer(("127.0.0.1", 0), _Refuses)
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{made.server_port}"
    made.shutdown()
    made.server_close()


def raised(call: Callable[[], object]) -> Exception:
    """What a call raises."""
    with pytest.raises(Exception) as caught:
        call()
    return caught.value


def test_every_error_of_ours_says_its_kind() -> None:
    """Each class right below the root says it itself; the others inherit it, or say another one."""
    silent, count = [], 0
    for path in (PROJECT / "mlops_tasks").rglob("*.py"):
        for each in ast.walk(ast.parse(path.read_text())):
            if isinstance(each, ast.ClassDef) and "MlopsError" in map(ast.unparse, each.bases):
                said = [ast.unparse(line) for line in each.body if isinstance(line, ast.Assign)]
                count += 1
                silent += [] if any(line.startswith("kind = ErrorKind.") for line in said) else [each.name]
    assert count > 25 and silent == ["StageError"], "StageError has the kind of the error that ended the stage"


def test_every_kind_has_its_decision_and_its_alert(tmp_path: Path) -> None:
    """Only what may pass is tried again; each kind has its own alert, whose severity is shipped."""
    assert set(DECISIONS) == set(ErrorKind)
    assert {kind: each.retries for kind, each in DECISIONS.items() if each.retries} == {TRANSIENT: MOST_RETRIES}
    rules = read_rules(Settings(home=tmp_path))
    assert {kind: rules[each.alert].severity for kind, each in DECISIONS.items()} == {
        TRANSIENT: Severity.WARNING,
        DATA: Severity.CRITICAL,
        CONFIGURATION: Severity.CRITICAL,
        BUG: Severity.CRITICAL,
        DECIDED: Severity.INFO,
    }
    assert len({each.alert for each in DECISIONS.values()} | {RUN_FAILED}) == len(ErrorKind) + 1
    assert DECISIONS[DECIDED].alert not in FAILURES


def test_what_is_ours_has_its_kind_and_what_is_not_is_a_bug() -> None:
    """Also through the errors that it was raised from, and though an error of ours is one of Python's too."""
    assert [kind_of(each("m")) for each in (ConfigError, SourceError, StoreError, CapacityError)] == [
        *(CONFIGURATION, DATA, TRANSIENT, CONFIGURATION)
    ]
    assert [kind_of(StageError("m", kind)) for kind in ErrorKind] == [*ErrorKind]
    unknown = (KeyError("x"), ValueError("x"), FileNotFoundError(errno.ENOENT, "x"))
    assert {kind_of(each) for each in unknown} == {BUG}
    outer = RuntimeError("a stage of ours failed")
    outer.__cause__ = SourceError("no column close")
    assert kind_of(outer) is DATA
    outer.__cause__ = ConnectionResetError("x")
    assert kind_of(outer) is TRANSIENT


def test_what_passes_by_itself_is_transient() -> None:
    """Errors as they really come: nobody listens, no name, no room, no memory, a worker that is gone."""

    def times_out() -> object:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            return requests.get(f"http://127.0.0.1:{silent.getsockname()[1]}", timeout=0.05)

    def resolve() -> object:
        return socket.getaddrinfo("no.such.host.invalid", 80)

    found = [
        *(raised(lambda: requests.get(f"http://{NOBODY}", timeout=5)), raised(times_out), raised(resolve)),
        *(raised(lambda: httpx.get(f"http://{NOBODY}")), raised(lambda: urlopen(f"http://{NOBODY}"))),
        raised(lambda: create_engine(f"postgresql+psycopg2://x:y@{NOBODY}/z").connect()),
        *(OSError(errno.ENOSPC, "No space left on device"), OSError(errno.EDQUOT, "quota"), MemoryError()),
        *(BrokenProcessPool("gone"), ConnectionRefusedError(), TimeoutError(), SystemExit(1)),
    ]
    assert {f"{type(each).__name__}: {each}": kind_of(each) for each in found if kind_of(each) is not TRANSIENT} == {}


def test_a_busy_database_is_transient_and_a_wrong_statement_is_not(tmp_path: Path) -> None:
    """SQLite raises the same class for both, with and without SQLAlchemy."""
    path = tmp_path / "state.db"
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("CREATE TABLE t (a)")
    holder.execute("BEGIN IMMEDIATE")
    engine = create_engine(f"sqlite:///{path}", connect_args={"timeout": 0})

    def write(statement: str) -> None:
        with engine.begin() as connection:
            connection.execute(text(statement))

    busy, wrong = raised(lambda: write("INSERT INTO t VALUES (1)")), raised(lambda: write("SELECT * FROM nothing"))
    holder.close()
    assert type(busy) is type(wrong) and "locked" in str(busy)
    assert (kind_of(busy), kind_of(wrong)) == (TRANSIENT, BUG)
    assert (kind_of(busy.orig), kind_of(wrong.orig)) == (TRANSIENT, BUG)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("status", "kind"), [(500, TRANSIENT), (503, TRANSIENT), (429, TRANSIENT), (404, BUG), (400, BUG)]
)
def test_a_server_that_cannot_now_is_transient(server: str, status: int, kind: ErrorKind) -> None:
    """By every client that is used here; what it refuses for good is not."""
    for call in (
        lambda: urlopen(f"{server}/{status}"),
        lambda: requests.get(f"{server}/{status}", timeout=5).raise_for_status(),
        lambda: httpx.get(f"{server}/{status}").raise_for_status(),
    ):
        assert kind_of(raised(call)) is kind


def test_mlflow_that_does_not_answer_or_is_busy_is_transient() -> None:
    """By the status that its error stands for."""
    codes = (TEMPORARILY_UNAVAILABLE, REQUEST_LIMIT_EXCEEDED, INVALID_PARAMETER_VALUE)
    assert [kind_of(MlflowException("m", code)) for code in codes] == [TRANSIENT, TRANSIENT, BUG]


def test_every_foreign_error_that_is_known_exists() -> None:
    """A library that renames one would make a bug of it."""
    for name in error_policy._PASSING | {error_policy._DATABASE}:
        module, _, error = name.rpartition(".")
        found = getattr(importlib.import_module(module), error)
        assert f"{found.__module__}.{found.__qualname__}" == name


def test_the_document_shows_the_policy(tmp_path: Path) -> None:
    """The table of docs/operations.md is this one, line by line."""
    shown = (PROJECT / "docs" / "operations.md").read_text()
    rules = read_rules(Settings(home=tmp_path))
    for kind, each in DECISIONS.items():
        severity = rules[each.alert].severity
        line = f"| {kind} | {each.retries or 'no'} | `{each.alert}`, {severity} | {each.kept} | {each.remedy} |"
        assert line in shown, f"docs/operations.md lacks this line:\n{line}"
