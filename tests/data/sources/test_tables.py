"""Files: the contract, vendor names, formats, folders, raw prices, and where a cell came from."""

import itertools
from datetime import datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlops_tasks.columns import BAR_FIELDS, CLOSE, DATETIME, FACTOR, INSTRUMENT, PRICES, VWAP
from mlops_tasks.config import DataSettings, Settings, TableSource
from mlops_tasks.data.sources import BarSource, open_source, read_source
from mlops_tasks.data.sources.cells import parse_days, parse_instruments, parse_numbers
from mlops_tasks.data.sources.derived import to_raw
from mlops_tasks.data.sources.parsed import PARSE_ERROR, PARSED_COLUMNS, SOURCE_FILE, SOURCE_ROW
from mlops_tasks.errors import ConfigError, SourceError
from tests.data.market import make_bars, save
from tests.data.sources.contract import Build, StoredBarsContract

VENDORS = {
    "kaggle": ["date", "Name", "open", "high", "low", "close", "volume"],
    "exchange": ["trade_date", "ts_code", "O", "H", "L", "C", "VOL"],
    "terminal": ["DateTime", "TICKER", "open_price", "high_price", "low_price", "close_price", "Vol"],
    "qlib": ["datetime", "instrument", "Open", "High", "Low", "Close", "Volume"],
}


def read(path: Path, **data: object) -> pd.DataFrame:
    settings = Settings(home=path, data=DataSettings(source=str(path), **data))  # type: ignore[arg-type]
    return read_source(settings, str(path), None).frame


def named(folder: Path, path: Path, **spec: object) -> BarSource:
    """A named source of files."""
    table = TableSource(kind="table", path=str(path), **spec)  # type: ignore[arg-type]
    return open_source(Settings(home=folder, data=DataSettings(sources={"desk": table})), "desk")


class TestParquetFile(StoredBarsContract):
    """One parquet file."""

    suffix = ".parquet"

    @pytest.fixture
    def build(self, tmp_path: Path) -> Build:
        """The bars in one file, the path being the source's name."""
        numbers = itertools.count()

        def made(bars: pd.DataFrame) -> BarSource:
            path = save(bars, tmp_path / f"{next(numbers)}{self.suffix}")
            return open_source(Settings(home=tmp_path, data=DataSettings(source=str(path), prices="raw")), str(path))

        return made

    @pytest.fixture
    def absent(self, tmp_path: Path) -> BarSource:
        """A path at which nothing lies."""
        path = str(tmp_path / f"nowhere{self.suffix}")
        return open_source(Settings(home=tmp_path, data=DataSettings(source=path)), path)


class TestCsvFile(TestParquetFile):
    """One CSV file."""

    suffix = ".csv"


class TestNamedFolder(StoredBarsContract):
    """A folder of files in both formats, named in the settings, with column names of its own."""

    columns = {"instrument": "Paper", "close": "Last", "factor": "Cumulated"}  # noqa: RUF012

    @pytest.fixture
    def build(self, tmp_path: Path) -> Build:
        """One file for each instrument."""
        numbers = itertools.count()

        def made(bars: pd.DataFrame) -> BarSource:
            folder = tmp_path / f"source{next(numbers)}"
            bars = bars.rename(columns=self.columns)
            for i, (name, part) in enumerate([*bars.groupby("Paper")] or [("none", bars)]):
                save(part, folder / f"{name}.{('parquet', 'csv.gz')[i % 2]}")
            return named(tmp_path, folder, columns=self.columns, prices="raw")

        return made

    @pytest.fixture
    def absent(self, tmp_path: Path) -> BarSource:
        """A folder with nothing to read in it."""
        (tmp_path / "empty").mkdir()
        return named(tmp_path, tmp_path / "empty")


def test_a_name_goes_before_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A named source is meant even where a file of that name lies in the working folder."""
    monkeypatch.chdir(tmp_path)
    save(make_bars(days=2), tmp_path / "desk")
    path = save(make_bars(days=3), tmp_path / "bars.parquet")
    parsed = named(tmp_path, path).read()
    assert parsed.source == "desk" and len(parsed.frame) == 12 and parsed.raw[0].name == str(path)


def test_a_named_column_is_taken_in_place_of_its_aliases(tmp_path: Path) -> None:
    """What the settings name is read, not the alias beside it; where it is missing, no alias stands in for it."""
    path = save(make_bars().assign(settled=7.0), tmp_path / "bars.csv")
    assert (named(tmp_path, path, columns={"close": " Settled"}).read().frame[CLOSE] == 7).all()
    with pytest.raises(SourceError, match=r"column 'close' is missing \(accepted names: last\);"):
        named(tmp_path, path, columns={"close": "last"}).read()
    with pytest.raises(ConfigError, match=r"data\.sources\.desk\.columns: 'clsoe' is not a standard name; use .*close"):
        named(tmp_path, path, columns={"clsoe": "last"})


def test_a_source_says_what_its_own_prices_are(tmp_path: Path) -> None:
    """`prices` of a named source goes before the general setting."""
    path = save(make_bars().assign(factor=2.0), tmp_path / "bars.parquet")
    raw, adjusted = (named(tmp_path, path, prices=prices).read().frame[CLOSE] for prices in ("raw", "adjusted"))
    np.testing.assert_array_equal(raw, 2 * adjusted)


@pytest.mark.parametrize(("vendor", "suffix"), list(itertools.product(VENDORS, ["csv", "parquet"])))
def test_vendor_names_become_the_standard_ones(vendor: str, suffix: str, tmp_path: Path) -> None:
    """Each vendor's columns are read as the same bars, whatever they are called."""
    bars = make_bars()
    frame = read(save(bars.set_axis(VENDORS[vendor], axis=1), tmp_path / f"bars.{suffix}"))
    assert tuple(frame.columns) == PARSED_COLUMNS
    np.testing.assert_array_equal(frame[CLOSE], bars["Close"])
    assert frame[INSTRUMENT].tolist() == bars["Symbol"].tolist()
    assert frame[DATETIME].tolist() == pd.to_datetime(bars["Date"]).tolist()
    assert (frame[FACTOR] == 1).all() and frame[VWAP].isna().all() and frame[PARSE_ERROR].isna().all()


