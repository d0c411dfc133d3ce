"""The answers of the API, from which its OpenAPI document is made."""

from collections.abc import Sequence
from datetime import date, datetime
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, Field

from mlops_tasks.experiments.lifecycle import Experiment as ExperimentStep
from mlops_tasks.state.alerts.episodes import Episode
from mlops_tasks.state.model_history import Tenure, Transition
from mlops_tasks.state.model_index import FoundVersion
from mlops_tasks.state.tables import TrainingEvent, VersionOrigin
from mlops_tasks.state.version_search import LARGEST_PAGE
from mlops_tasks.states import ExperimentState, ModelState
from mlops_tasks.training.events import RunProgress


class Problem(BaseModel):
    """Why a request was refused, and what to do."""

    detail: str


class HyperParameter(BaseModel):
    """One hyper-parameter; `values` is its JSON Schema in words."""

    name: str
    description: str
    default: Any
    values: str
    advanced: bool
    searched: str = Field(description="What a search varies, in words. Empty where it varies nothing.")


class ModelSummary(BaseModel):
    """A model of the zoo."""

    name: str
    family: str
    description: str
    recommended_for: list[str]
    own: bool = Field(description="Whether it is from your models.yaml in MLOPS_HOME.")
    window: int = Field(description="Number of trading days that it sees by default.")


class WrongModel(BaseModel):
    """An entry of your models.yaml that cannot be trained."""

    name: str
    error: str


class ModelList(BaseModel):
    """The zoo."""

    models: list[ModelSummary]
    wrong: list[WrongModel]


class MemoryEstimate(BaseModel):
    """Estimated peak of a training's memory, with default hyper-parameters."""

    rows: int
    features: int
    bytes: int


class ModelDetail(ModelSummary):
    """A model, with everything that a form needs."""

    json_schema: dict[str, Any] = Field(description="JSON Schema (2020-12) of an object of its hyper-parameters.")
    defaults: dict[str, Any]
    advanced: list[str] = Field(description="Hyper-parameters whose defaults suit most users.")
    hyperparameters: list[HyperParameter]
    memory: MemoryEstimate | None = Field(description="Only when rows and features are given.")


class OverridesText(BaseModel):
    """Fields of a form, one `model.name=value` per line."""

    hyperparameters: str = Field("", max_length=100_000)
    stopping: str = Field("", max_length=100_000)


class Overrides(BaseModel):
    """The same, parsed: model to name to value."""

    hyperparameters: dict[str, dict[str, Any]]
    stopping: dict[str, dict[str, Any]]


State = Literal["queued", "running", "paused", "finished", "failed", "cancelled"]


class Best(BaseModel):
    """The best iteration so far, by the metric that early stopping follows."""

    iteration: int
    metric: str
    value: float | None


class Run(BaseModel):
    """A training run as its newest events show it."""

    run_id: str
    model: str
    owner: str
    at: datetime
    state: State
    stage: str
    iteration: int
    total: int = Field(description="Greatest number of iterations. 0 while unknown.")
    percent: float
    eta_s: float | None = Field(description="Seconds left at most.")
    eta_stop_s: float | None = Field(description="Seconds until early stopping, if validation does not improve.")
    best: Best | None = Field(description="The iteration that is kept, or would be now.")
    metrics: dict[str, float | None] = Field(description="<segment>.<metric> of the newest iteration.")
    sequence: int = Field(description="Sequence number of the newest event.")
    ending: dict[str, Any] = Field(description="Payload of the terminal event. Empty while the run is open.")

    @classmethod
    def of(cls, progress: RunProgress) -> Self:
        """From the library's own."""
        return cls.model_validate(progress.to_json())


class RunList(BaseModel):
    """The latest runs, the newest first."""

    runs: list[Run]


class Event(BaseModel):
    """One step of a run. docs/training.md lists the kinds and their payloads."""

    run_id: str
    sequence: int
    kind: str
    terminal: bool = Field(description="Whether it is the last event of its run.")
    at: datetime
    payload: dict[str, Any]

    @classmethod
    def of(cls, event: TrainingEvent) -> Self:
        """From a row."""
        return cls.model_validate(event, from_attributes=True)


class EventPage(BaseModel):
    """Events in order, without gaps. The next page begins after `next_after`."""

    events: list[Event]
    next_after: int
    ended: bool = Field(description="The terminal event is among these or before them: nothing follows.")


Command = Literal["pause", "resume", "cancel"]


