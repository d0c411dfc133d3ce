"""Which rows are bars: the suites' rules over rows, instruments and sessions, and what follows from a broken one.

A broken rule has one of five severities: the row is left out without being bad (a day without a trade, an exact
repeat), it is quarantined, all rows of its instrument are, the vintage is rejected, or it is a warning and everything
stays. A finding costs only what it is about: the vintage is rejected by the shares in the settings, and by what makes
the newest session unusable or the whole history incomparable. Nothing is lost: `received == accepted + quarantined`,
and each row that is left out is kept with every rule that it breaks, the reason and the remedy. A conclusion depends on
the rows and on `Rules` alone.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa

from mlops_tasks.columns import BAR_FIELDS, DATETIME, INSTRUMENT
from mlops_tasks.config import Settings
from mlops_tasks.data.exchanges.calendars import AUTO, CALENDAR
from mlops_tasks.data.sources.parsed import PARSE_ERROR, PARSED_COLUMNS, SOURCE_FILE, SOURCE_ROW
from mlops_tasks.data.validation.expectations import (
    DROPPED,
    HISTORY,
    INSTRUMENT_WHOLE,
    ROW,
    VINTAGE,
    WARNING,
    Expectation,
    Positions,
    Rule,
    Suites,
    broken_rows,
    load_suites,
    plain_values,
)
from mlops_tasks.data.validation.quarantine_columns import (
    EVIDENCE_DATE,
    POSITION,
    REASON,
    REMEDY,
    RULE,
    SEVERITY,
    VALUES,
)
from mlops_tasks.data.validation.releases import (
    Release,
    covers_instrument,
    covers_row,
    covers_session,
    load_releases,
    release_command,
    row_digest,
)
from mlops_tasks.errors import VintageRejectedError
from mlops_tasks.files import digest_of

if TYPE_CHECKING:
    from mlops_tasks.data.validation.measures import Measures

log = logging.getLogger(__name__)

ENGINE = 4
"""Part of every rules digest: a change of what is measured leads to a new conclusion."""

SHOWN_FAILURES = 3
EXPLAINED = 100_000
"""Rows of a rule whose values are quoted; a rule that so many rows break is a defect of the source as a whole."""
KEPT_WARNINGS = 1000
"""Warnings of a rule that are kept; all of them are counted."""
UNIQUE_KEYS = "unique_keys"
"""The rule of which not all rows can be released: a vintage has one bar of an instrument and day."""

Booleans = np.ndarray[Any, np.dtype[np.bool_]]


@dataclass(frozen=True)
class Rules:
    """What a conclusion depends on besides the rows."""

    suites: Suites
    calendar: str = AUTO
    releases: tuple[Release, ...] = ()
    max_rejected_share: float = 0.005
    max_rejected_instruments_share: float = 0.05

    def digest(self) -> str:
        """Name of these rules; the sessions that exchange_calendars knows are part of them."""
        return digest_of(
            {
                "engine": ENGINE,
                "suites": self.suites.content,
                "calendar": [self.calendar, version("exchange_calendars")],
                "releases": sorted(release.identity for release in self.releases),
                "shares": [self.max_rejected_share, self.max_rejected_instruments_share],
            }
        )


@dataclass(frozen=True)
class Broken:
    """An expectation with the positions, in its suite's frame, that break it and are not released."""

    expectation: Expectation
    positions: Positions

    @property
    def rule(self) -> Rule:
        """Its meaning."""
        return self.expectation.rule


