"""The rules: each planted defect is found by its rule, counts hold, and they mean what Great Expectations means."""

import ast
import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlops_tasks import data
from mlops_tasks.columns import CLOSE, DATETIME, FACTOR, INSTRUMENT, PRICES, VOLUME, VWAP
from mlops_tasks.config import SyntheticSettings
from mlops_tasks.data.exchanges.calendars import sessions
from mlops_tasks.data.sources.parsed import PARSE_ERROR, SOURCE_ROW
from mlops_tasks.data.sources.synthetic import synthetic_bars
from mlops_tasks.data.validation import rules as validation
from mlops_tasks.data.validation.data_docs import run_suite
from mlops_tasks.data.validation.expectations import SUITES_FOLDER, Suite, load_suites
from mlops_tasks.data.validation.rules import EXPLAINED, Rules, Validation, check_vintage, validate
from mlops_tasks.errors import ConfigError, StoreError, VintageRejectedError
from tests.data.market import make_bars, parsed_frame

RULES = Rules(load_suites())
INSTRUMENTS, DAYS = 12, 120
FIELDS = [*PRICES, VOLUME]
Plant = Callable[[pd.DataFrame], None]


def panel(seed: int = 0) -> pd.DataFrame:
    """Twelve good instruments of 120 XNYS sessions, sorted by instrument and day; row 50 is S00's."""
    return parsed_frame(make_bars(days=DAYS, instruments=INSTRUMENTS, seed=seed))


def put(rows: int | slice | list[int], column: str, value: Any) -> Plant:
    def plant(frame: pd.DataFrame) -> None:
        frame.loc[rows, column] = value

    return plant


def scale(rows: slice, columns: list[str], ratio: float) -> Plant:
    def plant(frame: pd.DataFrame) -> None:
        frame.loc[rows, columns] *= ratio

    return plant


def repeat_bar(frame: pd.DataFrame) -> None:
    frame.loc[50, FIELDS] = frame.loc[49, FIELDS]


def stand_still(frame: pd.DataFrame) -> None:
    frame.loc[50:55, list(PRICES)], frame.loc[50:55, VOLUME] = 50.0, 100.0


def split(frame: pd.DataFrame) -> None:
    frame.loc[50:119, list(PRICES)] /= 2
    frame.loc[50:119, VOLUME] *= 2


def fall_alone(frame: pd.DataFrame) -> None:
    frame.loc[50:119, list(PRICES)] *= 0.6
    frame.loc[50, "high"], frame.loc[50, "low"] = frame.loc[50, "high"] * 1.08, frame.loc[50, "low"] * 0.92
    frame.loc[50, VOLUME] = 90_000.0


def recycle(frame: pd.DataFrame) -> None:
    long_ago(frame)
    frame.loc[0:49, list(PRICES)] *= 40
    frame.loc[0:49, VOLUME] *= 8


def come_late(frame: pd.DataFrame) -> None:
    split(frame)
    frame.loc[52:119, FACTOR] = 2.0


def stop_trading(frame: pd.DataFrame) -> None:
    rows = frame.index[:760]
    frame.loc[rows, INSTRUMENT] = "S00"
    frame.loc[rows, DATETIME] = sessions("XNYS", "2016-01-01", "2019-12-31")[:760]
    frame.loc[rows, list(PRICES)], frame.loc[rows, VOLUME] = 50.0, 0.0


def long_ago(frame: pd.DataFrame) -> None:
    frame.loc[0:49, DATETIME] = sessions("XNYS", "2016-01-01", "2016-12-31")[:50]


def drop(rows: list[int]) -> Plant:
    """`planted` leaves rows without a source row out."""

    def plant(frame: pd.DataFrame) -> None:
        frame.loc[rows, SOURCE_ROW] = 0

    return plant


def repeat_session(day: int) -> Plant:
    def plant(frame: pd.DataFrame) -> None:
        for first in range(0, len(frame), DAYS):
            frame.loc[first + day, FIELDS] = frame.loc[first + day - 1, FIELDS]

    return plant


