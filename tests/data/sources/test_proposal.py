"""What `alphaops doctor --source` proposes works when it is pasted."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import yaml

from mlops_tasks.cli import main
from mlops_tasks.columns import CLOSE, DATETIME, INSTRUMENT, VOLUME
from mlops_tasks.config import Settings, load_settings
from mlops_tasks.data.sources import read_source
from mlops_tasks.data.sources.proposal import propose
from mlops_tasks.errors import SourceError
from tests.data.market import make_bars, save

Write = Callable[[pd.DataFrame, Path], None]

CLOSES = "Close"


def european(bars: pd.DataFrame, folder: Path) -> None:
    """Semicolons, decimal commas, points between thousands, days first, in a Western encoding."""
    shown = bars.assign(Date=pd.to_datetime(bars["Date"]).dt.strftime("%d.%m.%Y"), Bemerkung="für")
    for name in ("Open", "High", "Low", CLOSES):
        shown[name] = (shown[name] * 100).map("{:,.2f}".format).str.translate(str.maketrans(",.", ".,"))
    shown["Volume"] = shown["Volume"].map("{:,.0f}".format).str.replace(",", ".")
    shown.to_csv(folder / "bars.csv", sep=";", index=False, encoding="cp1252")


def american(bars: pd.DataFrame, folder: Path) -> None:
    """Months first, commas between thousands, in quotes."""
    shown = bars.assign(Date=pd.to_datetime(bars["Date"]).dt.strftime("%m/%d/%Y"))
    shown["Volume"] = shown["Volume"].map("{:,.0f}".format)
    shown.to_csv(folder / "bars.csv", index=False)


def one_file_each(bars: pd.DataFrame, folder: Path) -> None:
    """A file an instrument with a word around its name, in several suffixes, beside a list of something else."""
    for place, (name, part) in enumerate(bars.groupby("Symbol")):
        text = part.drop(columns="Symbol").to_csv(index=False).encode()
        suffix = (".csv", ".CSV", ".csv.GZ")[place % 3]
        (folder / f"daily_{name}_1d{suffix}").write_bytes(gzip.compress(text) if "GZ" in suffix else text)
    (folder / "symbols.csv").write_text("symbol,sector\nS00,x\n")


def yearly_files(bars: pd.DataFrame, folder: Path) -> None:
    """A file an instrument and a year."""
    for (name, year), part in bars.groupby(["Symbol", bars["Date"].str[:4]]):
        save(part.drop(columns="Symbol"), folder / f"{name}_{year}.csv")


def chinese(bars: pd.DataFrame, folder: Path) -> None:
    """GB 18030, with tabs."""
    bars.assign(备注="浦发银行股份").to_csv(folder / "bars.csv", sep="\t", index=False, encoding="gb18030")


def with_a_title(bars: pd.DataFrame, folder: Path) -> None:
    """Two lines above the header, seconds since 1970."""
    seconds = pd.to_datetime(bars["Date"]).astype("datetime64[s]").astype("int64")
    text = bars.assign(Date=seconds).to_csv(index=False)
    (folder / "bars.csv").write_text(f"Prices of the desk\nin USD\n{text}")


def utf16(bars: pd.DataFrame, folder: Path) -> None:
    """As a spreadsheet writes "Unicode text"."""
    bars.to_csv(folder / "bars.csv", sep="\t", index=False, encoding="utf-16")


def with_adjusted_close(bars: pd.DataFrame, folder: Path) -> None:
    """An adjusted close beside the close."""
    bars.assign(**{"Adj Close": bars[CLOSES] * 0.9}).to_csv(folder / "bars.csv", index=False)


def parquet_files(bars: pd.DataFrame, folder: Path) -> None:
    """Parquet without the instrument."""
    for name, part in bars.groupby("Symbol"):
        save(part.drop(columns="Symbol"), folder / f"{name}.Parquet")


def plain(bars: pd.DataFrame, folder: Path) -> None:
    """What needs no option."""
    save(bars, folder / "bars.csv")


SHAPES: tuple[tuple[Write, set[str]], ...] = (
    (european, {"encoding", "separator", "decimal", "thousands", "date_format"}),
    (american, {"thousands", "date_format"}),
    (one_file_each, {"instrument_from", "instrument_pattern", "exclude"}),
    (yearly_files, {"instrument_from", "instrument_pattern"}),
    (chinese, {"encoding", "separator"}),
    (with_a_title, {"header_rows"}),
    (utf16, {"encoding", "separator"}),
    (with_adjusted_close, {"adjusted"}),
    (parquet_files, {"instrument_from"}),
    (plain, set()),
)


@pytest.mark.parametrize(("write", "options"), SHAPES, ids=lambda each: getattr(each, "__name__", ""))
def test_a_proposal_reads_the_bars_when_it_is_pasted(
    write: Write, options: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The options that are needed and no others; with them every bar is read as it was written."""
    folder, home = tmp_path / "bars", tmp_path / "home"
    folder.mkdir()
    home.mkdir()
    bars = make_bars(days=25, instruments=3, start="2019-12-20")
    write(bars, folder)
    found = propose(Settings(home=home), str(folder))
    assert not found.failed and found.read["rows"] == len(bars) and found.read["bad_rows"] == 0
    assert set(found.options) - {"kind", "path"} == options
    (home / "settings.yaml").write_text(found.snippet())
    settings = load_settings({"MLOPS_HOME": str(home)})
    frame = read_source(settings, settings.data.source, None).frame.sort_values([INSTRUMENT, DATETIME])
    assert frame[INSTRUMENT].tolist() == bars["Symbol"].tolist()
    assert frame[DATETIME].tolist() == pd.to_datetime(bars["Date"]).tolist()
    assert frame[VOLUME].tolist() == bars["Volume"].tolist()
    scale = 100 if write is european else 1
    assert (frame[CLOSE].to_numpy() / scale - bars[CLOSES].to_numpy()).__abs__().max() < 1e-4


