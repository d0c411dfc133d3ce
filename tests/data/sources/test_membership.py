"""Membership files: dates of one form, open ends, and names that the bars know."""

from pathlib import Path

import pandas as pd
import pytest

from mlops_tasks.config import DataSettings, Settings
from mlops_tasks.data.sources import read_source
from mlops_tasks.data.sources.membership import (
    FIRST_DATE,
    LAST_DATE,
    OPEN_END,
    canonical_membership,
    format_membership,
    read_membership,
)
from mlops_tasks.errors import SourceError
from tests.data.market import make_bars, save


def members(folder: Path, text: str, form: str | None = None) -> pd.DataFrame:
    """The spells of a membership file beside bars of S00 to S03."""
    universe = folder / "members.txt"
    universe.write_text(text)
    source = str(save(make_bars(days=3), folder / "bars.csv"))
    data = DataSettings(source=source, universe=str(universe), universe_date_format=form)
    found = read_source(Settings(home=folder / "home", data=data), source, str(universe)).universe
    assert found is not None
    return found


def lines(first: str, last: str, names: tuple[str, ...] = ("S00", "S01")) -> str:
    return "".join(f"{name}\t{first}\t{last}\n" for name in names)


@pytest.mark.parametrize(
    "end",
    ["", "9999-12-31", "2262-04-12", "2200-01-01", "nan", "NaT", "None", "null", "9999-12-31 00:00:00", "99991231"],
)
def test_an_open_end_means_still_a_member(end: str, tmp_path: Path) -> None:
    """An empty last day, or one that no calendar reaches; the file that is kept says the same."""
    found = members(tmp_path, lines("2019-01-03", end))
    assert (found[LAST_DATE] == pd.Timestamp(OPEN_END)).all()
    kept = tmp_path / "kept.txt"
    kept.write_text(format_membership(found))
    assert read_membership(kept).equals(found)


@pytest.mark.parametrize("text", ["S00,2019-01-03,\nS01,2019-01-03,", "S00\t2019-01-03\t\r\nS01\t2019-01-03\t"])
def test_an_open_end_may_be_written_in_other_ways(text: str, tmp_path: Path) -> None:
    """With commas, with line ends of another system."""
    assert (members(tmp_path, text)[LAST_DATE] == pd.Timestamp(OPEN_END)).all()


@pytest.mark.parametrize("end", ["2099-12-31", "2024-12-31", "2019/12/31", "20191231"])
def test_an_end_that_a_calendar_reaches_stays(end: str, tmp_path: Path) -> None:
    """Year first, in any of the writings that bars may have."""
    assert (members(tmp_path, lines("2019-01-03", end))[LAST_DATE] == pd.Timestamp(end)).all()


@pytest.mark.parametrize(
    ("first", "last"),
    [
        ("03/01/2023", "31/12/2024"),
        ("02/01/2023", "05/06/2024"),
        ("2023", "2025"),
        ("2023-01", "2024-12"),
        ("Jan 3, 2023", "Dec 31, 2024"),
        ("3-1-2023", "31-12-2024"),
        ("2023-13-01", "2024-12-31"),
        ("2023-01-03", "31/12/2024"),
        ("", "2024-12-31"),
        ("1672531200", "1735603200"),
    ],
)
def test_days_of_another_form_are_refused(first: str, last: str, tmp_path: Path) -> None:
    """None is guessed: the message has the file, the line, the form and the setting for another one."""
    with pytest.raises(
        SourceError, match=r"members\.txt, line 2: rule membership_spell: the (first|last) day"
    ) as caught:
        members(tmp_path, lines("2019-01-03", "", ("S00",)) + lines(first, last, ("S01",)))
    assert "YYYY-MM-DD" in str(caught.value) and "data.universe_date_format" in str(caught.value)
    assert not first or first not in str(caught.value)


@pytest.mark.parametrize(
    ("form", "first", "last", "day"),
    [
        ("%d/%m/%Y", "03/01/2023", "31/12/2024", "2023-01-03"),
        ("%m/%d/%Y", "02/01/2023", "05/06/2024", "2023-02-01"),
        ("%d.%m.%Y", "3.1.2023", "", "2023-01-03"),
        ("%Y%m%d", "20230103", "99991231", "2023-01-03"),
    ],
)
def test_another_form_is_a_setting(form: str, first: str, last: str, day: str, tmp_path: Path) -> None:
    """All days are of that form, and of no other."""
    assert (members(tmp_path, lines(first, last), form)[FIRST_DATE] == pd.Timestamp(day)).all()
    with pytest.raises(SourceError, match="the first day is not of the form '%"):
        members(tmp_path, lines("2023-01-03", ""), form)


@pytest.mark.parametrize("suffix", [".US", " US Equity", "-USD", ".SH"])
def test_members_that_no_bar_knows_are_refused(suffix: str, tmp_path: Path) -> None:
    """With an example and the name that is most like it."""
    text = lines("2019-01-03", "", tuple(f"S0{i}{suffix}".replace(" ", "_") for i in (2, 1)))
    with pytest.raises(SourceError, match=r"members\.txt: rule members_known: none of its 2 instruments") as caught:
        members(tmp_path, text)
    assert f"'S01{suffix.replace(' ', '_')}' is not there, the nearest name is 'S01'" in str(caught.value)


@pytest.mark.parametrize("unknown", [("GONE",), ("GONE", "LOST", "MISSED"), tuple(f"X{i:02d}" for i in range(30))])
def test_unknown_members_beside_known_ones_are_listed(
    unknown: tuple[str, ...], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """In a warning; their spells stay, for a name may come back."""
    found = members(tmp_path, lines("2019-01-03", "", ("S00", *unknown)))
    assert f"{len(unknown)} of {len(unknown) + 1} instruments have no bars" in caplog.text
    assert all(name in caplog.text for name in unknown[:20]) and unknown[0] in set(found["instrument"])
    assert ("and 10 more" in caplog.text) == (len(unknown) == 30)


def test_known_members_are_no_news(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing is said, and spells are sorted and without repeats."""
    found = members(tmp_path, lines("2019-01-03", "") + lines("2019-01-03", "") + lines("2018-01-03", "2018-02-01"))
    assert "have no bars" not in caplog.text and len(found) == 4 and canonical_membership(found).equals(found)