def crash(frame: pd.DataFrame) -> None:
    """Every close falls by 25 to 65% in the session; the level stays."""
    falls = np.linspace(0.35, 0.75, INSTRUMENTS)
    for first, left in zip(range(0, len(frame), DAYS), falls, strict=True):
        opened = frame.loc[first + 50, "open"]
        frame.loc[first + 50 : first + DAYS - 1, list(PRICES)] *= left
        frame.loc[first + 50, ["open", "high"]] = opened, opened * 1.01


def every(day: slice, columns: list[str], ratio: float) -> Plant:
    def plant(frame: pd.DataFrame) -> None:
        for first in range(0, len(frame), DAYS):
            frame.loc[first + day.start : first + day.stop, columns] *= ratio

    return plant


def again(row: int, column: str, ratio: float = 1.0) -> Plant:
    """A row once more, with a cell times a ratio, in the place of the row before."""

    def plant(frame: pd.DataFrame) -> None:
        origin = frame.loc[row - 1, SOURCE_ROW]
        frame.loc[row - 1] = frame.loc[row]
        frame.loc[row - 1, column] *= ratio
        frame.loc[row - 1, SOURCE_ROW] = origin

    return plant


def day_early(frame: pd.DataFrame) -> None:
    frame.loc[0 : DAYS - 1, DATETIME] -= pd.Timedelta(days=1)


def below_zero(frame: pd.DataFrame) -> None:
    frame.loc[0:9, list(PRICES)] -= 200.0


ROW_DEFECTS: dict[str, Plant] = {
    "parsable_cells": put(50, PARSE_ERROR, "Close='abc' is not a number"),
    "unique_keys": again(50, CLOSE, 0.9999),
    "stray_date": put(50, DATETIME, pd.Timestamp("2042-03-04")),
    "datetime_present": put(50, DATETIME, pd.NaT),
    "instrument_present": put(50, INSTRUMENT, None),
    "open_present": put(50, "open", np.nan),
    "high_present": put(50, "high", np.nan),
    "low_present": put(50, "low", np.nan),
    "close_present": put(50, CLOSE, np.nan),
    "open_positive": put(50, "open", 0.0),
    "high_positive": put(50, "high", -1.0),
    "low_positive": put(50, "low", 0.0),
    "close_positive": put(50, CLOSE, 0.0),
    "high_not_below_low": put(50, "high", 1.0),
    "open_not_above_high": put(50, "open", 1000.0),
    "open_not_below_low": put(50, "open", 1.0),
    "close_not_above_high": put(50, CLOSE, 1000.0),
    "close_not_below_low": put(50, CLOSE, 1.0),
    "volume_not_negative": put(50, VOLUME, -1.0),
    "factor_present": put(50, FACTOR, np.nan),
    "factor_positive": put(50, FACTOR, 0.0),
    "on_session": put(10, DATETIME, pd.Timestamp("2019-12-25")),
    "stale_prices": repeat_bar,
    "flat_prices": stand_still,
    "price_spike": scale(slice(50, 50), [*PRICES], 1.3),
    "displaced_level": come_late,
}
DROPPED_ROWS: dict[str, Plant] = {
    "no_trade": put(50, [*PRICES, VOLUME], np.nan),
    "repeated_row": again(50, CLOSE),
}
HISTORY_DEFECTS: dict[str, Plant] = {
    "unadjusted_split": split,
    "factor_error": put(slice(50, 119), FACTOR, 3.0),
    "recycled_ticker": recycle,
    "price_unit": scale(slice(50, 119), [*PRICES], 100.0),
    "volume_unit": scale(slice(50, 119), [VOLUME], 100.0),
}
INSTRUMENT_DEFECTS: dict[str, Plant] = {
    "own_bad_rows": put(slice(0, 30), "open", np.nan),
    "distinct_names": put(slice(0, 119), INSTRUMENT, "s01"),
    "utc_dates": day_early,
    "subtractive_adjustment": below_zero,
}
DAY_DEFECTS: dict[str, tuple[Plant, str]] = {
    "own_series": (
        lambda frame: frame.loc.__setitem__((slice(50, None, DAYS), [CLOSE, VOLUME]), [51.0, 7000.0]),
        "",
    ),
    "repeated_past_session": (repeat_session(50), "stale_prices"),
}
"""The rows of one day, and another rule that breaks with them."""
VINTAGE_DEFECTS: dict[str, Plant] = {
    "incomplete_session": drop(list(range(DAYS - 1, 8 * DAYS, DAYS))),
    "repeated_session": repeat_session(DAYS - 1),
    "common_price_unit": every(slice(50, 119), [*PRICES], 100.0),
    "common_volume_unit": every(slice(50, 119), [VOLUME], 1000.0),
}
WARNINGS: dict[str, Plant] = {
    "unexplained_jump": fall_alone,
    "possible_action": scale(slice(50, 119), [*PRICES], 0.84),
    "factor_unmatched": put(slice(50, 119), FACTOR, 1.15),
    "factor_decrease": put(slice(50, 119), FACTOR, 0.95),
    "gap": drop([50]),
    "volume_missing": put(50, VOLUME, np.nan),
    "no_trades": put(50, VOLUME, 0.0),
    "vwap_not_above_high": put(50, VWAP, 1000.0),
    "vwap_not_below_low": put(50, VWAP, 1.0),
    "long_gap": long_ago,
    "session_without_bars": drop(list(range(50, INSTRUMENTS * DAYS, DAYS))),
    "thin_session": drop(list(range(50, 8 * DAYS, DAYS))),
    "common_jump": crash,
    "common_volume_change": every(slice(50, 50), [VOLUME], 0.01),
}


