"""Arrow streams to and from the scoring service: the same scores, the same limits, nothing guessed."""

import json
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from mlops_tasks.features.store import FeatureStore
from mlops_tasks.serving.arrow_requests import ArrowReader
from mlops_tasks.serving.client import scores_of
from mlops_tasks.serving.media_types import ARROW, JSON, is_arrow, wants_arrow
from mlops_tasks.serving.reading import BadRequestError, RequestLimits
from tests.registry.trainings import DAYS
from tests.security.served import Served, serve

GIVEN = {"Content-Type": ARROW}
WANTED = {"Accept": ARROW}


@pytest.fixture(scope="module")
def served(
    tmp_path_factory: pytest.TempPathFactory, migrated_mlflow: Path, vintage_template: tuple[Path, str, str]
) -> Iterator[Served]:
    """One service for all tests of this module: none of them changes anything."""
    yield from serve(tmp_path_factory.mktemp("home"), migrated_mlflow, vintage_template)


@pytest.fixture
def raw(served: Served) -> Iterator[httpx.Client]:
    """Sends any bytes."""
    with served.client() as client:
        yield client


@pytest.fixture(scope="module")
def features(served: Served) -> pd.DataFrame:
    """Of a day, index instrument, with missing values."""
    found = FeatureStore(served.operation.settings).load(served.operation.feature_version, start="2020-06-30")
    found = found.droplevel("datetime")
    found.iloc[:3, :40] = np.nan
    return found


def stream(table: pa.Table, **options: Any) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(table, max_chunksize=7)
    content: bytes = sink.getvalue().to_pybytes()
    return content


def table_of(features: pd.DataFrame) -> pa.Table:
    return pa.Table.from_pandas(features.rename_axis("instrument").reset_index(), preserve_index=False)


def answer_of(response: httpx.Response) -> dict[str, Any]:
    """A stream as the JSON would have it."""
    assert response.headers["content-type"] == ARROW
    table = pa.ipc.open_stream(response.content).read_all()
    about = json.loads(table.schema.metadata[b"about"])
    return about | {"scores": table.to_pylist()}


@pytest.mark.parametrize("kind", ["float32", "float64", "lz4", "zstd", "large_string"])
def test_a_stream_of_features_scores_as_json_does(raw: httpx.Client, features: pd.DataFrame, kind: str) -> None:
    """Whatever the width of its numbers and its compression; both ways, to the last bit."""
    values = features.astype(object).where(features.notna(), None).to_numpy().tolist()
    body = {"instruments": list(features.index), "feature_names": list(features.columns), "values": values}
    expected = raw.post("/v1/score", json={"table": body}).raise_for_status().json()
    table = table_of(features.astype("float64" if kind == "float64" else "float32"))
    if kind == "large_string":
        table = table.set_column(0, "instrument", table.column("instrument").cast(pa.large_string()))
    sent = stream(table, compression=kind if kind in ("lz4", "zstd") else None)
    assert raw.post("/v1/score", content=sent, headers=GIVEN).raise_for_status().json() == expected
    response = raw.post("/v1/score", content=sent, headers=GIVEN | WANTED).raise_for_status()
    assert answer_of(response) == expected
    assert len(scores_of(expected)) == len(features)


def test_days_are_answered_as_streams(raw: httpx.Client) -> None:
    """Asked by JSON or by a stream of names, with or without a date; what is missing is named."""
    for body in ({}, {"date": str(DAYS[100].date())}, {"instruments": ["S003", "NOPE", "S001"]}, {"instruments": []}):
        expected = raw.post("/v1/score", json=body).raise_for_status().json()
        assert answer_of(raw.post("/v1/score", json=body, headers=WANTED).raise_for_status()) == expected
    past = str(DAYS[100].date())
    names = pa.table({"instrument": ["S003", "NOPE", "S001"]})
    for day, table in ((None, names), (past, names.replace_schema_metadata({"date": past}))):
        expected = raw.post("/v1/score", json={"instruments": ["S003", "NOPE", "S001"], "date": day}).json()
        assert raw.post("/v1/score", content=stream(table), headers=GIVEN).json() == expected
    assert raw.post("/v1/score", content=b"", headers=GIVEN).json()["date"] == "2020-06-30"


def one_row(**columns: Any) -> pa.Table:
    return pa.table({"instrument": ["A"], **columns})


def beyond_its_buffer() -> bytes:
    """A stream whose second name ends where its buffer has long ended, so that what lies behind would be read."""
    good, (told, false) = stream(pa.table({"instrument": ["A", "B" * 50]})), ([0, 1, 51], [0, 1, 65])
    offsets = np.array([told, false], np.int32)
    assert good.count(offsets[0].tobytes()) == 1
    return good.replace(offsets[0].tobytes(), offsets[1].tobytes())


