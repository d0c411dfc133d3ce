"""What the API says of deployments, and is asked to do about the models that serve."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from mlops_api.messages.alerts import Alert
from mlops_api.messages.versions import ChampionTenure
from mlops_tasks.serving.outlook import Outlook
from mlops_tasks.serving.overview import ServingOverview, Slot
from mlops_tasks.serving.rollout_plan import describe
from mlops_tasks.state.deployment_log import DeploymentPage, RolloutPage
from mlops_tasks.state.rollouts import Rollout as RolloutNow
from mlops_tasks.state.tables import Deployment
from mlops_tasks.state.traffic import Traffic
from mlops_tasks.states import Approval, Arm, DeploymentState, RolloutState, Strategy


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("it is blank; say why, the history records it with your name")
    return text


VersionNumber = Annotated[int, Field(ge=1, le=2**31 - 1, strict=True)]
Reason = Annotated[str, AfterValidator(_not_blank), Field(min_length=1, max_length=2000, pattern=r"^[^\x00]*$")]


class ServingSlot(BaseModel):
    """A version that the service has loaded, or is to load."""

    arm: Arm = Field(description="champion, canary or shadow.")
    version: int
    share: float = Field(description="Of the clients, from 0 to 1.")

    @classmethod
    def of(cls, slot: Slot) -> Self:
        """From the library's own."""
        return cls.model_validate(slot, from_attributes=True)


class ArmTraffic(BaseModel):
    """What a version has answered on an arm from a slot in the last hour, of the newest 20,000 answers of all."""

    version: int
    slot: str = Field(description="Of the service: the models in it alternate between two.")
    arm: Arm
    answers: int
    newest: datetime
    p50_ms: float
    p99_ms: float

    @classmethod
    def of(cls, found: Traffic) -> Self:
        """From the library's own."""
        return cls.model_validate(found, from_attributes=True)


class RolloutStep(BaseModel):
    """A step that a rollout has taken."""

    state: RolloutState
    step: int = Field(description="Index into the plan's shares, from 0.")
    share: float = Field(description="Of the clients that the candidate answers, from 0 to 1.")
    at: datetime
    reason: str

    @classmethod
    def of(cls, rollout: RolloutNow) -> Self:
        """From a rollout as this step left it."""
        return cls.model_validate(rollout, from_attributes=True)


class Rollout(BaseModel):
    """A rollout as its newest step left it."""

    rollout_id: str
    version: int
    strategy: Strategy
    state: RolloutState
    said: str = Field(description="How it stands, in words.")
    shares: list[float] = Field(description="Of the clients, one for each step of its plan.")
    hold_s: float = Field(description="How long each step lasts.")
    asked_by: str
    asked_at: datetime
    began_at: datetime | None
    champion: int | None = Field(description="Version that it is compared with.")
    due: datetime = Field(description="Its deadline.")
    holds_until: datetime | None = Field(description="The end of its present step; null: it holds none.")
    steps: list[RolloutStep] = Field(description="The steps that it has taken, oldest first.")

    @classmethod
    def of(cls, steps: Sequence[RolloutNow]) -> Self:
        """From its steps, or its newest one alone."""
        newest = steps[-1]
        plain = ("rollout_id", "version", "strategy", "state", "asked_at", "began_at", "champion", "due")
        return cls(
            said=describe(newest),
            shares=list(newest.plan.shares),
            hold_s=newest.plan.hold_s,
            asked_by=steps[0].asked_by,
            holds_until=newest.holds_until if newest.state == RolloutState.HOLDING else None,
            steps=list(map(RolloutStep.of, steps)),
            **{name: getattr(newest, name) for name in plain},
        )


class DeploymentStep(BaseModel):
    """A step of a deployment."""

    version: int
    strategy: str
    state: DeploymentState
    reason: str
    previous: int | None = Field(description="The champion that it started from or ended at.")
    attempt: str = Field(description="All steps of one deployment have the same.")
    at: datetime

    @classmethod
    def of(cls, row: Deployment) -> Self:
        """From a row."""
        plain = {name: getattr(row, name) for name in ("strategy", "state", "reason", "attempt", "at")}
        return cls(version=row.model_version, previous=row.proven_version, **plain)


class Serving(BaseModel):
    """Who serves, and how well, as the state database knows it."""

    champion: ChampionTenure | None
    slots: list[ServingSlot]
    rollouts: list[Rollout] = Field(
        description="That are under way or wait, in the order in which they were asked for."
    )
    last: DeploymentStep | None = Field(description="The newest step that has changed something, or begun to.")
    traffic: list[ArmTraffic]
    alerts: list[Alert] = Field(description="Open ones about what serves.")

    @classmethod
    def of(cls, found: ServingOverview) -> Self:
        """From the library's own."""
        return cls(
            champion=None
            if found.champion is None
            else ChampionTenure.model_validate(found.champion, from_attributes=True),
            slots=list(map(ServingSlot.of, found.slots)),
            rollouts=[Rollout.of([each]) for each in found.queue],
            last=None if found.last is None else DeploymentStep.of(found.last),
            traffic=list(map(ArmTraffic.of, found.traffic)),
            alerts=list(map(Alert.of, found.alerts)),
        )


class ServiceState(BaseModel):
    """Whether the scoring service is there."""

    answers: bool


class DeploymentPlan(BaseModel):
    """What a deployment would do, as far as the state database knows; the deployment itself checks more."""

    version: int
    strategy: Strategy
    objections: list[str] = Field(description="Why it would be refused. Empty: nothing is known against it.")
    steps: list[str] = Field(description="What it would do, in order.")
    shares: list[float] = Field(description="Of the clients, one for each step of a rollout.")

    @classmethod
    def of(cls, found: Outlook) -> Self:
        """From the library's own."""
        return cls(
            version=found.version,
            strategy=found.strategy,
            objections=list(found.objections),
            steps=list(found.steps),
            shares=list(found.plan.shares),
        )


class DeploymentHistory(BaseModel):
    """Steps of deployments, the newest first."""

    total: int
    steps: list[DeploymentStep]

    @classmethod
    def of(cls, page: DeploymentPage) -> Self:
        """From the library's own."""
        return cls(total=page.total, steps=list(map(DeploymentStep.of, page.steps)))


class RolloutHistory(BaseModel):
    """Rollouts with their steps, the newest first."""

    total: int
    rollouts: list[Rollout]

    @classmethod
    def of(cls, page: RolloutPage) -> Self:
        """From the library's own."""
        return cls(total=page.total, rollouts=list(map(Rollout.of, page.rollouts)))


class DeploymentAsked(BaseModel):
    """Which version is to be deployed, and how; what is left out is as the settings say."""

    model_config = ConfigDict(extra="forbid")

    version: VersionNumber
    strategy: Strategy | None = None
    approval: Approval | None = Field(None, description="Whether a person is asked first.")


class RollbackAsked(BaseModel):
    """Why the champion is withdrawn, and who is to serve."""

    model_config = ConfigDict(extra="forbid")

    reason: Reason
    version: VersionNumber | None = Field(None, description="null: the champion before.")


class AbortAsked(BaseModel):
    """Why a rollout is ended, and which."""

    model_config = ConfigDict(extra="forbid")

    reason: Reason
    version: VersionNumber | None = Field(None, description="Its candidate; null: the one that has begun.")


class ReasonGiven(BaseModel):
    """Why."""

    model_config = ConfigDict(extra="forbid")

    reason: Reason
