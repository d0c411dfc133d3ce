"""Profiles of planted markets, each measured once for all tests."""

import functools

from mlops_tasks.tuning.data_profile import DataProfile, profile_data
from tests.planted import Shape, plant

SHAPE = Shape(days=200, instruments=40)
SMALL = Shape(days=120, instruments=20)
"""Enough where nothing is planted: what a learner finds in noise that it should not is the larger, the fewer rows."""


@functools.cache
def profile_of(kind: str, seed: int = 0, shape: Shape = SHAPE) -> DataProfile:
    """Of a market of that shape."""
    return profile_data(plant(kind, shape, seed).data)
