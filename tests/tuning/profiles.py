"""Profiles of planted markets, each measured once for all tests."""

import functools

from mlops_tasks.tuning.data_profile import DataProfile, profile_data
from tests.planted import Shape, plant

SHAPE = Shape(days=200, instruments=40)


@functools.cache
def profile_of(kind: str, seed: int = 0) -> DataProfile:
    """Of a market of `SHAPE`."""
    return profile_data(plant(kind, SHAPE, seed).data)
