"""Columns from which nothing can be learned: without a value, with one value only, or with infinite ones."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mlops_tasks.errors import first_few


@dataclass(frozen=True)
class ColumnHealth:
    """Of the rows that a model learns from, by column."""

    columns: int
    """All of them."""
    missing: tuple[str, ...]
    """Columns in which every row is missing."""
    constant: tuple[str, ...]
    """Columns whose known values are all the same."""
    infinite: dict[str, float]
    """Columns with infinite values, and the share of rows that have one."""

    @classmethod
    def of(cls, features: npt.NDArray[np.float32], names: Sequence[str]) -> "ColumnHealth":
        """Look at features, shape (n, columns); of no rows nothing is said."""
        missing, constant, infinite = [], [], {}
        for name, values in zip(names, features.T if len(features) else (), strict=False):
            known = values[~np.isnan(values)]
            share = float(np.isinf(known).mean()) if len(known) else 0.0
            if not len(known):
                missing.append(name)
            elif known.min() == known.max():
                constant.append(name)
            if share:
                infinite[name] = share
        return cls(len(names), tuple(missing), tuple(constant), infinite)

    @property
    def metrics(self) -> dict[str, int]:
        """Counts, as a training notes them among its metrics."""
        kinds = {"missing": self.missing, "constant": self.constant, "infinite": self.infinite}
        return {f"{kind}_columns": len(found) for kind, found in kinds.items()}

    def warnings(self) -> list[str]:
        """A sentence for each kind that there is."""
        of_all = f"of {self.columns} columns"
        said = []
        if self.missing:
            said.append(
                f"{len(self.missing)} {of_all} have no value in the training segment: {first_few(self.missing)}"
            )
        if self.constant:
            said.append(
                f"{len(self.constant)} {of_all} are constant in the training segment: {first_few(self.constant)}"
            )
        if self.infinite:
            shares = [f"{name} ({share:.2%} of rows)" for name, share in self.infinite.items()]
            said.append(
                f"{len(self.infinite)} {of_all} have infinite values in the training segment: {first_few(shares)}"
            )
        return said

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"missing": list(self.missing), "constant": list(self.constant), "infinite": self.infinite}
