"""What the API says of training runs."""

from datetime import datetime
from typing import Any, Literal, Self

from pydantic import BaseModel, Field

from mlops_tasks.state.tables import TrainingEvent
from mlops_tasks.training.events import RunProgress

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


class CurveStep(BaseModel):
    """An iteration."""

    iteration: int
    best: int | None = Field(description="The iteration that would be kept by then.")
    metrics: dict[str, float | None] = Field(description="<segment>.<metric> to value; null where it is undefined.")


class CurveSample(BaseModel):
    """What the processes of a training use at one moment."""

    at: datetime
    used: dict[str, float] = Field(description="cpu_percent (of one core), rss_mb, gpu_percent, gpu_memory_mb.")


class RunCurves(BaseModel):
    """A run's curves, thinned out to the number of points that was asked for."""

    run_id: str
    until: int = Field(description="Number of the newest event that is in it; later ones go on from there.")
    steps: list[CurveStep]
    samples: list[CurveSample]
