"""Bars in PostgreSQL: the contract, on a real server; order, snapshot, and what an error may say."""

import threading
import traceback
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import sqlalchemy as sa

from mlops_tasks.columns import CLOSE, DATETIME, FACTOR, INSTRUMENT, VOLUME
from mlops_tasks.config import DataSettings, PostgresqlSource, Settings
from mlops_tasks.data.sources import BarSource, open_source
from mlops_tasks.data.sources.parsed import PARSE_ERROR, SOURCE_FILE, SOURCE_ROW
from mlops_tasks.errors import ConfigError, SourceError, SourceNotFoundError
from tests.data.sources.contract import Build, StoredBarsContract, small_market
from tests.postgres import postgres_schema

Open = Callable[..., BarSource]


@pytest.fixture
def database(monkeypatch: pytest.MonkeyPatch) -> Iterator[sa.Engine]:
    """An empty schema; the connection string is in the environment, as in production."""
    with postgres_schema() as address:
        monkeypatch.setenv("BARS_DSN", address)
        engine = sa.create_engine(address)
        yield engine
        engine.dispose()


@pytest.fixture
def desk(tmp_path: Path) -> Open:
    """A function that opens the source `desk` with a given specification."""

    def opened(**spec: object) -> BarSource:
        source = PostgresqlSource(kind="postgresql", **{"prices": "raw", **spec})  # type: ignore[arg-type]
        return open_source(Settings(home=tmp_path, data=DataSettings(sources={"desk": source})), "desk")

    return opened


def fill(database: sa.Engine, bars: pd.DataFrame, table: str = "bars") -> None:
    """The bars as a table, in place of an older one."""
    bars.to_sql(table, database, index=False, if_exists="replace")


def logged(error: BaseException) -> str:
    """All that a log would show of the error."""
    return "".join(traceback.format_exception(error))


class TestTable(StoredBarsContract):
    """A table under the standard names."""

    @pytest.fixture
    def build(self, database: sa.Engine, desk: Open) -> Build:
        """One table, filled anew for each source."""

        def made(bars: pd.DataFrame) -> BarSource:
            fill(database, bars)
            return desk(table="bars")

        return made

    @pytest.fixture
    def absent(self, database: sa.Engine, desk: Open) -> BarSource:
        """A table that nobody created."""
        return desk(table="nowhere")

    @pytest.fixture
    def changed(self, database: sa.Engine, desk: Open) -> BarSource:
        """Another table, so that both can be read in one test."""
        fill(database, self.with_one_change(small_market(self.instruments)), "others")
        return desk(table="others")


class TestQuery(TestTable):
    """A query over a table whose names need quoting."""

    query = """SELECT "Paper %", "day", open, high, low, "Last", volume, factor FROM "the bars"; """

    @pytest.fixture
    def build(self, database: sa.Engine, desk: Open) -> Build:
        """The source's own names for its columns."""
        names = {INSTRUMENT: "Paper %", DATETIME: "day", CLOSE: "Last"}

        def made(bars: pd.DataFrame) -> BarSource:
            fill(database, bars.rename(columns=names), "the bars")
            query = self.query if CLOSE in bars else self.query.replace('"Last", ', "")
            return desk(query=query, columns={"instrument": "paper %", "close": "Last"})

        return made


def test_rows_are_numbered_in_the_stated_order(database: sa.Engine, desk: Open) -> None:
    """However the rows lie in the table, they come by instrument (byte order), datetime and values, with one digest."""
    bars = pd.concat([small_market(("b", "A", "C")), small_market(("A",)).assign(close=3.0)], ignore_index=True)
    fill(database, bars)
    first = desk(table="bars").read()
    fill(database, bars.sample(frac=1, random_state=3))
    second = desk(table="bars").read()
    pd.testing.assert_frame_equal(first.frame, second.frame)
    assert first.raw == second.raw and first.raw[0].name == "postgresql:bars" and first.raw[0].rows == len(bars)
    assert first.frame[INSTRUMENT].drop_duplicates().tolist() == ["A", "C", "b"]
    assert first.frame[SOURCE_ROW].tolist() == list(range(1, len(bars) + 1))
    assert set(first.frame[SOURCE_FILE]) == {"postgresql:bars"}
    same_day = first.frame[:2]
    assert same_day[DATETIME].nunique() == 1 and same_day[CLOSE].tolist() == [30.0, 3.0]