@dataclass(frozen=True)
class Validation:
    """What the suites found.

    `accepted` (bool, one a row) marks the rows that are bars. `bars`, `instruments` and `sessions` are the broken
    rules of each suite, warnings among them, in the suites' order; `released` counts by rule what was let through.
    """

    accepted: Booleans
    measures: "Measures"
    bars: tuple[Broken, ...]
    instruments: tuple[Broken, ...]
    sessions: tuple[Broken, ...]
    released: dict[str, int] = field(default_factory=dict)

    @property
    def received(self) -> int:
        """Rows given."""
        return len(self.accepted)

    @property
    def quarantined(self) -> int:
        """Rows that are not bars, break a rule about the row, or that a rule about their instrument takes."""
        return int((~self.accepted).sum())

    @property
    def rules(self) -> dict[str, int]:
        """Rule to the number of rows that are quarantined for it."""
        rows = {broken.rule.rule: len(broken.positions) for broken in self._of_bars()}
        return rows | {
            broken.rule.rule: int(taken_rows(self.measures, [broken]).sum()) for broken in _taking(self.instruments)
        }

    @property
    def warnings(self) -> dict[str, int]:
        """Rule to the number of rows that it leaves out as not being bars, and of accepted rows, of instruments, or of
        sessions that it warns about."""
        found = {b.rule.rule: len(b.positions) for b in _with(self.bars, DROPPED)}
        found |= {b.rule.rule: int(self.accepted[b.positions].sum()) for b in _with(self.bars, WARNING)}
        found |= {b.rule.rule: len(b.positions) for b in _with((*self.instruments, *self.sessions), WARNING)}
        return {rule: count for rule, count in found.items() if count}

    @property
    def rejected_instruments(self) -> dict[str, list[str]]:
        """Instrument that is quarantined whole, to the rules that say so."""
        return self._named(_with(self.instruments, INSTRUMENT_WHOLE))

    @property
    def quarantined_instruments(self) -> dict[str, list[str]]:
        """Instrument that is quarantined, whole or before a date, to the rules that say so."""
        return self._named(_taking(self.instruments))

    @property
    def shortened_instruments(self) -> dict[str, list[str]]:
        """Instrument whose rows before a date are quarantined, to the rules that say so."""
        return self._named(_with(self.instruments, HISTORY))

    @property
    def fatal(self) -> dict[str, int]:
        """Rule that rejects the vintage, to the number of rows, instruments or sessions that break it."""
        every = (*self.bars, *self.instruments, *self.sessions)
        return {broken.rule.rule: len(broken.positions) for broken in _with(every, VINTAGE)}

    @cached_property
    def bad_rows(self) -> Positions:
        """Rows quarantined for what is wrong with the row itself, and that no rule about the instrument takes."""
        broken = np.zeros(self.received, dtype=bool)
        for found in _with(self.bars, ROW):
            broken[found.positions] = True
        return np.flatnonzero(broken & ~taken_rows(self.measures, self.instruments))

    @property
    def bad_days(self) -> int:
        """Days that the bad rows are of; a row without a date counts as a day of its own."""
        days = self.measures.rows[DATETIME].iloc[self.bad_rows]
        return int(days.nunique() + days.isna().sum())

    def failures(self) -> Iterator[pa.Table]:
        """The quarantine, in parts: each broken rule of each row, with the row's own columns, `position`, rule,
        severity, reason, remedy and `evidence_date` (the row's, or that of the rule about its instrument)."""
        yield self._failure_table(np.empty(0, dtype=np.int64), _NOTHING, pa.array([], pa.string()), None)
        for broken in self._of_bars():
            for start in range(0, len(broken.positions), EXPLAINED):
                rows = broken.positions[start : start + EXPLAINED]
                if start == 0:
                    reasons = _reasons(broken.rule, self._bar_evidence(broken.rule, rows))
                else:
                    reasons = pa.array([broken.rule.says] * len(rows), pa.string())
                yield self._failure_table(rows, broken.rule, reasons, None)
        taking = _taking(self.instruments)
        rows_of = self._rows_of(np.unique(np.concatenate([broken.positions for broken in taking]))) if taking else {}
        for broken in taking:
            taken = taken_rows(self.measures, [broken])
            evidence = self.measures.instruments.iloc[broken.positions]
            reasons = _reasons(broken.rule, evidence).to_pylist()
            for code, reason, day in zip(
                broken.positions, reasons, evidence[broken.rule.dated].to_numpy(), strict=True
            ):
                rows = rows_of[int(code)]
                rows = rows[taken[rows]]
                yield self._failure_table(rows, broken.rule, pa.array([reason] * len(rows)), day)

    def notes(self, *severities: str) -> pd.DataFrame:
        """Warnings, or what rejects the vintage: rule, severity, instrument, calendar, datetime, values (`row_digest`),
        reason and remedy of the first `KEPT_WARNINGS` of each rule (missing where the rule is not about one)."""
        parts = []
        every = (*self.bars, *self.instruments, *self.sessions)
        for broken in (found for found in every if found.rule.severity in severities):
            rows = broken.positions
            if broken in self.bars:
                rows = rows[self.accepted[rows]] if broken.rule.severity == WARNING else rows
                evidence = self._bar_evidence(broken.rule, rows[:KEPT_WARNINGS])
                days = evidence[DATETIME]
            elif broken in self.instruments:
                evidence = self.measures.instruments.iloc[rows[:KEPT_WARNINGS]]
                days = evidence[broken.rule.dated]
            else:
                evidence = self.measures.sessions.iloc[rows[:KEPT_WARNINGS]]
                days = evidence[DATETIME]
            parts.append(_note(broken.rule, evidence, days))
        empty = pd.DataFrame({name: pd.Series(dtype="str") for name in NOTE_COLUMNS}).astype(
            {DATETIME: "datetime64[s]"}
        )
        return pd.concat([empty, *parts], ignore_index=True)

    def first_lines(self, severities: Sequence[str]) -> list[str]:
        """The first rows, instruments or sessions of each broken rule, each with rule, reason, remedy and the command
        that releases it."""
        lines = []
        for broken in (b for b in self.bars if b.rule.severity in severities):
            evidence = self._bar_evidence(broken.rule, broken.positions[:SHOWN_FAILURES])
            for row, reason in zip(
                evidence.to_dict("records"), _reasons(broken.rule, evidence).to_pylist(), strict=True
            ):
                where = f"{row[SOURCE_FILE]}, row {row[SOURCE_ROW]}"
                lines.append(_line(broken.rule, where, reason, (row[INSTRUMENT], row[DATETIME], "")))
        for broken in (b for b in self.instruments if b.rule.severity in severities):
            evidence = self.measures.instruments.iloc[broken.positions[:SHOWN_FAILURES]]
            for row, reason in zip(
                evidence.to_dict("records"), _reasons(broken.rule, evidence).to_pylist(), strict=True
            ):
                about = (row[INSTRUMENT], row[broken.rule.dated], "")
                lines.append(_line(broken.rule, f"instrument {row[INSTRUMENT]}", reason, about))
        for broken in (b for b in self.sessions if b.rule.severity in severities):
            evidence = self.measures.sessions.iloc[broken.positions[:SHOWN_FAILURES]]
            for row, reason in zip(
                evidence.to_dict("records"), _reasons(broken.rule, evidence).to_pylist(), strict=True
            ):
                where = f"session {row[DATETIME].date()} of {row[CALENDAR]}"
                lines.append(_line(broken.rule, where, reason, ("", row[DATETIME], row[CALENDAR])))
        return lines

    def _of_bars(self) -> list[Broken]:
        return [broken for broken in self.bars if broken.rule.severity != WARNING]

    def _named(self, found: Sequence[Broken]) -> dict[str, list[str]]:
        names = self.measures.instruments[INSTRUMENT]
        rules: dict[str, list[str]] = {}
        for broken in found:
            for code in broken.positions:
                rules.setdefault(str(names[code]), []).append(broken.rule.rule)
        return dict(sorted(rules.items()))

    def _rows_of(self, instruments: Positions) -> dict[int, Positions]:
        """The rows of each of these instruments."""
        wanted = np.zeros(len(self.measures.instruments) + 1, dtype=bool)
        wanted[instruments] = True
        rows = np.flatnonzero(wanted[self.measures.codes])
        rows = rows[np.argsort(self.measures.codes[rows], kind="stable")]
        begins = np.searchsorted(self.measures.codes[rows], instruments)
        return dict(zip(instruments.tolist(), np.split(rows, begins[1:]), strict=True))

    def _bar_evidence(self, rule: Rule, rows: Positions) -> pd.DataFrame:
        evidence = self.measures.rows.iloc[rows]
        if CALENDAR not in rule.shows:
            return evidence
        codes = self.measures.codes[rows]
        return evidence.assign(**{CALENDAR: self.measures.instruments[CALENDAR].to_numpy()[codes]})

    @cached_property
    def _parsed(self) -> dict[str, Any]:
        return {name: plain_values(self.measures.rows[name]) for name in PARSED_COLUMNS}

    @cached_property
    def _parsed_schema(self) -> pa.Schema:
        frame = self.measures.rows[list(PARSED_COLUMNS)].iloc[:0].astype({INSTRUMENT: "str"})
        return pa.Schema.from_pandas(frame, preserve_index=False)

    def _failure_table(self, rows: Positions, rule: Rule, reasons: pa.Array, day: np.datetime64 | None) -> pa.Table:
        names, owners = self.measures.instruments[INSTRUMENT].array, self.measures.codes[rows]
        columns = [
            names.take(owners, allow_fill=True) if name == INSTRUMENT else values.take(rows)
            for name, values in self._parsed.items()
        ]
        arrays = [pa.array(column, from_pandas=True) for column in columns]
        days = columns[PARSED_COLUMNS.index(DATETIME)] if day is None else np.full(len(rows), day)
        table = pa.Table.from_arrays(arrays, schema=self._parsed_schema).append_column(POSITION, pa.array(rows))
        for name, word in ((RULE, rule.rule), (SEVERITY, rule.severity), (REMEDY, _remedy(rule))):
            codes = pa.array(np.zeros(len(rows), dtype=np.int8))
            table = table.append_column(name, pa.DictionaryArray.from_arrays(codes, pa.array([word])))
        table = table.append_column(EVIDENCE_DATE, pa.array(days.astype("datetime64[s]")))
        return table.append_column(REASON, reasons)


