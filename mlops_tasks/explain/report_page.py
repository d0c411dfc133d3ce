"""The report of a model as one HTML page: nothing is loaded, all texts are escaped, and it can be read on a phone."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from markupsafe import Markup

from mlops_tasks.explain.day_list import DayChanges, DayReasons, NameChange, Part
from mlops_tasks.explain.explanation import Explanation, Method
from mlops_tasks.explain.model_report import FACTORS, ModelReport, Ranked
from mlops_tasks.explain.over_time import OverTime
from mlops_tasks.html_page import joined, page, table

FIRST = 20
"""Features in the first table; all follow, folded."""

_STYLE = """
dl { display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: .2rem 1rem; margin: 0 0 1rem; }
dt { color: var(--muted); } dd { margin: 0; }
h2 { margin: 2rem 0 .5rem; font-size: 1.2rem; } p { max-width: 48rem; } small, figcaption { color: var(--muted); }
figure { margin: 1rem 0; max-width: 40rem; } figure svg { width: 100%; height: auto; display: block; }
svg text { fill: var(--text); }
th { color: var(--muted); font-weight: 600; font-size: .85rem; }
.part { display: inline-block; margin: 0 .6rem 0 0; overflow-wrap: anywhere; font-variant-numeric: tabular-nums; }
.part b { font-weight: 600; } .up b { color: var(--up); } .down b { color: var(--down); }
summary { cursor: pointer; color: var(--muted); }
@media (max-width: 600px) { body { margin: 1rem auto; } h1 { font-size: 1.4rem; }
  dl { grid-template-columns: minmax(0, 1fr); gap: 0; } dd { margin: 0 0 .4rem; } }
