"""Great Expectations decides which rows are bars; what fails is kept with its rule, reason and remedy.

The suite is data: `include/expectations/bars.json`. Each expectation's meta names the rule, what a broken row `says`
and `shows`, its remedy and its severity: `row` (the row is quarantined) or `vintage` (any such row rejects the
vintage).
"""

import json
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mlops_tasks.columns import CLOSE, DATETIME, FACTOR, HIGH, INSTRUMENT, LOW, PRICES, VOLUME
from mlops_tasks.config import PROJECT
from mlops_tasks.data.sources.parsed import PARSE_ERROR, SOURCE_FILE, SOURCE_ROW
from mlops_tasks.errors import StoreError, VintageRejectedError

log = logging.getLogger(__name__)

SUITE_FILE = PROJECT / "include" / "expectations" / "bars.json"
SHOWN_FAILURES = 3
VINTAGE = "vintage"

RULE, SEVERITY, REASON, REMEDY = "rule", "severity", "reason", "remedy"

Positions = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True)
class Rule:
    """One expectation's meaning, from its meta."""

    rule: str
    severity: str
    says: str
    shows: Sequence[str]
    remedy: str


@dataclass(frozen=True)
class Validation:
    """What a suite found. `accepted` (bool, one a row) marks the rows that break no rule; `failures` has one row for
    each broken rule of each row: the row's own columns, its `position`, and rule, severity, reason, remedy."""

    accepted: np.ndarray[Any, np.dtype[np.bool_]]
    failures: pd.DataFrame
    rules: dict[str, int]
    warnings: dict[str, int]

    @property
    def received(self) -> int:
        """Rows given."""
        return len(self.accepted)

    @property
    def quarantined(self) -> int:
        """Rows that break at least one rule."""
        return int((~self.accepted).sum())


def load_suite(path: Path = SUITE_FILE) -> dict[str, Any]:
    """The suite as data."""
    suite: dict[str, Any] = json.loads(path.read_text())
    return suite


def validate(frame: pd.DataFrame, suite: dict[str, Any]) -> Validation:
    """Run the suite over parsed rows (`PARSED_COLUMNS`, RangeIndex); a row may break several rules.

    Raises
    ------
    StoreError
        An expectation could not be evaluated: it is not passed over in silence.
    """
    checked = _with_derived(frame, float(suite["meta"]["price_tolerance"]))
    accepted = np.ones(len(frame), dtype=bool)
    failures: list[pd.DataFrame] = []
    rules: dict[str, int] = {}
    for rule, positions in _run_suite(checked, suite):
        if len(positions) == 0:
            continue
        accepted[positions] = False
        rules[rule.rule] = len(positions)
        failures.append(_explain(checked, list(frame.columns), rule, positions))
    warnings = {"volume_missing": int(frame[VOLUME].isna().to_numpy()[accepted].sum())}
    return Validation(accepted, _joined(failures, frame), rules, {k: v for k, v in warnings.items() if v})


def check_vintage(validation: Validation, max_rejected_share: float, quarantine: Path) -> None:
    """Raise unless the accepted rows may become a vintage (pure).

    Raises
    ------
    VintageRejectedError
        A rule of severity `vintage` is broken, no row is left, or more than `max_rejected_share` of the rows are
        quarantined; names the first rows, their rule and remedy, the count and where the quarantine is.
    """
    failures = validation.failures
    fatal = failures[failures[SEVERITY] == VINTAGE]
    if len(fatal):
        counts = fatal[RULE].value_counts()
        numbers = ", ".join(f"{rule} {count}" for rule, count in counts.items())
        raise VintageRejectedError(
            f"{_first_rows(fatal)}\nrows by rule: {numbers}; all of them with reasons: {quarantine}; "
            "the last good version stays in use"
        )
    share = validation.quarantined / validation.received if validation.received else 1.0
    if share > max_rejected_share or validation.quarantined == validation.received:
        raise VintageRejectedError(
            f"{_first_rows(failures)}\n{validation.quarantined} of {validation.received} rows ({share:.2%}) are "
            f"quarantined, rule max_rejected_share allows {max_rejected_share:.2%}; correct the source, or raise "
            f"data.max_rejected_share; all of them with reasons: {quarantine}; the last good version stays in use"
        )


def _first_rows(failures: pd.DataFrame) -> str:
    first = failures.groupby(RULE, sort=False).head(SHOWN_FAILURES)
    lines = [
        f"{row[SOURCE_FILE]}, row {row[SOURCE_ROW]}: rule {row[RULE]}: {row[REASON]}; remedy: {row[REMEDY]}"
        for row in first.to_dict("records")
    ]
    return "\n".join(lines)


