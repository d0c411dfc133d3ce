"""The tables of docs/experiments.md from the measured rates: `python -m tests.experiments.rates_page`.

Everything between the markers of the page is written anew; `test_rates.py` fails where the page lags behind.
"""

from mlops_tasks.config import PROJECT
from mlops_tasks.experiments.inference.offers import Data, Looks, Rate, rates

PAGE = PROJECT / "docs" / "experiments.md"
BEGIN, END = "<!-- rates: begin -->", "<!-- rates: end -->"


def tables() -> str:
    """False findings and power, in percent, by kind of data; a refused cell is struck out."""
    found = rates()
    parts = []
    for n in sorted({rate.n for rate in found}):
        for looks in Looks:
            rows = [rate for rate in found if rate.n == n and rate.looks is looks]
            if rows:
                parts.append(_table(f"{n} observations, {_LOOKS[looks]}", rows))
    return "\n\n".join(parts)


_LOOKS = {Looks.ONE: "one look", Looks.WEEKLY: "a look every week", Looks.DAILY: "a look every day"}


def _table(title: str, rows: list[Rate]) -> str:
    lines = [f"**{title}**", "", "| method | " + " | ".join(data.replace("_", " ") for data in Data) + " |"]
    lines.append("| --- |" + " --- |" * len(Data))
    for method in dict.fromkeys(rate.method for rate in rows):
        cells = {rate.data: rate for rate in rows if rate.method == method}
        lines.append(f"| `{method}` | " + " | ".join(_cell(cells.get(data)) for data in Data) + " |")
    best = {
        data: [
            max((r.power for r in rows if r.data is data and r.holds is holds), default=None) for holds in (True, False)
        ]
        for data in Data
    }
    lines.append("| *cost* | " + " | ".join(_cost(*best[data]) for data in Data) + " |")
    return "\n".join(lines)


def _cell(rate: Rate | None) -> str:
    if rate is None:
        return ""
    text = f"{100 * rate.false:.1f} / {100 * rate.power:.0f}"
    return text if rate.holds else f"~~{text}~~"


def _cost(right: float | None, wrong: float | None) -> str:
    """Power of the best method that is right minus that of the best one that is wrong, in points."""
    return "" if right is None or wrong is None else f"{100 * (right - wrong):+.0f}"


def page(text: str) -> str:
    """The page with the tables of now."""
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n\n{tables()}\n\n{END}{rest.split(END)[1]}"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text()))
