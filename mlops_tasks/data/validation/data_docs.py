"""The data docs of a validation: HTML pages, the same bytes for the same rows and rules.

`index.html` says what was concluded and why, and is written with the conclusion. `bars.html`, `instruments.html` and
`sessions.html` are rendered afterwards, in a task of their own, by Great Expectations, whose import alone costs more
than the validation of a small panel. It runs each suite on the evidence that the validation leaves: the first rows that
break each rule and a sample of all rows, evenly spaced. The counts shown are those of the whole frame. What comes from
a source is escaped (Great Expectations puts cells into its page as they are), and nothing is loaded from the network.
"""

import html
import importlib
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from mlops_tasks.columns import DATETIME, INSTRUMENT
from mlops_tasks.data.validation.expectations import BARS, INSTRUMENTS, SESSIONS, Positions, Suite, Suites
from mlops_tasks.data.validation.rules import Broken, Rules, Validation
from mlops_tasks.html_page import head, joined, page, table
from mlops_tasks.lean_imports import import_json_schema

EVIDENCE = 200
"""Number of rows of each broken rule that Great Expectations is given."""
SAMPLE = 1000
"""Number of further rows, taken evenly from the whole frame."""
SHOWN = 20
"""Number of values of each broken rule on the page."""

_REMOTE = re.compile(
    r"<script\b.*?</script>|<(?:link|img)\b[^>]*\b(?:href|src)=\"https?:[^>]*>|<p>[^<]*<a href=\"https?:.*?</p>",
    re.DOTALL,
)
"""The parts of Great Expectations' page that would load something from elsewhere, run scripts, or advertise."""
_LINK = re.compile(r"href=\"\.\./[^\"]*\"")
"""Its links into a site that does not exist."""
_STATUS = re.compile(r"<span class=\"h6\"\s*>Status:</span>\s*<i [^>]*></i>\s*(?:Failed|Succeeded)")
"""Great Expectations' own verdict: it calls a page failed as soon as one rule warns, even for a vintage in use."""
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_HIDDEN = ".modal, .navbar, .ge-navigation-sidebar-container, .cooltip > span, .card:has(.btn-group) { display: none; }"
"""Parts of Great Expectations' page that do nothing without its scripts."""


@dataclass(frozen=True)
class Evidence:
    """What Great Expectations is given of one suite's frame: some of its `count` rows, with texts as HTML shows them
    literally; `broken` counts for each broken rule the rows of all."""

    suite: str
    rows: pd.DataFrame
    count: int
    broken: Mapping[str, int]
    verdict: str
    """The conclusion about the vintage, as HTML."""

    @property
    def page(self) -> str:
        """Name of the page that is made from it."""
        return f"{self.suite}.html"


def evidence_of(validation: Validation, rules: Rules, *, rejected: str) -> list[Evidence]:
    """The evidence of each suite. `rejected` is the message that rejected the vintage, empty when it was accepted."""
    measures = validation.measures
    frames = {BARS: measures.rows, INSTRUMENTS: measures.instruments, SESSIONS: measures.sessions}
    broken = {BARS: validation.bars, INSTRUMENTS: validation.instruments, SESSIONS: validation.sessions}
    verdict = _verdict(validation, rejected)
    return [_evidence(suite, frames[suite.name], broken[suite.name], verdict) for suite in rules.suites]


def _evidence(suite: Suite, frame: pd.DataFrame, broken: Sequence[Broken], verdict: str) -> Evidence:
    rows = frame.iloc[evidence_rows(len(frame), [found.positions for found in broken])]
    columns = {name for expectation in suite.expectations for name in expectation.columns()} | {INSTRUMENT, DATETIME}
    shown = _escaped(rows[[name for name in frame.columns if name in columns]])
    counts = {found.rule.rule: len(found.positions) for found in broken}
    return Evidence(suite.name, shown, len(frame), counts, verdict)


def render_suites(evidence: Iterable[Evidence], suites: Suites) -> dict[str, str]:
    """File name to Great Expectations' page of each suite."""
    by_name = {suite.name: suite for suite in suites}
    return {found.page: _suite_page(by_name[found.suite], found) for found in evidence}


def render_index(
    validation: Validation, rules: Rules, *, title: str, rejected: str, suite_pages: bool = True
) -> dict[str, str]:
    """`index.html`; `rejected` is the message that rejected the vintage, empty when it was not. Without `suite_pages`
    it links to none."""
    shown = list(rules.suites) if suite_pages else []
    return {"index.html": _index_page(validation, rules, title, rejected, shown)}


def evidence_rows(count: int, broken: Iterable[Positions]) -> Positions:
    """Positions of the evidence, sorted: the first `EVIDENCE` of each rule and `SAMPLE` of all `count` rows."""
    spread = np.linspace(0, count - 1, min(SAMPLE, count)).astype(np.int64)
    return np.unique(np.concatenate([spread, *(positions[:EVIDENCE] for positions in broken)]))


def _verdict(validation: Validation, rejected: str) -> Markup:
    """The conclusion about the vintage, the same on every page."""
    state = "rejected" if rejected else "accepted"
    kept = (
        f", {validation.quarantined:,} of {validation.received:,} rows in quarantine" if validation.quarantined else ""
    )
    return Markup('<span class="{0}">{0}</span>{1}').format(state, kept)


