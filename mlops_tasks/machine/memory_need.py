"""How much memory a process will need at most."""

from dataclasses import asdict, dataclass, replace
from typing import Any

_MB = 1e6
_VALUE = 4
"""Bytes of a feature's value, float32."""


@dataclass(frozen=True)
class MemoryNeed:
    """An upper estimate of a training process's peak, in MB (10^6 bytes)."""

    rows: int
    """Of all segments, including the rows that windows look back on."""
    features: int
    base_mb: float
    """Python and the libraries."""
    data_mb: float
    """The frame that is read, and its processed copy, where there is one."""
    model_mb: float
    """As the family estimates it."""

    @property
    def total_mb(self) -> float:
        """The sum."""
        return self.base_mb + self.data_mb + self.model_mb

    def with_more_copies(self, count: int) -> "MemoryNeed":
        """The same need with this many further processed copies of the data."""
        return replace(self, data_mb=self.data_mb + count * self.rows * self.features * _VALUE / _MB)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return {**{name: round(value) for name, value in asdict(self).items()}, "total_mb": round(self.total_mb)}

    def __str__(self) -> str:
        return (
            f"needs {self.total_mb:,.0f} MB ({self.data_mb:,.0f} MB for {self.rows:,} rows x {self.features} features, "
            f"{self.model_mb:,.0f} MB for the model, {self.base_mb:,.0f} MB for the process)"
        )
