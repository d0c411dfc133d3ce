"""What the API says of features: their sets, what is stored of them, and some of their values."""

from collections.abc import Mapping
from datetime import date, datetime
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from mlops_tasks.features.catalogue import FeatureVersionInfo
from mlops_tasks.features.indicators.definitions import Definition
from mlops_tasks.features.indicators.specs import IndicatorSpec
from mlops_tasks.features.statistics import ColumnStatistics as Statistics
from mlops_tasks.files import finite_or_none

NAME = r"^[\w-]{1,100}$"
"""A feature set's name."""
VERSION = r"^[0-9a-f]{16}$"
"""A feature version, and a data version."""


class _Read(BaseModel):
    """Is read from one of the library's own."""

    model_config = ConfigDict(from_attributes=True)


class FeatureSet(_Read):
    """A feature set."""

    name: str
    version: int = Field(description="The owner's number of the definition. 0: the definition is wrong.")
    owner: str
    description: str
    columns: int
    is_default: bool = Field(description="It is what the chain computes unless a form says otherwise.")
    error: str = Field(description="What is wrong with its definition. Empty: nothing.")


class FeatureSetList(BaseModel):
    """All sets, right or wrong."""

    sets: list[FeatureSet]


class FeatureColumn(_Read):
    """A column of a set."""

    name: str
    expression: str = Field(description="Empty: an indicator gives it.")
    inputs: list[str] = Field(description="Fields of the bars that it reads.")
    rows_back: int | None = Field(description="Rows before the current one that it reaches. Null: to the first.")


class FeatureSetShown(BaseModel):
    """A set with its columns, in order."""

    listed: FeatureSet
    columns: list[FeatureColumn]


class FeatureVersion(BaseModel):
    """Stored features of a set over a vintage."""

    feature_version: str
    feature_set: str
    set_version: int | None
    definition: str
    rows: int
    columns: int
    instruments: int | None
    first_date: date | None
    last_date: date | None
    created: datetime | None
    data_versions: list[str] = Field(description="Vintages that have these features.")
    in_use: bool = Field(description="The vintage in use has them.")

    @classmethod
    def of(cls, info: FeatureVersionInfo, in_use: str | None) -> Self:
        """From the library's own."""
        plain = ("feature_version", "feature_set", "set_version", "definition", "rows", "instruments", "first_date")
        return cls(
            **{name: getattr(info, name) for name in (*plain, "last_date", "created")},
            columns=len(info.names),
            data_versions=list(info.data_versions),
            in_use=in_use in info.data_versions,
        )


class FeatureVersionList(BaseModel):
    """Some versions, the newest first."""

    total: int
    versions: list[FeatureVersion]


class ColumnStatistics(BaseModel):
    """A column over all rows of a version; null where nothing is finite, or it was not recorded."""

    name: str
    rows: int
    missing: int
    mean: float | None
    std: float | None
    min: float | None
    max: float | None

    @classmethod
    def of(cls, name: str, found: Statistics) -> Self:
        """From the library's own."""
        numbers = {each: finite_or_none(getattr(found, each)) for each in ("mean", "std", "min", "max")}
        return cls(name=name, rows=found.rows, missing=found.missing, **numbers)


class FeatureVersionShown(FeatureVersion):
    """A version with the statistics of its columns; none where they were not recorded."""

    statistics: list[ColumnStatistics]

    @classmethod
    def described(cls, info: FeatureVersionInfo, in_use: str | None) -> Self:
        """From the library's own."""
        found = info.statistics or {}
        short = FeatureVersion.of(info, in_use).model_dump()
        return cls(**short, statistics=[ColumnStatistics.of(name, each) for name, each in found.items()])


class FeatureRow(_Read):
    """An instrument's features on a day, in the order of `columns`; null where a feature has no value."""

    date: date
    instrument: str
    values: list[float | None]


class FeatureRows(_Read):
    """Rows in the order of days and instruments."""

    feature_version: str
    columns: list[str]
    rows: list[FeatureRow]


class ComputationAsked(BaseModel):
    """Which features to compute."""

    model_config = ConfigDict(extra="forbid")

    feature_set: str | None = Field(None, pattern=NAME, description="Null: the configured one.")
    data_version: str | None = Field(None, pattern=VERSION, description="Null: the vintage in use.")


class IndicatorParameter(BaseModel):
    """A parameter of an indicator."""

    name: str
    type: Literal["int", "float", "bool"]
    default: int | float | bool
    low: float
    high: float


class Indicator(BaseModel):
    """An indicator that a feature set may have."""

    name: str
    parameters: list[IndicatorParameter]
    outputs: list[str] = Field(description="Suffixes of its columns. Empty: the main one.")
    inputs: list[str]

    @classmethod
    def of(cls, name: str, definition: Definition) -> Self:
        """From the library's own."""
        parameters = [
            IndicatorParameter(
                name=each,
                type=found.kind.__name__,
                default=found.default,
                low=found.limits.low,
                high=found.limits.high,
            )
            for each, found in definition.parameters.items()
        ]
        return cls(name=name, parameters=parameters, outputs=list(definition.outputs), inputs=list(definition.inputs))


class ConfiguredIndicator(BaseModel):
    """An entry of include/config/indicators.yaml."""

    name: str
    indicator: str
    parameters: dict[str, int | float | bool]
    columns: list[str]

    @classmethod
    def of(cls, spec: IndicatorSpec) -> Self:
        """From the library's own."""
        parameters: Mapping[str, Any] = spec.parameters
        return cls(name=spec.name, indicator=spec.indicator, parameters=dict(parameters), columns=list(spec.columns))


class IndicatorList(BaseModel):
    """The catalogue, and the configured list."""

    indicators: list[Indicator]
    configured: list[ConfiguredIndicator]