"""

_SAID_OF_METHOD = {
    Method.TREES: "exact Shapley values along the paths of the trees; an unknown feature follows the training rows",
    Method.LINEAR: "exact Shapley values, coefficient x (value - mean of the training segment)",
    Method.EXPECTED_GRADIENTS: "expected gradients against rows of the training segment, summed over the window",
    Method.PERMUTATIONS: "Shapley values sampled over orders of the features, against rows of the training segment",
}


@dataclass(frozen=True)
class Subject:
    """What a report is about, as its head names it."""

    version: int
    model: str
    feature_set: str
    data_version: str
    training_key: str


@dataclass(frozen=True)
class DayList:
    """The highest scores of a day, and what has changed them; `replaced` is the version that scored the day before, if
    another."""

    reasons: DayReasons
    changes: DayChanges | None
    replaced: int | None


@dataclass(frozen=True)
class Figures:
    """The plots as `<svg>` elements."""

    influence: str
    groups: str
    dependence: str


def report_page(subject: Subject, report: ModelReport, day: DayList, figures: Figures) -> str:
    """The page."""
    title = f"What moves version {subject.version}"
    body = joined(
        [
            Markup("<h1>{}: {}</h1>").format(title, subject.model),
            _facts(subject, report),
            _day(day),
            _changes(subject, day),
            _features(report, figures),
            _indicators(report),
            _groups(report, figures),
            _dependence(report, figures),
            _reading(),
        ]
    )
    return page(title, body, _STYLE)


def _facts(subject: Subject, report: ModelReport) -> Markup:
    explanation, gap = report.explanation, report.explanation.gap
    first, last = report.span
    facts = {
        "Features": f"{len(report.features.table)} of the set {subject.feature_set}",
        "Data version": subject.data_version,
        "Training": subject.training_key,
        "Sample": f"{report.rows:,} scores of {len(explanation.days)} days from {first} to {last}, at most "
        f"{report.size.names} names a day: validation and test days",
        "Method": _SAID_OF_METHOD[explanation.method],
        "Additivity gap": f"at most {gap.largest:.2g}, {gap.share:.1e} of the spread of the scores",
        "Sampling error": _error(explanation),
        "IC of the sample": _ic(report),
        "Rank stability": f"mean rank correlation of successive periods {_steadiness(report.features.periods)}",
    }
    items = joined(Markup("<dt>{}</dt><dd>{}</dd>").format(name, text) for name, text in facts.items())
    return Markup("<dl>{}</dl>").format(items)


def _error(explanation: Explanation) -> str:
    share = explanation.error_share
    return "none: nothing is drawn" if share is None else f"{share:.1%} of the contributions, as root mean squares"


def _ic(report: ModelReport) -> str:
    daily = report.features.periods.daily.ic.dropna()
    if daily.empty:
        return "not known: no labels"
    error = _number(float(daily.std(ddof=1) / np.sqrt(len(daily))), ".4f")
    return f"{report.ic:+.4f}, standard error {error} over {len(daily)} days"


def _steadiness(periods: OverTime) -> str:
    correlation = periods.rank_correlation()
    return f"{correlation:.2f}" if np.isfinite(correlation) else "not known: one period"


def _day(day: DayList) -> Markup:
    reasons = day.reasons
    rows = [
        (str(each.rank), each.instrument, _signed(each.score), _parts(each.parts, each.rest)) for each in reasons.names
    ]
    text = Markup("<h2>The top of {}</h2><p>Score = base {} + contributions: the largest, and all others.</p>{}")
    return text.format(reasons.day.date(), _signed(reasons.base), table(("Rank", "Name", "Score", "Why"), rows))


def _changes(subject: Subject, day: DayList) -> Markup:
    if day.changes is None:
        return Markup("")
    by = f"Both days are scored by version {subject.version}: what has changed are the features."
    if day.replaced is not None:
        by = (
            f"Version {day.replaced} scored the day before. A change is divided between features and model: what each "
            "is worth, on average over both orders in which they may change. Two models' scores may differ in scale."
        )
    rows = [_change(each) for each in day.changes.names]
    text = Markup("<h2>Since {}</h2><p>{}</p>{}")
    return text.format(day.changes.before.date(), by, table(("Rank", "Name", "Change", "Why"), rows))


def _change(change: NameChange) -> list[str | Markup]:
    if change.score_before is None or change.rank_before is None:
        return [f"new: {change.rank}", change.instrument, "–", "had no score"]
    moved = _unbroken(f"{change.rank_before} to {change.rank}")
    why = _parts(change.parts, change.rest)
    if change.model is not None:
        by_model = _parts((Part("base", change.model.base), *change.model.parts), change.model.rest)
        why = Markup("<small>By features:</small> {}<br><small>By the model:</small> {}").format(why, by_model)
    return [moved, change.instrument, _signed(change.score - change.score_before), why]


def _unbroken(text: str) -> str:
    return text.replace(" ", "\u00a0")


def _parts(parts: Sequence[Part], rest: float) -> Markup:
    shown = [*parts, Part("all others", rest)]
    each = Markup('<span class="part {}">{} <b>{}</b></span> ')
    return joined(
        each.format("up" if part.contribution >= 0 else "down", part.feature, _signed(part.contribution))
        for part in shown
    )


def _features(report: ModelReport, figures: Figures) -> Markup:
    found = report.table()
    rows = [_row(str(name), row) for name, row in found.iterrows()]
    columns = ("Feature", "Group", "Share", "IC part", "± error", "Rank", "Ranks of periods", "Direction")
    more = Markup("<details><summary>All {} features</summary>{}</details>").format(len(rows), table(columns, rows))
    return Markup("<h2>Features</h2>{}{}{}").format(
        _svg(figures.influence, "Features by share, and their ranks over the periods"),
        table(columns, rows[:FIRST]),
        more if len(rows) > FIRST else Markup(""),
    )


def _row(name: str, row: pd.Series) -> list[str]:
    return [
        name,
        str(row["group"]),
        *_ranked(row),
        "–" if np.isnan(row["direction"]) else f"{row['direction']:+.2f}",
    ]


def _ranked(row: pd.Series) -> list[str]:
    """Share, part of the IC and its error, median rank and the range of ranks."""
    return [
        _share(row["share"]),
        _number(row["ic_part"], "+.4f"),
        _number(row["ic_error"], ".4f"),
        _number(row["rank_median"], "g"),
        _unbroken(f"{row['rank_low']:g} to {row['rank_high']:g}") if np.isfinite(row["rank_low"]) else "–",
    ]


def _indicators(report: ModelReport) -> Markup:
    if report.indicators is None:
        return Markup("")
    found = report.indicators.table
    names = [str(name) for name in found.index if name != FACTORS]
    rows = [(name, *_ranked(found.loc[name])) for name in names]
    told = ""
    if FACTORS in found.index:
        told = f"The {len(report.group_of)} features include factors that are no indicators; together they have " + (
            f"{_share(found.loc[FACTORS, 'share'])} of the movement."
        )
    columns = ("Indicator", "Share", "IC part", "± error", "Rank", "Ranks of periods")
    return Markup("<h2>Technical indicators</h2><p>Each with all of its columns. {}</p>{}").format(
        told, table(columns, rows)
    )


def _groups(report: ModelReport, figures: Figures) -> Markup:
    return Markup("<h2>Groups</h2>{}{}{}").format(
        _svg(figures.groups, "Shares and parts of the IC of each group by period"),
        table(
            ("Group", "Share", "IC part", "± error", "Rank", "Ranks of periods"),
            [(str(name), *_ranked(row)) for name, row in report.groups.table.iterrows()],
        ),
        _periods(report.groups),
    )


def _periods(groups: Ranked) -> Markup:
    periods = groups.periods
    names = [str(name) for name in periods.shares.columns]
    rows = [
        (
            str(period),
            f"{periods.days[period]}",
            _number(periods.ic[period], "+.4f"),
            *(
                f"{_share(periods.shares.loc[period, name])}, {_number(periods.ic_parts.loc[period, name], '+.4f')}"
                for name in names
            ),
        )
        for period in periods.shares.index
    ]
    told = Markup("<details><summary>By period: share, part of the IC</summary>{}</details>")
    return told.format(table(("Period", "Days", "IC", *names), rows))


def _dependence(report: ModelReport, figures: Figures) -> Markup:
    rows = report.dependence[0].rows if report.dependence else 0
    text = Markup(
        "<h2>Partial dependence</h2><p>The mean score of {} rows when the feature has one value in all of them, "
        "between its 5% and 95% quantiles, in units before processing. Of features that go together, it shows what the "
        "model does, not what the market does.</p>{}"
    )
    return text.format(f"{rows:,}", _svg(figures.dependence, "Mean score by the value of each feature"))


def _reading() -> Markup:
    return Markup(
        "<h2>How to read it</h2><ul>"
        "<li><b>Share</b>: mean size of a feature's contributions, as a share of the sum over all features. A group's "
        "contribution is the sum of its features', so that what two of them take from each other does not count.</li>"
        "<li><b>IC part</b>: covariance of the contributions with the label on each day, divided by the standard "
        "deviations of score and label. The parts add up to the IC. The error is that of a mean of independent days; "
        "where the horizon is longer than a day, it is too small.</li>"
        "<li><b>Ranks of periods</b>: best and worst rank by share in any month or quarter; Rank is the median.</li>"
        "<li><b>Direction</b>: 1 where the mean score only rises with the feature, -1 where it only falls, near 0 "
        "where it comes back.</li>"
        "<li>An explanation says what the model uses. It does not say what causes returns.</li></ul>"
    )


def _svg(figure: str, label: str) -> Markup:
    return Markup('<figure role="img" aria-label="{}">{}</figure>').format(label, Markup(figure))  # noqa: S704  ours


def _share(value: float) -> str:
    return _number(value, ".1%")


def _number(value: float, pattern: str) -> str:
    return format(value, pattern) if np.isfinite(value) else "–"


def _signed(value: float) -> str:
    return f"{value:+.3g}"
