"""HTML pages that are whole in themselves: they load nothing, run nothing, and follow the reader's light or dark theme.

Every text that is not `Markup` is escaped when it is put into one.
"""

import re
from collections.abc import Iterable, Sequence

from markupsafe import Markup

POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
"""Content-Security-Policy of a page, also when it is opened as a file."""

_STYLE = """
:root { color-scheme: light dark; --text: #1c2733; --muted: #5d6875; --back: #ffffff; --card: #f5f7f9; --edge: #d7dee5;
  --up: #1b6e3c; --down: #a1260d; }
@media (prefers-color-scheme: dark) { :root { --text: #dfe6ec; --muted: #9aa7b4; --back: #14191f; --card: #1b222a;
  --edge: #36414c; --up: #7fd6a0; --down: #ff9a80; } a { color: #8ab8ff; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--text); background: var(--back); max-width: 72rem;
  margin: 2rem auto; padding: 0 1rem; }
h1, h2, p, li, dd { overflow-wrap: anywhere; }
.box { overflow-x: auto; max-width: 100%; margin: .5rem 0 1.5rem; }
table { border-collapse: collapse; }
td, th { border-bottom: 1px solid var(--edge); padding: .3rem .8rem .3rem 0; text-align: left; vertical-align: top; }
th.number, td.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
code, pre { font: 13px/1.5 ui-monospace, monospace; white-space: pre-wrap; overflow-wrap: anywhere; }
.rejected { color: var(--down); } .accepted { color: var(--up); }
"""

_NUMBER = re.compile(r"[+\-−]?[\d,]*\.?\d+(e[+\-]?\d+)?%?|–")


_CLASS = Markup(' class="number"')


def head(more: str = "") -> Markup:
    """Policy and style, to be put into a page's head; `more` are style rules of this page."""
    content = f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n<style>{_STYLE}{more}</style>\n'
    return Markup(content)  # noqa: S704  no text from outside


def page(title: str, body: Markup, style: str = "") -> str:
    """A whole page; `style` are further rules."""
    return Markup(
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        "<title>{}</title>\n{}</head><body>\n{}\n</body></html>\n"
    ).format(title, head(style), body)


def table(columns: Sequence[str], rows: Sequence[Sequence[str | Markup]]) -> Markup:
    """A table in a box that scrolls sideways where it is too wide; cells that are numbers stand at the right, and the
    title of a column of numbers with them."""
    if not rows:
        return Markup("<p>none</p>")
    amounts = [all(_NUMBER.fullmatch(cell) for cell in cells) for cells in zip(*rows, strict=True)]
    titles = joined(map(_title, columns, amounts))
    lines = joined(Markup("<tr>{}</tr>").format(joined(map(_cell, row))) for row in rows)
    return Markup('<div class="box"><table><tr>{}</tr>{}</table></div>').format(titles, lines)


def joined(parts: Iterable[str | Markup]) -> Markup:
    """One after another."""
    return Markup("").join(parts)


def _title(word: str, is_amount: bool) -> Markup:
    return Markup("<th{}>{}</th>").format(_CLASS if is_amount else "", word)


def _cell(word: str | Markup) -> Markup:
    return Markup("<td{}>{}</td>").format(_CLASS if _NUMBER.fullmatch(word) else "", word)