NOTE_COLUMNS = (RULE, SEVERITY, INSTRUMENT, CALENDAR, DATETIME, VALUES, REASON, REMEDY)
_NOTHING = Rule("", "", "", (), "")


def load_rules(settings: Settings) -> Rules:
    """The rules of these settings: suites, calendar, limits and what was released by hand."""
    return Rules(
        load_suites(),
        settings.calendar.name,
        load_releases(settings),
        settings.data.max_rejected_share,
        settings.data.max_rejected_instruments_share,
    )


def validate(frame: pd.DataFrame, rules: Rules) -> Validation:
    """Run all suites over parsed rows (`PARSED_COLUMNS`, RangeIndex); a row may break several rules.

    Raises
    ------
    VintageRejectedError
        There are no rows.
    ConfigError
        The calendar is unknown.
    """
    from mlops_tasks.data.validation.measures import measure  # this loads the compiled kernels and their compiler

    suites = rules.suites
    if frame.empty:
        raise VintageRejectedError("rule table_not_empty: the table has no rows; deliver at least one bar")
    measures = measure(frame, rules.calendar, suites.measures)
    judge = _Judge(measures, rules.releases)
    bars = judge.all_bars(suites.bars.expectations)
    accepted, broken_rows = np.ones(len(frame), dtype=bool), np.zeros(len(frame), dtype=bool)
    for found in bars:
        if found.rule.severity != WARNING:
            accepted[found.positions] = False
        if found.rule.severity == ROW:
            broken_rows[found.positions] = True
    judge.measures = measures = replace(measures, instruments=_with_bad_share(measures, broken_rows))
    instruments = [judge.instruments(expectation) for expectation in suites.instruments.expectations]
    taken = taken_rows(measures, instruments)
    accepted &= ~taken
    judge.measures = measures = replace(measures, sessions=measures.without(broken_rows & ~taken))
    sessions = [judge.sessions(expectation) for expectation in suites.sessions.expectations]
    return Validation(accepted, measures, _nonempty(bars), _nonempty(instruments), _nonempty(sessions), judge.released)


