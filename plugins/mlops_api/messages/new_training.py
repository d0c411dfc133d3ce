"""What is asked for when a training or a search is started, and what is known before it."""

from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

Name = Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[\w.-]+$")]
Dates = Annotated[
    str,
    Field(
        pattern=r"^\d{4}-\d{2}-\d{2}:\d{4}-\d{2}-\d{2}$", description="`first:last`; give all three segments, or none."
    ),
]
Lines = Annotated[str, Field(max_length=100_000, pattern=r"^[^\x00]*$", description="One `model.name=value` per line.")]
Number = Annotated[int, Field(ge=0, le=2**31 - 1)]


class _Asked(BaseModel):
    """Fields of both forms. What is left out has the form's default."""

    model_config = ConfigDict(extra="forbid")

    feature_set: Name | None = None
    horizon: Annotated[int, Field(ge=1, le=60)] | None = None
    seed: Number | None = None
    train: Dates | None = None
    valid: Dates | None = None
    test: Dates | None = None
    owner: Annotated[str, Field(pattern=r"^[\w.@-]{1,64}$")] | None = None
    priority: Annotated[int, Field(ge=-100, le=100)] | None = None


class TrainingAsked(_Asked):
    """A run of `daily_retraining`: models are trained, the best is judged, and what the gate promotes is deployed."""

    models: Annotated[list[Name], Field(min_length=1, max_length=50)]
    hyperparameters: Lines | None = None
    stopping: Lines | None = None
    topk: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = None
    n_drop: Number | None = None
    deployment_strategy: Name | None = None
    approval: Name | None = None


class SearchAsked(_Asked):
    """A run of `tune_models`: hyper-parameters are searched, the best model is trained and judged; none is deployed."""

    model: Name = Field("auto", description="`auto`: the selector's choice, as measured on the training segment.")
    objectives: Annotated[list[Name], Field(min_length=1, max_length=10)] | None = None
    sampler: Name | None = None
    pruner: Name | None = None
    folds: Annotated[int, Field(ge=1, le=20)] | None = None
    trials: Annotated[int, Field(ge=1, le=100_000)] | None = None
    time_s: Annotated[float, Field(gt=0, le=1e9)] | None = None
    memory_mb: Annotated[float, Field(gt=0, le=1e9)] | None = None


class EstimateAsked(BaseModel):
    """A training that is thought of."""

    model_config = ConfigDict(extra="forbid")

    model: Name
    hyperparameters: Lines = ""
    feature_set: Name | None = None


class _Read(BaseModel):
    model_config = ConfigDict(from_attributes=True)


class PastSeconds(_Read):
    """How long the newest finished trainings of a model took."""

    trainings: int
    least: float
    median: float
    most: float


class Estimate(_Read):
    """What a training will take, on the vintage in use."""

    model: str
    data_version: str
    feature_set: str
    rows: int
    features: int
    memory_mb: float = Field(description="Peak, at most; MB of 10^6 bytes.")
    seconds: PastSeconds | None = Field(description="Null: no training of this model has finished yet.")


class Recommended(_Read):
    """A model, and with which hyper-parameters to begin."""

    model: str
    expected_rank_ic: float | None
    hyperparameters: dict[str, Any]
    reasons: list[str]


class Recommendation(_Read):
    """What the algorithm selector said of a vintage, best first."""

    data_version: str
    at: datetime
    summary: str
    skill_found: bool
    ranking: list[Recommended]
    refused: dict[str, str]