def test_extra_columns_are_ignored_aloud(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What is no bar column is left out, and the log says so."""
    caplog.set_level("INFO")
    read(save(make_bars().assign(market_cap=1.0, sector="x"), tmp_path / "bars.csv"))
    assert "2 other columns are ignored" in caplog.text


def test_a_folder_is_all_its_files(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Every parquet and CSV file below a folder is read; each row names its file and its row there."""
    caplog.set_level("INFO")
    bars = make_bars()
    save(bars[:50], tmp_path / "source" / "b.parquet")
    save(bars[50:80], tmp_path / "source" / "sub" / "c.csv")
    save(bars[80:], tmp_path / "source" / "a.csv.gz")
    (tmp_path / "source" / "readme.txt").write_text("no bars")
    frame = read(tmp_path / "source")
    assert "1 files of other kinds are ignored" in caplog.text
    assert frame.groupby(SOURCE_FILE, observed=True)[SOURCE_ROW].agg(["min", "max"]).to_dict("index") == {
        str(tmp_path / "source" / "a.csv.gz"): {"min": 1, "max": 40},
        str(tmp_path / "source" / "b.parquet"): {"min": 1, "max": 50},
        str(tmp_path / "source" / "sub" / "c.csv"): {"min": 1, "max": 30},
    }
    assert sorted(frame[CLOSE]) == sorted(bars["Close"])


def test_blank_lines_count_but_are_no_rows(tmp_path: Path) -> None:
    """Row numbers are those of the file, blank lines included."""
    lines = ["Date,Symbol,Open,High,Low,Close,Volume", "2020-01-02,A,1,1,1,1,5", "", "2020-01-03,A,1,1,1,x,5", "", ""]
    (tmp_path / "bars.csv").write_text("\n".join(lines))
    frame = read(tmp_path / "bars.csv")
    assert frame[SOURCE_ROW].tolist() == [1, 3]
    assert frame[PARSE_ERROR].tolist()[1] == "Close='x' is not a number"


def test_tickers_that_look_like_missing_values_stay(tmp_path: Path) -> None:
    """NA, NAN, NULL and TRUE are instruments."""
    names = ["NA", "NAN", "NULL", "TRUE"]
    bars = make_bars(days=1, instruments=4).assign(Symbol=names)
    assert read(save(bars, tmp_path / "bars.csv"))[INSTRUMENT].tolist() == names


@given(
    adjusted=st.lists(st.floats(0.0078125, 131072, width=32), min_size=1, max_size=20),
    factor=st.floats(0.0009765625, 1024, width=32),
)
def test_raw_times_factor_gives_a_float32_source_back(adjusted: list[float], factor: float) -> None:
    """Raw prices are kept so precisely that float32 adjusted prices come back to the last bit."""
    source = np.array(adjusted, dtype=np.float32)
    prices = {name: source.astype(np.float64) for name in (*PRICES, VWAP)}
    frame = pd.DataFrame({INSTRUMENT: "A", FACTOR: float(factor), **prices})
    raw = to_raw(frame, "adjusted")
    np.testing.assert_array_equal((raw[CLOSE] * raw[FACTOR]).to_numpy().astype(np.float32), source)


def test_raw_prices_are_taken_as_they_are(tmp_path: Path) -> None:
    """With prices set to raw, a factor changes nothing in the store's prices."""
    bars = make_bars().assign(factor=2.0)
    path = save(bars, tmp_path / "bars.parquet")
    np.testing.assert_array_equal(read(path, prices="raw")[CLOSE], bars["Close"])
    np.testing.assert_array_equal(read(path, prices="adjusted")[CLOSE], bars["Close"] / 2)


def test_an_instrument_without_any_factor_has_factor_one(tmp_path: Path) -> None:
    """No factor at all means unadjusted; a single missing one stays missing for validation to find."""
    bars = make_bars(instruments=2).assign(factor=2.0)
    bars.loc[bars["Symbol"] == "S00", "factor"] = None
    bars.loc[40, "factor"] = None
    frame = read(save(bars, tmp_path / "bars.csv"))
    assert (frame.loc[frame[INSTRUMENT] == "S00", FACTOR] == 1).all()
    assert frame.index[frame[FACTOR].isna()].tolist() == [40]


@pytest.mark.parametrize(
    ("column", "days"),
    [
        (
            pa.array(["2020-01-31", "2020/1/31", "20200131", "2020-01-31 16:00", "2020-01-31T16:00:00-05:00"]),
            ["2020-01-31"] * 5,
        ),
        (pa.array([20200131, None]), ["2020-01-31", "NaT"]),
        (pa.array(["", "NaN", None]), ["NaT"] * 3),
        (pa.array([pd.Timestamp("2020-01-31 23:00")], pa.timestamp("us", "America/New_York")), ["2020-01-31"]),
        (pa.array([pd.Timestamp("2020-01-31").date()], pa.date32()), ["2020-01-31"]),
        (pa.array(["2020-01-31", "2020-01-31"]).dictionary_encode(), ["2020-01-31"] * 2),
    ],
)
def test_days_are_read(column: pa.Array, days: list[str]) -> None:
    """Year-first text, integers, timestamps (their local day) and dates are days; empty ones are missing."""
    parsed = parse_days("date", pa.chunked_array([column]))
    np.testing.assert_array_equal(parsed.values, np.array(days, dtype="datetime64[ns]"))
    assert not parsed.bad


@pytest.mark.parametrize("text", ["31/01/2020", "2020-13-01", "2020-02-30", "soon", "2020", "0001-01-01", "9999-01-01"])
def test_what_is_no_day_is_said_to_be_none(text: str) -> None:
    """Day-first, impossible and implausible dates are bad cells, never guesses."""
    parsed = parse_days("date", pa.chunked_array([[text, "2020-01-01"]]))
    assert np.isnat(parsed.values[0]) and not np.isnat(parsed.values[1])
    assert list(parsed.bad) == [0] and text in parsed.bad[0]


def test_a_wrong_epoch_is_no_day() -> None:
    """Timestamps outside the plausible years are bad cells."""
    parsed = parse_days("date", pa.chunked_array([pa.array([datetime(1066, 10, 14), None], pa.timestamp("ms"))]))
    assert list(parsed.bad) == [0] and np.isnat(parsed.values).all()


@pytest.mark.parametrize(
    ("column", "values", "bad"),
    [
        (pa.array(["1.5", " 2 ", "1e3", "", "nan", None]), [1.5, 2, 1000, np.nan, np.nan, np.nan], []),
        (pa.array(["1,000", "abc", "1_0", "inf", "5"]), [np.nan] * 4 + [5], [0, 1, 2, 3]),
        (pa.array([1, None, 2**60]), [1, np.nan, 2.0**60], []),
        (pa.array([True, None]), [np.nan, np.nan], [0]),
        (pa.array([None, None]), [np.nan, np.nan], []),
        (pa.array(["7", "8"]).dictionary_encode(), [7, 8], []),
        (pa.array([1.5, float("-inf")], pa.float32()), [1.5, np.nan], [1]),
    ],
)
def test_numbers_are_read(column: pa.Array, values: list[float], bad: list[int]) -> None:
    """Every numeric type and its text is float64; what is no finite number is a bad cell."""
    parsed = parse_numbers("close", pa.chunked_array([column]))
    np.testing.assert_array_equal(parsed.values, values)
    assert sorted(parsed.bad) == bad


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=30))
def test_text_of_a_number_is_that_number(numbers: list[float]) -> None:
    """Parsing is correctly rounded: the shortest text of a float64 gives it back, bad neighbours or not."""
    texts = [repr(number) for number in numbers]
    np.testing.assert_array_equal(parse_numbers("x", pa.chunked_array([texts])).values, numbers)
    np.testing.assert_array_equal(parse_numbers("x", pa.chunked_array([[*texts, "bad"]])).values[:-1], numbers)


def test_names_are_read() -> None:
    """Blanks around a name go; numbers become text; slashes, inner blanks and leading dots are refused."""
    column = pa.chunked_array([["  A ", "", None, "A/B", "A B", "..", "BRK.B", "^GSPC#2"]])
    parsed = parse_instruments("code", column)
    assert parsed.names == ["A", "BRK.B", "^GSPC#2"] and parsed.codes.tolist() == [0, -1, -1, -1, -1, -1, 1, 2]
    assert sorted(parsed.bad) == [3, 4, 5]
    assert parse_instruments("code", pa.chunked_array([[600000, 1]])).names == ["600000", "1"]


def test_fields_are_float64(tmp_path: Path) -> None:
    """Whatever the source's types are, the bars are float64."""
    bars = make_bars().astype({"Open": "float32", "Volume": "int64"})
    frame = read(save(bars, tmp_path / "bars.parquet"))
    assert {str(frame[name].dtype) for name in BAR_FIELDS} == {"float64"}