def _with_derived(frame: pd.DataFrame, tolerance: float) -> pd.DataFrame:
    """The columns that the suite's expectations compare besides the parsed ones."""
    return frame.assign(
        high_tolerated=frame[HIGH] * (1 + tolerance),
        low_tolerated=frame[LOW] * (1 - tolerance),
        case_clash=_case_clash(frame[INSTRUMENT]),
        copies=_copies(frame),
    )


def _case_clash(instruments: pd.Series) -> pd.Series:
    """The other spelling where two instruments differ only in case, else null."""
    codes, names = pd.factorize(instruments)
    spelled = pd.Series(names).astype("str")
    folded = spelled.str.lower()
    clashing = spelled[folded.duplicated(keep=False)].to_list()
    if not clashing:
        return pd.Series(np.full(len(instruments), None, dtype=object), dtype="str")
    values = np.array([name if name in set(clashing) else None for name in spelled] + [None], dtype=object)
    return pd.Series(values[codes], dtype="str")


def _copies(frame: pd.DataFrame) -> pd.Series:
    """Rows of the same date with the same close and the same positive volume; 1 where there is no volume."""
    traded = frame[(frame[VOLUME] > 0) & frame[CLOSE].notna() & frame[DATETIME].notna()]
    counts = traded.groupby([DATETIME, CLOSE, VOLUME], sort=False)[CLOSE].transform("size")
    return counts.reindex(frame.index, fill_value=1).astype(np.int64)


def _run_suite(frame: pd.DataFrame, suite: dict[str, Any]) -> list[tuple[Rule, Positions]]:
    """Each rule with the positions of the rows that break it, in the suite's order."""
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
    import great_expectations as gx

    needed = [DATETIME, INSTRUMENT, *PRICES, VOLUME, FACTOR, PARSE_ERROR]
    needed += ["high_tolerated", "low_tolerated", "case_clash", "copies"]
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
    asset = context.data_sources.add_pandas("bars").add_dataframe_asset("bars")
    batch = asset.add_batch_definition_whole_dataframe("all").get_batch({"dataframe": frame[needed]})
    expectations = suite["expectations"]
    outcome = batch.validate(
        gx.ExpectationSuite(name=suite["name"], expectations=expectations),
        result_format={
            "result_format": "COMPLETE",
            "include_unexpected_rows": False,
            "return_unexpected_index_query": False,
        },
    )
    by_rule = {result.expectation_config.meta["rule"]: result for result in outcome.results}
    return [
        (Rule(**expectation["meta"]), _broken(by_rule[expectation["meta"]["rule"]], len(frame)))
        for expectation in expectations
    ]


def _broken(result: Any, rows: int) -> Positions:
    if result.success:
        return np.empty(0, dtype=np.int64)
    rule = result.expectation_config.meta["rule"]
    if "unexpected_index_list" in result.result:
        return np.sort(np.asarray(result.result["unexpected_index_list"], dtype=np.int64))
    if "observed_value" in result.result and rows == 0:
        raise VintageRejectedError(f"rule {rule}: {result.expectation_config.meta['says']}; deliver at least one bar")
    raise StoreError(
        f"expectation of rule {rule} could not be evaluated: {result.exception_info}; correct {SUITE_FILE}"
    )


def _explain(checked: pd.DataFrame, columns: list[str], rule: Rule, positions: Positions) -> pd.DataFrame:
    rows = checked.iloc[positions]
    shown = [
        f"{rule.says} ({', '.join(_show(name, row[name]) for name in rule.shows)})"
        for row in rows[list(rule.shows)].to_dict("records")
    ]
    return rows[columns].assign(
        position=positions, **{RULE: rule.rule, SEVERITY: rule.severity, REASON: shown, REMEDY: rule.remedy}
    )


def _show(name: str, value: Any) -> str:
    if name == PARSE_ERROR:
        return str(value)
    if pd.isna(value):
        return f"{name} is empty"
    if isinstance(value, pd.Timestamp):
        return f"{name}={value.date()}"
    return f"{name}={value:.10g}" if isinstance(value, float) else f"{name}={value}"


def _joined(failures: list[pd.DataFrame], frame: pd.DataFrame) -> pd.DataFrame:
    if failures:
        return pd.concat(failures, ignore_index=True)
    empty = frame.iloc[:0].copy()
    return empty.assign(
        position=np.empty(0, dtype=np.int64),
        **{name: pd.Series(dtype="str") for name in (RULE, SEVERITY, REASON, REMEDY)},
    )
