"""The report of a model in a browser: on a phone, in light and in dark, with names that would be markup."""

import re
from pathlib import Path

import numpy as np
from playwright.sync_api import Browser

from tests.explain.reports import made_page


def test_it_can_be_read_on_a_phone_and_in_the_dark(browser: Browser, tmp_path: Path) -> None:
    """390 pixels wide nothing sticks out but what scrolls in its box; texts of page and plots stand out in both themes;
    nothing of the hostile names runs, nothing is asked of a network."""
    file = tmp_path / "explanation.html"
    file.write_text(made_page()[1])
    asked: list[str] = []
    page = browser.new_page()
    page.on("request", lambda request: asked.append(request.url))
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        page.set_viewport_size({"width": 390, "height": 800})
        page.goto(file.as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        back, ink, plot = page.evaluate(
            "() => [getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color,"
            " getComputedStyle(document.querySelector('svg text')).fill]"
        )
        assert contrast(back, ink) > 7 and contrast(back, plot) > 4.5
        size = page.evaluate("document.querySelector('svg text').getBoundingClientRect().height")
        assert size >= 9
    assert page.title() == "What moves version 2"
    assert asked == [file.as_uri()] * 2
    page.close()


def contrast(one: str, two: str) -> float:
    """Contrast ratio of two colours (WCAG 2)."""
    first, second = sorted((_luminance(one), _luminance(two)), reverse=True)
    return (first + 0.05) / (second + 0.05)


def _luminance(colour: str) -> float:
    channels = [int(each) / 255 for each in re.findall(r"\d+", colour)[:3]]
    linear = [each / 12.92 if each <= 0.03928 else ((each + 0.055) / 1.055) ** 2.4 for each in channels]
    return float(np.dot([0.2126, 0.7152, 0.0722], linear))