def planted(plant: Plant) -> pd.DataFrame:
    frame = panel()
    plant(frame)
    return frame[frame[SOURCE_ROW] > 0].reset_index(drop=True)


def assert_counts_hold(validation: Validation) -> pd.DataFrame:
    """Received is accepted plus quarantined, and the quarantine holds exactly the rows that are not accepted."""
    rows = pd.concat([table.to_pandas() for table in validation.failures()], ignore_index=True)
    assert validation.received == int(validation.accepted.sum()) + validation.quarantined
    assert set(rows["position"]) == set(np.flatnonzero(~validation.accepted))
    assert not rows.duplicated(["position", "rule"]).any()
    assert rows["rule"].astype("str").value_counts().to_dict() == validation.rules
    assert (
        rows[["rule", "severity", "reason", "remedy"]].astype("str").apply(lambda c: c.str.len().gt(2)).all(axis=None)
    )
    return rows


def test_every_rule_has_a_planted_defect() -> None:
    """No rule of the suites is without its test here."""
    names = {expectation.rule.rule for suite in RULES.suites for expectation in suite.expectations}
    covered = {*ROW_DEFECTS, "long_suspension", *DROPPED_ROWS, *HISTORY_DEFECTS, *INSTRUMENT_DEFECTS}
    covered |= {*DAY_DEFECTS, *VINTAGE_DEFECTS, *WARNINGS}
    assert names - {"table_not_empty"} == covered


@pytest.mark.parametrize("seed", range(5))
def test_good_bars_break_no_rule(seed: int) -> None:
    """Random walks on real sessions are accepted without a quarantined row or a warning."""
    validation = validate(panel(seed), RULES)
    assert (validation.rules, validation.warnings, validation.fatal) == ({}, {}, {})
    assert_counts_hold(validation)
    check_vintage(validation, RULES, Path("quarantine"))


def test_the_synthetic_market_is_good() -> None:
    """Its splits with factors, suspensions, listings and delistings break no rule; suspensions are gaps."""
    validation = validate(synthetic_bars(SyntheticSettings()), RULES)
    assert validation.quarantined == 0 and not validation.fatal
    assert set(validation.warnings) <= {"gap"}


