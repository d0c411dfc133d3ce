"""Identifies what a model learns from: everything that is needed to load it again."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date


@dataclass(frozen=True)
class LearningSpec:
    """The versions, the label and the dates of a learning problem."""

    data_version: str
    feature_version: str
    horizon: int
    """Trading days; the label of day t is close(t + 1 + horizon) / close(t + 1) - 1."""
    segments: Mapping[str, tuple[date, date]]
    """First and last day of train, valid and test."""
