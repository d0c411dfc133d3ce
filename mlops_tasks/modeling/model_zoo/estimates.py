"""Memory estimates for a process that must stay light: a child process imports the model's family for each question."""

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from mlops_tasks.config import Settings, load_settings
from mlops_tasks.errors import MlopsError
from mlops_tasks.files import digest_of
from mlops_tasks.modeling.model_zoo.description import describe_zoo, memory_estimate
from mlops_tasks.modeling.model_zoo.zoo import model_zoo
from mlops_tasks.process import run_stage

ESTIMATE_STAGE = f"{__name__}:estimate_stage"
TIME_LIMIT_S = 300.0

_one_child = threading.Lock()


@dataclass(frozen=True)
class Estimates:
    """Peak memory in bytes of one training of each model of a family with its defaults, or why it is unknown."""

    memory_bytes: Mapping[str, int]
    errors: Mapping[str, str]


def estimate_stage(*, family: str, rows: int, features: int) -> dict[str, dict[str, int | str]]:
    """Ask a family about its models."""
    settings = load_settings()
    found: dict[str, dict[str, int | str]] = {"memory_bytes": {}, "errors": {}}
    for name in (name for name, entry in model_zoo(settings).items() if entry.family == family):
        try:
            found["memory_bytes"][name] = memory_estimate(settings, name, rows, features)
        except MlopsError as error:
            found["errors"][name] = str(error)
    return found


def family_estimates(settings: Settings, family: str, rows: int, features: int) -> Estimates:
    """Estimates for this many labelled rows of train and valid, and columns; takes seconds the first time, then cached.

    Raises
    ------
    StageError
        The child died, or took too long.
    """
    with _one_child:
        return _estimates(digest_of({"zoo": describe_zoo(settings)}), family, rows, features)


@lru_cache(maxsize=256)
def _estimates(zoo: str, family: str, rows: int, features: int) -> Estimates:
    asked = {"family": family, "rows": rows, "features": features}
    return Estimates(**run_stage(ESTIMATE_STAGE, asked, time_limit_s=TIME_LIMIT_S))
