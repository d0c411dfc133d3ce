"""No message quotes what is in a file, but one short, escaped cell of a table that was recognised as bars."""

import gzip
import itertools
import logging
import random
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from mlops_tasks.config import load_settings
from mlops_tasks.data.sources.cells import is_instrument
from mlops_tasks.data.tasks import read_source_task, validate_bars_task
from mlops_tasks.errors import ConfigError, MlopsError, SourceError, VintageRejectedError, excerpt
from mlops_tasks.features.sets import find_feature_set
from mlops_tasks.state.history import newest_alerts
from tests.data.market import make_bars, save
from tests.security.conftest import Desk

SECRET = "s3cret-t0ken"
ENVIRON = f"MLFLOW_TRACKING_PASSWORD={SECRET}\x00PATH=/bin\x00MLOPS_SCORING_TOKEN={SECRET}"
HEADER = "Date,Symbol,Open,High,Low,Close,Volume"

NO_UNIVERSE = {
    "environment": ENVIRON.encode(),
    "a word": SECRET.encode(),
    "no dates": f"S00\t{SECRET}\t{SECRET}\n".encode(),
    "one date": f"S00\t2020-01-01\t{SECRET}\n".encode(),
    "wrong order": b"S00\t2031-12-24\t2030-11-23\n",
    "a name of another kind": f"{SECRET}/{SECRET}\t2020-01-01\t2020-01-02\n".encode(),
    "a name that does not print": f"\x1b]0;{SECRET}\x07\t2020-01-01\t2020-01-02\n".encode(),
    "a name without end": f"{SECRET * 100_000}\t2020-01-01\t2020-01-02\n".encode(),
    "a key": f"-----BEGIN PRIVATE KEY-----\n{SECRET}\n".encode(),
    "no text": b"\xff\xfe" + SECRET.encode(),
    "huge number": b"S00\t" + b"9" * 5000 + b"\t2020-01-01\n",
}


