"""What is no finite number, or no clear request, is refused by the scoring service and never scored."""

import json
import os
import signal
import struct
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from mlops_tasks.serving.media_types import ARROW
from mlops_tasks.serving.plain import PLAIN_BYTES, read_plain
from mlops_tasks.serving.reader import RequestReader
from mlops_tasks.serving.reading import MOST_VALUES, BadRequestError, FeaturesGiven, RequestLimits, read_request
from tests.registry.conftest import migrated_mlflow, vintage_template
from tests.security.served import Served, serve

__all__ = ["migrated_mlflow", "vintage_template"]


@pytest.fixture(scope="module")
def served(
    tmp_path_factory: pytest.TempPathFactory, migrated_mlflow: Path, vintage_template: tuple[Path, str, str]
) -> Iterator[Served]:
    """One service for all tests of this module: none of them changes anything."""
    yield from serve(tmp_path_factory.mktemp("home"), migrated_mlflow, vintage_template)


@pytest.fixture(scope="module")
def names(served: Served) -> list[str]:
    """The champion's features."""
    slot = served.running.scoring.slots.active
    assert slot is not None
    return slot.model.artefact.feature_names


@pytest.fixture
def raw(served: Served) -> Iterator[httpx.Client]:
    """Sends any bytes."""
    with served.client() as client:
        yield client


NO_NUMBERS = [
    *("Infinity", "-Infinity", "NaN", "1e400", "-1e400", "1e39", "-3.5e38", "9" * 50, "9" * 5000),
    *("true", "false", '"1"', '"NaN"', '""', "[1]", "[]", "{}", '{"a": 1}'),
]


@pytest.mark.parametrize("value", NO_NUMBERS, ids=[value[:12] for value in NO_NUMBERS])
def test_a_value_that_is_no_finite_number_is_refused_with_its_row_and_field(
    served: Served, raw: httpx.Client, names: list[str], value: str
) -> None:
    """In rows as in a table, and in a large body, which another process reads; nothing is scored."""
    before = served.metric("alphaops_scored_rows_total")
    good = json.dumps(dict.fromkeys(names, 0.5))
    bad = good.replace(f'"{names[3]}": 0.5', f'"{names[3]}": {value}')
    rows = ",".join(f'{{"instrument": "S{i}", "features": {bad if i == 1 else good}}}' for i in range(3))
    width, filler = len(names), " " * 70_000
    lists = ",".join("[" + ",".join("0.5" if (i, j) != (1, 3) else value for j in range(width)) + "]" for i in range(3))
    table = f'{{"instruments": ["S0", "S1", "S2"], "feature_names": {json.dumps(names)}, "values": [{lists}]}}'
    places = {f"rows.1.features.{names[3]} (S1": f'{{"rows": [{rows}]}}', "table.values.1.3": f'{{"table": {table}}}'}
    for place, body in places.items():
        for sent in (body, body + filler):
            answer = raw.post("/v1/score", content=sent)
            assert answer.status_code == 422
            assert len(value) == 5000 or place in str(answer.json()["detail"]), answer.text
            assert len(answer.content) < 10_000
    assert served.metric("alphaops_scored_rows_total") == before


PLAIN = [
    '{"table": {"instruments": ["A", "B:C"], "feature_names": ["t", "f:"], "values": [[1, null], [-2.5e3, 4]]}}',
    '{"rows": [{"instrument": "A", "features": {"t": 1, "K": null}}, '
    '{"instrument": "B", "features": {"t": 2, "K": 3}}]}',
]
NOT_PLAIN = [
    *[PLAIN[0].replace("-2.5e3", value) for value in NO_NUMBERS if value != "9" * 50 and len(value) < 5000],
    *[PLAIN[1].replace("null", value) for value in NO_NUMBERS if value != "9" * 50 and len(value) < 5000],
    PLAIN[1].replace('"K": 3', '"K": 3, "K": 4'),
    PLAIN[1].replace('"K": 3', '"K": 3, "t": 4'),
    PLAIN[1].replace('"instrument": "B"', '"instrument": "B", "instrument": "B"'),
    PLAIN[1].replace('"instrument": "B"', '"instrument": "B", "more": 1'),
    PLAIN[0].replace('"instruments"', '"values": [[1, 2], [3, 4]], "instruments"'),
    PLAIN[0].replace('["A", "B:C"]', '{"A": 1, "B": 2}'),
    PLAIN[0].replace('["A", "B:C"]', '"AB"'),
    PLAIN[0].replace("[1, null]", "[null, null]"),
    PLAIN[0].replace("[1, null]", "[1]"),
    PLAIN[0].replace("[1, null]", '{"a": 1, "b": 2}'),
    PLAIN[0][:-1] + ', "date": null}',
    PLAIN[0].replace('"A"', '""'),
    PLAIN[0].replace("B:C", "B\\u003aC"),
]