class CommandAccepted(BaseModel):
    """A command was recorded. It takes effect at the end of the current iteration."""

    run_id: str
    command: Command
    asked_by: str


class Alert(BaseModel):
    """An open alert."""

    kind: str
    subject: str
    severity: Literal["info", "warning", "critical"]
    message: str
    opened: datetime
    acknowledged_by: str = Field(description="Who takes care of it. Empty: nobody yet.")

    @classmethod
    def of(cls, episode: Episode) -> Self:
        """From the library's own."""
        kind, subject = episode.key
        return cls(
            kind=kind,
            subject=subject,
            severity=episode.severity.value,
            message=episode.message,
            opened=episode.opened or episode.noticed,
            acknowledged_by=episode.acknowledged_by,
        )


class AlertNamed(BaseModel):
    """Which alert."""

    kind: str = Field(max_length=200)
    subject: str = Field(max_length=2000)


def _not_blank(text: str) -> str:
    if not text.strip():  # more characters are blank to Python than to the pattern
        raise ValueError("it is blank")
    return text


class SilenceAsked(BaseModel):
    """What to silence, and for how long."""

    kind: str = Field(min_length=1, max_length=200)
    subject: str = Field("", max_length=2000, description="Empty: the whole kind.")
    hours: float = Field(ge=0, le=2160, strict=True)
    reason: Annotated[str, AfterValidator(_not_blank)] = Field(min_length=1, max_length=2000, pattern=r"\S")


class Silenced(BaseModel):
    """A silence."""

    kind: str
    subject: str
    until: datetime
    by: str
    reason: str


class AlertList(BaseModel):
    """Open alerts, the newest first, and silences in force."""

    open: list[Alert]
    silenced: list[Silenced]


class AlertEvent(BaseModel):
    """A step of an alert."""

    id: int
    kind: str
    subject: str
    episode: int
    step: str
    severity: str
    message: str
    by: str
    at: datetime


class AlertEventPage(BaseModel):
    """Steps of alerts in order. The next page begins after `next_after`."""

    events: list[AlertEvent]
    next_after: int


class Version(BaseModel):
    """A registered version."""

    version: int
    state: ModelState
    family: str
    training_key: str
    data_version: str
    feature_version: str
    run_id: str = Field(description="Its run in MLflow.")
    registered_at: datetime
    description: str
    metrics: dict[str, float]
    tags: dict[str, str] = Field(description="Those that people have given begin with `user.`.")

    @classmethod
    def of(cls, found: FoundVersion) -> Self:
        """Make it from what a search has found."""
        return cls.model_validate(found, from_attributes=True)


class VersionsAsked(BaseModel):
    """What is searched for; all conditions hold."""

    text: str = Field("", max_length=200, description="Words in the description, the keys or the tags.")
    tag: list[str] = Field([], max_length=20, description="`name=value`; may be repeated.")
    family: str | None = Field(None, max_length=200)
    state: ModelState | None = None
    data_version: str | None = Field(None, max_length=200)
    metric: list[str] = Field([], max_length=20, description="`name=low:high`, without either number; may be repeated.")
    since: date | None = Field(None, description="First day (UTC) of the registration.")
    until: date | None = Field(None, description="Last day (UTC) of the registration.")
    sort: str = Field(
        "version", max_length=200, description="version, registered_at, family, state, data_version, or metric.<name>."
    )
    ascending: bool = False
    page: int = Field(1, ge=1, le=10**6)
    size: int = Field(50, ge=1, le=LARGEST_PAGE)


class VersionList(BaseModel):
    """A page of versions."""

    total: int = Field(description="Number of versions on all pages.")
    versions: list[Version]


class OriginsAsked(BaseModel):
    """What versions were made of; all conditions hold."""

    file: str | None = Field(None, max_length=1000, description="Raw file: its SHA-256, or the end of its path.")
    data_version: str | None = Field(None, max_length=200, description="Vintage that they were trained on.")
    factor: str | None = Field(None, max_length=200, description="Column of their feature set.")
    definition: str | None = Field(None, max_length=200, description="Digest of their feature set's definition.")
    code: str | None = Field(None, max_length=64, description="Commit, or how it begins.")
    lock: str | None = Field(None, max_length=64, description="SHA-256 of requirements.txt, or how it begins.")


