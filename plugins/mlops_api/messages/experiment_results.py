"""What the API says of the results of experiments, and is asked to register and to change."""

from collections.abc import Mapping
from datetime import date, datetime
from decimal import Decimal
from typing import Annotated, Any, Self

from pydantic import BaseModel, Field

from mlops_api.messages.experiments import Unit
from mlops_tasks.experiments.assignment import Layer as LayerOfUnits
from mlops_tasks.experiments.design import ARM, NAME, PLAIN, Share
from mlops_tasks.experiments.recorded_results import RecordedLook, RecordedResults
from mlops_tasks.state.tables import RefusedMetricEvent
from mlops_tasks.states import UnitKind

ArmName = Annotated[str, Field(pattern=ARM)]
Reason = Annotated[str, Field(min_length=1, max_length=2000, pattern=PLAIN)]


class Look(BaseModel):
    """What a look at a metric of an arm has found, against the control."""

    metric: str
    arm: str
    day: int = Field(description="How many days it counts.")
    on: date = Field(description="The last of them.")
    effect: float | None
    lower: float | None = Field(description="Of the interval that holds over all looks. null: not finite.")
    upper: float | None
    p_value: float | None

    @classmethod
    def of(cls, look: RecordedLook) -> Self:
        """From the library's own."""
        return cls.model_validate(look, from_attributes=True)


class Interval(BaseModel):
    """An effect (treatment minus control, in the metric's unit) with its interval and its test against zero."""

    method: str
    effect: float | None
    lower: float | None
    upper: float | None
    confidence: float
    p_value: float | None = Field(description="Two-sided, over all looks.")
    n: int = Field(description="Days, blocks or units that the test counts.")
    assumes: str = Field(description="What must hold for the level to be kept.")
    significant: bool
    relative_effect: float | None = Field(description="Of the control's mean.")


class Finding(BaseModel):
    """A metric of an arm against the control."""

    arm: str
    metric: str
    guard: bool
    days: int
    interval: Interval | None = Field(description="null: it waits for something.")
    outcome: str | None = Field(description="better, worse, no_difference or unclear.")
    said: str = Field(description="What it means, or what it waits for.")

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> Self:
        """From a finding as it is recorded."""
        result, verdict = content["result"], content["verdict"]
        return cls(
            **{name: content[name] for name in ("arm", "metric", "guard", "days")},
            interval=None if result is None else Interval.model_validate(result),
            outcome=None if verdict is None else verdict["outcome"],
            said=content["waits_for"] if verdict is None else verdict["text"],
        )


class SampleRatio(BaseModel):
    """Whether the arms have their shares of the units."""

    counts: list[int]
    expected: list[float]
    p_value: float


class ExperimentResults(BaseModel):
    """What the last daily analysis of an experiment has found."""

    name: str
    at: datetime | None = Field(description="When it was made. null, as in all that follows: there was none yet.")
    advice: str | None = Field(description="distrust, stop_harm, stop_winner, stop_end or wait.")
    arm: str | None = Field(description="That the advice is about.")
    days: int
    planned_days: int
    ratio: SampleRatio | None
    findings: list[Finding]
    looks: list[Look] = Field(description="All looks so far, oldest first.")
    report: str | None = Field(description="Name of its report, below /mlops/ui/reports/ab_test/.")

    @classmethod
    def of(cls, name: str, planned_days: int, found: RecordedResults | None) -> Self:
        """From what is recorded."""
        analysis: Mapping[str, Any] = {} if found is None else found.analysis
        ratio = analysis.get("ratio")
        return cls(
            name=name,
            at=None if found is None else found.at,
            advice=analysis.get("advice"),
            arm=analysis.get("arm"),
            days=analysis.get("days", 0),
            planned_days=planned_days,
            ratio=None if ratio is None else SampleRatio.model_validate(ratio),
            findings=list(map(Finding.of, analysis.get("findings", []))),
            looks=[] if found is None else list(map(Look.of, found.looks)),
            report=None if found is None or found.report is None else found.report.name,
        )


class Layer(BaseModel):
    """A population of units that experiments share."""

    name: str
    unit: UnitKind
    held_out: float = Field(description="Share that takes part in no experiment.")

    @classmethod
    def of(cls, layer: LayerOfUnits) -> Self:
        """From the library's own."""
        return cls(name=layer.name, unit=layer.unit, held_out=float(layer.held_out))


class LayerList(BaseModel):
    """All layers."""

    layers: list[Layer]


class LayerAsked(BaseModel):
    """A layer to register, or one whose holdout is to grow."""

    name: str = Field(pattern=NAME)
    unit: UnitKind
    held_out: Share = Field(Decimal(0), ge=0, lt=1)


class RampAsked(BaseModel):
    """How many of its units an experiment is to expose."""

    exposure: Share = Field(ge=0, le=1)
    reason: Reason


class OverridesAsked(BaseModel):
    """Arms of units that a person chooses; they are left out of the analysis."""

    arms: dict[Unit, ArmName] = Field(min_length=1, max_length=1000, description="By unit.")
    reason: Reason


class RefusedEvent(BaseModel):
    """A metric event that was not stored."""

    reason: str
    received_at: datetime
    event: str = Field(description="As it was sent.")

    @classmethod
    def of(cls, row: RefusedMetricEvent) -> Self:
        """From a row."""
        return cls.model_validate(row, from_attributes=True)


class RefusedEventList(BaseModel):
    """The newest events that were refused."""

    refused: list[RefusedEvent]
