"""Columns from which nothing can be learned: with no value, with a single value, or with infinite values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mlops_tasks.errors import first_few
from mlops_tasks.features.statistics import ColumnStatistics

SEGMENT = "the training segment"


@dataclass(frozen=True)
class ColumnHealth:
    """The columns from which nothing can be learned, in the rows that a model learns from."""

    columns: int
    """How many columns there are in all."""
    missing: tuple[str, ...]
    """Columns in which every row is missing."""
    constant: tuple[str, ...]
    """Columns whose known values are all the same."""
    infinite: dict[str, float]
    """Columns with infinite values, and the share of rows that have one."""

    @classmethod
    def of(cls, features: npt.NDArray[np.float32], names: Sequence[str]) -> "ColumnHealth":
        """Examine features, shape (n, columns); without rows, nothing is reported."""
        missing, constant, infinite = [], [], {}
        for name, values in zip(names, features.T if len(features) else (), strict=False):
            known = values[~np.isnan(values)]
            if not len(known):
                missing.append(name)
            elif known.min() == known.max():
                constant.append(name)
            if count := int(np.isinf(known).sum()):
                infinite[name] = count / len(values)
        return cls(len(names), tuple(missing), tuple(constant), infinite)

    @classmethod
    def of_statistics(cls, columns: Mapping[str, ColumnStatistics]) -> "ColumnHealth":
        """The same from the statistics of whole years of stored features, without reading any feature.

        A column that is infinite with one sign in every row is not reported as constant.
        """
        seen = {name: each for name, each in columns.items() if each.rows}
        return cls(
            len(columns),
            tuple(name for name, each in seen.items() if each.missing == each.rows),
            tuple(name for name, each in seen.items() if each.finite and not each.infinite and each.min == each.max),
            {name: each.infinite / each.rows for name, each in seen.items() if each.infinite},
        )

    @property
    def metrics(self) -> dict[str, int]:
        """Counts, as a training records them among its metrics."""
        return {f"{kind}_columns": len(found) for kind, found in self._kinds.items()}

    def warnings(self, where: str = SEGMENT) -> list[str]:
        """A sentence for each kind that there is."""

        def of_all(found: Sequence[str] | Mapping[str, float]) -> str:
            return f"{len(found)} of {self.columns} columns ({len(found) / self.columns:.2%})"

        said = []
        if self.missing:
            said.append(f"{of_all(self.missing)} have no value in {where}: {first_few(self.missing)}")
        if self.constant:
            said.append(f"{of_all(self.constant)} are constant in {where}: {first_few(self.constant)}")
        if self.infinite:
            said.append(
                f"{of_all(self.infinite)} have infinite values in {where}: {first_few(with_shares(self.infinite))}"
            )
        return said

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values: the names by kind, and each kind's share of all columns."""
        shares = {kind: len(found) / self.columns for kind, found in self._kinds.items()} if self.columns else {}
        return {
            "columns": self.columns,
            "missing": list(self.missing),
            "constant": list(self.constant),
            "infinite": self.infinite,
            "shares": shares,
        }

    @property
    def _kinds(self) -> Mapping[str, Sequence[str] | Mapping[str, float]]:
        return {"missing": self.missing, "constant": self.constant, "infinite": self.infinite}


def with_shares(shares: Mapping[str, float]) -> list[str]:
    """Each name with its share of the rows."""
    return [f"{name} ({share:.2%} of rows)" for name, share in shares.items()]