def test_what_is_read_quickly_is_what_a_close_look_reads(names: list[str]) -> None:
    """The quick reader takes the plainest bodies only, and reads the same; all else goes to the close look."""
    limits = RequestLimits(100, 100)
    for body in PLAIN:
        quick, close = read_plain(body.encode(), limits), read_request(body.encode(), limits)
        assert quick is not None and isinstance(close, FeaturesGiven)
        assert (list(quick.instruments), list(quick.names)) == (close.instruments, close.names)
        assert quick.values.tobytes() == close.values.tobytes()
    for body in NOT_PLAIN:
        assert read_plain(body.encode(), limits) is None, body


def test_what_is_large_keeps_the_lock_from_nobody_for_long() -> None:
    """The quick reader leaves long bodies alone, and sees a bomb of brackets before it makes lists of them; the close
    look sees too many values before it parses any."""
    assert read_plain(PLAIN[0].encode() + b" " * PLAIN_BYTES, RequestLimits(100, 100)) is None
    bomb = b'{"rows": [' + b"[]," * 300_000 + b"[]]}"
    tracemalloc.start()
    assert read_plain(bomb, RequestLimits(100, 100)) is None
    assert tracemalloc.get_traced_memory()[1] < 4 * len(bomb)
    tracemalloc.stop()
    many = b'{"instruments": [' + b'"",' * MOST_VALUES + b'""]}'
    with pytest.raises(BadRequestError, match="more than 1000000 values; send fewer") as error:
        read_request(many, RequestLimits(100, 100))
    assert error.value.status == 413


def test_a_missing_value_is_scored_and_a_row_of_nothing_else_is_not(raw: httpx.Client, names: list[str]) -> None:
    """A single null is a missing value; a row without any value is named."""
    row = dict.fromkeys(names, 0.5) | {names[0]: None}
    good = {"instrument": "S1", "features": row}
    empty = {"instrument": "S2", "features": dict.fromkeys(names)}
    assert raw.post("/v1/score", json={"rows": [good]}).status_code == 200
    answer = raw.post("/v1/score", json={"rows": [good, empty]})
    assert (answer.status_code, answer.json()["detail"]) == (
        422,
        ["row 1 (S2): every feature is null; leave the row out"],
    )


def twice(names: list[str]) -> list[str]:
    """Bodies in which one name stands twice in an object, plainly or in disguise."""
    features = json.dumps(dict.fromkeys(names, 0.5))[1:-1]
    row = f'{{"instrument": "S1", "features": {{{features}}}}}'
    return [
        '{"date": "2020-06-30", "date": "1980-01-01"}',
        '{"date": "1980-01-01", "\\u0064ate": "2020-06-30"}',
        f'{{"rows": [{row}], "rows": [{row}]}}',
        row.join(['{"rows": [', "]}"]).replace('"instrument": "S1"', '"instrument": "S1", "instrument": "S2"'),
        f'{{"rows": [{{"instrument": "S1", "features": {{{features}, "{names[0]}": 9}}}}]}}',
        # A colon that is written as an escape makes up for the second name's.
        f'{{"rows": [{{"instrument": "S\\u003a1", "features": {{{features}, "{names[0]}": 9}}}}]}}',
        json.dumps(table(1, [*names, names[0]])),
    ]


def table(rows: int, names: list[str]) -> dict[str, object]:
    """A body, all of whose values are the same."""
    instruments = [f"S{row}" for row in range(rows)]
    return {"table": {"instruments": instruments, "feature_names": names, "values": [[0.5] * len(names)] * rows}}


def test_a_name_that_is_given_twice_is_refused(raw: httpx.Client, names: list[str]) -> None:
    """Readers of JSON differ in which of the two counts, so neither does."""
    for body in twice(names):
        answer = raw.post("/v1/score", content=body)
        assert answer.status_code == 422, body[:200]
        assert "given twice" in str(answer.json()["detail"])
    assert raw.post("/v1/score", content='{"instruments": ["A:B", "\\u0041"]}').status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        "[" * 100_000,
        '{"rows":' * 50_000,
        '{"table":{"values":' + "[" * 400_000 + "]" * 400_000 + "}}",
        '{"instruments": [[["S001"]]]}',
        '{"date": 0}',
        '{"date": "2020-06-30T00:00:00"}',
        '{"instruments": [1]}',
        '{"instruments": [null]}',
        '{"instruments": [""]}',
        '{"instruments": ["' + "x" * 65 + '"]}',
        '{"__proto__": 1}',
        "null",
        "[]",
        "\x00",
        b"\xff\xfe{\x00}\x00",
    ],
    ids=range(15),
)
def test_another_shape_or_depth_is_refused_in_few_words(raw: httpx.Client, body: str | bytes) -> None:
    """A bomb of brackets too; the answer does not grow with the body."""
    answer = raw.post("/v1/score", content=body)
    assert answer.status_code == 422, answer.text
    assert len(answer.content) < 5000


