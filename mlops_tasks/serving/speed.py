"""How fast a version is: requests that the service answers with it, and the scoring of a day by its artefact."""

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from mlops_tasks.serving.client import ScoringClient, ScoringServiceError
from mlops_tasks.serving.model_day import ModelDay
from mlops_tasks.stage_results import VersionSpeed

REQUESTS = 40
CONNECTIONS = 4
TIMES = 5


def measure_speed(client: ScoringClient, day: ModelDay) -> VersionSpeed:
    """Time requests for all scores of the newest day, over four connections, and the scoring of a day here.

    The service keeps a day's scores, so requests show what clients see, and the scoring here what the model costs. The
    first request does not count, since the service may have to load the day for it.

    Raises
    ------
    ScoringServiceError
        The service does not answer, or answers with another version than the day's model.
    TrainingError
        The model cannot score the day.
    """
    _timed(client, day.model.version)
    started = time.perf_counter()
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        seconds = list(pool.map(lambda _: _timed(client, day.model.version), range(REQUESTS)))
    elapsed = time.perf_counter() - started
    p50, p99 = np.percentile(seconds, (50, 99))
    return {
        "version": day.model.version,
        "requests": REQUESTS,
        "p50_ms": round(float(p50) * 1e3, 3),
        "p99_ms": round(float(p99) * 1e3, 3),
        "requests_per_s": round(REQUESTS / elapsed, 1),
        "day_ms": round(seconds_to_score(day) * 1e3, 3),
    }


def seconds_to_score(day: ModelDay) -> float:
    """The shortest of five times that a model takes to score a day. Errors as for `ModelDay.scores`."""
    seconds = []
    for _ in range(TIMES):
        started = time.perf_counter()
        day.scores()
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def _timed(client: ScoringClient, version: int) -> float:
    started = time.perf_counter()
    answered = client.score()["model_version"]
    if answered != version:
        raise ScoringServiceError(f"the service answered with version {answered}, not {version}")
    return time.perf_counter() - started