def test_the_databases_types_are_read(database: sa.Engine, desk: Open) -> None:
    """numeric, real, bigint, integer days, time stamps with a zone; nulls; what is no number is named, not dropped."""
    with database.begin() as connection:
        connection.exec_driver_sql(
            "CREATE TABLE bars (trade_date timestamptz, ts_code varchar(9), o numeric(12, 4), h real, l float8, "
            "c text, v bigint)"
        )
        connection.exec_driver_sql(
            "INSERT INTO bars VALUES ('2024-01-08 23:30-05', 'A', 1.1, 1.3, 0.1, '1.2', 9007199254740993),"
            "('2024-01-10', 'A', 'NaN', 'Infinity', null, 'twelve', null), ('2024-01-11', 'A', 1, 1, 1, '', 0),"
            "(null, 'Ä\"\n,', 1, 1, 1, null, 0), ('2024-01-12', null, 1, 1, 1, '1', 0)"
        )
    frame = desk(table="bars").read().frame
    assert frame[DATETIME].dt.strftime("%m-%d").tolist()[:3] == ["01-09", "01-10", "01-11"]
    np.testing.assert_array_equal(frame[["open", "high", "low", "close"]][:1], [[1.1, 1.3, 0.1, 1.2]])
    assert frame[VOLUME][0] == 2.0**53 and frame[CLOSE].isna().tolist() == [False, True, True, True, False]
    assert frame[PARSE_ERROR][1] == "h=inf is not a finite number; c='twelve' is not a number"
    assert frame[INSTRUMENT].isna().tolist() == [False, False, False, True, True]
    assert "holds a slash, a blank" in frame[PARSE_ERROR][3] and pd.isna(frame[DATETIME][3])
    assert (frame[FACTOR][:3] == 1).all()


def test_a_timestamp_is_a_day_in_utc_unless_the_query_says_otherwise(database: sa.Engine, desk: Open) -> None:
    """The zone is the query's business; the server's own setting changes nothing."""
    fill(database, small_market(("A",)))
    zoned = "SELECT *, (datetime + interval '23 hours') AT TIME ZONE 'America/New_York' AS stamp FROM bars"
    in_utc = desk(query=zoned, columns={"datetime": "stamp"}).read().frame
    local = f"SELECT *, stamp AT TIME ZONE 'America/New_York' AS day FROM ({zoned}) AS zoned"
    in_new_york = desk(query=local, columns={"datetime": "day"}).read().frame
    assert ((in_utc[DATETIME] - in_new_york[DATETIME]) == pd.Timedelta(days=1)).all()


def test_float64_values_come_back_to_the_last_bit(database: sa.Engine, desk: Open) -> None:
    """Text on the way loses nothing."""
    closes = np.random.default_rng(1).lognormal(0, 20, 400)
    bars = pd.concat([small_market(("A",))[:1]] * 400).assign(
        close=closes, datetime=pd.date_range("2020-01-01", periods=400)
    )
    fill(database, bars)
    np.testing.assert_array_equal(desk(table="bars").read().frame[CLOSE], closes)


def test_a_reading_sees_one_snapshot(database: sa.Engine, desk: Open) -> None:
    """A writer that commits while the rows are copied changes nothing in them: each value is of one state."""
    bars = pd.concat([small_market((f"I{i:03d}",)).assign(volume=0.0) for i in range(400)], ignore_index=True)
    fill(database, bars)
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            with database.begin() as connection:
                connection.exec_driver_sql("UPDATE bars SET volume = volume + 1")

    writer = threading.Thread(target=write)
    writer.start()
    try:
        seen = [desk(table="bars").read().frame[VOLUME] for _ in range(5)]
    finally:
        stop.set()
        writer.join()
    assert all(values.nunique() == 1 and len(values) == len(bars) for values in seen)


def test_a_query_cannot_write(database: sa.Engine, desk: Open) -> None:
    """The transaction is read-only, whatever the query calls."""
    fill(database, small_market(("A",)))
    with database.begin() as connection:
        connection.exec_driver_sql(
            "CREATE FUNCTION emptied() RETURNS boolean LANGUAGE sql AS 'DELETE FROM bars; SELECT true'"
        )
    with pytest.raises(
        SourceError, match=r"cannot execute DELETE in a read-only transaction; correct data\.sources\.desk"
    ):
        desk(query="SELECT * FROM bars WHERE emptied()").read()
    assert len(desk(table="bars").read().frame) == 5