WRONG = {
    "a name beyond its buffer": (beyond_its_buffer(), "not an Arrow stream"),
    "no stream": (b"{}", "not an Arrow stream"),
    "a cut stream": (stream(one_row(KMID=[0.5]))[:-60], "not an Arrow stream"),
    "something behind it": (stream(one_row(KMID=[0.5])) + b"more", "4 bytes follow the end"),
    "no names": (stream(pa.table({"KMID": [0.5]})), "there is no column 'instrument'"),
    "no rows": (stream(one_row(KMID=[0.5])[:0]), "the stream has no row"),
    "numbers as names": (stream(pa.table({"instrument": [1]})), "'instrument' is 'int64'; send it as string"),
    "a missing name": (stream(pa.table({"instrument": pa.array([None], pa.string())})), "row 0: an instrument has 1"),
    "an empty name": (stream(pa.table({"instrument": [""]})), "row 0: an instrument has 1"),
    "a long name": (stream(pa.table({"instrument": ["A" * 65]})), "1 to 64 characters"),
    "whole numbers": (stream(one_row(KMID=[1])), "'KMID' is 'int64'; send it as float or double"),
    "truth values": (stream(one_row(KMID=[True])), "'KMID' is 'bool'"),
    "text": (stream(one_row(KMID=["1"])), "'KMID' is 'string'"),
    "a dictionary": (stream(one_row(KMID=pa.array(["1"]).dictionary_encode())), "'KMID' is 'dictionary"),
    "lists": (stream(one_row(KMID=[[0.5]])), "'KMID' is 'list"),
    "infinity": (stream(one_row(KMID=[float("inf")])), "'KMID': a value is infinite"),
    "beyond 32 bits": (stream(one_row(KMID=[1e39])), "does not fit into a 32-bit float"),
    "nothing but missing values": (stream(one_row(KMID=pa.array([None], pa.float32()))), "every feature is null"),
    "a column twice": (
        stream(pa.Table.from_arrays([pa.array(["A"]), *[pa.array([0.5])] * 2], ["instrument", "K", "K"])),
        "'K' are given twice",
    ),
    "an unknown feature": (stream(one_row(WHAT=[0.5])), "unknown features 'WHAT'"),
    "a missing feature": (stream(one_row(KMID=[0.5])), "missing features KLEN"),
    "unknown metadata": (stream(one_row().replace_schema_metadata({"day": "2020-06-30"})), "'day' are unknown"),
    "no date": (stream(one_row().replace_schema_metadata({"date": "yesterday"})), "is not a date"),
    "a date of features": (stream(one_row(KMID=[0.5]).replace_schema_metadata({"date": "2020-06-30"})), "'date' are"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_refused_by_name(raw: httpx.Client, case: str) -> None:
    """Column, row, rule and remedy, as JSON; nothing of it is scored."""
    body, message = WRONG[case]
    answer = raw.post("/v1/score", content=body, headers=GIVEN | WANTED)
    assert (answer.status_code, answer.headers["content-type"]) == (422, JSON)
    assert message in str(answer.json()["detail"])


def test_the_limits_are_those_of_json(served: Served, raw: httpx.Client) -> None:
    """Rows, names and values; what swells when it is read costs its reader, and the next request has a new one."""
    many = {f"F{i}": np.zeros(51, np.float32) for i in range(3)}
    answer = raw.post("/v1/score", content=stream(pa.table({"instrument": ["A"] * 51, **many})), headers=GIVEN)
    assert answer.status_code == 413 and "51 are more than 50" in str(answer.json()["detail"])
    wide = pa.table({"instrument": ["A"] * 1001, **{f"F{i}": np.zeros(1001, np.float32) for i in range(1000)}})
    with pytest.raises(BadRequestError, match="more than 1000000 values") as error:
        ArrowReader(RequestLimits(5000, 5000)).read(stream(wide))
    assert error.value.status == 413
    names = stream(pa.table({"instrument": ["A"] * 60_001}), compression="zstd")
    assert raw.post("/v1/score", content=names, headers=GIVEN).status_code == 413
    size = 600_000_000
    buffers = [None, pa.py_buffer(np.array([0, size], np.int32)), pa.py_buffer(np.zeros(size, np.uint8))]
    bomb = stream(pa.table({"instrument": pa.Array.from_buffers(pa.string(), 1, buffers)}), compression="zstd")
    assert len(bomb) < 1_000_000
    assert raw.post("/v1/score", content=bomb, headers=GIVEN).status_code == 413
    assert raw.post("/v1/score", content=stream(pa.table({"instrument": ["S001"]})), headers=GIVEN).status_code == 200


def test_many_columns_of_one_name_are_found_at_once() -> None:
    """To compare each with each would take a minute, for which nobody else's stream is read."""
    body = stream(pa.schema([("instrument", pa.string()), *[("F", pa.float32())] * 100_000]).empty_table())
    began = time.process_time()
    with pytest.raises(BadRequestError, match="'F' are given twice"):
        ArrowReader(RequestLimits(50, 50)).read(body)
    assert time.process_time() - began < 15


def test_streams_with_changed_bytes_are_answered_and_never_an_error_of_ours(
    raw: httpx.Client, features: pd.DataFrame
) -> None:
    """Some hundred bodies, each with a few bytes changed, cut or repeated: 200, 413 or 422, and the service goes on."""
    good, chance, seen = stream(table_of(features.iloc[:5])), random.Random(7), set()
    for _ in range(300):
        body = bytearray(good)
        for _ in range(chance.randrange(1, 6)):
            place = chance.randrange(min(len(body), 20_000 if chance.random() < 0.8 else len(body)))
            body[place] = chance.randrange(256)
        if chance.random() < 0.1:
            del body[chance.randrange(len(body)) :]
        seen.add(raw.post("/v1/score", content=bytes(body), headers=GIVEN | WANTED).status_code)
    assert seen <= {200, 413, 422} and 422 in seen
    assert raw.post("/v1/score", content=good, headers=GIVEN).status_code == 200


def test_who_wants_and_gives_which_format() -> None:
    """JSON, unless Arrow is named and not refused."""
    wanted = (ARROW, f"text/html, {ARROW};q=0.5", ARROW.upper(), f"{ARROW} ; q=1", f"{JSON}, {ARROW}")
    assert all(wants_arrow(each) for each in wanted)
    assert not any(wants_arrow(each) for each in ("", "*/*", JSON, f"{ARROW};q=0", f"{ARROW}; q=0.0", "application/*"))
    assert is_arrow(ARROW) and is_arrow(f"{ARROW}; x=y") and not is_arrow(JSON) and not is_arrow("")
