"""Files as vendors write them: what each kind is read as, and what the message says where it cannot be read."""

import csv
import gzip
import io
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mlops_tasks.columns import (
    CLOSE,
    DATETIME,
    FACTOR,
    HIGH,
    INSTRUMENT,
    LOW,
    OPEN,
    PRECLOSE,
    PRICES,
    VOLUME,
    VWAP,
)
from mlops_tasks.config import DataSettings, Settings, TableSource
from mlops_tasks.data.sources import ParsedBars, read_source
from mlops_tasks.data.sources.parsed import PARSE_ERROR, PARSED_COLUMNS, SOURCE_FILE, SOURCE_ROW
from mlops_tasks.data.validation.staging import read_staging, staging_id, write_staging
from mlops_tasks.errors import ConfigError, SourceError
from tests.data.market import make_bars, save

HEADER = "date,instrument,open,high,low,close,volume"
GOOD = ["2023-01-03,T000,10,12,9,11,500", "2023-01-04,T000,11,12,10,11.5,600", "2023-01-05,T001,20,22,19,21,700"]


def parse(path: Path, **options: Any) -> ParsedBars:
    """What a named source of files gives."""
    data = options.pop("data", {})
    spec = TableSource(kind="table", path=str(path), **options)
    settings = Settings(home=path.parent / "home", data=DataSettings(source="desk", sources={"desk": spec}, **data))
    return read_source(settings, "desk", None)


def frame_of(folder: Path, lines: Sequence[str], header: str = HEADER, end: str = "\n", **options: Any) -> pd.DataFrame:
    """The parsed rows of a CSV file of these lines."""
    path = folder / "bars.csv"
    path.write_text("\n".join([header, *lines]) + end)
    return parse(path, **options).frame


def errors_of(frame: pd.DataFrame) -> dict[int, str]:
    """Row number to what could not be read there."""
    bad = frame[frame[PARSE_ERROR].notna()]
    return dict(zip(bad[SOURCE_ROW].tolist(), bad[PARSE_ERROR].tolist(), strict=True))


# Rows whose fields do not fit the header.

RAGGED = {
    "thousands in the last field": ("2023-01-06,T002,10,12,9,11,280,060", "8 fields where the header has 7; '280,060'"),
    "thousands in a price": ("2023-01-06,T002,1,010,12,9,11,500", "'1,010' may be one number"),
    "thousands in all prices": (
        "2023-01-06,T002,1,010.5,1,012,1,009,1,011,500",
        "11 fields where the header has 7",
    ),
    "millions": ("2023-01-06,T002,10,12,9,11,1,280,060", "9 fields where the header has 7; '280,060' may be"),
    "a comma in a name": ("2023-01-06,Shares, ordinary,10,12,9,11,500", "8 fields where the header has 7"),
    "too few": ("2023-01-06,T002,10,12,9,11", "6 fields where the header has 7"),
    "cut in the name": ("2023-01-06,T0", "2 fields where the header has 7"),
    "one word": ("oops", "1 field where the header has 7"),
    "a quote without end": ('2023-01-06,"T002,10,12,9,11,500', "a quote is not closed"),
}


@pytest.mark.parametrize("case", RAGGED)
@pytest.mark.parametrize("place", [0, 2, 3])
def test_a_row_that_does_not_fit_the_header_is_bad_as_a_whole(case: str, place: int, tmp_path: Path) -> None:
    """It has its line and the counts in its error and nothing else; it makes no instrument, and others stay."""
    line, words = RAGGED[case]
    frame = frame_of(tmp_path, [*GOOD[:place], line, *GOOD[place:]])
    assert frame[SOURCE_ROW].tolist() == [1, 2, 3, 4]
    bad = frame.iloc[place]
    assert f"line {place + 2}: " in bad[PARSE_ERROR] and words in bad[PARSE_ERROR]
    assert pd.isna(bad[DATETIME]) and pd.isna(bad[INSTRUMENT]) and bad[[*PRICES, VOLUME]].isna().all()
    rest = frame.drop(index=place)
    assert rest[CLOSE].tolist() == [11, 11.5, 21] and rest[PARSE_ERROR].isna().all()


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (
            [f"{line},060" for line in GOOD],
            r"line 2: 8 fields where the header has 7; '500,060'",
        ),
        (["2023-01-03,T000,10,12,9,11"] * 3, "line 2: 6 fields .* none of 3 rows"),
        (["soon,T000,10,12,9,11,5", "later,T000,10,12,9,11,5"], "date='soon' is not a date .*`date_format`"),
        (["2023-01-03,,10,12,9,11,5"] * 2, "instrument or date is empty; none of 2 rows"),
    ],
)
def test_a_file_of_which_no_row_can_be_read_is_refused(lines: list[str], words: str, tmp_path: Path) -> None:
    """With the first row, what is wrong with it, how many there are, and who proposes what would help."""
    with pytest.raises(SourceError, match=rf"bars\.csv, row 1: rule readable_rows: .*{words}.*doctor --source"):
        frame_of(tmp_path, lines)


@pytest.mark.parametrize(
    ("header", "lines"),
    [
        (HEADER, [f"{line}," for line in GOOD]),
        (HEADER, [GOOD[0], f"{GOOD[1]},,", f"{GOOD[2]}, "]),
        (f"{HEADER},", [f"{line}," for line in GOOD]),
        (f"{HEADER},", GOOD),
        (f"{HEADER},", [GOOD[0], f"{GOOD[1]},", GOOD[2]]),
        (HEADER, [f"{GOOD[0]},", *GOOD[1:]]),
    ],
)
def test_empty_fields_at_the_end_of_a_row_are_harmless(header: str, lines: list[str], tmp_path: Path) -> None:
    """In all rows, in some, in the header, or in it alone."""
    frame = frame_of(tmp_path, lines, header)
    assert not errors_of(frame)
    assert frame[VOLUME].tolist() == [500, 600, 700] and frame[SOURCE_ROW].tolist() == [1, 2, 3]


@pytest.mark.parametrize("blank", ["", "   ", ",,,,,,", ",,", '""'])
def test_blank_lines_and_bad_rows_keep_the_numbers_of_the_file(blank: str, tmp_path: Path) -> None:
    """Rows count from the line after the header, whatever lies between."""
    lines = ["", GOOD[0], blank, "2023-01-04,T000,11", "", f"{GOOD[1]},", blank, GOOD[2].replace("21", "x"), blank]
    frame = frame_of(tmp_path, lines)
    assert frame[SOURCE_ROW].tolist()[-1] == 8
    kept = frame[frame[SOURCE_ROW].isin([2, 4, 6, 8])]
    assert kept[CLOSE].fillna(0).tolist() == [11, 0, 11.5, 0]
    assert {4, 8} <= set(errors_of(frame)) and "line 5" in errors_of(frame)[4]


LAST = "date,open,high,low,close,volume,instrument"


@pytest.mark.parametrize(
    ("header", "lines"),
    [
        (LAST, ["2023-01-03,1,1,1,1,5,T000", "2023-01-03,1,1,1,1,5,T001", "2023-01-04,1,1,1,1,5,T0"]),
        (LAST, ["2023-01-03,1,1,1,1,5,T000", "2023-01-03,1,1,1,1,5,T001", "2023-01-04,1,1"]),
        (HEADER, [*GOOD, "2023-01-06,T0"]),
        (
            "instrument,open,high,low,close,volume,date",
            ["T000,1,1,1,1,5,2023-12-25", "T000,1,1,1,1,5,2023-12-26", "T000,1,1,1,1,5,2023-12-2"],
        ),
    ],
)
def test_a_file_that_ends_within_a_line_makes_no_instrument_and_no_day(
    header: str, lines: list[str], tmp_path: Path
) -> None:
    """The last row is bad and says so; the same row with a line end after it is taken as it stands."""
    frame = frame_of(tmp_path, lines, header, end="")
    assert list(errors_of(frame)) == [len(lines)] and "ends within the line" in errors_of(frame)[len(lines)]
    assert pd.isna(frame[INSTRUMENT].iloc[-1]) and pd.isna(frame[DATETIME].iloc[-1])
    assert not errors_of(frame_of(tmp_path, lines[:-1], header, end=""))