def test_what_is_no_universe_is_not_quoted(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    """The message has the file, the line and the rule, and nothing of the line."""
    caplog.set_level(logging.DEBUG)
    for name, content in NO_UNIVERSE.items():
        (desk.folder / "any").write_bytes(content)
        with pytest.raises(SourceError, match=r"any.*: rule (membership_spell|readable_file): .*write one") as caught:
            read_source_task(universe=str(desk.folder / "any"))
        said = str(caught.value) + caplog.text
        assert not any(word in said for word in (SECRET, "2031", "2030", "PRIVATE")), name
        assert str(caught.value).isprintable() and len(str(caught.value)) < 600, name


def no_bars(desk: Desk, kind: str) -> Path:
    """A file of a format that is read, and of other content."""
    path = desk.folder / "daily" / f"any.{'parquet' if 'parquet' in kind else 'csv.gz' if 'gz' in kind else 'csv'}"
    path.parent.mkdir()
    if kind == "parquet of others":
        pq.write_table(pa.table({SECRET: [1], "Date": [SECRET]}), path)
    elif kind == "parquet of structures":
        bars = pa.Table.from_pandas(make_bars(days=1))
        nested = pa.array([{SECRET: 1}] * len(bars))
        pq.write_table(bars.set_column(bars.schema.get_field_index("Close"), "Close", nested), path)
    elif kind == "parquet of bytes":
        bars = pa.Table.from_pandas(make_bars(days=1))
        raw = pa.array([b"\xff" + SECRET.encode()] * len(bars))
        pq.write_table(bars.set_column(bars.schema.get_field_index("Symbol"), "Symbol", raw), path)
    elif kind == "gz that is none":
        path.write_bytes(SECRET.encode())
    elif kind == "gz torn":
        path.write_bytes(gzip.compress(random.Random(1).randbytes(5000) + SECRET.encode())[:2000])
    else:
        path.write_bytes(CSV[kind])
    return path


CSV = {
    "a secret as header": f"{SECRET},Date\n1,2\n".encode(),
    "environment": ENVIRON.encode(),
    "parquet of text": f"PAR1{SECRET}".encode(),
    "open quote": f'{HEADER}\n2020-01-02,"{SECRET},1,1'.encode(),
    "no text": f"{HEADER}\n{SECRET}".encode() + b"\xff",
    "one column missing": f"Date,Symbol,Open,High,Low,Volume,{SECRET}\n2020-01-02,A,1,1,1,1,1\n".encode(),
}


@pytest.mark.parametrize(
    "kind", [*CSV, "parquet of others", "parquet of structures", "parquet of bytes", "gz that is none", "gz torn"]
)
def test_what_is_no_table_of_bars_is_not_quoted(kind: str, desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    """Neither its header nor a row, nor the names of the files beside it."""
    caplog.set_level(logging.DEBUG)
    path = no_bars(desk, kind)
    path.with_name(f"{SECRET}.txt").write_text("beside it")
    with pytest.raises(
        SourceError, match=r"any\.(csv|parquet|csv\.gz): rule (required_columns|readable_file|table)"
    ) as caught:
        read_source_task(source=str(path.parent))
    assert SECRET not in str(caught.value) + caplog.text
    assert str(caught.value).isprintable() and len(str(caught.value)) < 900


def test_columns_beside_the_bars_are_not_named(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    """The log says how many there are."""
    caplog.set_level(logging.INFO)
    read_source_task(source=str(save(make_bars(days=3).assign(**{SECRET: 1}), desk.folder / "more.csv")))
    assert SECRET not in caplog.text and "1 other columns are ignored" in caplog.text


CELLS = {
    "1 MB": "x" * 1_000_000,
    "terminal": "\x1b[2J\x1b]0;forged\x07",
    "line breaks": "1\nERROR root: forged\r\nCRITICAL: forged",
    "right to left": "\u202e1.0\u2066",
    "backspaces": "12\b\b99",
    "c1": "\x9b31m",
    "separators": "a\u2028b\u0085c",
}


@pytest.mark.parametrize("names", [[*CELLS][:3], [*CELLS][3:6], [*CELLS][5:]], ids=str)
def test_bad_cells_are_quoted_short_and_escaped(names: list[str], desk: Desk) -> None:
    """Whatever stands in a cell of bars, message and alert have at most 40 characters of it, all printable."""
    columns = ["Date", "Symbol", "Close"]
    bars = make_bars(days=3).astype(dict.fromkeys(columns, object))
    for row, name in enumerate(names):
        bars.loc[row, columns] = CELLS[name]
    staging = read_source_task(source=str(save(bars, desk.folder / "odd.csv")))["staging"]
    with pytest.raises(VintageRejectedError) as caught:
        validate_bars_task(staging=staging)
    (alert,) = newest_alerts(desk.settings, 5)
    for text in (str(caught.value), alert.message):
        assert all(line.isprintable() for line in text.split("\n"))
        assert "\nERROR" not in text and "\nCRITICAL" not in text and len(text) < 5000
    lines = [line for line in str(caught.value).split("\n") if "rule parsable_cells" in line]
    assert [f"row {row}:" in line for row, line in enumerate(lines, start=1)] == [True] * len(names)
    for line, (column, what) in itertools.product(
        lines, zip(columns, (" is not a ", " holds a ", " is not a "), strict=True)
    ):
        assert line.split(f"{column}=", 1)[1].index(what) <= 42


def test_an_excerpt_is_short_and_printable() -> None:
    """Of any text; what is short and plain is itself."""
    for text in (*CELLS.values(), "\x00" * 100, "'\"" * 100, "\ud800" * 50, "\U0001f600" * 100):
        assert excerpt(text).isprintable() and len(excerpt(text)) <= 42
    assert excerpt("abc") == "'abc'" and excerpt("x" * 40) == f"'{'x' * 40}'"


@pytest.mark.parametrize("name", ["AAPL", "BRK.B", "SH600000", "^GSPC", "BTC-USD", "贵州茅台", "NA", "a" * 64])
def test_names_of_instruments_are_as_before(name: str) -> None:
    """Every usual spelling is a name."""
    assert is_instrument(name)


@pytest.mark.parametrize("name", ["", "a b", "a/b", "a\\b", ".a", "a\x1bb", "a\u202eb", "a" * 65])
def test_what_does_not_print_names_no_instrument(name: str) -> None:
    """Names stand in messages and in file names."""
    assert not is_instrument(name)


WRONG_YAML = [
    f"a: b: {SECRET}\n",
    f"a: *{SECRET}\n",
    f"a: !!python/{SECRET} x\n",
    f"{SECRET}: [\n",
    f"a: '{SECRET}\n",
]


def test_a_wrong_line_of_yaml_is_named_by_its_place(desk: Desk) -> None:
    """PyYAML's own words quote the line; ours say where it is."""
    for text in WRONG_YAML:
        (desk.settings.home / "feature_sets.yaml").write_text(text)
        with pytest.raises(MlopsError) as caught:
            find_feature_set("a", desk.settings)
        assert SECRET not in str(caught.value), text
        (desk.settings.home / "settings.yaml").write_text(text)
        with pytest.raises(ConfigError, match=r"settings\.yaml") as caught:
            load_settings()
        assert SECRET not in str(caught.value), text


def test_a_setting_that_is_wrong_is_quoted_short(desk: Desk) -> None:
    """A value that a setting cannot have is shown as a cell would be."""
    (desk.settings.home / "settings.yaml").write_text(yaml.safe_dump({"stack": {"airflow_port": "x\x1b" * 100}}))
    with pytest.raises(ConfigError, match="airflow_port") as caught:
        load_settings()
    assert all(line.isprintable() for line in str(caught.value).split("\n")) and len(str(caught.value)) < 400


def test_an_empty_table_is_said_to_be_empty(desk: Desk) -> None:
    """What was recognised keeps its clear message."""
    with pytest.raises(SourceError, match="rule table_not_empty"):
        read_source_task(source=str(save(pd.DataFrame(columns=HEADER.split(",")), desk.folder / "none.csv")))
