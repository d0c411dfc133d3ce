"""The tables of docs/experiments.md from the measured rates: `python -m tests.experiments.rates_page`.

Everything between the markers of the page is written anew; `test_rates.py` fails where the page lags behind.
"""

from mlops_tasks.config import PROJECT
from mlops_tasks.experiments.inference.offers import RATES, Data, Looks, Observations, Rate, observations_of, rates
from mlops_tasks.files import read_json

PAGE = PROJECT / "docs" / "experiments.md"
BEGIN, END = "<!-- rates: begin -->", "<!-- rates: end -->"
OTHER_BEGIN, OTHER_END = "<!-- other days: begin -->", "<!-- other days: end -->"


def tables() -> str:
    """False findings and power, in percent, by kind of data; a refused cell is struck out."""
    found = rates()
    parts = []
    for observations, title in _TITLES.items():
        own = [rate for rate in found if observations_of(rate.method) is observations]
        for n in sorted({rate.n for rate in own}):
            for looks in Looks:
                rows = [rate for rate in own if rate.n == n and rate.looks is looks]
                if rows:
                    parts.append(_table(f"{title.format(n=n)}, {_LOOKS[looks]}", rows))
    return "\n\n".join(parts)


_TITLES = {
    Observations.PAIRED_DAYS: "{n} days of both arms",
    Observations.SWITCHED_DAYS: "{n} days of one arm each",
    Observations.UNITS: "{n} units in each arm",
}
_LOOKS = {Looks.ONE: "one look", Looks.WEEKLY: "a look every week", Looks.DAILY: "a look every day"}


def _table(title: str, rows: list[Rate]) -> str:
    kinds = [data for data in Data if any(rate.data is data for rate in rows)]
    lines = [f"**{title}**", "", "| method | " + " | ".join(data.replace("_", " ") for data in kinds) + " |"]
    lines.append("| --- |" + " --- |" * len(kinds))
    for method in dict.fromkeys(rate.method for rate in rows):
        cells = {rate.data: rate for rate in rows if rate.method == method}
        lines.append(f"| `{method}` | " + " | ".join(_cell(cells.get(data)) for data in kinds) + " |")
    best = [
        [max((r.power for r in rows if r.data is data and r.holds is holds), default=None) for holds in (True, False)]
        for data in kinds
    ]
    if any(None not in pair for pair in best):
        lines.append("| *cost* | " + " | ".join(_cost(*pair) for pair in best) + " |")
    return "\n".join(lines)


def _cell(rate: Rate | None) -> str:
    if rate is None:
        return ""
    text = f"{100 * rate.false:.1f} / {100 * rate.power:.0f}"
    return text if rate.holds else f"~~{text}~~"


def _cost(right: float | None, wrong: float | None) -> str:
    """Power of the best method that is right minus that of the best one that is wrong, in points."""
    return "" if right is None or wrong is None else f"{100 * (right - wrong):+.0f}"


def other_table() -> str:
    """False findings on days outside the kinds that were measured, in percent; by 60, 120 and 252 days."""
    rows = read_json(RATES)["other"]
    columns = list(dict.fromkeys((row["method"], row["looks"]) for row in rows))
    lines = ["| days | " + " | ".join(f"`{method}`, {looks}" for method, looks in columns) + " |"]
    lines.append("| --- |" + " --- |" * len(columns))
    for kind in dict.fromkeys(row["kind"] for row in rows):
        cells = [
            " / ".join(
                f"{100 * row['false']:.1f}"
                for row in sorted(rows, key=lambda row: row["n"])
                if (row["kind"], row["method"], row["looks"]) == (kind, *column)
            )
            for column in columns
        ]
        lines.append(f"| {kind} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def page(text: str) -> str:
    """The page with the tables of now."""
    for begin, end, table in ((BEGIN, END, tables()), (OTHER_BEGIN, OTHER_END, other_table())):
        before, rest = text.split(begin)
        text = f"{before}{begin}\n\n{table}\n\n{end}{rest.split(end)[1]}"
    return text


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text()))
