"""Bodies of requests to the scoring service: their shape, and what is accepted as a number."""

import datetime
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

MOST_NAME = 64
"""Characters of an instrument's name."""
_FIRST = Field(fail_fast=True)
"""A list reports only its first wrong item, as a million could be wrong."""
Instrument = Annotated[str, Field(min_length=1, max_length=MOST_NAME)]
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)] | None
"""A finite JSON number, or null for a missing value; strings and booleans are not converted."""


class FeatureRow(BaseModel):
    """Features of one instrument; null is a missing value."""

    model_config = ConfigDict(extra="forbid")

    instrument: Instrument
    features: dict[str, Number]


class FeatureTable(BaseModel):
    """Features of many instruments with the names given once: several times faster to read than rows."""

    model_config = ConfigDict(extra="forbid")

    instruments: Annotated[list[Instrument], _FIRST] = Field(min_length=1)
    feature_names: Annotated[list[str], _FIRST] = Field(min_length=1)
    values: Annotated[list[Annotated[list[Number], _FIRST]], _FIRST]
    """One list per instrument, in the order of `feature_names`; null is a missing value."""

    @model_validator(mode="after")
    def _shape(self) -> Self:
        if len(self.values) != len(self.instruments):
            raise ValueError(
                f"values has {len(self.values)} rows for {len(self.instruments)} instruments; give one each"
            )
        width = len(self.feature_names)
        for instrument, row in zip(self.instruments, self.values, strict=True):
            if len(row) != width:
                raise ValueError(
                    f"the row of {instrument} has {len(row)} values for {width} feature_names; give one each"
                )
        return self


class ScoreRequest(BaseModel):
    """Instruments of a date (both optional: all instruments, the newest date), or features as rows or a table."""

    model_config = ConfigDict(extra="forbid")

    instruments: Annotated[list[Instrument], _FIRST] | None = None
    date: Annotated[datetime.date, Field(strict=True)] | None = None
    rows: Annotated[list[FeatureRow], _FIRST] | None = Field(None, min_length=1)
    table: FeatureTable | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        by_date = self.instruments is not None or self.date is not None
        if by_date + (self.rows is not None) + (self.table is not None) > 1:
            raise ValueError("give either instruments and date, or rows, or table")
        return self


class Refusal(BaseModel):
    """Why a request was refused, and what to do; a list where a body has several faults."""

    detail: str | list[str]