def _index_page(validation: Validation, rules: Rules, title: str, rejected: str, shown: Sequence[Suite]) -> str:
    facts = [
        ("received", f"{validation.received:,}"),
        ("accepted", f"{validation.received - validation.quarantined:,}"),
        ("quarantined", f"{validation.quarantined:,}"),
        ("calendars", ", ".join(f"{name} {count}" for name, count in validation.measures.calendar_counts().items())),
        ("rules", rules.digest()),
    ]
    whole = [(name, ", ".join(found)) for name, found in validation.quarantined_instruments.items()]
    released = [(name, f"{count:,}") for name, count in validation.released.items()]
    conclusion = Markup("<h2>Why it was rejected</h2><pre>{}</pre>").format(rejected) if rejected else Markup("")
    body = Markup(
        "<h1>{}: {}</h1>\n{}{}<h2>Broken rules</h2>{}<h2>Instruments quarantined, whole or before a date</h2>{}"
        "<h2>Released by hand</h2>{}<h2>First findings</h2><pre>{}</pre>{}"
    ).format(
        title,
        _verdict(validation, rejected),
        table(("", ""), facts),
        conclusion,
        table(("rule", "severity", "count", "says", "remedy"), _broken_rules(validation)),
        table(("instrument", "rules"), whole),
        table(("rule", "count"), released),
        _first_findings(validation),
        _links(shown),
    )
    return page(f"Validation of {title}", body)


def _broken_rules(validation: Validation) -> list[Sequence[str]]:
    counts = validation.rules | validation.warnings | validation.fatal
    found = [broken.rule for broken in (*validation.bars, *validation.instruments, *validation.sessions)]
    return [
        (rule.rule, rule.severity, f"{counts[rule.rule]:,}", rule.says, rule.remedy)
        for rule in found
        if rule.rule in counts
    ]


def _first_findings(validation: Validation) -> str:
    return (
        "\n".join(validation.first_lines(("vintage", "instrument", "history", "row", "dropped", "warning"))) or "none"
    )


def _links(suites: Sequence[Suite]) -> Markup:
    link = Markup('<li><a href="{0}.html">{0}</a>, {1} expectations</li>')
    items = joined(link.format(suite.name, len(suite.expectations)) for suite in suites)
    return Markup("<h2>Expectations</h2><ul>{}</ul>").format(items) if suites else Markup("")


def _suite_page(suite: Suite, evidence: Evidence) -> str:
    _great_expectations()
    from great_expectations.render.renderer import ValidationResultsPageRenderer
    from great_expectations.render.view import DefaultJinjaPageView

    outcome = run_suite(suite, evidence.rows)
    outcome.meta = {"great_expectations_version": outcome.meta["great_expectations_version"]}
    for result in outcome.results:
        _count_all(result, evidence.count, evidence.broken.get(result.expectation_config.meta["rule"], 0))
    rules, broken = len(suite.expectations), len(evidence.broken)
    outcome.success = not broken
    outcome.statistics = {
        "evaluated_expectations": rules,
        "successful_expectations": rules - broken,
        "unsuccessful_expectations": broken,
        "success_percent": 100 * (1 - broken / rules),
    }
    page: str = DefaultJinjaPageView().render(ValidationResultsPageRenderer().render(outcome))
    own = _LINK.sub('href="index.html"', _REMOTE.sub("", page))
    told = f"{broken} of {rules} rules of this page are broken"
    own = _STATUS.sub(f'<span class="h6">Vintage:</span> {evidence.verdict}; {told}', own)
    return _settled(own).replace("</head>", f"{head(_HIDDEN)}</head>", 1)


def _great_expectations() -> Any:
    """The library, with its analytics off."""
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
    import_json_schema()
    return importlib.import_module("great_expectations")


def run_suite(suite: Suite, frame: pd.DataFrame) -> Any:
    """Great Expectations' own result of a suite on a frame: `ExpectationSuiteValidationResult`."""
    gx = _great_expectations()
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
    columns = {name: frame[name] for expectation in suite.expectations for name in expectation.columns()}
    columns |= {name: frame[name] for name in (INSTRUMENT, DATETIME) if name in frame}
    asset = context.data_sources.add_pandas(suite.name).add_dataframe_asset(suite.name)
    batch = asset.add_batch_definition_whole_dataframe("all").get_batch({"dataframe": pd.DataFrame(columns)})
    expectations = [expectation.configuration() for expectation in suite.expectations]
    return batch.validate(
        gx.ExpectationSuite(name=suite.name, expectations=expectations),
        result_format={
            "result_format": "COMPLETE",
            "partial_unexpected_count": SHOWN,
            "include_unexpected_rows": False,
            "return_unexpected_index_query": False,
        },
    )


def _escaped(frame: pd.DataFrame) -> pd.DataFrame:
    """The evidence, renumbered, with its texts as HTML shows them literally."""
    evidence = frame.reset_index(drop=True)
    texts = [name for name in evidence.columns if evidence[name].dtype.kind not in "fiuMb"]
    return evidence.assign(
        **{name: evidence[name].astype("str").map(html.escape, na_action="ignore").astype("str") for name in texts}
    )


def _count_all(result: Any, elements: int, unexpected: int) -> None:
    """Give a result the whole frame's counts; its examples are the evidence's."""
    result.success = unexpected == 0
    share = 100 * unexpected / elements if elements else 0.0
    if "observed_value" in result.result:
        result.result["observed_value"] = elements
        return
    kept = {} if unexpected == 0 else {"partial_unexpected_list": result.result.get("partial_unexpected_list", [])}
    result.result = kept | {
        "element_count": elements,
        "unexpected_count": unexpected,
        "unexpected_percent": share,
        "unexpected_percent_total": share,
        "unexpected_percent_nonmissing": share,
    }


def _settled(page: str) -> str:
    """The page with its random ids numbered in the order of their first appearance."""
    numbers: dict[str, str] = {}
    return _UUID.sub(lambda match: numbers.setdefault(match[0], f"id{len(numbers)}"), page)
