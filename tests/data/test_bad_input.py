"""Bad input: the message says where, which rule and what to do; the last good version stays in use."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

from mlops_tasks.config import Settings
from mlops_tasks.data.tasks import read_source_task, validate_bars_task
from mlops_tasks.data.vintages import current_version
from mlops_tasks.errors import MlopsError, SourceError, SourceNotFoundError, VintageRejectedError
from mlops_tasks.files import read_json
from mlops_tasks.state.history import newest_alerts
from tests.data.market import make_bars, save, sync

Spoil = Callable[[pd.DataFrame], pd.DataFrame]


def with_cell(row: int, column: str, value: object) -> Spoil:
    def spoil(bars: pd.DataFrame) -> pd.DataFrame:
        spoiled = bars.astype({column: object}) if isinstance(value, str) else bars.copy()
        spoiled.loc[row - 1, column] = value
        return spoiled.astype({column: str}) if isinstance(value, str) else spoiled

    return spoil


def high_below_low_everywhere(bars: pd.DataFrame) -> pd.DataFrame:
    return bars.rename(columns={"High": "Low", "Low": "High"})


REFUSED: dict[str, tuple[Spoil, type[MlopsError], list[str]]] = {
    "missing column": (
        lambda bars: bars.drop(columns="Close"),
        SourceError,
        ["column 'close' is missing", "rule required_columns", "accepted names: ", "rename the column"],
    ),
    "empty table": (lambda bars: bars.iloc[:0], SourceError, ["rule table_not_empty", "deliver at least one bar"]),
    "high below low": (
        high_below_low_everywhere,
        VintageRejectedError,
        ["row 1:", "rule high_not_below_low", "high=", "low=", "remedy: correct high and low", "no row is left"],
    ),
}
ONE_ROW: dict[str, tuple[Spoil, int, list[str]]] = {
    "text in a price column": (
        with_cell(7, "Close", "abc"),
        7,
        ["parsable_cells", "Close='abc' is not a number", "write numbers as 12.5"],
    ),
    "negative price": (with_cell(5, "Open", -3.5), 5, ["open_positive", "open=-3.5", "deliver the traded price"]),
    "zero price": (with_cell(5, "Low", 0.0), 5, ["low_positive", "low=0"]),
    "a date that is no date": (
        with_cell(9, "Date", "2020-02-31"),
        9,
        ["parsable_cells", "Date='2020-02-31' is not a date", "dates as YYYY-MM-DD"],
    ),
    "a slash in a name": (with_cell(4, "Symbol", "BRK/B"), 4, ["parsable_cells", "Symbol='BRK/B'", "without slash"]),
    "names that differ in case": (
        with_cell(4, "Symbol", "s01"),
        4,
        ["distinct_names", "instrument=s01", "one spelling"],
    ),
    "infinite price": (with_cell(4, "High", float("inf")), 4, ["parsable_cells", "High=inf is not a finite number"]),
    "a row twice": (
        lambda bars: pd.concat([bars, bars.iloc[[2]]], ignore_index=True),
        121,
        ["repeated_row", "instrument=S00", "nothing to do: the first one stays"],
    ),
}
"""How a file is spoiled, the row that it costs, and what the quarantine says of it."""


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_refused_by_name_and_the_good_version_stays(
    case: str, suffix: str, settings: Settings, tmp_path: Path
) -> None:
    """The message names file, row or column, rule and remedy; what was in use before still is."""
    good = sync(save(make_bars(), tmp_path / f"good.{suffix}"))
    before = (settings.data_dir / "current.json").read_bytes()
    spoil, error_type, words = REFUSED[case]
    bad = save(spoil(make_bars()), tmp_path / f"bad.{suffix}")
    with pytest.raises(error_type) as caught:
        sync(bad)
    for word in [str(bad), *words]:
        assert word in str(caught.value)
    assert (settings.data_dir / "current.json").read_bytes() == before
    assert current_version(settings) == good["data_version"]


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
@pytest.mark.parametrize("case", ONE_ROW)
def test_one_bad_cell_costs_its_row(case: str, suffix: str, settings: Settings, tmp_path: Path) -> None:
    """The row is in quarantine with rule, value and remedy; every other one is published, and the panel is small."""
    spoil, row, words = ONE_ROW[case]
    bad = save(spoil(make_bars()), tmp_path / f"bad.{suffix}")
    result = sync(bad)
    kept = pq.read_table(settings.data_dir / "quarantine" / result["staging"] / "rows.parquet").to_pandas()
    assert set(kept["source_row"]) == {row} and result["quarantined"] == 1
    told = "; ".join(f"{r['rule']}: {r['reason']}: {r['remedy']}" for r in kept.to_dict("records"))
    for word in words:
        assert word in told
    assert current_version(settings) == result["data_version"]


def test_rows_that_rival_for_a_key_are_quarantined_both(settings: Settings, tmp_path: Path) -> None:
    """Nobody knows which is right; a third row that repeats one of them is left out as a repeat."""
    bars = make_bars()
    other = bars.iloc[[2]].assign(Close=bars["Close"][2] * 1.0001)
    result = sync(save(pd.concat([bars, other, bars.iloc[[2]]], ignore_index=True), tmp_path / "bad.csv"))
    assert result["rules"] == {"repeated_row": 1, "unique_keys": 2} and result["accepted"] == len(bars) - 1
    kept = pq.read_table(settings.data_dir / "quarantine" / result["staging"] / "rows.parquet").to_pandas()
    assert dict(zip(kept["source_row"], kept["rule"], strict=True)) == {
        122: "repeated_row",
        3: "unique_keys",
        121: "unique_keys",
    }


@pytest.mark.parametrize("name", ["nowhere.parquet", "nowhere.csv", "nowhere"])
def test_a_missing_source_is_named(name: str, settings: Settings, tmp_path: Path) -> None:
    """A source that is not there is said to be so, with the setting to correct."""
    with pytest.raises(SourceNotFoundError, match=rf"{name}: rule source_exists.*correct data.source \(SOURCE\)"):
        sync(tmp_path / name)
    assert current_version(settings) is None


@pytest.mark.parametrize("name", ["torn.parquet", "torn.csv"])
def test_an_unreadable_file_is_named(name: str, home: Path, tmp_path: Path) -> None:
    """A file that is no parquet, or CSV with a torn row, is refused with its name and the rule."""
    (tmp_path / name).write_bytes(b"Date,Symbol,Open,High,Low,Close,Volume\n2020-01-02,A,1,1,1,1,1,1,1,1\n\xff\xfe")
    with pytest.raises(SourceError, match=rf"{name}: rule readable_file.*deliver the file again"):
        sync(tmp_path / name)


def test_an_empty_csv_file_is_named(home: Path, tmp_path: Path) -> None:
    """A CSV file without even a header breaks table_not_empty."""
    (tmp_path / "none.csv").write_text("")
    with pytest.raises(SourceError, match=r"none.csv: rule table_not_empty"):
        sync(tmp_path / "none.csv")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("S00\t2020-01-01\n", "line 1: rule membership_spell"),
        ("S00\t2020-01-01\tnever\n", "line 1: rule membership_spell"),
        ("S00\t2020-01-01\t2020-02-01\nS01\t2020-03-01\t2020-02-01\n", "line 2: rule membership_spell"),
        ("", "rule table_not_empty"),
    ],
)
def test_a_bad_membership_line_is_named(text: str, words: str, home: Path, tmp_path: Path) -> None:
    """A membership file is refused with its line, the rule and the format."""
    universe = tmp_path / "members.txt"
    universe.write_text(text)
    with pytest.raises(SourceError, match=words) as caught:
        sync(save(make_bars(), tmp_path / "bars.csv"), universe)
    assert str(universe) in str(caught.value)
    assert "tab separated" in str(caught.value)


def test_rejected_rows_are_kept_with_their_reasons(settings: Settings, tmp_path: Path) -> None:
    """The quarantine of a rejected vintage holds each bad row with rule, reason and remedy; counts add up."""
    bars = make_bars()
    bars.loc[[3, 4], "Close"] = -1.0
    read = read_source_task(source=str(save(bars, tmp_path / "bars.csv")))
    with pytest.raises(VintageRejectedError):
        validate_bars_task(staging=read["staging"])
    folder = settings.data_dir / "quarantine" / read["staging"]
    rows = pq.read_table(folder / "rows.parquet").to_pandas()
    assert set(rows["rule"]) == {"close_positive", "close_not_below_low"}
    assert rows["source_row"].tolist() == [4, 5, 4, 5]
    assert rows["reason"].str.contains("close=-1").all()
    assert rows["remedy"].str.len().gt(10).all()
    report = read_json(folder / "report.json")
    assert report["received"] == report["accepted"] + report["quarantined"] == len(bars)
    assert report["quarantined"] == 2


def test_a_rejection_is_repeated_by_a_retry(settings: Settings, tmp_path: Path) -> None:
    """A retry of a rejected validation gives the same message again, and alerts once."""
    bars = make_bars()
    bars.loc[[3, 4], "Close"] = -1.0
    read = read_source_task(source=str(save(bars, tmp_path / "bars.csv")))
    messages = []
    for _ in range(2):
        with pytest.raises(VintageRejectedError) as caught:
            validate_bars_task(staging=read["staging"])
        messages.append(str(caught.value))
    assert messages[0] == messages[1]
    alerts = newest_alerts(settings, 5)
    assert [(alert.kind, alert.subject, alert.message) for alert in alerts] == [
        ("vintage_rejected", read["staging"], messages[0])
    ]


def test_few_bad_rows_are_left_out(settings: Settings, tmp_path: Path) -> None:
    """Row-level failures below the allowed share are quarantined and the rest becomes the vintage."""
    bars = make_bars(days=100)
    bars.loc[10, "Open"] = None
    result = sync(save(bars, tmp_path / "bars.parquet"))
    assert (result["received"], result["accepted"], result["quarantined"]) == (400, 399, 1)
    assert result["rules"] == {"open_present": 1}
    assert result["rows"] == 399 and current_version(settings) == result["data_version"]


def test_one_series_for_many_instruments_is_refused(home: Path, tmp_path: Path) -> None:
    """A source that copied one series to every instrument is rejected, though each instrument alone looks right: no
    row is left."""
    bars = make_bars(instruments=8)
    for column in ("Open", "High", "Low", "Close", "Volume"):
        bars[column] = bars.groupby("Date")[column].transform("first")
    with pytest.raises(VintageRejectedError, match=r"rule own_series.*copies=8"):
        sync(save(bars, tmp_path / "bars.parquet"))


def test_a_missing_volume_is_a_bar(settings: Settings, tmp_path: Path) -> None:
    """Volume may be missing; the row is kept and counted as a warning."""
    bars = make_bars()
    bars.loc[5, "Volume"] = None
    result = sync(save(bars, tmp_path / "bars.csv"))
    assert result["quarantined"] == 0
    report = read_json(settings.data_dir / "quarantine" / result["staging"] / "report.json")
    assert report["warnings"] == {"volume_missing": 1}
