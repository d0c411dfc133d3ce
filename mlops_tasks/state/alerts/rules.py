"""Alert rules: what counts as a problem, its severity, and who is notified.

They are entries of include/config/alerts.yaml and `<home>/alerts.yaml`, by name. A user's entry replaces the built-in
one entirely. A rule is evaluated only from signals (`signals.py`) and the time.
"""

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from statistics import median
from typing import Annotated, Any, Literal, Self

from pydantic import Field, TypeAdapter, ValidationError, model_validator

from mlops_tasks.config import PROJECT, Section, Settings
from mlops_tasks.entry_files import parse_entries, read_yaml_text
from mlops_tasks.errors import ConfigError
from mlops_tasks.state.alerts.episodes import Key, Observation, Policy, Severity, Standing, Step

SINKS = ("webhook", "email", "airflow_email")
FILE = "alerts.yaml"

SIGNALS: Mapping[str, str] = {
    "scores": "scores of the champion for each day, if computed within a week of that day; value: instruments",
    "scored_instruments": "number of instruments in the champion's scores of each day",
    "vintages": "each vintage that came into use; value: 1",
    "drift_columns": "number of columns that each drift report found beyond their limit",
    "failed_runs": "each failed DAG run; value: 1",
    "failed_deployments": "each deployment that failed or was undone; value: 1",
}
"""The signals that a rule can use, with descriptions."""

LastSession = Callable[[datetime, timedelta], date]
"""Maps a time and a delay to the newest session that closed at least that long before (`data.exchanges.calendars`)."""

Sink = Literal["webhook", "email", "airflow_email"]
Signal = Literal["scores", "scored_instruments", "vintages", "drift_columns", "failed_runs", "failed_deployments"]


@dataclass(frozen=True)
class Sample:
    """A value of a signal and its time (aware)."""

    at: datetime
    value: float


class AlertRule(Section):
    """Fields that all rules have."""

    severity: Severity = Severity.WARNING
    enabled: bool = True
    """Whether it is evaluated, and its alerts are reported."""
    sinks: tuple[Sink, ...] | None = None
    """Sinks that report it; default: all that are configured."""
    escalate_after_min: float | None = Field(None, gt=0)
    """Minutes from the opening to the escalation, unless it is acknowledged. None: never."""
    escalate_to: tuple[Sink, ...] | None = None
    """Sinks that report the escalation; default: all that are configured."""
    help: str = ""
    """What to do; appended to the message."""

    @property
    def policy(self) -> Policy:
        """The policy of its episodes."""
        minutes = self.escalate_after_min
        return Policy(self.severity, None if minutes is None else timedelta(minutes=minutes))


class Told(AlertRule):
    """For a kind of alert that the code raises: its severity and who is notified."""

    type: Literal["told"] = "told"


class SignalRule(AlertRule):
    """A rule that evaluates a signal."""

    signal: Signal
    for_min: float = Field(0, ge=0)
    """How long a breach must last before people are notified."""

    @abstractmethod
    def judge(self, samples: Sequence[Sample], now: datetime, last_session: LastSession) -> tuple[Standing, str]:
        """State of the samples, oldest first, and a message about it."""


class ThresholdRule(SignalRule):
    """The newest value is above, or below, a limit."""

    type: Literal["threshold"]
    above: float | None = None
    below: float | None = None
    resolve_at: float | None = None
    """Value at which an open episode ends. None: the limit."""

    @model_validator(mode="after")
    def _one_limit(self) -> Self:
        if (self.above is None) == (self.below is None):
            raise ValueError("give either above or below")
        if self.resolve_at is not None and (
            self.resolve_at > self.above if self.above is not None else self.resolve_at < (self.below or 0.0)
        ):
            raise ValueError("resolve_at is on the wrong side of the limit: every breach would end at once")
        return self

    def judge(self, samples: Sequence[Sample], now: datetime, last_session: LastSession) -> tuple[Standing, str]:
        """Unknown without a sample."""
        if not samples:
            return Standing.UNKNOWN, ""
        sign = 1.0 if self.above is not None else -1.0
        limit = self.above if self.above is not None else self.below
        assert limit is not None
        calm_at = limit if self.resolve_at is None else self.resolve_at
        value = samples[-1].value
        word = "above" if sign > 0 else "below"
        said = f"{self.signal} is {value:g}, {word} {limit:g}"
        return _standing(sign * value > sign * limit, sign * value <= sign * calm_at), said