def test_quoted_fields_may_hold_separators_and_line_ends(tmp_path: Path) -> None:
    """A cell in quotes is one field; a row with a line end in it is one row."""
    lines = ['2023-01-03,T000,10,12,9,11,"1,000","a note, with\na second line"', '"2023-01-04","T000",11,12,10,11,5,""']
    frame = frame_of(tmp_path, lines, f"{HEADER},note", thousands=",")
    assert frame[VOLUME].tolist() == [1000, 5] and frame[SOURCE_ROW].tolist() == [1, 2] and not errors_of(frame)


def test_a_quote_within_a_field_is_a_mere_character(tmp_path: Path) -> None:
    """As inches are written; it opens nothing."""
    lines = [f'{line},a 5" pipe' for line in GOOD]
    for count in (1, 2, 3):
        frame = frame_of(tmp_path, lines[:count], f"{HEADER},note")
        assert not errors_of(frame) and len(frame) == count


def test_a_quote_in_the_header_that_is_never_closed_is_no_endless_search(tmp_path: Path) -> None:
    """It is refused, whatever the size of the file."""
    with pytest.raises(SourceError, match="rule required_columns"):
        frame_of(tmp_path, GOOD * 20_000, f'"{HEADER}')


def test_every_bad_row_of_a_large_file_is_found(tmp_path: Path) -> None:
    """Of forty thousand rows, those that were spoiled by hand, and no other."""
    rng = np.random.default_rng(3)
    lines = [f"2023-01-03,T{i:05d},10,12,9,11,{i}" for i in range(40_000)]
    spoiled = sorted(rng.choice(len(lines), 60, replace=False).tolist())
    for place, row in enumerate(spoiled):
        lines[row] = lines[row] + ",7" if place % 2 else lines[row].rpartition(",")[0]
    frame = frame_of(tmp_path, lines)
    assert list(errors_of(frame)) == [row + 1 for row in spoiled]
    good = frame[frame[PARSE_ERROR].isna()]
    assert good[INSTRUMENT].tolist() == [f"T{i:05d}" for i in range(40_000) if i not in set(spoiled)]
    assert (good[VOLUME] + 1 == good[SOURCE_ROW]).all()


