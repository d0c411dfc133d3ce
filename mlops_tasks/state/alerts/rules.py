"""Rules of alerts: what counts as wrong, how grave it is, and who is told.

They are entries of include/config/alerts.yaml and of `<home>/alerts.yaml`, by name; an entry of one's own takes the
place of the shipped one as a whole. A rule is judged from signals (`signals.py`) and the time alone.
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
    "scores": "each day's scores of the champion, when the day was over at most a week before; value: instruments",
    "scored_instruments": "how many instruments the champion's scores of each day have",
    "vintages": "each vintage that came into use; value: 1",
    "drift_columns": "how many columns each drift report found beyond their limit",
    "failed_runs": "each run of a DAG that failed; value: 1",
    "failed_deployments": "each deployment that failed or was undone; value: 1",
}
"""What a rule can look at, and what it is."""

LastSession = Callable[[datetime, timedelta], date]
"""From a moment and a delay to the newest session that closed at least so long before (`data.exchanges.calendars`)."""

Sink = Literal["webhook", "email", "airflow_email"]
Signal = Literal["scores", "scored_instruments", "vintages", "drift_columns", "failed_runs", "failed_deployments"]


@dataclass(frozen=True)
class Sample:
    """A value of a signal and its time (aware)."""

    at: datetime
    value: float


class AlertRule(Section):
    """What all rules have."""

    severity: Severity = Severity.WARNING
    enabled: bool = True
    """Whether it is looked at, and people are told of it."""
    sinks: tuple[Sink, ...] | None = None
    """By which people are told; none given: by all that are configured."""
    escalate_after_min: float | None = Field(None, gt=0)
    """From its opening on, without an acknowledgement; none: never."""
    escalate_to: tuple[Sink, ...] | None = None
    """By which people are told then; none given: by all that are configured."""
    help: str = ""
    """What to do; it follows what the alert says."""

    @property
    def policy(self) -> Policy:
        """For its episodes."""
        minutes = self.escalate_after_min
        return Policy(self.severity, None if minutes is None else timedelta(minutes=minutes))


class Told(AlertRule):
    """Of a kind of alert that the code raises: how grave it is, and who is told."""

    type: Literal["told"] = "told"


class SignalRule(AlertRule):
    """A rule that looks at a signal."""

    signal: Signal
    for_min: float = Field(0, ge=0)
    """How long a breach has to last before people are told."""

    @abstractmethod
    def judge(self, samples: Sequence[Sample], now: datetime, last_session: LastSession) -> tuple[Standing, str]:
        """Where samples, the oldest first, stand, and what is to be said of it."""


class ThresholdRule(SignalRule):
    """The newest value is above, or below, a limit."""

    type: Literal["threshold"]
    above: float | None = None
    below: float | None = None
    resolve_at: float | None = None
    """Value at which an open episode ends; none: the limit."""

    @model_validator(mode="after")
    def _one_limit(self) -> Self:
        if (self.above is None) == (self.below is None):
            raise ValueError("give above or below, one of them")
        if self.resolve_at is not None and (
            self.resolve_at > self.above if self.above is not None else self.resolve_at < (self.below or 0.0)
        ):
            raise ValueError("resolve_at lies on the wrong side of the limit: every breach would end at once")
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
    """The newest value differs from the median of those before it by a share of that."""

    type: Literal["change"]
    falls_by: float | None = Field(None, gt=0)
    rises_by: float | None = Field(None, gt=0)
    over: int = Field(5, ge=1, le=100)
    """How many values before the newest are looked at, at most."""
    resolve_share: float | None = Field(None, ge=0)
    """Share at which an open episode ends; none: the limit."""

    @model_validator(mode="after")
    def _one_limit(self) -> Self:
        limit = self.falls_by if self.falls_by is not None else self.rises_by
        if limit is None or (self.falls_by is not None and self.rises_by is not None):
            raise ValueError("give falls_by or rises_by, one of them")
        if self.resolve_share is not None and self.resolve_share > limit:
            raise ValueError("resolve_share is larger than the limit: every breach would end at once")
        return self

    def judge(self, samples: Sequence[Sample], now: datetime, last_session: LastSession) -> tuple[Standing, str]:
        """Unknown without two samples, or where those before are 0."""
        before = [each.value for each in samples[-self.over - 1 : -1]]
        if not before or median(before) == 0:
            return Standing.UNKNOWN, ""
        usual, value = median(before), samples[-1].value
        limit = self.falls_by if self.falls_by is not None else self.rises_by
        assert limit is not None
        share = (value - usual) / abs(usual) * (-1 if self.falls_by is not None else 1)
        calm_at = limit if self.resolve_share is None else self.resolve_share
        said = f"{self.signal} is {value:g}, and was {usual:g} in the median of the {len(before)} before"
        return _standing(share > limit, share <= calm_at), said


class AbsenceRule(SignalRule):
    """There is no new value: within some minutes, or of the newest session that is over for long enough."""

    type: Literal["absence"]
    within_min: float | None = Field(None, gt=0)
    after_close_min: float | None = Field(None, ge=0)
    """Minutes after the close of a session of `calendar.schedule` at which its value is due; the signal's times are
    days then."""

    @model_validator(mode="after")
    def _one_limit(self) -> Self:
        if (self.within_min is None) == (self.after_close_min is None):
            raise ValueError("give within_min or after_close_min, one of them")
        if self.after_close_min is not None and self.signal != "scores":
            raise ValueError("after_close_min is for the signal scores, whose times are days")
        return self

    def judge(self, samples: Sequence[Sample], now: datetime, last_session: LastSession) -> tuple[Standing, str]:
        """Unknown before the first sample: what never was is not missing."""
        if not samples:
            return Standing.UNKNOWN, ""
        newest = samples[-1].at
        if self.within_min is not None:
            late = now - newest > timedelta(minutes=self.within_min)
            return _standing(late, not late), f"no {self.signal} since {newest:%Y-%m-%d %H:%M} UTC"
        assert self.after_close_min is not None
        due, there = last_session(now, timedelta(minutes=self.after_close_min)), newest.astimezone(UTC).date()
        said = f"the {self.signal} of {due} are not there {self.after_close_min:g} minutes after its close"
        return _standing(there < due, there >= due), f"{said}; the newest are of {there}"


class RateRule(SignalRule):
    """The values of the last minutes add up to a limit or more."""

    type: Literal["rate"]
    at_least: float = Field(gt=0)
    within_min: float = Field(gt=0, le=7 * 24 * 60)
    resolve_below: float | None = Field(None, gt=0)
    """Sum below which an open episode ends; none: the limit."""

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
    """All rules by name, the shipped ones and those of `<home>/alerts.yaml`.

    Raises
    ------
    ConfigError
        A file cannot be read, or entries are wrong; names each with what is wrong with it.
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
        raise ConfigError("bad rules of alerts; correct:\n  " + "\n  ".join(wrong))
    return rules


