"""The data docs: the whole frame's counts, nothing from the source or the network that could run, the same bytes."""

import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mlops_tasks.columns import CLOSE, INSTRUMENT, PRICES, VOLUME
from mlops_tasks.config import Settings
from mlops_tasks.data.sources.parsed import PARSE_ERROR, SOURCE_FILE
from mlops_tasks.data.tasks import read_source_task, render_docs_task, validate_bars_task
from mlops_tasks.data.validation.data_docs import (
    EVIDENCE,
    SAMPLE,
    evidence_of,
    evidence_rows,
    render_index,
    render_suites,
)
from mlops_tasks.data.validation.expectations import load_suites
from mlops_tasks.data.validation.rules import Rules, validate
from mlops_tasks.errors import VintageRejectedError
from tests.data.market import make_bars, parsed_frame, save

pytestmark = pytest.mark.suite_pages

RULES = Rules(load_suites())
EVIL = "<script>alert(1)</script>$HOME${x}"


def spoiled() -> pd.DataFrame:
    """Twelve instruments: 400 rows without an open, one with a split and a hostile name, hostile texts."""
    frame = parsed_frame(make_bars(days=200, instruments=12))
    frame.loc[1000:1399, "open"] = np.nan
    frame.loc[50:199, list(PRICES)] /= 2
    frame.loc[50:199, VOLUME] *= 2
    frame[INSTRUMENT] = frame[INSTRUMENT].replace({"S00": EVIL, "S03": "aPPle", "S04": "APPLE"})
    frame[SOURCE_FILE] = frame[SOURCE_FILE].cat.rename_categories([f"{EVIL}.csv"])
    frame.loc[7, PARSE_ERROR] = f"Close='{EVIL}' is not a number"
    frame.loc[9, CLOSE] = frame.loc[9, "high"] * 2
    return frame


def rendered(frame: pd.DataFrame, title: str, rejected: str) -> dict[str, str]:
    validation = validate(frame, RULES)
    pages = render_index(validation, RULES, title=title, rejected=rejected)
    return pages | render_suites(evidence_of(validation, RULES, rejected=rejected), RULES.suites)


def render() -> dict[str, str]:
    return rendered(spoiled(), f"{EVIL}.csv", f"rejected for {EVIL}")


pages = cache(render)


def text_of(page: str) -> str:
    return " ".join(re.sub(r"<[^>]+>", " ", page).split())


def test_counts_are_those_of_the_whole_frame() -> None:
    """Great Expectations saw part of the rows; the page says how many of all broke each rule."""
    shown = pages()
    assert len(evidence_rows(2400, [np.arange(1000, 1400)])) < 2400
    assert re.search(r"open_present row 400 open is missing", text_of(shown["index.html"]))
    assert re.search(
        r"values must never be null\. 400 unexpected values found\. .*?16\.6+7?% of 2,?400 total rows",
        text_of(shown["bars.html"]),
    )
    assert re.search(r"1 unexpected values found\. .*?8\.3+% of 12 total rows", text_of(shown["instruments.html"]))
    assert "split_ratio=0.5" in text_of(shown["index.html"])


@pytest.mark.parametrize("rejected", ["", "rejected for a reason"])
def test_every_page_has_the_validations_own_verdict(rejected: str) -> None:
    """Great Expectations calls a page failed as soon as one rule is broken, though the vintage may be in use all the
    same: its word is on no page, the validation's is on each."""
    frame = parsed_frame(make_bars(days=200, instruments=12))
    frame.loc[10:12, "open"] = np.nan
    shown = rendered(frame, "bars.csv", rejected)
    verdict = "rejected" if rejected else "accepted"
    for name, page in shown.items():
        text = text_of(page)
        assert f"{verdict} , 3 of 2,400 rows in quarantine" in text, name
        assert not re.search(r"Status: (Failed|Succeeded)", text), name
    assert "1 of 40 rules of this page are broken" in text_of(shown["bars.html"])


def test_no_text_of_a_source_becomes_markup() -> None:
    """Names, file names and bad cells are shown literally on every page, and no page may run or load anything."""
    for name, page in pages().items():
        assert "<script" not in page.lower(), name
        assert not re.findall(r"(?:src|href)=[\"']?(?!#|[a-z]+\.html)[^\"'> ]+", page), name
        assert "default-src 'none'" in page, name
    shown = pages()
    assert "&lt;script&gt;alert(1)&lt;/script&gt;$HOME${x}" in shown["index.html"]
    assert "&lt;script&gt;alert(1)&lt;/script&gt;$HOME${x}" in shown["bars.html"]


def test_the_same_rows_and_rules_are_the_same_bytes() -> None:
    """No clock and no random number is in a page."""
    assert render() == pages()


def test_evidence_is_bounded_and_spread() -> None:
    """The first rows of each rule and an even sample, whatever the size."""
    rows = evidence_rows(1_000_000, [np.arange(500_000), np.array([999_998])])
    assert len(rows) <= EVIDENCE + SAMPLE + 1
    assert {0, 1, EVIDENCE - 1, 999_998, 999_999} <= set(rows.tolist())
    assert evidence_rows(3, []).tolist() == [0, 1, 2] and len(evidence_rows(0, [])) == 0


def test_a_rejected_vintage_has_its_docs(settings: Settings, tmp_path: Path) -> None:
    """They lie beside the report and give the reasons; nothing is left half-written."""
    bars = make_bars()
    bars.loc[[3, 4], "Close"] = -1.0
    read = read_source_task(source=str(save(bars, tmp_path / "bars.csv")))
    with pytest.raises(VintageRejectedError):
        validate_bars_task(staging=read["staging"])
    folder = settings.data_dir / "quarantine" / read["staging"]
    made = render_docs_task(staging=read["staging"])["pages"]
    docs = sorted(path.name for path in (folder / "docs").iterdir())
    assert docs == ["bars.html", "index.html", "instruments.html", "sessions.html"] == sorted([*made, "index.html"])
    assert render_docs_task(staging=read["staging"])["pages"] == [], "they are there"
    page = (folder / "docs" / "index.html").read_text()
    assert "rejected" in page and "close_positive" in page and "row 4" in page


def test_a_validation_does_without_great_expectations(home: Path, tmp_path: Path) -> None:
    """Its import costs more than all of a small panel's validation: it waits for the task that renders."""
    source = save(make_bars(), tmp_path / "bars.csv")
    code = (
        "import sys; from mlops_tasks.data.tasks import *; "
        f"staging = read_source_task(source={str(source)!r})['staging']; validate_bars_task(staging=staging); "
        "print(staging, *sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    staging, *modules = done.stdout.split()
    assert "bars.html" in render_docs_task(staging=staging)["pages"]
    assert not set(modules) & {"great_expectations", "jsonschema", "matplotlib", "sqlalchemy"}


def test_without_suite_pages_there_is_the_index_alone() -> None:
    """It says all that it says with them, and links to nothing that is not there."""
    kept = render_index(
        validate(spoiled(), RULES), RULES, title=f"{EVIL}.csv", rejected=f"rejected for {EVIL}", suite_pages=False
    )
    assert list(kept) == ["index.html"]
    with_pages = pages()["index.html"]
    assert with_pages.startswith(kept["index.html"].split("\n</body>")[0])
    assert "<h2>Expectations</h2>" in with_pages and "<h2>Expectations</h2>" not in kept["index.html"]
