"""Rules are checked when they are read, and judged from signals and the time alone."""

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from mlops_tasks.config import Settings
from mlops_tasks.errors import ConfigError
from mlops_tasks.state.alerts.episodes import Severity, Standing, Step
from mlops_tasks.state.alerts.rules import (
    SIGNALS,
    SINKS,
    Sample,
    Signal,
    SignalRule,
    Sink,
    evaluate,
    read_rules,
    rule_of,
    sinks_of,
)
from mlops_tasks.state.alerts.signals import _READERS

NOON = datetime(2024, 6, 3, 12, tzinfo=UTC)  # a Monday
B, M, C, U = Standing.BREACHED, Standing.BETWEEN, Standing.CALM, Standing.UNKNOWN


def own(home: Path, **rules: Mapping[str, Any]) -> Settings:
    """Settings of a home with rules of its own."""
    (home / "alerts.yaml").write_text(yaml.safe_dump(rules))
    return Settings(home=home)


def samples(*values: float, every_min: float = 60, newest: datetime = NOON) -> list[Sample]:
    """Values at equal times, the newest last."""
    ages = range(len(values) - 1, -1, -1)
    return [Sample(newest - timedelta(minutes=every_min * age), value) for age, value in zip(ages, values, strict=True)]


def last_session(at: datetime, delay: timedelta) -> date:
    """Of an exchange that is open on all days and closes at 20:00 UTC."""
    return (at - delay - timedelta(hours=20)).date()


def test_the_shipped_rules_are_right(tmp_path: Path) -> None:
    """They look at signals that there are, and each limit has its remedy."""
    rules = read_rules(Settings(home=tmp_path))
    assert tuple(SIGNALS) == get_args(Signal) == tuple(_READERS) and get_args(Sink) == SINKS
    looked_at = {name: rule for name, rule in rules.items() if isinstance(rule, SignalRule)}
    assert {"scores_overdue", "runs_failing", "deployments_failing", "fewer_instruments"} == set(looked_at)
    assert all(rule.signal in SIGNALS and rule.help for rule in looked_at.values())


@pytest.mark.parametrize(
    ("rule", "wrong"),
    [
        ({"type": "threshold", "signal": "drift_columns"}, "give either above or below"),
        ({"type": "threshold", "signal": "drift_columns", "above": 3, "below": 1}, "give either above or below"),
        ({"type": "threshold", "signal": "drift_columns", "above": 3, "resolve_at": 4}, "wrong side"),
        ({"type": "threshold", "signal": "drift_columns", "below": 3, "resolve_at": 2}, "wrong side"),
        ({"type": "threshold", "signal": "moods", "above": 3}, "signal: Input should be 'scores'"),
        ({"type": "threshold", "signal": "drift_columns", "above": 3, "for": 3}, "for: there is no such key"),
        ({"type": "change", "signal": "scored_instruments"}, "give either falls_by or rises_by"),
        ({"type": "change", "signal": "scored_instruments", "falls_by": 0.1, "resolve_share": 0.2}, "larger"),
        ({"type": "absence", "signal": "vintages"}, "give either within_min or after_close_min"),
        ({"type": "absence", "signal": "vintages", "after_close_min": 60}, "for the signal scores"),
        ({"type": "rate", "signal": "failed_runs", "at_least": 3}, "within_min: Field required"),
        ({"type": "rate", "signal": "failed_runs", "at_least": 3, "within_min": 20000}, "less than or equal"),
        ({"type": "rate", "signal": "failed_runs", "at_least": 3, "within_min": 9, "resolve_below": 4}, "larger"),
        ({"type": "told", "sinks": ["pigeon"]}, "sinks.0: Input should be 'webhook'"),
        ({"type": "told", "severity": "dire"}, "severity: Input should be 'info'"),
        ({"type": "guess"}, "'told', 'threshold', 'change', 'absence', 'rate'"),
        ({"severity": "info"}, "Unable to extract tag"),
    ],
)
def test_a_wrong_rule_is_named_with_its_fault(tmp_path: Path, rule: dict[str, Any], wrong: str) -> None:
    """File, rule, key and what is wrong with it; alerts that are raised go on as warnings meanwhile."""
    settings = own(tmp_path, mine=rule)
    with pytest.raises(ConfigError) as caught:
        read_rules(settings)
    assert f"{tmp_path / 'alerts.yaml'}: mine" in str(caught.value) and wrong in str(caught.value)
    assert rule_of(settings, "leak_found").severity is Severity.WARNING