def check_vintage(validation: Validation, rules: Rules, quarantine: Path) -> None:
    """Raise unless the accepted rows may become a vintage (pure).

    Raises
    ------
    VintageRejectedError
        A rule of severity `vintage` is broken, no row is left, more than `max_rejected_share` of the rows break a rule
        about the row (those of a single day may always), or more than `max_rejected_instruments_share` of the
        instruments (a single one may always) are quarantined, whole or before a date. Tells every reason, the first
        rows, instruments and sessions of every broken rule with remedy, the counts and where the quarantine is.
    """
    reasons = [*_share_reasons(validation, rules)]
    if not validation.fatal and not reasons:
        return
    lines = validation.first_lines([VINTAGE, INSTRUMENT_WHOLE, HISTORY, ROW])
    numbers = ", ".join(f"{rule} {count}" for rule, count in (validation.rules | validation.fatal).items())
    reasons += [f"rule {rule} rejects the vintage" for rule in validation.fatal]
    raise VintageRejectedError(
        "\n".join(
            [
                f"rejected: {'; and '.join(reasons)}",
                *lines,
                f"by rule: {numbers}; all of them with reasons: {quarantine}; the last good version stays in use",
            ]
        )
    )


def _share_reasons(validation: Validation, rules: Rules) -> Iterator[str]:
    rows, received = len(validation.bad_rows), validation.received
    if validation.quarantined == received:
        yield "no row is left; correct the source"
    elif rows > rules.max_rejected_share * received and validation.bad_days > 1:
        yield (
            f"{rows} of {received} rows ({rows / received:.2%}) break a rule about the row, rule max_rejected_share "
            f"allows {rules.max_rejected_share:.2%}, or the rows of a single day; correct the source, or raise "
            "data.max_rejected_share"
        )
    whole, count = len(validation.quarantined_instruments), len(validation.measures.instruments)
    if whole > max(1, rules.max_rejected_instruments_share * count):
        yield (
            f"{whole} of {count} instruments ({whole / count:.2%}) are quarantined, whole or before a date, rule "
            f"max_rejected_instruments_share allows {rules.max_rejected_instruments_share:.2%}; correct the source, or "
            "raise data.max_rejected_instruments_share"
        )


