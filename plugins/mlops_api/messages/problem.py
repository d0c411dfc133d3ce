"""What the API answers when it refuses something."""

from http import HTTPStatus
from typing import Self

from pydantic import BaseModel, Field

PROBLEM_JSON = "application/problem+json"


class Problem(BaseModel):
    """Why a request was refused, and what to do, in the form of RFC 9457."""

    type: str = Field("about:blank", description="Always this: the status says what kind of problem it is.")
    title: str = Field(description="The status in words.")
    status: int
    detail: str

    @classmethod
    def of(cls, status: int, detail: str) -> Self:
        """A problem with this status."""
        return cls(title=HTTPStatus(status).phrase, status=status, detail=detail)