class Origin(BaseModel):
    """What a version was made of; empty: not recorded."""

    version: int
    training_key: str
    data_version: str
    feature_version: str
    definition: str
    code: str
    dirty: bool | None = Field(description="Whether files differed from the commit; null: not recorded.")
    lock: str
    horizon: int
    segments: dict[str, tuple[str, str]]


class OriginList(BaseModel):
    """The origins of versions, ascending."""

    origins: list[Origin]

    @classmethod
    def of(cls, found: Sequence[VersionOrigin]) -> Self:
        """Make it from what a search has found."""
        return cls(origins=[Origin.model_validate(each, from_attributes=True) for each in found])


class TagGiven(BaseModel):
    """A tag for a version."""

    name: str = Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_.-]+$")
    value: str = Field(max_length=500, pattern=r"^[^\x00]*$", description="Empty: the tag is taken away.")


class ModelTransition(BaseModel):
    """A version's way from one state to another."""

    at: datetime
    before: ModelState | None = Field(description="null: its history begins here.")
    after: ModelState
    by: str
    reason: str


class TransitionList(BaseModel):
    """The history of a version, oldest first."""

    transitions: list[ModelTransition]

    @classmethod
    def of(cls, found: Sequence[Transition]) -> Self:
        """Make it from the history."""
        return cls(transitions=[ModelTransition.model_validate(each, from_attributes=True) for each in found])


class ChampionTenure(BaseModel):
    """The time during which a version was champion."""

    version: int
    training_key: str
    since: datetime
    until: datetime | None = Field(description="null: it still is.")


class TenureList(BaseModel):
    """Champions, oldest first."""

    champions: list[ChampionTenure]

    @classmethod
    def of(cls, found: Sequence[Tenure]) -> Self:
        """Make it from the history."""
        return cls(champions=[ChampionTenure.model_validate(each, from_attributes=True) for each in found])


class Experiment(BaseModel):
    """An experiment as one of its steps left it."""

    name: str
    state: ExperimentState
    winner: str | None = Field(description="null: not decided, or decided that there is none.")
    by: str
    reason: str
    at: datetime
    layer: str
    shares: dict[str, float] = Field(description="Share of the units by arm.")
    exposure: float = Field(description="Share of its units that takes part so far.")
    design: dict[str, Any] = Field(description="What was registered before it began.")

    @classmethod
    def of(cls, step: ExperimentStep) -> Self:
        """Make it from a step."""
        return cls(
            name=step.design.name,
            layer=step.enrolment.layer,
            shares={arm: float(share) for arm, share in step.enrolment.allocation.shares.items()},
            exposure=float(step.enrolment.exposure),
            design=step.design.to_json(),
            **{name: getattr(step, name) for name in ("state", "winner", "by", "reason", "at")},
        )


class ExperimentList(BaseModel):
    """Experiments, or the steps of one."""

    experiments: list[Experiment]


class ExperimentMove(BaseModel):
    """Where an experiment goes."""

    to: ExperimentState
    reason: str = Field(min_length=1, max_length=2000, pattern=r"^[^\x00]*$")
    winner: str | None = Field(None, max_length=64, pattern=r"^[^\x00]*$", description="Of a decision; null: none.")


Unit = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[^\x00]*$")]


class UnitsAsked(BaseModel):
    """Units whose arms are wanted."""

    units: list[Unit] = Field(max_length=10_000)


class Assignment(BaseModel):
    """The arm of a unit."""

    unit: str
    arm: str | None = Field(description="null: it takes no part.")
    reason: str


class AssignmentList(BaseModel):
    """In the order in which they were asked for."""

    assignments: list[Assignment]


class MetricEvents(BaseModel):
    """A batch of metric events. Each is checked by itself, so that a wrong one does not hold up the others."""

    events: list[dict[str, Any]] = Field(max_length=5000, description="event_id, unit, metric, value, at")


class MetricEventsTold(BaseModel):
    """What became of a batch."""

    new: int
    repeated: int = Field(description="Known already, with the same content; they count once.")
    refused: int = Field(description="Kept with their reasons.")
    faults: list[str] = Field(description="The first refusals, with their place in the batch from 1.")


class MetricSum(BaseModel):
    """A metric's events of an arm and a day (UTC)."""

    metric: str
    arm: str
    day: date
    n: int
    mean: float | None
    variance: float | None = Field(description="With n - 1 degrees of freedom; null with fewer than two events.")


class MetricSumList(BaseModel):
    """By metric, arm and day."""

    sums: list[MetricSum]
