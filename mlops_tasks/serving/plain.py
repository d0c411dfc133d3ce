"""A fast reader for features in their plainest form, which every well-meaning client sends.

Fast JSON readers use the last of two equal names, and numpy converts `true` and `"1"` to 1. So a body is accepted here
only if counts of its characters prove that its strings are its keys and names, with each key once, and that it has no
boolean. For anything else the result is None, and `reading.py` checks the body closely.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

from mlops_tasks.serving.reading import FeaturesGiven, Matrix, RequestLimits

PLAIN_BYTES = 2_500_000
"""Larger bodies would hold the GIL for too long."""
_MORE_BRACKETS = 16
_TABLE = {"instruments", "feature_names", "values"}
_MOST_NAME = 64


def read_plain(body: bytes, limits: RequestLimits) -> FeaturesGiven | None:
    """Rows or a table of features; None if they are not plain: wrong, escaped, too many, or just unusual."""
    if len(body) > PLAIN_BYTES or b"\\" in body:
        return None
    text = np.frombuffer(body, dtype=np.uint8)
    if _count(text, "[") + _count(text, "{") > 2 * limits.rows + _MORE_BRACKETS:
        return None
    try:
        found = _contents(orjson.loads(body))
        if found is None or len(found.instruments) > limits.rows or not found.is_all_of(text):
            return None
        return found.given()
    except (ValueError, TypeError, KeyError, AttributeError, IndexError):
        return None


def _count(text: np.ndarray[Any, np.dtype[np.uint8]], character: str) -> int:
    return int(np.count_nonzero(text == ord(character)))


@dataclass(frozen=True)
class _Contents:
    """The apparent content of a body."""

    instruments: Sequence[str]
    names: Sequence[str]
    values: Sequence[Any]
    words: Sequence[tuple[int, Sequence[str]]]
    """All its strings, including keys, and how often each occurs."""
    keys: int

    def is_all_of(self, text: np.ndarray[Any, np.dtype[np.uint8]]) -> bool:
        """Whether the body contains nothing else: no duplicate name, no string or boolean in place of a number."""
        joined = [(times, "".join(words)) for times, words in self.words]
        expected = {sign: sum(times * words.count(sign) for times, words in joined) for sign in ':"tf'}
        expected[":"] += self.keys
        expected['"'] += 2 * sum(times * len(words) for times, words in self.words)
        return all(_count(text, sign) == count for sign, count in expected.items())

    def given(self) -> FeaturesGiven | None:
        """The features, if all values are numbers or missing, and no row is empty."""
        lengths = {len(instrument) for instrument in self.instruments}
        if not 1 <= min(lengths) <= max(lengths) <= _MOST_NAME:
            return None
        with np.errstate(over="ignore"):
            matrix: Matrix = np.array(self.values, dtype=np.float32)
        if matrix.shape != (len(self.instruments), len(self.names)) or not matrix.size:
            return None
        if not np.isfinite(matrix).all() and (np.isinf(matrix).any() or np.isnan(matrix).all(axis=1).any()):
            return None
        return FeaturesGiven(self.instruments, self.names, matrix)


def _contents(body: Any) -> _Contents | None:
    words: tuple[tuple[int, Sequence[str]], ...]
    if body.keys() == {"table"} and body["table"].keys() == _TABLE:
        table = body["table"]
        instruments, names = table["instruments"], table["feature_names"]
        words = ((1, ["table", *_TABLE]), (1, instruments), (1, names))
        return _Contents(instruments, names, table["values"], words, keys=4)
    if body.keys() == {"rows"}:
        rows = body["rows"]
        instruments, names = [row["instrument"] for row in rows], list(rows[0]["features"])
        if not all(len(row) == 2 and list(row["features"]) == names for row in rows):
            return None
        count = len(rows)
        words = ((1, ["rows"]), (count, ["instrument", "features"]), (1, instruments), (count, names))
        values = [list(row["features"].values()) for row in rows]
        return _Contents(instruments, names, values, words, keys=1 + count * (2 + len(names)))
    return None