@pytest.mark.parametrize("rule", ROW_DEFECTS)
def test_a_bad_row_is_quarantined_by_its_rule(rule: str) -> None:
    """The planted row is kept back, named by its rule; other instruments' rows all stay."""
    validation = validate(planted(ROW_DEFECTS[rule]), RULES)
    assert rule in validation.rules
    rows = assert_counts_hold(validation)
    assert 0 < validation.quarantined <= 3
    assert rows["position"].between(10, 56).all() and (rows["severity"] == "row").all()
    check_vintage(validation, RULES, Path("quarantine"))


@pytest.mark.parametrize("rule", DROPPED_ROWS)
def test_what_is_no_bar_is_left_out_alone_and_is_no_bad_row(rule: str) -> None:
    """One row goes, by one rule, with a warning; no share counts it."""
    validation = validate(planted(DROPPED_ROWS[rule]), RULES)
    rows = assert_counts_hold(validation)
    assert validation.rules == {rule: 1} and validation.warnings[rule] == 1
    assert rows["severity"].tolist() == ["dropped"] and len(validation.bad_rows) == 0
    check_vintage(validation, replace(RULES, max_rejected_share=0.0), Path("quarantine"))


@pytest.mark.parametrize("rule", DAY_DEFECTS)
def test_a_bad_day_costs_that_day(rule: str) -> None:
    """Twelve rows of one session go, more than the share in the settings; the vintage stays."""
    plant, other = DAY_DEFECTS[rule]
    validation = validate(planted(plant), RULES)
    assert rule in (validation.rules | validation.warnings) and (not other or other in validation.rules)
    assert len(validation.bad_rows) == INSTRUMENTS > RULES.max_rejected_share * validation.received
    assert validation.bad_days == 1 and validation.quarantined == INSTRUMENTS
    assert_counts_hold(validation)
    check_vintage(validation, RULES, Path("quarantine"))
    validation = validate(planted(lambda frame: (plant(frame), put(300, "open", np.nan)(frame))[0]), RULES)
    with pytest.raises(
        VintageRejectedError, match=r"13 of 1440 rows .*max_rejected_share.*or the rows of a single day"
    ):
        check_vintage(validation, RULES, Path("quarantine"))


@pytest.mark.parametrize("rule", INSTRUMENT_DEFECTS)
def test_a_bad_instrument_is_quarantined_whole(rule: str) -> None:
    """All rows of S00 (or of what it is called then), and only those, are kept back with the rule; none of them counts
    as a bad row, and the vintage can do without it."""
    frame = planted(INSTRUMENT_DEFECTS[rule])
    validation = validate(frame, RULES)
    name = frame[INSTRUMENT][0]
    assert set(validation.rejected_instruments) == {name} and rule in validation.rejected_instruments[name]
    assert validation.rules[rule] == DAYS and validation.quarantined == DAYS
    rows = assert_counts_hold(validation)
    assert set(rows[INSTRUMENT]) == {name} and len(validation.bad_rows) == 0
    check_vintage(validation, RULES, Path("quarantine"))


@pytest.mark.parametrize("rule", HISTORY_DEFECTS)
def test_a_history_that_cannot_be_compared_is_quarantined(rule: str) -> None:
    """The 50 rows of S00 before the break are kept back, those from it on stay; the counts hold."""
    validation = validate(planted(HISTORY_DEFECTS[rule]), RULES)
    assert validation.shortened_instruments == {"S00": [rule]} and not validation.rejected_instruments
    assert np.flatnonzero(~validation.accepted).tolist() == list(range(50))
    rows = assert_counts_hold(validation)
    assert set(rows["severity"]) == {"history"}
    check_vintage(validation, RULES, Path("quarantine"))


