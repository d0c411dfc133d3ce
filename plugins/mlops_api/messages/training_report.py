"""The report of a finished training."""

from datetime import datetime
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field

from mlops_api.messages.training import CurveStep
from mlops_tasks.registry.training_evidence import TrainingEvidence
from mlops_tasks.registry.training_figures import TrainingFigures
from mlops_tasks.state.tables import GateDecision
from mlops_tasks.training.certificate import Certificate


class _Read(BaseModel):
    model_config = ConfigDict(from_attributes=True)


class Series(_Read):
    """Values by day; null where one is undefined."""

    days: list[str]
    values: dict[str, list[float | None]]


class Share(_Read):
    """A feature, and its share of all importance."""

    name: str
    share: float


class Lag(_Read):
    """The mean rank IC with the labels of a later day, and its standard error."""

    lag: int
    mean: float | None
    error: float | None
    days: int


class Group(_Read):
    """Names with scores of one quantile, 1 the lowest: their mean label, and its standard error."""

    quantile: int
    mean_bps: float | None
    error_bps: float | None


class SignalReport(_Read):
    """What a training's predictions show on test days."""

    training_key: str
    horizon: int
    decay: list[Lag]
    groups: list[Group]


class Decision(BaseModel):
    """A decision of the gate on this training, with its evidence."""

    decision: str
    rule: str
    reasons: list[str]
    champion_version: int | None
    gain: float | None = Field(description="Mean daily rank IC of the challenger minus the champion's.")
    p_value: float | None
    lower_bound: float | None
    n_days: int
    at: datetime

    @classmethod
    def of(cls, row: GateDecision) -> Self:
        """From a row."""
        names = ("decision", "rule", "reasons", "gain", "p_value", "lower_bound")
        told = {name: row.decision.get(name) for name in names}
        days = row.decision.get("n_days") or 0
        return cls(**told, n_days=days, champion_version=row.champion_version, at=row.recorded_at)


class CertificateReport(BaseModel):
    """The leak certificate that a training was made under."""

    key: str
    passed: bool
    values: int = Field(description="How many values were compared.")
    covers_scores: bool = Field(description="Whether the model's own scores were checked too.")
    unproven: list[str]
    checks: list[dict[str, Any]]

    @classmethod
    def of(cls, found: Certificate) -> Self:
        """From the library's own."""
        return cls(
            key=found.key,
            passed=found.passed,
            values=found.values,
            covers_scores=found.artefact is not None,
            unproven=list(found.unproven),
            checks=[dict(check) for check in found.checks],
        )


class TrainingReport(BaseModel):
    """A finished training."""

    training_key: str
    model: str
    data_version: str
    feature_set: str
    segments: dict[str, tuple[str, str]]
    seed: int
    metrics: dict[str, float | None] = Field(description="Of its evaluation; empty before it.")
    versions: list[int] = Field(description="As which it is registered, the newest first.")
    certificate: CertificateReport | None
    decisions: list[Decision] = Field(description="The gate's, the newest first.")
    steps: list[CurveStep]
    signal: Series = Field(description="By test day: ic, rank_ic, and their running sums.")
    account: Series = Field(description="Running sums of daily returns: portfolio, universe, excess; drawdown.")
    importance: list[Share]
    n_features: int

    @classmethod
    def of(cls, known: TrainingEvidence, figures: TrainingFigures) -> Self:
        """From the library's own."""
        manifest = known.manifest
        return cls(
            training_key=figures.training_key,
            model=manifest.model,
            data_version=manifest.data_version,
            feature_set=manifest.feature_set,
            segments=dict(manifest.segments),
            seed=manifest.seed,
            metrics={} if known.evaluation is None else known.evaluation.metrics,
            versions=[each.version for each in known.versions],
            certificate=None if known.certificate is None else CertificateReport.of(known.certificate),
            decisions=[Decision.of(row) for row in known.decisions],
            steps=[CurveStep.model_validate(step, from_attributes=True) for step in figures.steps],
            signal=Series.model_validate(figures.signal),
            account=Series.model_validate(figures.account),
            importance=[Share.model_validate(each) for each in figures.importance],
            n_features=figures.n_features,
        )
