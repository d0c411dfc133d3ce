"""Parse the bytes of a scoring request, or raise an error that names the row and the field.

Nothing is guessed: an unknown field, a duplicate name, or a value that is not a finite 32-bit number is refused.
"""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError
from pydantic_core import ErrorDetails, from_json

from mlops_tasks.errors import ErrorKind, MlopsError, excerpt, first_few
from mlops_tasks.serving.messages import FeatureRow, FeatureTable, ScoreRequest

MOST_VALUES = 1_000_000
"""Most values in a body: the parsed body uses up to 100 times the memory of its text."""
ERRORS_SHOWN = 10

Matrix = npt.NDArray[np.float32]


class BadRequestError(MlopsError, ValueError):
    """A body that the service does not accept; `problems` says where and why, `status` is the HTTP status."""

    kind = ErrorKind.DATA

    def __init__(self, *problems: str, status: int = 422) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems
        self.status = status


@dataclass(frozen=True)
class RequestLimits:
    """Limits on one request."""

    rows: int
    names: int


@dataclass(frozen=True)
class DayAsked:
    """Scores of a day's instruments; None: all of them, the newest day."""

    instruments: Sequence[str] | None
    date: date | None


@dataclass(frozen=True)
class FeaturesGiven:
    """Scores of given features: shape (instruments, names), float32, NaN where a value is missing."""

    instruments: Sequence[str]
    names: Sequence[str]
    values: Matrix


def read_request(body: bytes, limits: RequestLimits) -> DayAsked | FeaturesGiven:
    """Parse the request in a body.

    Raises
    ------
    BadRequestError
        It is not JSON, has another shape, an invalid number, or more than the limits allow.
    """
    if len(body) > MOST_VALUES and body.count(b",") >= MOST_VALUES:
        raise BadRequestError(f"the body has more than {MOST_VALUES} values; send fewer rows at a time", status=413)
    try:
        asked = ScoreRequest.model_validate_json(body or b"{}")
    except ValidationError as error:
        raise BadRequestError(*_readable(error, body)) from None
    _refuse_repeated_names(body, asked)
    if asked.rows is not None:
        check_count("rows", len(asked.rows), limits.rows)
        return _of_rows(asked.rows)
    if asked.table is not None:
        check_count("table.instruments", len(asked.table.instruments), limits.rows)
        return _of_table(asked.table)
    check_count("instruments", len(asked.instruments or ()), limits.names)
    return DayAsked(asked.instruments, asked.date)


def check_count(field: str, count: int, limit: int) -> None:
    """Raise BadRequestError if there are more than the limit."""
    if count > limit:
        raise BadRequestError(f"{field}: {count} are more than {limit}; send several requests", status=413)


def _readable(error: ValidationError, body: bytes) -> list[str]:
    found = error.errors(include_url=False, include_input=False, include_context=False)[:ERRORS_SHOWN]
    named = from_json(body) if any(each["loc"][:1] in (("rows",), ("table",)) for each in found) else {}
    return [f"{'.'.join(map(str, each['loc'])) or 'body'}{_whose(each, named)}: {each['msg']}" for each in found]


def _whose(error: ErrorDetails, named: Any) -> str:
    """The instrument, and in a table the feature, at a position, if the body names it."""
    try:
        match error["loc"]:
            case ("table", "values", int(row), int(column), *_):
                table = named["table"]
                return f" ({table['instruments'][row]}, {table['feature_names'][column]})"
            case ("rows", int(row), "features", *_):
                return f" ({named['rows'][row]['instrument']})"
    except (KeyError, IndexError, TypeError):
        pass
    return ""


def _refuse_repeated_names(body: bytes, asked: ScoreRequest) -> None:
    """Refuse duplicate names: JSON readers use the last one, but another reader of the body may use the first."""
    if b"\\" not in body and body.count(b":") == _colons(asked):
        return  # as many colons as names: no name is repeated, and there is no other way to write a colon

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        content = dict(pairs)
        if len(content) < len(pairs):
            names = Counter(name for name, _ in pairs)
            twice = names.most_common(1)[0][0]
            raise BadRequestError(f"{twice[:64]}: the name is given twice in one object; give it once")
        return content

    json.loads(body or b"{}", object_pairs_hook=once)


def _colons(asked: ScoreRequest) -> int:
    """Parse the text of a request in which each name occurs once."""
    count = len(asked.model_fields_set)
    words: list[str] = list(asked.instruments or ())
    for row in asked.rows or ():
        count += 2 + len(row.features)
        words.append(row.instrument)
        words += row.features
    if asked.table is not None:
        count += len(asked.table.model_fields_set)
        words += (*asked.table.instruments, *asked.table.feature_names)
    return count + "".join(words).count(":")


def _of_rows(rows: Sequence[FeatureRow]) -> FeaturesGiven:
    names = list(rows[0].features)
    instruments = [row.instrument for row in rows]
    if all(list(row.features) == names for row in rows):
        return _given("rows.{row}.features.{name}", instruments, names, [list(row.features.values()) for row in rows])
    for place, row in enumerate(rows):
        if row.features.keys() != rows[0].features.keys():
            odd = sorted(row.features.keys() ^ rows[0].features.keys())
            raise BadRequestError(
                f"rows.{place}.features ({row.instrument}): {first_few(map(excerpt, odd))} are in this row or in row 0 "
                f"({rows[0].instrument}), not in both; give each row the same features, null where unknown"
            )
    values = [[row.features[name] for name in names] for row in rows]
    return _given("rows.{row}.features.{name}", instruments, names, values)


def _of_table(table: FeatureTable) -> FeaturesGiven:
    return _given("table.values.{row}.{column}", table.instruments, table.feature_names, table.values)


def _given(
    place: str, instruments: Sequence[str], names: Sequence[str], values: Sequence[Sequence[float | None]]
) -> FeaturesGiven:
    with np.errstate(over="ignore"):
        matrix = np.array(values, dtype=np.float32)
    return given_matrix(place, instruments, names, matrix)


def given_matrix(place: str, instruments: Sequence[str], names: Sequence[str], matrix: Matrix) -> FeaturesGiven:
    """Features, if each row has a value and none is infinite; `place` formats a position in messages.

    Raises
    ------
    BadRequestError
        A row has no value, or a number does not fit into 32 bits.
    """
    if not np.isfinite(matrix).all():
        _check_values(place, instruments, names, matrix)
    return FeaturesGiven(instruments, names, matrix)


def _check_values(place: str, instruments: Sequence[str], names: Sequence[str], matrix: Matrix) -> None:
    """Refuse rows without any value, and numbers that are infinite as 32-bit floats."""
    beyond = np.argwhere(np.isinf(matrix))[:ERRORS_SHOWN].tolist()
    if beyond:
        raise BadRequestError(*(
            f"{place.format(row=row, column=column, name=names[column])} ({instruments[row]}, {names[column]}): the "
            "number does not fit into a 32-bit float; send null where there is no value"
            for row, column in beyond
        ))  # fmt: skip
    empty = np.flatnonzero(np.isnan(matrix).all(axis=1))[:ERRORS_SHOWN].tolist()
    if empty:
        raise BadRequestError(*(
            f"row {row} ({instruments[row]}): every feature is null; leave the row out" for row in empty
        ))  # fmt: skip
