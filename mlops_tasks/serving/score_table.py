"""Scores of many instruments, as answers and their log need them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from typing import Self

import numpy as np
import pandas as pd
from pydantic_core import to_json


@dataclass(frozen=True, eq=False)
class ScoreTable:
    """Finite scores of instruments, and the instruments that have none."""

    instruments: Sequence[str]
    scores: Sequence[float]
    unscored: Sequence[str] = ()

    @classmethod
    def of(cls, scores: pd.Series) -> Self:
        """Build it from a series, index instrument; a score that is not finite counts as missing."""
        known = np.isfinite(scores.to_numpy())
        found = scores[known]
        made = cls(found.index.to_list(), found.to_list(), scores.index[~known].to_list())
        # What every answer needs is computed here, where nothing waits for it.
        _ = made.positions
        return made.prepared()

    def prepared(self) -> Self:
        """The table itself, with what its log needs computed."""
        _ = self.digest
        return self

    @cached_property
    def positions(self) -> Mapping[str, int]:
        """Of the instruments."""
        return {name: position for position, name in enumerate(self.instruments)}

    @cached_property
    def encoded(self) -> tuple[bytes, bytes]:
        """The form in which the log stores it: the instruments as JSON, the scores as little-endian float64."""
        return to_json(list(self.instruments)), np.array(self.scores, "<f8").tobytes()

    @cached_property
    def digest(self) -> str:
        """Of instruments and scores."""
        return blake2b(b"".join(self.encoded), digest_size=16).hexdigest()