@pytest.mark.parametrize(("end", "told"), [("", True), ("\n", False), ("\r\n", False), ("\n\n", False)])
def test_a_last_line_without_its_end_is_told(
    end: str, told: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A number that was cut is a number; the missing line end is the only sign."""
    assert frame_of(tmp_path, GOOD, end=end)[VOLUME].tolist() == [500, 600, 700]
    assert ("if they were cut off in transfer" in caplog.text) == told


# Columns.


def two_closes(closes: str, folder: Path, **options: Any) -> pd.DataFrame:
    lines = [f"2023-01-{day:02d},T000,10,12,9,{day},{100 + day},500" for day in (3, 4)]
    return frame_of(folder, lines, f"date,instrument,open,high,low,{closes},volume", **options)


@pytest.mark.parametrize(
    ("columns", "named", "first"),
    [
        ("Close,close", {}, 103),
        ("close,Close", {}, 3),
        ("Close,close", {"close": "close"}, 103),
        ("Close,close", {"close": "Close"}, 3),
        ("Close,last", {}, 3),
        (" CLOSE ,last", {"close": "close"}, 3),
        ("close,c", {"close": "c"}, 103),
    ],
)
def test_the_exact_name_goes_first(columns: str, named: dict[str, str], first: float, tmp_path: Path) -> None:
    """A name that differs in case is taken only where it is the only one."""
    assert two_closes(columns, tmp_path, columns=named)[CLOSE][0] == first


@pytest.mark.parametrize(
    ("columns", "named", "both"),
    [
        ("Close,CLOSE", {}, "'Close' and 'CLOSE'"),
        ("Close,CLOSE", {"close": "close"}, "'Close' and 'CLOSE'"),
        ("close,close", {}, "'close' and 'close'"),
        ("Last,LAST", {"close": "last"}, "'Last' and 'LAST'"),
    ],
)
def test_two_names_that_differ_in_case_only_are_both_named(
    columns: str, named: dict[str, str], both: str, tmp_path: Path
) -> None:
    """No column is chosen by its place."""
    with pytest.raises(SourceError, match=rf"rule distinct_columns: {both} may both be 'close'; .*`columns`"):
        two_closes(columns, tmp_path, columns=named)


def test_a_column_that_differs_in_case_only_is_named_where_it_is_not_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """So that nobody takes yesterday's close for today's."""
    two_closes("Close,close", tmp_path)
    assert "'close' is read as close, 'Close' is not read" in caplog.text


@pytest.mark.parametrize("standard", ["factor", "vwap", "preclose", "amount", "adjusted_close"])
def test_a_column_that_the_settings_name_must_be_there(standard: str, tmp_path: Path) -> None:
    """One that bars can do without too: it was named because it counts."""
    with pytest.raises(SourceError, match=rf"column '{standard}' is missing \(accepted names: Special\)"):
        frame_of(tmp_path, GOOD, columns={standard: "Special"})
    lines = [f"{line},1" for line in GOOD]
    assert not errors_of(frame_of(tmp_path, lines, f"{HEADER},Special", columns={"vwap": "Special"}))


SHORT = "T,t,o,h,l,c,v,vw,n"
NAMED = {"datetime": "t", "instrument": "T"}


@pytest.mark.parametrize(
    ("unit", "option"),
    [
        ("s", None),
        ("ms", None),
        ("us", None),
        ("ns", None),
        ("s", "seconds"),
        ("ms", "milliseconds"),
    ],
)
def test_numbers_since_1970_are_dates(unit: str, option: str | None, tmp_path: Path) -> None:
    """In the unit that their size shows, or that is given; the names are exact, though they differ in case only."""
    days = pd.to_datetime(["2023-01-03 05:00", "2023-01-04 05:00", "2001-09-10 00:00"]).astype(f"datetime64[{unit}]")
    lines = [f"T000,{stamp},10,12,9,11,500,10.5,3" for stamp in days.astype("int64")]
    frame = frame_of(tmp_path, lines, SHORT, columns=NAMED, epoch_unit=option)
    assert frame[DATETIME].tolist() == list(days.normalize().as_unit("ns"))
    assert frame[INSTRUMENT].tolist() == ["T000"] * 3 and not errors_of(frame)
    table = pd.DataFrame({"T": "T000", "t": days.astype("int64"), **{name: 10.0 for name in "ohlcv"}})
    assert (
        parse(save(table, tmp_path / "t.parquet"), columns=NAMED, epoch_unit=option)
        .frame[DATETIME]
        .equals(frame[DATETIME])
    )


@pytest.mark.parametrize(
    ("stamps", "option", "days"),
    [
        (["20230103", "20230104"], None, ["2023-01-03", "2023-01-04"]),
        (["20230103.0", "20230104.0"], None, ["2023-01-03", "2023-01-04"]),
        (["202301031530", "20230104153000"], None, ["2023-01-03", "2023-01-04"]),
        (["0", "1672722000000", "1672808400000"], None, ["1970-01-01", "2023-01-03", "2023-01-04"]),
        (["-86400", "86400"], "seconds", ["1969-12-31", "1970-01-02"]),
        (["1672722000.0", "1672808400.0"], None, ["2023-01-03", "2023-01-04"]),
    ],
)
def test_whole_numbers_are_dates_in_one_way_a_column(
    stamps: list[str], option: str | None, days: list[str], tmp_path: Path
) -> None:
    """20230103 is a date; a small number among milliseconds is milliseconds."""
    frame = frame_of(
        tmp_path, [f"T000,{stamp},10,12,9,11,500,,3" for stamp in stamps], SHORT, columns=NAMED, epoch_unit=option
    )
    assert frame[DATETIME].tolist() == [pd.Timestamp(day) for day in days]


@pytest.mark.parametrize(
    ("cell", "zone", "day"),
    [
        ("1672675200", None, "2023-01-02"),
        ("1672675200", "Asia/Shanghai", "2023-01-03"),
        ("1672675200000", "Asia/Shanghai", "2023-01-03"),
        ("1672722000", "America/New_York", "2023-01-03"),
        ("2023-01-02T16:00:00Z", "Asia/Shanghai", "2023-01-03"),
        ("2023-01-02 16:00:00+00:00", "Asia/Shanghai", "2023-01-03"),
        ("2023-01-02T16:00:00Z", None, "2023-01-02"),
        ("2023-01-02 16:00:00", "Asia/Shanghai", "2023-01-02"),
        ("2023-01-02", "Asia/Shanghai", "2023-01-02"),
        ("20230102", "Asia/Shanghai", "2023-01-02"),
    ],
)
def test_a_time_zone_says_whose_day_a_moment_belongs_to(cell: str, zone: str | None, day: str, tmp_path: Path) -> None:
    """Midnight in Shanghai is the afternoon before in UTC; what is no moment stays as it stands."""
    frame = frame_of(tmp_path, [f"{cell},T000,10,12,9,11,500"], timezone=zone)
    assert frame[DATETIME].tolist() == [pd.Timestamp(day)]


def test_a_time_zone_holds_for_typed_moments_too(tmp_path: Path) -> None:
    """Of a parquet file."""
    stamps = pd.to_datetime(["2023-01-02 16:00"]).tz_localize("UTC")
    table = pd.DataFrame({"date": stamps, "instrument": "A", **{name: 1.0 for name in (*PRICES, VOLUME)}})
    path = save(table, tmp_path / "bars.parquet")
    assert parse(path).frame[DATETIME].tolist() == [pd.Timestamp("2023-01-02")]
    assert parse(path, timezone="Asia/Shanghai").frame[DATETIME].tolist() == [pd.Timestamp("2023-01-03")]


def test_one_column_cannot_be_two(tmp_path: Path) -> None:
    """Neither by the settings nor by a name that fits both."""
    with pytest.raises(ConfigError, match="datetime and instrument name the same column"):
        parse(tmp_path, columns={"datetime": "T", "instrument": "T"})
    with pytest.raises(SourceError, match="rule distinct_columns: 't' would be 'datetime' and 'instrument'"):
        frame_of(tmp_path, [], "t,o,h,l,c,v", columns=NAMED)


# One file an instrument.


def one_file_each(folder: Path, names: Sequence[str], text: Sequence[str] = ("2023-01-03,10,12,9,11,500",)) -> Path:
    folder.mkdir()
    for name in names:
        content = "\n".join(["Date,Open,High,Low,Close,Volume", *text, ""]).encode()
        (folder / name).write_bytes(gzip.compress(content) if name.lower().endswith(".gz") else content)
    return folder


@pytest.mark.parametrize(
    ("files", "pattern", "names"),
    [
        (["AAPL.csv", "BRK.B.csv", "000001.csv"], None, ["000001", "AAPL", "BRK.B"]),
        (["AAPL.CSV", "MSFT.csv.GZ", "IBM.Csv"], None, ["AAPL", "IBM", "MSFT"]),
        (["daily_AAPL.csv", "daily_BRK.B.csv"], "daily_(.+)", ["AAPL", "BRK.B"]),
        (["AAPL_2019.csv", "AAPL_2020.csv", "IBM_2019.csv"], r"(.+)_\d{4}", ["AAPL", "IBM"]),
        (["sh.600000.csv", "sz.000001.csv"], r"s[hz]\.(\d{6})\.csv", ["000001", "600000"]),
    ],
)
def test_the_files_name_is_the_instrument(
    files: list[str], pattern: str | None, names: list[str], tmp_path: Path
) -> None:
    """Without its suffix, in any case of it, or what a pattern takes of it."""
    found = parse(one_file_each(tmp_path / "bars", files), instrument_from="file_name", instrument_pattern=pattern)
    assert sorted(found.frame[INSTRUMENT].unique()) == names and len(found.frame) == len(files)


def test_parquet_files_may_bear_the_name_too(tmp_path: Path) -> None:
    """And a column of the instrument beside it is not read."""
    bars = make_bars(days=2, instruments=1)
    save(bars.drop(columns="Symbol"), tmp_path / "bars" / "AAA.Parquet")
    save(bars, tmp_path / "bars" / "BBB.pq")
    frame = parse(tmp_path / "bars", instrument_from="file_name").frame
    assert frame[INSTRUMENT].tolist() == ["AAA", "AAA", "BBB", "BBB"]


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
@pytest.mark.parametrize("named", [True, False])
def test_a_missing_instrument_offers_the_files_name(suffix: str, named: bool, tmp_path: Path) -> None:
    """By exactly that setting, of the source or of an entry that the path would need."""
    path = save(make_bars(days=2).drop(columns="Symbol"), tmp_path / f"AAPL.{suffix}")
    with pytest.raises(SourceError) as caught:
        if named:
            parse(path)
        else:
            read_source(Settings(home=tmp_path / "home", data=DataSettings(source=str(path))), str(path), None)
    said = str(caught.value)
    assert "column 'instrument' is missing" in said
    assert ("set data.sources.desk.instrument_from: file_name" if named else "set instrument_from: file_name") in said
    assert named or "alphaops doctor --source" in said


@pytest.mark.parametrize(
    ("foreign", "exclude"),
    [
        (["symbols.csv"], ["symbols.csv"]),
        (["symbols.csv", "meta/list.csv"], ["symbols.csv", "meta/*"]),
        (["_2023/a.csv", "zz_readme.csv"], ["zz_*"]),
        (["more.parquet"], ["*.parquet"]),
    ],
)
def test_a_foreign_file_is_named_and_left_out_by_a_setting(
    foreign: list[str], exclude: list[str], tmp_path: Path
) -> None:
    """The message says which files they are and what to set; with it the rest is read."""
    folder = one_file_each(tmp_path / "bars", ["AAPL.csv", "IBM.csv"])
    for name in foreign:
        save(pd.DataFrame({"secret": ["x"], "date": [1]}), folder / name)
    with pytest.raises(SourceError) as caught:
        parse(folder, instrument_from="file_name")
    visible = [name for name in foreign if not name.startswith("_")]
    assert "no bars, set data.sources.desk.exclude: [" in str(caught.value)
    assert all(name in str(caught.value) for name in visible) and "secret" not in str(caught.value)
    frame = parse(folder, instrument_from="file_name", exclude=tuple(exclude)).frame
    assert sorted(frame[INSTRUMENT]) == ["AAPL", "IBM"]


def test_files_without_the_instrument_are_not_taken_for_foreign_ones(tmp_path: Path) -> None:
    """Beside a foreign file both settings are offered, each for its own files."""
    folder = one_file_each(tmp_path / "bars", ["AAPL.csv", "IBM.csv"])
    with pytest.raises(SourceError, match=r"instrument_from: file_name.*2 of 2 files are like this one") as caught:
        parse(folder)
    assert "exclude" not in str(caught.value)
    save(pd.DataFrame({"x": [1]}), folder / "list.csv")
    with pytest.raises(SourceError, match=r'file_name.*if list\.csv holds no bars, set .*: \["list\.csv"\]'):
        parse(folder)


def test_a_pattern_that_does_not_fit_names_the_file(tmp_path: Path) -> None:
    """With both ways out: another pattern, or to leave the file out."""
    folder = one_file_each(tmp_path / "bars", ["daily_AAPL.csv", "holidays.csv"])
    with pytest.raises(SourceError, match=r"holidays\.csv: rule instruments_named: .*'daily_\(\.\+\)'.*exclude: \["):
        parse(folder, instrument_from="file_name", instrument_pattern="daily_(.+)")


def test_an_exclusion_without_effect_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It is a name that was mistyped, or a file that is gone."""
    folder = one_file_each(tmp_path / "bars", ["AAPL.csv"])
    parse(folder, instrument_from="file_name", exclude=("symbol.csv",))
    assert "`exclude` names 'symbol.csv', and there is no such file" in caplog.text


# How text is written.


@pytest.mark.parametrize(
    ("options", "lines", "header"),
    [
        ({"separator": ";"}, ["2023-01-03;T000;10.5;12;9;11;500"], HEADER.replace(",", ";")),
        ({"separator": "\t"}, ["2023-01-03\tT000\t10.5\t12\t9\t11\t500"], HEADER.replace(",", "\t")),
        ({"separator": "|"}, ["2023-01-03|T000|10.5|12|9|11|500|"], HEADER.replace(",", "|")),
        ({"separator": ";", "decimal": ","}, ["2023-01-03;T000;10,5;12,0;9;11;500"], HEADER.replace(",", ";")),
        ({"decimal": ","}, ['2023-01-03,T000,"10,5",12,9,11,500'], HEADER),
        ({"date_format": "%d/%m/%Y"}, ["03/01/2023,T000,10.5,12,9,11,500"], HEADER),
        ({"date_format": "%m/%d/%Y"}, ["01/03/2023,T000,10.5,12,9,11,500"], HEADER),
        ({"date_format": "%d.%m.%y"}, ["3.1.23,T000,10.5,12,9,11,500"], HEADER),
        ({"date_format": "%d-%b-%Y"}, ["03-Jan-2023,T000,10.5,12,9,11,500"], HEADER),
        ({"thousands": ","}, ['2023-01-03,T000,10.5,12,9,11,"500"'], HEADER),
    ],
)
def test_options_say_how_text_is_written(
    options: dict[str, Any], lines: list[str], header: str, tmp_path: Path
) -> None:
    """Separator, decimal sign, form of dates: the same bar."""
    frame = frame_of(tmp_path, lines, header, **options)
    assert not errors_of(frame)
    assert frame[[OPEN, HIGH, LOW, CLOSE, VOLUME]].iloc[0].tolist() == [10.5, 12, 9, 11, 500]
    assert frame[DATETIME][0] == pd.Timestamp("2023-01-03")


@pytest.mark.parametrize(
    ("decimal", "thousands", "text", "value"),
    [
        (".", ",", "1,280,060", 1_280_060),
        (".", ",", "-1,280.5", -1280.5),
        (",", ".", "1.280.060,25", 1_280_060.25),
        (",", None, "1280,5", 1280.5),
        (".", "'", "1'280'060", 1_280_060),
        (".", " ", "1 280 060", 1_280_060),
        (",", "\u202f", "1\u202f280,5", 1280.5),
        (".", ",", "1,28", None),
        (".", ",", "12,80,060", None),
        (",", ".", "1.28", None),
        (",", None, "1.280", None),
        (".", None, "1,280", None),
    ],
)
def test_numbers_keep_to_their_writing(
    decimal: str, thousands: str | None, text: str, value: float | None, tmp_path: Path
) -> None:
    """Groups of three or none; what is written otherwise is a bad cell that names the options, never a guess."""
    line = f"2023-01-03;T000;10;12;9;11;{text}"
    frame = frame_of(tmp_path, [line], HEADER.replace(",", ";"), separator=";", decimal=decimal, thousands=thousands)
    if value is None:
        assert "`decimal` and `thousands`" in errors_of(frame)[1] and pd.isna(frame[VOLUME][0])
    else:
        assert frame[VOLUME][0] == value and not errors_of(frame)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("-", "-", "--"), "3: - (2), -- (1)"),
        (("\u2013", "\u2014", " - "), "3: "),
        (("\u2014\u2014", "\uff0d", "\u2015"), "3: \u2014\u2014 (1), \uff0d (1), \u2015 (1)"),
        (("\u2212", "NAN", "Null"), "3: \u2212 (1), NAN (1), Null (1)"),
        (("N/A", "null", "#N/A"), "3: N/A (1), null (1), #N/A (1)"),
        (("nan", "NaN", "None"), "3: nan (1), NaN (1), None (1)"),
        (('"-"', "n.a.", "."), "3: - (1), n.a. (1), . (1)"),
    ],
)
@pytest.mark.parametrize("options", [{}, {"decimal": ",", "separator": ";"}, {"thousands": "'"}])
def test_a_dash_or_word_in_place_of_a_value_is_a_missing_one(
    words: Sequence[str], told: str, options: Mapping[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The cell alone is missing, and one line says how many there are."""
    lines = [line.split(",") for line in GOOD]
    for line, place, word in zip(lines, (2, 5, 6), words, strict=True):
        line[place] = word
    separator = options.get("separator", ",")
    lines[1][4] = "10,5" if separator == ";" else "10.5"
    if options.get("thousands"):
        lines[0][6] = "1'500"
    bars = frame_of(tmp_path, [separator.join(line) for line in lines], HEADER.replace(",", separator), **options)
    assert errors_of(bars) == {}
    missing = bars[[*PRICES, VOLUME]].isna().to_numpy()
    assert missing.sum() == 3
    assert missing[[0, 1, 2], [0, 3, 4]].all()
    assert bars[LOW][1] == 10.5
    said = [each.getMessage() for each in caplog.records if "count as missing" in each.getMessage()]
    assert len(said) == 1
    count, _, shown = told.partition(": ")
    assert f"{count} cells hold a word or dash instead of a number or date and count as missing: {shown}" in said[0]


@pytest.mark.parametrize("cell", ["1O.5", "l0", "-10-", "- 10", "10-", "N/A10", "..", "----", "null1", "10 -"])
def test_letters_and_dashes_beside_digits_are_no_placeholder(cell: str, tmp_path: Path) -> None:
    """What is neither a number nor a known sign for a missing one stays a bad cell; nothing is guessed."""
    bars = frame_of(tmp_path, [GOOD[0], f"2023-01-04,T000,{cell},12,9,11,500"])
    assert list(errors_of(bars)) == [2]
    assert np.isnan(bars[OPEN][1])


def test_blanks_alone_are_not_told_as_words(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """An empty cell says by itself that there is nothing."""
    bars = frame_of(tmp_path, ["2023-01-03,T000,,12,9,11,500", '2023-01-04,T000,"",12,9,  ,500'])
    assert bars[OPEN].isna().all()
    assert np.isnan(bars[CLOSE][1])
    assert "count as missing" not in caplog.text


@pytest.mark.parametrize("encoding", ["gb18030", "utf-16", "utf-16-le", "cp1252", "utf-8-sig", "big5"])
def test_text_may_be_in_any_encoding(encoding: str, tmp_path: Path) -> None:
    """With the option; in another one the message names the line and the option."""
    name = {"gb18030": "浦发银行", "big5": "台積電"}.get(encoding, "Zürich" if encoding != "big5" else "")
    more = "备注" if encoding == "gb18030" else ""
    text = "\n".join([f"{HEADER},{more}", f"2023-01-03,{name},10,12,9,11,500,{more}", ""])
    path = tmp_path / "bars.csv"
    path.write_bytes(text.encode(encoding))
    assert parse(path, encoding=encoding).frame[INSTRUMENT].tolist() == [name]
    if not encoding.startswith("utf-8") and encoding != "utf-16-le":
        with pytest.raises(SourceError, match=r"line \d is not UTF-8; set data\.sources\.desk\.encoding: .*gb18030"):
            parse(path)


OPTIONS_NAMED = {
    "a semicolon": (HEADER.replace(",", ";"), ["2023-01-03;T000;10;12;9;11;5"], 'data.sources.desk.separator: ";"'),
    "a tab": (HEADER.replace(",", "\t"), ["2023-01-03\tT000\t10\t12\t9\t11\t5"], r'data.sources.desk.separator: "\t"'),
    "a semicolon in files of one instrument": (
        "date;open;high;low;close;volume",
        ["2023-01-03;10;12;9;11;5"],
        'data.sources.desk.separator: ";"',
    ),
    "a title": ("Prices of the desk", [HEADER, *GOOD], "data.sources.desk.header_rows: 2"),
    "two lines of text": ("Prices", ["in USD", HEADER, *GOOD], "data.sources.desk.header_rows: 3"),
}


@pytest.mark.parametrize("case", OPTIONS_NAMED)
def test_a_header_that_is_not_understood_names_the_option(case: str, tmp_path: Path) -> None:
    """What would make columns of bars of it is tried."""
    header, lines, words = OPTIONS_NAMED[case]
    with pytest.raises(SourceError, match="rule required_columns") as caught:
        frame_of(tmp_path, lines, header)
    assert f"set {words}" in str(caught.value)


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        ("03/01/2023", "`date_format` for another form, such as %d/%m/%Y"),
        ("3 Jan 2023", "`date_format`"),
        ("1672722000", "not a date"),
        ("12345678901234567890", "`epoch_unit`"),
    ],
)
def test_a_date_that_is_none_names_the_option(cell: str, words: str, tmp_path: Path) -> None:
    """A date in another form, or a number in another unit."""
    frame = frame_of(tmp_path, [GOOD[0], f"{cell},T000,1,1,1,1,5", *GOOD[1:]])
    said = errors_of(frame).get(2, "not a date" if cell == "1672722000" else "")
    assert words in said


@pytest.mark.parametrize(
    "wrong",
    [
        {"encoding": "utf-9"},
        {"encoding": "hex"},
        {"separator": ",,"},
        {"separator": '"'},
        {"separator": "a"},
        {"decimal": ",", "thousands": ","},
        {"date_format": "%d/%m"},
        {"date_format": "today"},
        {"epoch_unit": "days"},
        {"timezone": "Shanghai/Asia"},
        {"timezone": "../etc/passwd"},
        {"header_rows": 0},
        {"instrument_pattern": "(.+)"},
        {"instrument_from": "file_name", "instrument_pattern": "daily_.+"},
        {"instrument_from": "file_name", "instrument_pattern": "("},
    ],
)
def test_an_option_that_cannot_be_is_refused(wrong: Mapping[str, Any]) -> None:
    """When the settings are read, not when the file is."""
    with pytest.raises(ValueError, match=next(iter(wrong)).split("_")[0]):
        TableSource(kind="table", path="x", **wrong)


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (["1", "2", "600000"], True),
        (["001", "1234"], True),
        (["000001", "600000"], False),
        (["1", "AAPL", "600000"], True),
        (["AAPL", "A", "7203.T"], False),
    ],
)
def test_names_that_lost_their_zeros_are_told(
    names: list[str], told: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """All-digit names of unequal length."""
    frame_of(tmp_path, [f"2023-01-03,{name},10,12,9,11,500" for name in names])
    assert ("leading zeros are lost" in caplog.text) == told


# Headers of several lines.

YFINANCE = ["Price,Close,High,Low,Open,Volume", "Ticker,AAA,AAA,AAA,AAA,AAA", "Date,,,,,"]
DAY = "2023-01-03,11,12,9,10,500"
TWO = [
    "Price,Close,Close,High,High,Low,Low,Open,Open,Volume,Volume",
    "Ticker,AAA,BBB,AAA,BBB,AAA,BBB,AAA,BBB,AAA,BBB",
    "Date,,,,,,,,,,",
]


@pytest.mark.parametrize("rows", [None, 3])
@pytest.mark.parametrize(
    "head",
    [
        YFINANCE,
        [",Close,High,Low,Open,Volume", ",AAA,AAA,AAA,AAA,AAA", "Date,,,,,"],
        ["Ticker,AAA,AAA,AAA,AAA,AAA", "Price,Close,High,Low,Open,Volume", "Date,,,,,"],
        ["Price,Close,High,Low,Open,Volume", "Ticker,AAA,AAA,AAA,AAA,AAA", "Datetime,,,,,"],
    ],
)
def test_three_header_lines_of_yfinance_are_recognised(head: list[str], rows: int | None, tmp_path: Path) -> None:
    """Names, tickers, and the name of the dates, in both orders of its versions; the header says the instrument."""
    frame = frame_of(tmp_path, [*head[1:], DAY, "2023-01-04,11,12,9"], head[0], header_rows=rows)
    assert frame[[OPEN, HIGH, LOW, CLOSE, VOLUME]].iloc[0].tolist() == [10, 12, 9, 11, 500]
    assert frame[INSTRUMENT].tolist()[0] == "AAA" and frame[SOURCE_ROW].tolist() == [1, 2]
    assert errors_of(frame)[2].startswith("line 5: 4 fields")


def test_several_tickers_in_one_file_are_several_instruments(tmp_path: Path) -> None:
    """As yfinance writes a download of a list; a day on which one did not trade is no row of it."""
    lines = [*TWO[1:], "2023-01-03,11,21,12,22,9,19,10,20,500,600", "2023-01-04,11,,12,,9,,10,,500,"]
    frame = frame_of(tmp_path, lines, TWO[0])
    assert frame[INSTRUMENT].tolist() == ["AAA", "AAA", "BBB"] and frame[CLOSE].tolist() == [11, 11, 21]
    assert frame[SOURCE_ROW].tolist() == [1, 2, 1]


def test_several_tickers_cannot_all_have_the_files_name(tmp_path: Path) -> None:
    """What the header says and what the setting says cannot both be."""
    with pytest.raises(SourceError, match=r"its header names 2 instruments.*instrument_from: column"):
        frame_of(tmp_path, TWO[1:], TWO[0], instrument_from="file_name")


@pytest.mark.parametrize(
    ("count", "head"),
    [
        (2, ["Prices of the desk", HEADER]),
        (2, [HEADER, ",,USD,USD,USD,USD,shares"]),
        (3, ["Prices", "as of today", HEADER]),
        (3, ["a,b,prices,prices,prices,prices,sizes", HEADER, "-,-,USD,USD,USD,USD,shares"]),
    ],
)
def test_a_header_may_have_as_many_lines_as_the_option_says(count: int, head: list[str], tmp_path: Path) -> None:
    """Of each column the line that names it counts."""
    frame = frame_of(tmp_path, [*head[1:], *GOOD], head[0], header_rows=count)
    assert frame[CLOSE].tolist() == [11, 11.5, 21] and frame[SOURCE_ROW].tolist() == [1, 2, 3]


# An adjusted close, the money traded, the previous close.


def with_dividends(name: str, decimals: int = 4) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Raw bars of two instruments with an adjusted close of that name, and the true factors."""
    bars = make_bars(days=60, instruments=2)
    step = np.tile(np.where(np.arange(60) < 20, 0.9, np.where(np.arange(60) < 40, 0.95, 1.0)), 2)
    bars[["Open", "High", "Low", "Close"]] = bars[["Open", "High", "Low", "Close"]].round(decimals)
    return bars.assign(**{name: (bars["Close"] * step).round(decimals + 2)}), pd.DataFrame({FACTOR: step})


@pytest.mark.parametrize("name", ["Adj Close", "adj_close", "AdjClose", "adjusted close"])
def test_an_adjusted_close_is_a_question(name: str, tmp_path: Path) -> None:
    """Without an answer both are offered; as factor prices stay raw; ignored there is no factor."""
    bars, truth = with_dividends(name)
    path = save(bars, tmp_path / "bars.csv")
    with pytest.raises(SourceError, match=r"rule adjusted_close_chosen: .*desk\.adjusted to `factor` .* `ignore`"):
        parse(path)
    factor = parse(path, adjusted="factor").frame
    np.testing.assert_allclose(factor[FACTOR], truth[FACTOR], rtol=1e-5)
    np.testing.assert_array_equal(factor[CLOSE], bars["Close"])
    assert factor.groupby(INSTRUMENT)[FACTOR].nunique().tolist() == [3, 3]
    ignored = parse(path, adjusted="ignore").frame
    assert (ignored[FACTOR] == 1).all() and ignored[CLOSE].tolist() == bars["Close"].tolist()
    assert parse(path, data={"adjusted": "factor"}).frame.equals(factor)


@pytest.mark.parametrize("decimals", [1, 2, 3])
def test_rounding_makes_no_steps_and_hides_no_dividend(decimals: int, tmp_path: Path) -> None:
    """Small dividends that rounding blurs one by one are there in sum."""
    days = 400
    close = np.round(20 + np.sin(np.arange(days) / 7), decimals)
    paid = np.where(np.arange(days) % 20 == 19, 0.002, 0.0)
    true = np.cumprod(1 - paid[::-1])[::-1] / (1 - paid)
    dates = pd.bdate_range("2020-01-01", periods=days).strftime("%Y-%m-%d")
    bars = pd.DataFrame(
        {"date": dates, "instrument": "A", "volume": 1.0, "adj_close": np.round(close * true, decimals)}
    )
    bars = bars.assign(**dict.fromkeys(PRICES, close))
    factor = parse(save(bars, tmp_path / "bars.csv"), adjusted="factor").frame[FACTOR]
    np.testing.assert_allclose(factor, true, rtol=2.5 * 10.0**-decimals / 19)
    assert factor.nunique() <= 21


def test_an_adjusted_close_that_says_nothing_is_no_question(tmp_path: Path) -> None:
    """Equal to the close on every day, or beside a factor."""
    bars = make_bars().assign(adj_close=lambda bars: bars["Close"])
    assert (parse(save(bars, tmp_path / "same.csv")).frame[FACTOR] == 1).all()
    beside = bars.assign(adj_close=lambda bars: bars["Close"] / 2, factor=0.5)
    assert (parse(save(beside, tmp_path / "beside.csv"), prices="raw").frame[FACTOR] == 0.5).all()


UNITS = {
    "shares and yuan": (1, 1),
    "lots and yuan": (100, 1),
    "lots and thousands": (100, 1000),
    "shares, thousands": (1, 1000),
}


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("prices", ["raw", "adjusted"])
def test_vwap_is_the_money_over_the_volume_in_the_unit_that_fits(unit: str, prices: str, tmp_path: Path) -> None:
    """Whatever units the vendor has, and however prices are adjusted: between low and high, or missing."""
    lot, thousands = UNITS[unit]
    bars = make_bars(days=40)
    true = (bars["Low"] + bars["High"] + bars["Close"]) / 3
    amount = (true * bars["Volume"] / thousands).round(3)
    shown = bars.assign(Volume=bars["Volume"] / lot, amount=amount, factor=2.0)
    if prices == "adjusted":
        shown[["Open", "High", "Low", "Close"]] *= 2
    frame = parse(save(shown, tmp_path / "bars.csv"), prices=prices).frame
    np.testing.assert_allclose(frame[VWAP], true, rtol=1e-3)
    assert (frame[VWAP] <= frame[HIGH]).all() and (frame[VWAP] >= frame[LOW]).all()
    assert tuple(frame.columns) == PARSED_COLUMNS


@pytest.mark.parametrize(
    "amount",
    [
        lambda bars: bars["Close"] * bars["Volume"] * 3.7,
        lambda bars: np.random.default_rng(1).uniform(0.1, 5, len(bars)),
        lambda bars: bars["Close"] * 0,
        lambda bars: bars["Close"] * bars["Volume"] * np.where(np.arange(len(bars)) % 5, 1, 100),
    ],
)
def test_an_amount_that_fits_in_no_unit_makes_no_vwap(
    amount: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Another currency, a rate, nothing, or two units in one column."""
    bars = make_bars()
    frame = parse(save(bars.assign(amount=amount(bars)), tmp_path / "bars.csv")).frame
    assert frame[VWAP].isna().all() and "there is no vwap from them" in caplog.text


def test_a_single_amount_that_does_not_fit_makes_no_vwap_of_its_row(tmp_path: Path) -> None:
    """The others have theirs; a vwap of the source's own is taken before."""
    bars = make_bars(days=30)
    amount = bars["Close"] * bars["Volume"]
    amount[7] *= 1.5
    frame = parse(save(bars.assign(amount=amount), tmp_path / "bars.csv")).frame
    assert frame.index[frame[VWAP].isna()].tolist() == [7]
    own = parse(save(bars.assign(amount=amount, vwap=bars["Low"]), tmp_path / "own.csv")).frame
    np.testing.assert_array_equal(own[VWAP], bars["Low"])


@pytest.mark.parametrize("name", ["preclose", "pre_close", "Prev_Close"])
@pytest.mark.parametrize("prices", ["raw", "adjusted"])
def test_the_close_before_is_carried_where_it_is_there(name: str, prices: str, tmp_path: Path) -> None:
    """As a column after the others, in the prices of the day; staging keeps it, and it is part of what is staged."""
    bars = make_bars()
    before = bars["Open"] - 0.25
    scale = 2.0 if prices == "adjusted" else 1.0
    shown = bars.assign(**{name: before * scale, "factor": 2.0})
    shown[["Open", "High", "Low", "Close"]] *= scale
    parsed = parse(save(shown, tmp_path / "bars.csv"), prices=prices)
    assert tuple(parsed.frame.columns) == (*PARSED_COLUMNS, PRECLOSE)
    np.testing.assert_allclose(parsed.frame[PRECLOSE], before)
    settings = Settings(home=tmp_path / "home")
    kept = read_staging(settings, write_staging(settings, parsed))
    np.testing.assert_array_equal(kept.frame[PRECLOSE], parsed.frame[PRECLOSE])
    without = ParsedBars(parsed.frame.drop(columns=PRECLOSE), parsed.source)
    assert staging_id(without) != staging_id(ParsedBars(parsed.frame, parsed.source))


def with_preclose(decimals: int = 2, days: int = 120) -> tuple[pd.DataFrame, dict[int, tuple[float, float]]]:
    """Raw bars of two instruments with the exchange's preclose, and the first one's actions: day to shares for one
    and money a share."""
    actions = {20: (2.0, 0.0), 41: (1.0, 0.5), 60: (1.3, 0.25), 70: (0.1, 0.0)}
    rng, parts = np.random.default_rng(4), []
    dates = pd.bdate_range("2020-01-01", periods=days).strftime("%Y-%m-%d")
    for name in ("A", "B"):
        last, rows = 20.0, []
        for day, date in enumerate(dates):
            shares, paid = actions.get(day, (1.0, 0.0)) if name == "A" else (1.0, 0.0)
            before = round((last - paid) / shares, decimals)
            last = round(before * np.exp(rng.normal(0, 0.01)), decimals)
            rows.append((date, name, last, last, last, last, 100.0, before))
        parts += rows
    return pd.DataFrame(parts, columns=[*HEADER.split(","), "preclose"]), actions


@pytest.mark.parametrize("decimals", [2, 3, 6])
@pytest.mark.parametrize("shuffled", [False, True])
def test_a_factor_is_made_of_preclose(decimals: int, shuffled: bool, tmp_path: Path) -> None:
    """With each action previous close / preclose, to the bit; between two of them nothing; prices stay as traded.
    In closed form: a split's shares, and price / (price - dividend)."""
    bars, actions = with_preclose(decimals)
    shown = bars.sample(frac=1, random_state=1) if shuffled else bars
    frame = parse(save(shown, tmp_path / "bars.csv"), factor="from_preclose").frame.sort_values([INSTRUMENT, DATETIME])
    close, before = bars["close"].to_numpy(), bars["preclose"].to_numpy()
    truth, exact = np.ones(len(bars)), np.ones(len(bars))
    for day, (shares, paid) in actions.items():
        truth[day:120] *= close[day - 1] / before[day]
        exact[day:120] *= shares / (1 - paid / close[day - 1])
    np.testing.assert_array_equal(frame[FACTOR], truth)
    np.testing.assert_allclose(frame[FACTOR], exact, rtol=2.0 * 10.0**-decimals)
    np.testing.assert_array_equal(frame[CLOSE], close)
    adjusted = (frame[CLOSE] * frame[FACTOR]).to_numpy()
    np.testing.assert_allclose(adjusted[1:120] / adjusted[:119], close[1:120] / before[1:120], rtol=1e-12)


def test_what_rounding_does_to_preclose_is_no_action(tmp_path: Path) -> None:
    """Closes of three decimals beside a preclose of two; a dividend of one cent is an action all the same."""
    rng = np.random.default_rng(0)
    close = np.round(3 + np.cumsum(rng.normal(0, 0.02, 300)) * 0.1, 3)
    before = np.round(np.concatenate([[3.0], close[:-1]]), 2)
    dates = pd.bdate_range("2020-01-01", periods=300).strftime("%Y-%m-%d")
    bars = pd.DataFrame({"date": dates, "instrument": "A", "volume": 1.0, "preclose": before})
    bars = bars.assign(**dict.fromkeys(PRICES, close))
    assert (parse(save(bars, tmp_path / "noise.csv"), factor="from_preclose").frame[FACTOR] == 1).all()
    bars.loc[150, "preclose"] = round(close[149] - 0.01, 2)
    factor = parse(save(bars, tmp_path / "cent.csv"), factor="from_preclose").frame[FACTOR]
    assert (factor[:150] == 1).all() and factor[150:].nunique() == 1
    assert factor[150] == pytest.approx(1 + 0.01 / 3, abs=0.005 / 3)


def test_days_without_a_trade_keep_their_action_for_the_next_one(tmp_path: Path) -> None:
    """Blank and zero closes, a missing preclose, and a row that is there twice make no action and hide none."""
    bars, _ = with_preclose()
    truth = parse(save(bars, tmp_path / "whole.csv"), factor="from_preclose").frame[FACTOR].to_numpy()
    holes = bars.copy()
    holes.loc[20, ["open", "high", "low", "close"]] = np.nan
    holes.loc[21, "preclose"] = bars["preclose"][20]
    holes.loc[60, ["open", "high", "low", "close"]] = 0.0
    holes.loc[61, "preclose"] = bars["preclose"][60]
    holes.loc[[5, 0], "preclose"] = [np.nan, 0.0]
    holes = pd.concat([holes, holes.iloc[[41, 130]]], ignore_index=True)
    found = parse(save(holes, tmp_path / "holes.csv"), factor="from_preclose").frame[FACTOR].to_numpy()
    kept = np.setdiff1d(np.arange(240), [20, 60])
    np.testing.assert_array_equal(found[kept], truth[kept])
    assert found[240] == truth[41] and found[241] == 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda bars: bars.drop(columns="preclose"), "there is no preclose.*name it in `columns`"),
        (lambda bars: bars.assign(factor=1.0), "there is a factor"),
        (lambda bars: bars.assign(preclose=bars["open"] * 1.01), "differs from the previous bar's close in"),
        (lambda bars: bars.assign(preclose=bars["preclose"] * 3), "is something else, or prices are adjusted"),
        (lambda bars: bars.assign(preclose=np.nan), "differs from the previous bar's close in 0 of 0 rows"),
    ],
)
def test_a_preclose_that_makes_no_factor_is_refused(change: Any, words: str, tmp_path: Path) -> None:
    """With the rule and the option that asked for it."""
    bars, _ = with_preclose()
    with pytest.raises(SourceError, match=f"rule factor_from_preclose: .*{words}.*desk\\.factor: null"):
        parse(save(change(bars), tmp_path / "bars.csv"), factor="from_preclose")