class _Judge:
    """Evaluates expectations, less what was released; counts that."""

    def __init__(self, measures: "Measures", releases: Sequence[Release]) -> None:
        self.measures = measures
        self.released: dict[str, int] = {}
        self._releases: dict[str, list[Release]] = {}
        for release in releases:
            self._releases.setdefault(release.rule, []).append(release)

    def all_bars(self, expectations: Sequence[Expectation]) -> list[Broken]:
        """In the suite's order; a row that is not a bar is judged by no other rule."""
        no_bar = np.zeros(len(self.measures.codes), dtype=bool)
        found: dict[str, Broken] = {}
        judged = zip(expectations, broken_rows(expectations, self.measures.rows), strict=True)
        for expectation, positions in sorted(judged, key=lambda each: each[0].rule.severity != DROPPED):
            broken = self._bars(expectation, positions, no_bar)
            if expectation.rule.severity == DROPPED:
                no_bar[broken.positions] = True
            found[expectation.rule.rule] = broken
        return [found[expectation.rule.rule] for expectation in expectations]

    def _bars(self, expectation: Expectation, positions: Positions, no_bar: Booleans) -> Broken:
        if len(positions):
            positions = positions[~no_bar[positions]]
        names = self._names(expectation)
        if not names or not len(positions):
            return Broken(expectation, positions)
        codes = self.measures.instruments.index[self.measures.instruments[INSTRUMENT].isin(names)]
        held, keys = np.ones(len(positions), dtype=bool), set()
        for place in np.flatnonzero(np.isin(self.measures.codes[positions], codes)):
            row = self.measures.rows.iloc[positions[place]]
            key = (row[INSTRUMENT], row[DATETIME])
            if pd.isna(row[DATETIME]) or not covers_row(
                names[row[INSTRUMENT]], row[list(BAR_FIELDS)], row[DATETIME].date()
            ):
                continue
            held[place] = expectation.rule.rule == UNIQUE_KEYS and key in keys  # at most one of the rows with one key
            keys.add(key)
        return self._less(expectation, positions, held)

    def instruments(self, expectation: Expectation) -> Broken:
        positions = expectation.broken(self.measures.instruments)
        names = self._names(expectation)
        held = np.ones(len(positions), dtype=bool)
        for place, position in enumerate(positions):
            row = self.measures.instruments.iloc[position]
            if row[INSTRUMENT] in names and not pd.isna(row[expectation.rule.dated]):
                held[place] = not covers_instrument(names[row[INSTRUMENT]], row[expectation.rule.dated].date())
        return self._less(expectation, positions, held)

    def sessions(self, expectation: Expectation) -> Broken:
        positions = expectation.broken(self.measures.sessions)
        names = self._names(expectation)
        held = np.ones(len(positions), dtype=bool)
        for place, position in enumerate(positions if names else ()):
            row = self.measures.sessions.iloc[position]
            held[place] = not covers_session(names.get(row[CALENDAR], ()), row[DATETIME].date())
        return self._less(expectation, positions, held)

    def _names(self, expectation: Expectation) -> dict[str, list[Release]]:
        names: dict[str, list[Release]] = {}
        for release in self._releases.get(expectation.rule.rule, ()):
            names.setdefault(release.instrument, []).append(release)
        return names

    def _less(self, expectation: Expectation, positions: Positions, held: Booleans) -> Broken:
        if not held.all():
            self.released[expectation.rule.rule] = int((~held).sum())
        return Broken(expectation, positions[held])


