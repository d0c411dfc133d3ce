"""What the API says of experiments."""

from datetime import date, datetime
from typing import Annotated, Any, Self

from pydantic import BaseModel, Field

from mlops_tasks.experiments.lifecycle import Experiment as ExperimentStep
from mlops_tasks.states import ExperimentState


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