@pytest.mark.parametrize(("days", "form"), [(["01/02/2023", "02/02/2023", "03/02/2023"], "%d/%m/%Y"),
                                            (["02/01/2023", "02/02/2023", "02/03/2023"], "%m/%d/%Y"),
                                            (["02/01/23", "02/02/23", "02/03/23"], "%m/%d/%y")])  # fmt: skip
def test_days_and_months_are_told_apart_by_their_order(days: list[str], form: str, tmp_path: Path) -> None:
    """Bars follow one another by days, not by months."""
    rows = "".join(f"{day},A,1,1,1,1,5\n" for day in days)
    (tmp_path / "bars.csv").write_text(f"date,instrument,open,high,low,close,volume\n{rows}")
    assert propose(Settings(home=tmp_path / "home"), str(tmp_path / "bars.csv")).options["date_format"] == form


def test_the_command_prints_yaml_and_says_what_was_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """For a person and for a machine; no header is quoted, and what holds no bars fails."""
    monkeypatch.setenv("MLOPS_HOME", str(tmp_path / "home"))
    path = save(make_bars(days=3).assign(secret=1), tmp_path / "bars.csv")
    assert main(["doctor", "--source", str(path)]) == 0
    shown = capsys.readouterr().out
    assert "12 rows of 4 instruments in 1 files" in shown and "secret" not in shown
    assert yaml.safe_load(shown)["data"]["sources"]["bars"] == {"kind": "table", "path": str(path)}
    assert main(["doctor", "--source", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["read"]["rows"] == 12
    other = save(pd.DataFrame({"secret": [1], "date": [2]}), tmp_path / "other.csv")
    assert main(["doctor", "--source", str(other)]) == 1
    shown = capsys.readouterr().out
    assert "no column is known as instrument, open" in shown and "secret" not in shown


@pytest.mark.parametrize("path", ["/proc/self", "/etc/passwd", "nowhere"])
def test_only_allowed_files_are_looked_at(path: str, tmp_path: Path) -> None:
    """What is no file of bars, or is never read, is refused."""
    with pytest.raises(SourceError):
        propose(Settings(home=tmp_path / "home"), path)
    (tmp_path / "home" / "secrets").mkdir(parents=True)
    with pytest.raises(SourceError, match="rule allowed_source"):
        propose(Settings(home=tmp_path / "home"), str(tmp_path / "home" / "secrets"))
