"""What the API says of the model zoo."""

from typing import Any

from pydantic import BaseModel, Field


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