class ChangeRule(SignalRule):
    """The newest value falls or rises by a given share of the median of the values before it."""

    type: Literal["change"]
    falls_by: float | None = Field(None, gt=0)
    rises_by: float | None = Field(None, gt=0)
    over: int = Field(5, ge=1, le=100)
    """Maximum number of values before the newest that are used."""
    resolve_share: float | None = Field(None, ge=0)
    """Share at which an open episode ends. None: the limit."""

    @model_validator(mode="after")
    def _one_limit(self) -> Self:
        limit = self.falls_by if self.falls_by is not None else self.rises_by
        if limit is None or (self.falls_by is not None and self.rises_by is not None):
            raise ValueError("give either falls_by or rises_by")
        if self.resolve_share is not None and self.resolve_share > limit:
            raise ValueError("resolve_share is larger than the limit: every breach would end at once")
        return self

    def judge(self, samples: Sequence[Sample], now: datetime, last_session: LastSession) -> tuple[Standing, str]:
        """Unknown with fewer than two samples, or if the median of those before is 0."""
        before = [each.value for each in samples[-self.over - 1 : -1]]
        if not before or median(before) == 0:
            return Standing.UNKNOWN, ""
        usual, value = median(before), samples[-1].value
        limit = self.falls_by if self.falls_by is not None else self.rises_by
        assert limit is not None
        share = (value - usual) / abs(usual) * (-1 if self.falls_by is not None else 1)
        calm_at = limit if self.resolve_share is None else self.resolve_share
        said = f"{self.signal} is {value:g}; the median of the {len(before)} before was {usual:g}"
        return _standing(share > limit, share <= calm_at), said


class AbsenceRule(SignalRule):
    """There is no new value within some minutes, or none for the newest session that ended long enough ago."""

    type: Literal["absence"]
    within_min: float | None = Field(None, gt=0)
    after_close_min: float | None = Field(None, ge=0)
    """Minutes after the close of a session of `calendar.schedule` at which its value is due. The times of the signal
    must then be days."""

    @model_validator(mode="after")
    def _one_limit(self) -> Self:
        if (self.within_min is None) == (self.after_close_min is None):
            raise ValueError("give either within_min or after_close_min")
        if self.after_close_min is not None and self.signal != "scores":
            raise ValueError("after_close_min is only for the signal scores, whose times are days")
        return self

    def judge(self, samples: Sequence[Sample], now: datetime, last_session: LastSession) -> tuple[Standing, str]:
        """Unknown before the first sample: a value that never existed is not missing."""
        if not samples:
            return Standing.UNKNOWN, ""
        newest = samples[-1].at
        if self.within_min is not None:
            late = now - newest > timedelta(minutes=self.within_min)
            return _standing(late, not late), f"no {self.signal} since {newest:%Y-%m-%d %H:%M} UTC"
        assert self.after_close_min is not None
        due, there = last_session(now, timedelta(minutes=self.after_close_min)), newest.astimezone(UTC).date()
        said = f"the {self.signal} of {due} are missing {self.after_close_min:g} minutes after its close"
        return _standing(there < due, there >= due), f"{said}; the newest are of {there}"


class RateRule(SignalRule):
    """The values of the last minutes add up to a limit or more."""

    type: Literal["rate"]
    at_least: float = Field(gt=0)
    within_min: float = Field(gt=0, le=7 * 24 * 60)
    resolve_below: float | None = Field(None, gt=0)
    """Sum below which an open episode ends. None: the limit."""

    @model_validator(mode="after")
    def _below_the_limit(self) -> Self:
        if self.resolve_below is not None and self.resolve_below > self.at_least:
            raise ValueError("resolve_below is larger than at_least: every breach would end at once")
        return self

    def judge(self, samples: Sequence[Sample], now: datetime, last_session: LastSession) -> tuple[Standing, str]:
        """No sample is a sum of 0."""
        since = now - timedelta(minutes=self.within_min)
        total = sum(each.value for each in samples if each.at > since)
        calm = total < (self.at_least if self.resolve_below is None else self.resolve_below)
        said = f"{self.signal}: {total:g} within {self.within_min:g} minutes, {self.at_least:g} or more is too many"
        return _standing(total >= self.at_least, calm), said


