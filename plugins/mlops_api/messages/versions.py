"""What the API says of registered versions."""

from collections.abc import Sequence
from datetime import date, datetime
from typing import Self

from pydantic import BaseModel, Field

from mlops_tasks.state.model_history import Tenure, Transition
from mlops_tasks.state.model_index import FoundVersion
from mlops_tasks.state.tables import VersionOrigin
from mlops_tasks.state.version_search import LARGEST_PAGE
from mlops_tasks.states import ModelState


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
    value: str = Field("", max_length=500, pattern=r"^[^\x00]*$", description="Empty: the tag is taken away.")


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