def test_years_without_trading_are_no_suspension() -> None:
    """From the 751st bar without a trade on the rows are kept back."""
    validation = validate(planted(stop_trading), RULES)
    assert np.flatnonzero(~validation.accepted).tolist() == list(range(751, 760))
    assert set(validation.rules) == {"long_suspension"}


@pytest.mark.parametrize("rule", VINTAGE_DEFECTS)
def test_a_bad_vintage_is_rejected_by_its_rule(rule: str) -> None:
    """The message names the rule, the first rows or the session, and the remedy."""
    validation = validate(planted(VINTAGE_DEFECTS[rule]), RULES)
    assert rule in validation.fatal
    assert_counts_hold(validation)
    with pytest.raises(VintageRejectedError, match=rf"rule {rule}: .*; remedy: ") as caught:
        check_vintage(validation, RULES, Path("quarantine"))
    assert "the last good version stays in use" in str(caught.value)


@pytest.mark.parametrize("rule", WARNINGS)
def test_a_warning_keeps_the_rows(rule: str) -> None:
    """What may be right is counted and noted with its reason, and nothing is kept back."""
    validation = validate(planted(WARNINGS[rule]), RULES)
    assert validation.warnings[rule] >= 1
    assert validation.quarantined == 0
    notes = validation.notes("warning")
    assert rule in set(notes["rule"]) and notes["reason"].str.len().gt(5).all()
    check_vintage(validation, RULES, Path("quarantine"))


def test_too_many_bad_instruments_reject_the_vintage() -> None:
    """One instrument may always be left out, two of twelve are more than 5%: the message names the share and them."""
    frame = planted(HISTORY_DEFECTS["unadjusted_split"])
    frame.loc[DAYS : DAYS + 30, "open"] = np.nan
    validation = validate(frame, RULES)
    assert list(validation.shortened_instruments) == ["S00"] and list(validation.rejected_instruments) == ["S01"]
    validation = replace(validation, bars=())
    with pytest.raises(VintageRejectedError, match=r"2 of 12 instruments \(16.67%\).*max_rejected_instruments_share"):
        check_vintage(validation, RULES, Path("quarantine"))


def test_whole_instruments_do_not_count_as_bad_rows() -> None:
    """120 of 1,440 rows go with their instrument; the share of bad rows stays 0."""
    validation = validate(planted(INSTRUMENT_DEFECTS["own_bad_rows"]), RULES)
    assert len(validation.bad_rows) == 0 and validation.quarantined == DAYS
    check_vintage(validation, RULES, Path("quarantine"))


def test_an_unknown_calendar_is_named() -> None:
    """A misspelt calendar.name is refused with the setting."""
    with pytest.raises(ConfigError, match=r"calendar.name"):
        validate(panel(), replace(RULES, calendar="XNYZ"))


def test_an_empty_table_is_rejected() -> None:
    """No rows are no vintage."""
    with pytest.raises(VintageRejectedError, match="rule table_not_empty"):
        validate(panel().iloc[:0], RULES)


DEFECTS = [
    *ROW_DEFECTS.values(),
    *INSTRUMENT_DEFECTS.values(),
    *DROPPED_ROWS.values(),
    *(plant for plant, _ in DAY_DEFECTS.values()),
]


@settings(max_examples=40)
@given(
    chosen=st.lists(st.sampled_from(DEFECTS), max_size=4),
    cells=st.lists(
        st.tuples(
            st.integers(0, INSTRUMENTS * DAYS - 1),
            st.sampled_from([*FIELDS, FACTOR]),
            st.sampled_from([np.nan, 0.0, -1.0, 1e6, 50.0]),
        ),
        max_size=10,
    ),
    order=st.integers(0, 2**16),
)
def test_counts_hold_whatever_is_broken(chosen: list[Plant], cells: list[Any], order: int) -> None:
    """Property: for any defects in any order of rows, received == accepted + quarantined, the quarantine names every
    rejected row, and the accepted rows alone break no rule about rows that looks at the row itself."""
    frame = panel()
    for plant in chosen:
        plant(frame)
    for row, column, value in cells:
        frame.loc[row, column] = value
    rows = np.random.default_rng(order).permutation(len(frame))
    validation = validate(frame.iloc[rows].reset_index(drop=True), RULES)
    assert_counts_hold(validation)
    if validation.accepted.any():
        kept = validation.measures.rows[validation.accepted].reset_index(drop=True)
        for expectation in RULES.suites.bars.expectations:
            if expectation.rule.severity in ("dropped", "row", "vintage"):
                assert len(expectation.broken(kept)) == 0, expectation.rule.rule