def factor_told(bars: pd.DataFrame, folder: Path, **options: Any) -> Any:
    """The factor that is made of preclose, in the order of the rows."""
    return parse(save(bars, folder / "bars.csv"), factor="from_preclose", **options).frame[FACTOR].to_numpy()


@pytest.mark.parametrize(
    ("place", "columns", "scale"),
    [
        (100, [*PRICES], 1.6),
        (100, [*PRICES], 0.5),
        (100, ["close"], 1.05),
        (200, ["close"], 1.05),
        (100, ["preclose"], 0.5),
        (100, ["preclose"], 10.0),
    ],
)
def test_a_wrong_number_is_no_action(
    place: int, columns: list[str], scale: float, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither a jump that the next preclose takes back, nor a close outside its range, nor a preclose that the open
    does not follow changes a factor; how many there are is told."""
    bars, _ = with_preclose(days=200)
    truth = factor_told(bars, tmp_path)
    assert "without an action" not in caplog.text
    bars.loc[place, columns] *= scale
    np.testing.assert_array_equal(factor_told(bars, tmp_path), truth)
    wrong = (0, 1) if columns == ["preclose"] else (1, 0)
    said = (
        "differ in 1 rows without an action: in {} the previous close seems wrong, in {} preclose does, and 0 "
        "come after"
    )
    assert said.format(*wrong) in caplog.text


def test_a_row_that_is_missing_is_no_action(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Not where the other instrument traded on the day; a day that nobody traded on is no gap."""
    bars, _ = with_preclose(days=200)
    truth = factor_told(bars, tmp_path)
    without = bars.drop(index=[110])
    np.testing.assert_array_equal(factor_told(without, tmp_path), np.delete(truth, 110))
    assert (
        "in 0 the previous close seems wrong, in 0 preclose does, and 1 come after sessions without a row"
        in caplog.text
    )
    caplog.clear()
    holiday = factor_told(bars.drop(index=[19, 219]), tmp_path)
    assert holiday[19] == pytest.approx(bars["close"][18] / bars["preclose"][20])
    assert "without an action" not in caplog.text


@pytest.mark.parametrize(("every", "said"), [(0, "has no factor"), (70, "preclose shows"), (400, None)])
def test_a_number_of_actions_that_is_not_usual_is_told(
    every: int, said: str | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """None in twelve years, as of a shifted close, is a warning; so are more than three a year, and not one in two."""
    days = pd.bdate_range("2010-01-04", periods=3000)
    close = np.round(np.linspace(20, 30, len(days)), 2)
    before = np.concatenate([[20.0], close[:-1]])
    if every:
        before[every::every] -= 0.5
    bars = pd.DataFrame({"date": days, "instrument": "A", "volume": 1.0, "preclose": before.round(2)})
    made = factor_told(bars.assign(**dict.fromkeys(PRICES, close)), tmp_path)
    assert len(np.unique(made)) == (len(range(every, 3000, every)) + 1 if every else 1)
    told = [
        each.getMessage() for each in caplog.records if each.levelname == "WARNING" and "preclose" in each.getMessage()
    ]
    assert len(told) == (said is not None)
    assert said is None or said in told[0]


def test_a_factor_of_preclose_needs_raw_prices(tmp_path: Path) -> None:
    """A source that says that its prices are adjusted is refused, with both remedies."""
    bars, _ = with_preclose()
    with pytest.raises(
        SourceError, match=r"rule factor_from_preclose: .*desk\.prices: raw, or set .*desk\.factor: null"
    ):
        factor_told(bars, tmp_path, prices="adjusted")


def test_decimals_are_those_of_each_instrument(tmp_path: Path) -> None:
    """Prices in whole yen beside prices in mills: what rounding does to the former is no action."""
    rng = np.random.default_rng(1)
    days = pd.bdate_range("2020-01-01", periods=300)
    parts = []
    for name, level, decimals in (("Y", 3000.0, 0), ("D", 3.0, 3)):
        close = np.round(level * np.exp(np.cumsum(rng.normal(0, 0.01, 300))), decimals + 1)
        before = np.round(np.concatenate([[level], close[:-1]]), decimals)
        part = pd.DataFrame({"date": days, "instrument": name, "volume": 1.0, "preclose": before})
        parts.append(part.assign(**dict.fromkeys(PRICES, close)))
    for ordered in (parts, parts[::-1]):
        assert (factor_told(pd.concat(ordered), tmp_path) == 1).all()


def test_a_preclose_without_a_factor_offers_to_make_one(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Only where nothing says what the factor is."""
    bars, _ = with_preclose()
    path = save(bars, tmp_path / "bars.csv")
    assert (parse(path).frame[FACTOR] == 1).all()
    assert "or make it from preclose: set data.sources.desk.factor: from_preclose" in caplog.text
    caplog.clear()
    parse(path, factor="from_preclose")
    assert "no factor" not in caplog.text


@pytest.mark.parametrize(
    ("columns", "said", "unsaid"),
    [
        ({}, ["factor", "vwap", "calendar"], []),
        ({"factor": 1.0}, ["vwap"], ["factor"]),
        ({"factor": 1.0, "vwap": 50.0}, [], ["factor", "vwap"]),
    ],
)
def test_what_a_source_does_not_have_is_said_once(
    columns: dict[str, float], said: list[str], unsaid: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """In one warning of the reading, whatever the number of files."""
    for name in ("a.csv", "b.csv", "c.csv"):
        save(make_bars(days=3).assign(**columns), tmp_path / "bars" / name)
    parse(tmp_path / "bars")
    told = [record.getMessage() for record in caplog.records if "has no " in record.getMessage()]
    assert len(told) == bool(said)
    assert all(word in told[0] for word in said) and not any(f"no {word}" in each for word in unsaid for each in told)


def test_files_of_one_source_keep_their_order_and_their_names(tmp_path: Path) -> None:
    """Rows come file by file, each with its own file and number, whichever format and instruments they have."""
    bars = make_bars(days=5, instruments=3)
    save(bars[bars["Symbol"] != "S01"], tmp_path / "bars" / "a.csv")
    save(bars[bars["Symbol"] == "S01"], tmp_path / "bars" / "b.parquet")
    frame = parse(tmp_path / "bars").frame
    assert frame[INSTRUMENT].tolist() == ["S00"] * 5 + ["S02"] * 5 + ["S01"] * 5
    assert frame[SOURCE_ROW].tolist() == [*range(1, 11), *range(1, 6)]
    assert frame[SOURCE_FILE].astype(str).str[-9:].tolist() == ["ars/a.csv"] * 10 + ["b.parquet"] * 5


DIALECTS = [
    (separator, end, quoting)
    for separator in ",;\t|"
    for end in ("\n", "\r\n", "\r")
    for quoting in (csv.QUOTE_MINIMAL, csv.QUOTE_ALL)
]


@pytest.mark.parametrize(("separator", "end", "quoting"), DIALECTS)
def test_what_a_csv_writer_wrote_is_read_back(separator: str, end: str, quoting: Any, tmp_path: Path) -> None:
    """In every dialect, columns in any order, blank lines and rows of other lengths between: value by value."""
    rng = random.Random(f"{separator}{end}{quoting}")
    notes = ["", "plain", "with, comma; and | more\t", 'q"q', "'", "two\nlines" if end != "\r" else "two lines"]
    columns = [*HEADER.split(","), "note"]
    rng.shuffle(columns)
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=separator, lineterminator=end, quoting=quoting)
    writer.writerow(columns)
    written: dict[int, dict[str, Any] | None] = {}
    for row in range(1, 120):
        record = {
            "date": f"2023-01-{rng.randint(1, 28):02d}",
            "instrument": rng.choice(["A", "BRK.B", "NA", "NULL", "浦发", 'a"b', "T" * 60]),
            "note": rng.choice(notes),
            **{name: rng.choice([rng.uniform(0, 1e6), rng.randint(0, 10**12), ""]) for name in (*PRICES, VOLUME)},
        }
        fields, kind = [record[name] for name in columns], rng.random()
        if kind < 0.1:
            text.write(end)
        elif kind < 0.2:
            writer.writerow([*fields, "x"] if kind < 0.15 else ["y", *fields[: rng.randint(0, 5)]])
            written[row] = None
        else:
            writer.writerow(fields)
            written[row] = record
    (tmp_path / "bars.csv").write_bytes(text.getvalue().encode())
    frame = parse(tmp_path / "bars.csv", separator=separator).frame
    assert frame[SOURCE_ROW].tolist() == list(written)
    assert sorted(errors_of(frame)) == [row for row, record in written.items() if record is None]
    good = frame[frame[PARSE_ERROR].isna()]
    records = [record for record in written.values() if record is not None]
    assert good[INSTRUMENT].tolist() == [record["instrument"] for record in records]
    for name in (*PRICES, VOLUME):
        truth = [np.nan if record[name] == "" else float(record[name]) for record in records]
        np.testing.assert_array_equal(good[name], truth)


def test_words_of_dates_are_counted_too(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Beside those of numbers; without a date, the row is a bad one by its key."""
    bars = frame_of(tmp_path, [*GOOD, "-,T002,20,22,19,-,700", "N/A,T002,20,22,19,21,700", ",T002,20,22,19,21,700"])
    assert bars[DATETIME].isna().tolist() == [False] * 3 + [True] * 3
    assert "3 cells hold a word or dash instead of a number or date and count as missing: - (2), N/A (1)" in caplog.text


@pytest.mark.parametrize("word", ["", "NA", "\u2014", "nAn", " NA"])
def test_null_words_change_no_other_value(word: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Whichever way the file is read: rows with fields too many and too few included, and each word is counted once."""
    rng = np.random.default_rng(0)
    values = rng.uniform(1, 100, (50, 5)).round(3)
    cells = values.astype(str)
    cells[3:30, 1] = cells[7:9, 4] = word
    lines = [f"2023-01-03,T{i:03d},{','.join(row)}{',' * (i == 20)}" for i, row in enumerate(cells)]
    lines.insert(10, "2023-01-03,T")
    found = frame_of(tmp_path, lines)
    expected = values.copy()
    expected[3:30, 1] = expected[7:9, 4] = np.nan
    np.testing.assert_array_equal(found.drop(index=10)[[*PRICES, VOLUME]], expected)
    assert list(errors_of(found)) == [11]
    assert (
        f"29 cells hold a word or dash instead of a number or date and count as missing: {word.strip()} (29)"
        in caplog.text
    ) == bool(word)