def test_a_table_of_another_schema_is_named_with_it(database: sa.Engine, desk: Open) -> None:
    """schema.table is quoted part by part; an unknown schema is said to be none."""
    fill(database, small_market(("A",)), "odd name")
    with database.begin() as connection:
        schema = connection.exec_driver_sql("SELECT current_schema()").scalar()
    assert len(desk(table=f"{schema}.odd name").read().frame) == 5
    with pytest.raises(SourceNotFoundError, match=r"postgresql:attic\.bars: rule source_exists: .*schema\.table"):
        desk(table="attic.bars").read()


@pytest.mark.parametrize("query", ["SELECT * FORM bars", "SELECT * FROM bars; DROP TABLE bars", "SELECT 1/0 AS close"])
def test_a_wrong_query_is_quoted_back_by_the_server(query: str, database: sa.Engine, desk: Open) -> None:
    """The error has the server's words and names the setting."""
    fill(database, small_market(("A",)))
    with pytest.raises(SourceError, match=r"postgresql:query of desk: rule .*; .*"):
        desk(query=query).read()
    assert len(desk(table="bars").read().frame) == 5


def test_without_the_right_to_read_the_error_says_what_to_grant(
    database: sa.Engine, desk: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A user who may connect but not read is told so."""
    fill(database, small_market(("A",)))
    role = f"mlops_reader_{uuid.uuid4().hex[:12]}"
    with database.begin() as connection:
        schema = connection.exec_driver_sql("SELECT current_schema()").scalar()
        connection.exec_driver_sql(
            f"CREATE ROLE {role} LOGIN PASSWORD 's3cret'; GRANT USAGE ON SCHEMA {schema} TO {role}"
        )
    try:
        url = database.url.set(username=role, password="s3cret")
        monkeypatch.setenv("BARS_DSN", url.render_as_string(hide_password=False))
        with pytest.raises(SourceError, match="permission denied for table bars; grant SELECT to the user of BARS_DSN"):
            desk(table="bars").read()
    finally:
        with database.begin() as connection:
            connection.exec_driver_sql(f"DROP OWNED BY {role}; DROP ROLE {role}")


@pytest.mark.parametrize(
    ("dsn", "error", "message"),
    [
        ("", ConfigError, "BARS_DSN is not set; set BARS_DSN to postgresql://"),
        ("postgresql://u:s3cret@[127.0.0.1/x", ConfigError, "BARS_DSN is not a connection string"),
        ("postgresql://u:s3cret@127.0.0.1:54 32/x", SourceError, "the server: no details; correct .* BARS_DSN"),
        ("password=s3cret hots=x", ConfigError, "BARS_DSN is not a connection string"),
        ("postgresql://u:s3cret@x@127.0.0.1:1/x", SourceError, "cannot connect to the server"),
        ("postgresql://u:s3cret@127.0.0.1:1/x", SourceError, "to the server: Connection refused; .* in BARS_DSN"),
        ("host=127.0.0.1 port=1 password=s3cret", SourceError, "to the server: Connection refused"),
        ("postgresql://u:s3cret@nowhere.invalid/x", SourceError, "to the server: could not translate host name"),
    ],
)
def test_no_error_holds_the_secret(
    dsn: str, error: type[Exception], message: str, desk: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unset, mistyped, refused: the message names variable and remedy; nothing of the connection string is in it, nor
    in what would be logged with it."""
    monkeypatch.setenv("BARS_DSN", dsn)
    with pytest.raises(error, match=message) as caught:
        desk(table="bars").read()
    assert "s3cret" not in logged(caught.value)


def test_a_wrong_password_is_not_repeated(database: sa.Engine, desk: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user whom the server refuses is told which variable to correct."""
    url = database.url.set(username="mlops_nobody", password="s3cret")
    monkeypatch.setenv("BARS_DSN", url.render_as_string(hide_password=False))
    with pytest.raises(SourceError, match=r"password authentication failed|does not exist") as caught:
        desk(table="bars").read()
    assert "s3cret" not in logged(caught.value)
