"""A model's report: whole in itself, and safe whatever its texts are (`tests/plugins` opens it)."""

import re
from html.parser import HTMLParser

import numpy as np
import pytest

from mlops_tasks.explain.model_report import FACTORS, ModelReport
from mlops_tasks.html_page import POLICY
from tests.explain.reports import EVIL, MATH, made_page


@pytest.fixture(scope="module")
def made() -> tuple[ModelReport, str]:
    """The report and its page."""
    return made_page()


class Elements(HTMLParser):
    """Tags with their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_a_page_loads_nothing_and_runs_nothing(made: tuple[ModelReport, str]) -> None:
    """No script, picture, frame, form or handler, no address but the names of SVG; and a policy that allows none."""
    _, text = made
    elements = Elements(text).found
    tags = {tag for tag, _ in elements}
    assert not tags & {"script", "img", "iframe", "object", "embed", "link", "form", "base", "image", "a"}
    assert {"svg", "table", "details"} <= tags
    policies = [each["content"] for tag, each in elements if each.get("http-equiv") == "Content-Security-Policy"]
    assert policies == [POLICY]
    for _, attributes in elements:
        assert not any(name.startswith("on") for name in attributes)
        references = [value for name, value in attributes.items() if name in ("href", "src", "xlink:href") and value]
        assert all(value.startswith("#") for value in references)
    assert set(re.findall(r"https?://[^\"\s]+", text)) <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    ids = [value for tag, each in elements if (value := each.get("id")) and tag in ("path", "clippath")]
    assert len(ids) == len(set(ids))


def test_texts_are_shown_as_they_are(made: tuple[ModelReport, str]) -> None:
    """Names of features, groups, instruments and models; in a plot, dollars are dollars."""
    _, text = made
    assert EVIL not in text and "&lt;img src=x" in text
    assert text.count("$x^2$ &amp; &lt;b&gt;") >= 3  # table, folded table, plot


def test_the_page_says_what_the_tables_do(made: tuple[ModelReport, str]) -> None:
    """Indicators by themselves, all factors in a sentence, shares that add up, the sizes of gap and sample."""
    report, text = made
    words = re.sub(r"\s+", " ", re.sub("<[^>]+>", " ", text))
    assert report.indicators is not None
    assert set(report.indicators.table.index) == {EVIL, "MACD", FACTORS}
    assert report.indicators.table["share"].sum() == pytest.approx(1)
    assert report.groups.table["ic_part"].sum() == pytest.approx(report.ic, abs=1e-6)
    assert "480 scores of 80 days from 2024-01-01 to 2024-04-19" in words
    assert "coefficient x (value - mean" in words and "none: nothing is drawn" in words
    assert "Version 1 scored the day before" in words
    periods = report.by_period()
    shares = periods.groupby(["kind", "period"])["share"].sum()
    np.testing.assert_allclose(shares, 1, rtol=0, atol=1e-12)
    assert set(periods["kind"]) == {"feature", "group", "indicator"}
    table = report.table()
    assert table.loc["RSI14", "direction"] == pytest.approx(1) and table.loc[MATH, "direction"] == pytest.approx(-1)
    assert list(table["share"]) == sorted(table["share"], reverse=True)
