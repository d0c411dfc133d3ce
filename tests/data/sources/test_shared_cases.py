"""Small files in the shapes that trouble reports describe, where they lie beside the project: each ends rightly."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mlops_tasks.columns import CLOSE, DATETIME, FACTOR, INSTRUMENT
from mlops_tasks.config import DataSettings, Settings, TableSource
from mlops_tasks.data.sources import ParsedBars, read_source
from mlops_tasks.data.sources.membership import LAST_DATE
from mlops_tasks.data.validation.expectations import load_suites
from mlops_tasks.data.validation.rules import Rules, validate
from mlops_tasks.errors import SourceError
from tests.benchmarks.panels import PANELS

CASES = PANELS.parent / "cases"
RULES = Rules(load_suites())
pytestmark = pytest.mark.skipif(not CASES.is_dir(), reason="the files are not at hand")


def read(home: Path, name: str, universe: str | None = None, **options: Any) -> ParsedBars:
    """What a named source of the file gives."""
    spec = TableSource(kind="table", path=str(CASES / name), **options)
    members = None if universe is None else str(CASES / universe)
    data = DataSettings(source="desk", sources={"desk": spec}, universe=members)
    return read_source(Settings(home=home, data=data), "desk", members)


@pytest.mark.parametrize(
    ("name", "options", "rules"),
    [
        ("close_and_Close.csv", {"columns": {"close": "close"}}, {}),
        ("t_and_T.csv", {"columns": {"datetime": "t", "instrument": "T"}}, {}),
        ("adj_close_beside_close.csv", {"adjusted": "factor"}, {}),
        ("adj_close_beside_close.csv", {"adjusted": "ignore"}, {}),
        ("empty_row_of_tomorrow.csv", {}, {"no_trade": 1}),
        ("halted_zero_prices.csv", {}, {"no_trade": 1}),
        ("three_header_rows", {}, {}),
        ("universe_bars.csv", {}, {}),
    ],
)
def test_what_can_be_read_costs_no_more_than_its_row(
    name: str, options: dict[str, Any], rules: dict[str, int], tmp_path: Path
) -> None:
    """The vintage stays; of a row without a trade that row goes."""
    validation = validate(read(tmp_path, name, **options).frame, RULES)
    assert validation.rules == rules and not validation.fatal
    assert validation.quarantined == sum(rules.values())


def test_the_columns_of_exact_names_are_read(tmp_path: Path) -> None:
    """Not those that differ in case."""
    written = pd.read_csv(CASES / "close_and_Close.csv")
    close = read(tmp_path, "close_and_Close.csv", columns={"close": "close"}).frame
    np.testing.assert_array_equal(close[CLOSE], written["close"])
    written = pd.read_csv(CASES / "t_and_T.csv")
    both = read(tmp_path, "t_and_T.csv", columns={"datetime": "t", "instrument": "T"}).frame
    assert both[INSTRUMENT].tolist() == written["T"].astype(str).tolist()
    assert both[DATETIME].nunique() * both[INSTRUMENT].nunique() == len(written)


def test_an_adjusted_close_is_a_question_and_then_the_factor(tmp_path: Path) -> None:
    """Adjusted over close, up to rounding; prices as traded."""
    with pytest.raises(SourceError, match="rule adjusted_close_chosen"):
        read(tmp_path, "adj_close_beside_close.csv")
    frame, written = (
        read(tmp_path, "adj_close_beside_close.csv", adjusted="factor").frame,
        pd.read_csv(CASES / "adj_close_beside_close.csv"),
    )
    np.testing.assert_array_equal(frame[CLOSE], written["Close"])
    np.testing.assert_allclose(frame[CLOSE] * frame[FACTOR], written["Adj Close"], rtol=2e-3)


def test_an_instrument_below_zero_goes_alone(tmp_path: Path) -> None:
    """And the rule says that the adjustment subtracts."""
    frame = read(tmp_path, "forward_adjusted_below_zero.csv").frame
    validation = validate(frame, RULES)
    assert validation.rules["subtractive_adjustment"] == validation.quarantined == len(frame) // 4
    assert not validation.fatal


def test_separators_of_thousands_are_named(tmp_path: Path) -> None:
    """With line and count, and the hint."""
    with pytest.raises(SourceError, match=r"line 2: 8 fields where the header has 7; '280,060' may be one number"):
        read(tmp_path, "thousands_unquoted.csv")


@pytest.mark.parametrize("universe", ["universe_far_end.txt", "universe_noend.txt"])
def test_an_open_end_is_still_a_member(universe: str, tmp_path: Path) -> None:
    """All six."""
    spells = read(tmp_path, "universe_bars.csv", universe).universe
    assert spells is not None and len(spells) == 6
    assert (spells[LAST_DATE] > pd.Timestamp("2190-01-01")).all()


@pytest.mark.parametrize("universe", ["universe_dmy.txt", "universe_mdy_amb.txt", "universe_year_only.txt"])
def test_days_of_another_form_are_an_error(universe: str, tmp_path: Path) -> None:
    """With file, line and the form."""
    with pytest.raises(SourceError, match=rf"{universe}, line 1: rule membership_spell: .* YYYY-MM-DD"):
        read(tmp_path, "universe_bars.csv", universe)


def test_members_that_nobody_knows_are_rejected(tmp_path: Path) -> None:
    """With an example and the nearest name."""
    with pytest.raises(SourceError, match=r"rule members_known: none of its 6 .* 'T000.US' .* nearest name is 'T000'"):
        read(tmp_path, "universe_bars.csv", "universe_none_known.txt")