def _standing(breached: bool, calm: bool) -> Standing:
    return Standing.BREACHED if breached else Standing.CALM if calm else Standing.BETWEEN


AnyRule = Annotated[Told | ThresholdRule | ChangeRule | AbsenceRule | RateRule, Field(discriminator="type")]
_ADAPTER: TypeAdapter[AnyRule] = TypeAdapter(AnyRule)
_SHIPPED = PROJECT / "include" / "config" / FILE


def read_rules(settings: Settings) -> dict[str, AnyRule]:
    """All rules by name, the built-in ones and those of `<home>/alerts.yaml`.

    Raises
    ------
    ConfigError
        A file cannot be read, or entries are invalid; the message names each with its fault.
    """
    own = settings.home / FILE
    texts = [(path, read_yaml_text(path)) for path in (_SHIPPED, own) if path.is_file()]
    return dict(_parsed(tuple(texts)))


@lru_cache(maxsize=8)
def _parsed(texts: tuple[tuple[Path, str], ...]) -> dict[str, AnyRule]:
    rules, wrong = {}, []
    for path, text in texts:
        entries = parse_entries(path, text, "rule")
        for name in entries.nodes:
            try:
                rules[name] = _ADAPTER.validate_python(entries.content(name))
            except ValidationError as error:
                wrong += [f"{path}: {name}: {_fault(each)}" for each in error.errors()]
    if wrong:
        raise ConfigError("bad alert rules; correct:\n  " + "\n  ".join(wrong))
    return rules


def _fault(error: Any) -> str:
    where = ".".join(str(each) for each in error["loc"][1:])
    said = str(error["msg"])
    if error["type"] == "extra_forbidden":
        said = "there is no such key"
    return f"{where}: {said}" if where else said


def rule_of(settings: Settings, kind: str) -> AlertRule:
    """The rule of a kind of alert; if there is none, a warning for all sinks.

    Faults in the rules are reported where they are evaluated (`alphaops doctor`, the scoring service's log): they do
    not stop an alert that is raised.
    """
    try:
        return read_rules(settings).get(kind, Told())
    except ConfigError:
        return Told()


def condition_of(rule: AlertRule) -> str:
    """When a rule is broken, as its entry says it; empty for one that the code raises."""
    if not isinstance(rule, SignalRule):
        return ""
    plain = set(AlertRule.model_fields) | {"type", "signal"}
    given = {name: value for name, value in rule.model_dump(exclude_none=True, exclude=plain).items() if value != 0}
    return ", ".join(f"{name}: {value:g}" for name, value in given.items())


def sinks_of(rule: AlertRule, step: Step) -> list[str]:
    """Names of the sinks that report a step according to the rule; none for a disabled rule.

    The delivering process decides whether they are configured: it may have been given an address that this process
    lacks.
    """
    if not rule.enabled:
        return []
    chosen = rule.escalate_to if step is Step.ESCALATED else rule.sinks
    return [name for name in SINKS if chosen is None or name in chosen]


def configured_sinks(settings: Settings) -> list[str]:
    """Names of the sinks for which the settings have an address."""
    alerts = settings.alerts
    there = (alerts.webhook_url is not None, alerts.email is not None, alerts.airflow_connection is not None)
    return [name for name, is_there in zip(SINKS, there, strict=True) if is_there]


def evaluate(
    rules: Mapping[str, AnyRule],
    signals: Mapping[str, Sequence[Sample]],
    now: datetime,
    last_session: LastSession,
) -> list[Observation]:
    """Evaluate each enabled rule on the given signals; a pure function."""
    found = []
    for name, rule in rules.items():
        if not isinstance(rule, SignalRule) or not rule.enabled or rule.signal not in signals:
            continue
        standing, said = rule.judge(signals[rule.signal], now, last_session)
        message = f"{said}; {rule.help}" if rule.help else said
        lasting = timedelta(minutes=rule.for_min)
        found.append(Observation(Key(name, rule.signal), standing, message, lasting))
    return found
