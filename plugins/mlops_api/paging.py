"""How lists are asked for in pages."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, TypeVar

from fastapi import Query

LARGEST_PAGE = 200

Row = TypeVar("Row")


@dataclass(frozen=True)
class Page:
    """A page of a list, numbered from 1."""

    number: int
    size: int

    @property
    def first(self) -> int:
        """Number of rows before it."""
        return (self.number - 1) * self.size

    def of(self, rows: Sequence[Row]) -> Sequence[Row]:
        """Its rows of a whole list."""
        return rows[self.first : self.first + self.size]


def paged(
    page: Annotated[int, Query(ge=1, le=10**6)] = 1, size: Annotated[int, Query(ge=1, le=LARGEST_PAGE)] = 50
) -> Page:
    """The page that a request asks for: `Depends(paged)`."""
    return Page(page, size)