def test_a_file_of_ones_own_adds_and_overrides(tmp_path: Path) -> None:
    """By name, each entry as a whole; a disabled rule is not looked at and tells nobody."""
    mine = {"type": "threshold", "signal": "drift_columns", "above": 3}
    off = {"type": "absence", "signal": "scores", "after_close_min": 720, "enabled": False}
    settings = own(tmp_path, mine=mine, scores_overdue=off, leak_found={"type": "told", "sinks": []})
    rules = read_rules(settings)
    assert "fewer_instruments" in rules and rules["leak_found"].severity is Severity.WARNING
    found = evaluate(rules, {"drift_columns": samples(5), "scores": samples(1)}, NOON, last_session)
    assert [(each.key.kind, each.standing) for each in found] == [("mine", B)]
    assert sinks_of(rules["mine"], Step.OPENED) == ["webhook", "email", "airflow_email"]
    assert sinks_of(rules["leak_found"], Step.OPENED) == []
    assert sinks_of(rules["leak_found"], Step.ESCALATED) == ["webhook", "email", "airflow_email"]
    assert sinks_of(rules["scores_overdue"], Step.OPENED) == []


THRESHOLD = {"type": "threshold", "signal": "drift_columns", "above": 3, "resolve_at": 1}
BELOW = {"type": "threshold", "signal": "scored_instruments", "below": 10, "resolve_at": 12}
FALL = {"type": "change", "signal": "scored_instruments", "falls_by": 0.2, "resolve_share": 0.1, "over": 3}
RISE = {"type": "change", "signal": "scored_instruments", "rises_by": 0.5}
RATE = {"type": "rate", "signal": "failed_runs", "at_least": 3, "within_min": 130, "resolve_below": 2}
SILENT = {"type": "absence", "signal": "vintages", "within_min": 90}


@pytest.mark.parametrize(
    ("rule", "values", "standing"),
    [
        (THRESHOLD, [], U),
        (THRESHOLD, [9, 1], C),
        (THRESHOLD, [0, 2], M),
        (THRESHOLD, [0, 3], M),
        (THRESHOLD, [0, 3.5], B),
        (BELOW, [9], B),
        (BELOW, [11], M),
        (BELOW, [12], C),
        (FALL, [100], U),
        (FALL, [0, 0, 5], U),
        (FALL, [1, 100, 50, 110, 79], B),
        (FALL, [100, 100, 100, 85], M),
        (FALL, [100, 100, 100, 95], C),
        (RISE, [100, 151], B),
        (RISE, [100, 150], C),
        (RATE, [], C),
        (RATE, [1, 1], M),
        (RATE, [1, 1, 1], B),
        (RATE, [1], C),
        (SILENT, [], U),
        (SILENT, [1], C),
    ],
)
def test_where_a_signal_stands(
    tmp_path: Path, rule: dict[str, Any], values: Sequence[float], standing: Standing
) -> None:
    """At, below and above each limit and the one at which an episode ends."""
    rules = {"mine": read_rules(own(tmp_path, mine=rule))["mine"]}
    (found,) = evaluate(rules, {rule["signal"]: samples(*values)}, NOON, last_session)
    assert found.standing is standing
    assert found.key == ("mine", rule["signal"])


def test_what_a_rule_says_has_the_value_the_limit_and_the_remedy(tmp_path: Path) -> None:
    """A person reads it at night."""
    rules = {"mine": read_rules(own(tmp_path, mine=THRESHOLD | {"help": "see the report", "for_min": 5}))["mine"]}
    (found,) = evaluate(rules, {"drift_columns": samples(22)}, NOON, last_session)
    assert found.message == "drift_columns is 22, above 3; see the report" and found.lasting == timedelta(minutes=5)


@pytest.mark.parametrize(
    ("scored", "at", "standing"),
    [
        (date(2024, 6, 2), NOON, C),  # closed at 20:00 the day before, due at 08:00
        (date(2024, 6, 1), NOON, B),
        (date(2024, 6, 1), NOON - timedelta(hours=4, minutes=1), C),
        (date(2024, 6, 1), NOON - timedelta(hours=4), B),
        (date(2024, 6, 3), NOON, C),
    ],
)
def test_the_days_scores_are_late_from_their_minute_on(
    tmp_path: Path, scored: date, at: datetime, standing: Standing
) -> None:
    """Twelve hours after the session's close; before there were any, none are missing."""
    rules = {"scores_overdue": read_rules(Settings(home=tmp_path))["scores_overdue"]}
    sample = Sample(datetime(scored.year, scored.month, scored.day, tzinfo=UTC), 50.0)
    (found,) = evaluate(rules, {"scores": [sample]}, at, last_session)
    assert found.standing is standing
    (none,) = evaluate(rules, {"scores": []}, at, last_session)
    assert none.standing is U