def test_a_whole_vintage_of_bad_rows_is_kept_cheaply(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rule that every row breaks is explained with values up to a limit and without beyond; all rows are kept.

    Limit and vintage are a tenth of the real ones.
    """
    limit = EXPLAINED // 10
    monkeypatch.setattr("mlops_tasks.data.validation.rules.EXPLAINED", limit)
    part = panel()
    frame = pd.concat([part] * (limit // len(part) + 2), ignore_index=True)
    frame[INSTRUMENT] = pd.array([f"N{i // DAYS:05d}" for i in range(len(frame))], dtype="str")
    frame["high"], frame["low"] = frame["low"].copy(), frame["high"].copy()
    frame[VOLUME] = np.arange(len(frame)) + 1e6
    validation = validate(frame, RULES)
    tables = [table.to_pandas() for table in validation.failures()]
    rows = pd.concat([table[table["rule"] == "high_not_below_low"] for table in tables])
    assert len(rows) == len(frame) == validation.rules["high_not_below_low"]
    assert rows["reason"].iloc[0].startswith("high is below low (high=")
    assert rows["reason"].iloc[-1] == "high is below low"
    with pytest.raises(VintageRejectedError, match=r"no row is left.*96 of 96 instruments.*max_rejected_instruments"):
        check_vintage(validation, RULES, Path("quarantine"))


def unexpected(result: Any) -> list[int]:
    return sorted(result.result.get("unexpected_index_list") or [])


def assert_as_great_expectations(suite: Suite, frame: pd.DataFrame) -> None:
    theirs = {result.expectation_config.meta["rule"]: result for result in run_suite(suite, frame).results}
    for expectation in suite.expectations:
        assert expectation.broken(frame).tolist() == unexpected(theirs[expectation.rule.rule]), expectation.rule.rule


numbers = st.one_of(
    st.sampled_from([np.nan, 0.0, -0.0, -1.0, 1.0, 1.0000001, 2.0, 0.15, 0.11, 0.999, 5.0, 1e300]),
    st.floats(-1e6, 1e6, width=32),
)


@pytest.mark.parametrize("name", ["bars", "instruments", "sessions"])
@settings(max_examples=5)
@given(data=st.data())
def test_rules_mean_what_great_expectations_means(name: str, data: st.DataObject) -> None:
    """On random columns, every expectation of every suite fails on exactly the rows that Great Expectations says."""
    suite: Suite = getattr(RULES.suites, name)
    count = data.draw(st.integers(1, 36))
    columns: dict[str, Any] = {}
    for column in dict.fromkeys(column for e in suite.expectations for column in e.columns()):
        if column in (PARSE_ERROR, "case_clash"):
            words = data.draw(st.lists(st.sampled_from(["A", "B", None]), min_size=count, max_size=count))
            columns[column] = pd.array(words, dtype="str")
        elif column == DATETIME:
            days = data.draw(
                st.lists(st.sampled_from(["2020-01-02", "2020-01-03", None]), min_size=count, max_size=count)
            )
            columns[column] = pd.to_datetime(pd.Series(days)).astype("datetime64[ns]")
        else:
            columns[column] = data.draw(st.lists(numbers, min_size=count, max_size=count))
    assert_as_great_expectations(suite, pd.DataFrame(columns))


def test_rules_on_measured_frames_mean_what_great_expectations_means() -> None:
    """The same on the frames that are really judged, with defects of every kind in them, and their dtypes."""
    frame = panel()
    every = (ROW_DEFECTS, HISTORY_DEFECTS, INSTRUMENT_DEFECTS, DROPPED_ROWS)
    for plant in (plant for defects in every for plant in defects.values()):
        plant(frame)
    measures = validate(frame, RULES).measures
    for suite, judged in zip(RULES.suites, (measures.rows, measures.instruments, measures.sessions), strict=True):
        assert_as_great_expectations(suite, judged)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"type": "expect_column_values_to_match_regex"}, "type 'expect_column_values_to_match_regex' is not one of"),
        ({"kwargs": {"column": "open", "mostly": 0.9}}, "mostly=0.9 is not known for"),
        ({"kwargs": {"min_value": 0}}, "needs column"),
        ({"meta": {"rule": "x"}}, "meta is incomplete"),
        ({"meta": {"rule": "x", "severity": "instrument", "says": "", "shows": [], "remedy": ""}}, "severity"),
        ({"meta": {"rule": "unique_keys", "severity": "row", "says": "", "shows": [], "remedy": ""}}, "named twice"),
    ],
)
def test_an_expectation_that_is_not_understood_is_refused(change: dict[str, Any], words: str, tmp_path: Path) -> None:
    """Unknown types, keywords, severities and names twice are errors when the suite is read, not passed over."""
    for path in SUITES_FOLDER.glob("*.json"):
        content = json.loads(path.read_text())
        if path.stem == "bars":
            entry = next(e for e in content["expectations"] if e["meta"]["rule"] == "open_positive")
            entry |= change
        (tmp_path / path.name).write_text(json.dumps(content))
    with pytest.raises(StoreError, match=words):
        load_suites(tmp_path)


def test_a_conclusion_has_the_name_of_all_it_depends_on() -> None:
    """Suites, calendar and limits are part of the rules' digest."""
    other_suites = replace(RULES.suites, content={})
    others = [
        replace(RULES, calendar="XNYS"),
        replace(RULES, max_rejected_share=0.1),
        replace(RULES, max_rejected_instruments_share=0.1),
        replace(RULES, suites=other_suites),
    ]
    assert len({rules.digest() for rules in [RULES, *others]}) == 5
    assert replace(RULES).digest() == RULES.digest()


MEASURING = (
    *("exchanges/calendar_ranking", "exchanges/calendars"),
    *("validation/corporate_actions", "validation/measure_kernels", "validation/measures"),
    *("validation/row_kinds", "validation/session_measures", "validation/expectations"),
)
"""Modules of which any change of code may change a conclusion."""
MEASURED_BY_ENGINE = (4, "ab665a341b7dabe1")


class _WithoutWords(ast.NodeTransformer):
    """Code without docstrings, and without the texts that stand below constants."""

    def visit_Expr(self, node: ast.Expr) -> ast.Expr | None:
        return None if isinstance(node.value, ast.Constant) and isinstance(node.value.value, str) else node


def test_a_change_of_what_is_measured_raises_the_engine() -> None:
    """Or it is known to change nothing: comments and docstrings do not count."""
    texts = [(Path(data.__file__).parent / f"{name}.py").read_text() for name in MEASURING]
    code = "".join(ast.dump(_WithoutWords().visit(ast.parse(text))) for text in texts)
    digest = hashlib.sha256(code.encode()).hexdigest()[:16]
    assert (validation.ENGINE, digest) == MEASURED_BY_ENGINE, (
        f"the code of {', '.join(MEASURING)} has changed: if any conclusion may change with it, raise ENGINE in "
        "mlops_tasks/data/validation/rules.py, or what was concluded before stays; then put "
        f'({validation.ENGINE} or the new engine, "{digest}") into MEASURED_BY_ENGINE here'
    )