def taken_rows(measures: "Measures", instruments: Sequence[Broken]) -> Booleans:
    """(rows,): which rows the broken rules about instruments quarantine: all of theirs, or those before its date."""
    taken = np.zeros(len(measures.codes), dtype=bool)
    days = measures.rows[DATETIME].to_numpy()
    for broken in _nonempty(_taking(instruments)):
        owners = np.zeros(len(measures.instruments) + 1, dtype=bool)
        owners[broken.positions] = True
        rows = np.flatnonzero(owners[measures.codes])
        if broken.rule.severity == HISTORY:
            dates = measures.instruments[broken.rule.dated].to_numpy()
            rows = rows[~(days[rows] >= dates[measures.codes[rows]])]
        taken[rows] = True
    return taken


def _taking(instruments: Sequence[Broken]) -> list[Broken]:
    """The rules about instruments that quarantine rows of theirs."""
    return [found for found in instruments if found.rule.severity in (HISTORY, INSTRUMENT_WHOLE)]


def _with_bad_share(measures: "Measures", broken_rows: Booleans) -> pd.DataFrame:
    """The share of each instrument's bars that break a rule about the row."""
    owners = measures.codes[broken_rows & (measures.codes >= 0)]
    bad = np.bincount(owners, minlength=len(measures.instruments))
    without_key = measures.instruments["rows"].where(measures.instruments["bars"] == 0, measures.instruments["bars"])
    return measures.instruments.assign(bad_share=(bad / np.maximum(without_key, 1)).clip(upper=1.0))


def _with(broken: Sequence[Broken], severity: str) -> list[Broken]:
    return [found for found in broken if found.rule.severity == severity]


def _nonempty(broken: Sequence[Broken]) -> tuple[Broken, ...]:
    return tuple(found for found in broken if len(found.positions))


def _line(rule: Rule, where: str, reason: str, about: tuple[Any, Any, str]) -> str:
    command = release_command(rule.rule, *about)
    return f"{where}: rule {rule.rule}: {reason}; remedy: {rule.remedy}" + (f"; or: {command}" if command else "")


def _remedy(rule: Rule) -> str:
    """The remedy, with the command that releases, whose placeholders the user fills in."""
    command = release_command(rule.rule, "<instrument>", "<date>", "")
    return f"{rule.remedy}; or: {command}" if command else rule.remedy


def _note(rule: Rule, evidence: pd.DataFrame, days: pd.Series) -> pd.DataFrame:
    absent = pd.Series([None] * len(evidence), dtype="str")
    values = (
        [row_digest(row) for row in evidence[list(BAR_FIELDS)].to_dict("records")] if SOURCE_ROW in evidence else absent
    )
    return pd.DataFrame(
        {
            RULE: pd.Series([rule.rule] * len(evidence), dtype="str"),
            SEVERITY: pd.Series([rule.severity] * len(evidence), dtype="str"),
            INSTRUMENT: evidence[INSTRUMENT].astype("str").array if INSTRUMENT in evidence else absent,
            CALENDAR: evidence[CALENDAR].astype("str").array if CALENDAR in evidence else absent,
            DATETIME: days.to_numpy().astype("datetime64[s]"),
            VALUES: pd.Series(values, dtype="str"),
            REASON: pd.Series(_reasons(rule, evidence).to_pylist(), dtype="str"),
            REMEDY: pd.Series([_remedy(rule)] * len(evidence), dtype="str"),
        }
    )


def _reasons(rule: Rule, evidence: pd.DataFrame) -> pa.Array:
    """What each row breaks, with the values that show it."""
    if not rule.shows or evidence.empty:
        return pa.array([rule.says] * len(evidence), pa.string())
    shown = [_shown(name, evidence[name]) for name in rule.shows]
    return pa.array([f"{rule.says} ({', '.join(words)})" for words in zip(*shown, strict=True)], pa.string())


def _shown(name: str, values: pd.Series) -> list[str]:
    missing = values.isna().to_numpy()
    kind = values.dtype.kind if isinstance(values.dtype, np.dtype) else ""
    if kind == "M":
        words = [str(day) for day in values.to_numpy().astype("datetime64[D]")]
    elif kind == "f":
        # Measures are single precision; they need not be shown with ten digits.
        form = ".4g" if values.dtype == np.float32 else ".10g"
        words = [format(value, form) for value in values.tolist()]
    else:
        words = [str(value) for value in values.tolist()]
    if name == PARSE_ERROR:
        return words
    return [f"{name} is empty" if gone else f"{name}={word}" for word, gone in zip(words, missing, strict=True)]