def _fault(error: Any) -> str:
    where = ".".join(str(each) for each in error["loc"][1:])
    said = str(error["msg"])
    if error["type"] == "extra_forbidden":
        said = "there is no such key"
    return f"{where}: {said}" if where else said


def rule_of(settings: Settings, kind: str) -> AlertRule:
    """The rule of a kind of alert; where there is none, a warning that all are told.

    What is wrong with the rules is told by those who look at them (`alphaops doctor`, the scoring service's log): an
    alert that is raised is told all the same.
    """
    try:
        return read_rules(settings).get(kind, Told())
    except ConfigError:
        return Told()


def sinks_of(rule: AlertRule, step: Step) -> list[str]:
    """Names of those that tell a step, as the rule says; of a disabled one none.

    Whether they are configured is for those to say who tell: another process may have been given an address that this
    one has not.
    """
    if not rule.enabled:
        return []
    chosen = rule.escalate_to if step is Step.ESCALATED else rule.sinks
    return [name for name in SINKS if chosen is None or name in chosen]


def configured_sinks(settings: Settings) -> list[str]:
    """Names of the sinks that the settings have an address of."""
    alerts = settings.alerts
    there = (alerts.webhook_url is not None, alerts.email is not None, alerts.airflow_connection is not None)
    return [name for name, is_there in zip(SINKS, there, strict=True) if is_there]


def evaluate(
    rules: Mapping[str, AnyRule],
    signals: Mapping[str, Sequence[Sample]],
    now: datetime,
    last_session: LastSession,
) -> list[Observation]:
    """What each enabled rule says of the signals that are there; a pure function."""
    found = []
    for name, rule in rules.items():
        if not isinstance(rule, SignalRule) or not rule.enabled or rule.signal not in signals:
            continue
        standing, said = rule.judge(signals[rule.signal], now, last_session)
        message = f"{said}; {rule.help}" if rule.help else said
        lasting = timedelta(minutes=rule.for_min)
        found.append(Observation(Key(name, rule.signal), standing, message, lasting))
    return found