def test_more_than_the_limits_allow_is_a_413(raw: httpx.Client, names: list[str]) -> None:
    """Rows, names, values and bytes; in chunks of no declared length as well."""
    row = {"instrument": "S1", "features": dict.fromkeys(names, 0.5)}
    assert raw.post("/v1/score", json={"rows": [row] * 50}).status_code == 200
    assert raw.post("/v1/score", json={"rows": [row] * 51}).status_code == 413
    assert raw.post("/v1/score", json=table(50, names)).status_code == 200
    assert raw.post("/v1/score", json=table(51, names)).status_code == 413
    assert raw.post("/v1/score", json={"instruments": ["S001"] * 60_000}).status_code == 200
    assert raw.post("/v1/score", json={"instruments": ["S001"] * 60_001}).status_code == 413
    assert raw.post("/v1/score", content=b"[" + b"1," * 600_000).status_code == 413
    assert raw.post("/v1/score", content=iter([b" " * 500_000] * 2 + [b"{}"])).status_code == 413
    assert raw.post("/v1/score", content=iter([b'{"instru', b'ments": ["S001"]}'])).status_code == 200


def test_a_body_that_kills_its_reader_is_refused_and_the_next_one_is_read(served: Served, raw: httpx.Client) -> None:
    """The process that reads large bodies holds no secret, and a new one takes its place."""
    children = Path("/proc/self/task")  # the service runs in a thread of this process
    large = '{"instruments": ["S001"]}' + " " * 100_000
    assert raw.post("/v1/score", content=large).status_code == 200
    readers = [pid for task in children.iterdir() for pid in (task / "children").read_text().split()]
    (reader,) = [pid for pid in readers if b"mlops_tasks.serving.reader" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    assert b"MLOPS" not in Path(f"/proc/{reader}/environ").read_bytes()
    limits = Path(f"/proc/{reader}/limits").read_text().splitlines()
    (memory,) = (line.split()[3] for line in limits if line.startswith("Max address space"))
    assert int(memory) < 4 * 2**30
    (core,) = (line.split()[4:6] for line in limits if line.startswith("Max core file size"))
    assert core == ["0", "0"], "what clients send is not left on the disk by a crash"
    (ignored,) = (line.split()[1] for line in status_of(reader) if line.startswith("SigIgn"))
    assert int(ignored, 16) >> (signal.SIGINT - 1) & 1, "a terminal's Ctrl+C is the service's to answer"
    bomb = '{"rows":[{"instrument":"A","features":{' + ",".join(f'"{i}":""' for i in range(110_000)) + "}}]}"
    answer = raw.post("/v1/score", content=bomb[:999_000])
    assert answer.status_code == 422
    os.kill(int(reader), signal.SIGKILL)
    assert raw.post("/v1/score", content=large).status_code in (200, 413)
    assert raw.post("/v1/score", content=large).status_code == 200


@pytest.mark.parametrize("said", [struct.pack("<Q", 2**63), struct.pack("<Q", 2) + b"no" + struct.pack("<Q", 0)])
def test_a_reader_that_answers_anything_is_ended(said: bytes) -> None:
    """Native code in it may have been taken over: what it says next would be taken for the answer to another body."""
    reading = RequestReader(RequestLimits(50, 50))
    command = [sys.executable, "-c", f"import sys; sys.stdout.buffer.write({said!r}); sys.stdout.flush(); input()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as taken_over:
        reading._process = taken_over
        with pytest.raises(BadRequestError, match="could not be read") as refused:
            reading.read(b"{}", ARROW)
        assert refused.value.status == 413 and taken_over.wait(60) == -signal.SIGKILL
    assert reading._process is None


def status_of(pid: str) -> list[str]:
    return Path(f"/proc/{pid}/status").read_text().splitlines()


NEVER_DONE = """
import time
from mlops_tasks.serving import reader
reader.BODY_S, reader.read_request = 1, lambda body, limits: time.sleep(600)
reader.main(reader.RequestLimits(50, 50))
"""


def test_a_body_that_is_read_for_too_long_ends_its_reader() -> None:
    """The system ends the process, whatever it is at."""
    sent = b"".join(struct.pack("<Q", len(part)) + part for part in (b"application/json", b"{}"))
    done = subprocess.run([sys.executable, "-c", NEVER_DONE], input=sent, check=False, timeout=60)
    assert done.returncode == -signal.SIGALRM
