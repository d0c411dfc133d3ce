"""The scoring service's client."""

import logging
import time
from collections.abc import Callable, Sequence
from datetime import date
from types import TracebackType
from typing import Any, Self

import httpx
import pandas as pd

from mlops_tasks.authorities import trusted_authorities
from mlops_tasks.columns import INSTRUMENT, SCORE
from mlops_tasks.config import Settings
from mlops_tasks.errors import ErrorKind, MlopsError
from mlops_tasks.serving.secret import scoring_token

log = logging.getLogger(__name__)

ATTEMPTS = 4
ROWS = 500
"""Rows of features per request."""
RETRY_AFTER = "retry-after"
FIRST_PAUSE_S = 0.2
TIMEOUT_S = 60.0


class ScoringServiceError(MlopsError, RuntimeError):
    """The scoring service does not answer, or refuses."""

    kind = ErrorKind.TRANSIENT


class ScoringClient:
    """A client of the scoring service; requests to an unreachable or busy service are retried with growing pauses.

    All requests may be repeated, as they change at most what the service has in memory.
    """

    def __init__(self, settings: Settings) -> None:
        self.url = settings.scoring_url
        headers = {"Authorization": f"Bearer {scoring_token(settings)}"}
        self._http = httpx.Client(base_url=self.url, headers=headers, timeout=TIMEOUT_S, verify=trusted_authorities())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def health(self) -> dict[str, Any]:
        """What is in service, even if that is nothing.

        Raises
        ------
        ScoringServiceError
            No answer, or a refusal.
        """
        return self._json(lambda: self._http.get("/health"), allowed=(200, 503))

    def refresh(self) -> dict[str, Any]:
        """Let the service check the alias and the vintage now. Errors as for `health`."""
        return self._json(lambda: self._http.post("/v1/refresh"))

    def environment(self) -> dict[str, Any]:
        """What runs the service: an `Environment` as JSON. Errors as for `health`."""
        return self._json(lambda: self._http.get("/v1/environment"))

    def score(self, instruments: Sequence[str] | None = None, day: date | None = None) -> dict[str, Any]:
        """Scores of instruments (None: all) on a day (None: the newest). Errors as for `health`."""
        body = {
            "instruments": None if instruments is None else list(instruments),
            "date": None if day is None else day.isoformat(),
        }
        return self._json(lambda: self._http.post("/v1/score", json=body))

    def score_features(self, features: pd.DataFrame) -> dict[str, Any]:
        """Scores of given features, index instrument, one column per feature; NaN is sent as null.

        Large frames are sent in parts.

        Raises
        ------
        ScoringServiceError
            As for `health`; or the service switched its model between two parts.
        """
        parts = [self._score_part(features[first : first + ROWS]) for first in range(0, max(1, len(features)), ROWS)]
        versions = {part["model_version"] for part in parts}
        if len(versions) > 1:
            raise ScoringServiceError(f"{self.url}: versions {sorted(versions)} scored parts of one frame; retry")
        return {**parts[0], "scores": [row for part in parts for row in part["scores"]]}

    def _score_part(self, features: pd.DataFrame) -> dict[str, Any]:
        values = features.astype(object).where(features.notna(), None).to_numpy().tolist()
        table = {
            "instruments": list(features.index),
            "feature_names": list(features.columns),
            "values": values,
        }
        return self._json(lambda: self._http.post("/v1/score", json={"table": table}))

    def _json(self, send: Callable[[], httpx.Response], allowed: Sequence[int] = (200,)) -> dict[str, Any]:
        response = self._with_retries(send)
        if response.status_code not in allowed:
            raise ScoringServiceError(f"{response.request.url}: status {response.status_code}: {_detail(response)}")
        content: dict[str, Any] = response.json()
        return content

    def _with_retries(self, send: Callable[[], httpx.Response]) -> httpx.Response:
        pause = FIRST_PAUSE_S
        for attempt in range(1, ATTEMPTS + 1):
            try:
                response = send()
                if RETRY_AFTER not in response.headers or attempt == ATTEMPTS:
                    return response
                log.info("%s is busy; again in %.1f s", self.url, pause)
            except httpx.TransportError as error:
                if attempt == ATTEMPTS:
                    raise ScoringServiceError(
                        f"the scoring service at {self.url} does not answer: {error or type(error).__name__}; "
                        "start it with `make up` or `python -m mlops_tasks.serving`"
                    ) from error
                log.warning("%s: %s; again in %.1f s", self.url, error or type(error).__name__, pause)
            time.sleep(pause)
            pause *= 2
        raise AssertionError("the loop returns or raises")


def scores_of(answer: dict[str, Any]) -> pd.Series:
    """The scores of an answer, index instrument, sorted."""
    pairs = {row["instrument"]: row["score"] for row in answer["scores"]}
    return pd.Series(pairs, name=SCORE, dtype="float64").rename_axis(INSTRUMENT).sort_index()


def _detail(response: httpx.Response) -> str:
    try:
        return str(response.json()["detail"])
    except (ValueError, KeyError, TypeError):
        return response.text[:300]
