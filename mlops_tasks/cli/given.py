"""Values that people give on the command line; what is none of them is refused with the form that is asked for."""

from argparse import ArgumentTypeError
from datetime import UTC, date, datetime

from mlops_tasks.errors import excerpt

LARGEST_VERSION = 2**31 - 1


def day(text: str) -> date:
    """A day."""
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise ArgumentTypeError(f"{excerpt(text)} is no day; write it as 2026-03-02") from None


def moment(text: str) -> datetime:
    """A time, in UTC; one without a zone is meant in UTC."""
    try:
        given = datetime.fromisoformat(text)
        return given.replace(tzinfo=UTC) if given.tzinfo is None else given.astimezone(UTC)
    except (ValueError, OverflowError):
        said = 'write it as "2026-03-02 21:14" in UTC, or with its zone as "2026-03-02 21:14+08:00"'
        raise ArgumentTypeError(f"{excerpt(text)} is no time; {said}") from None


def version_number(text: str) -> int:
    """The number of a version."""
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:20]) <= LARGEST_VERSION:
        raise ArgumentTypeError(f"{excerpt(text)} is no version; versions are numbered 1, 2, 3, ...")
    return int(text)
