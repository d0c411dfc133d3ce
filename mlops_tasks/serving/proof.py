"""The proof of a version: finite scores here before anything changes, and the same scores from the service after."""

import logging
import time
from dataclasses import dataclass
from datetime import date

import numpy as np
import pandas as pd

from mlops_tasks.config import Settings
from mlops_tasks.data.vintages import Vintage, current_vintage, load_vintage
from mlops_tasks.errors import DeploymentError
from mlops_tasks.features.store import FeatureStore
from mlops_tasks.registry.model_features import features_of
from mlops_tasks.registry.models import LoadedModel
from mlops_tasks.serving.client import ScoringClient, ScoringServiceError, scores_of
from mlops_tasks.serving.compatible import require_compatible
from mlops_tasks.serving.model_day import ModelDay
from mlops_tasks.serving.slots import probe
from mlops_tasks.stage_results import ServiceProbe

log = logging.getLogger(__name__)

LOOK_EVERY_S = 0.25


@dataclass(frozen=True)
class Proof:
    """The proof of one candidate by one service."""

    settings: Settings
    client: ScoringClient
    candidate: LoadedModel

    def preflight(self) -> None:
        """Prove the candidate here, that it is compatible with the service, and that the service answers.

        Raises
        ------
        CompatibilityError
            Something differs from its training that can change a score.
        DeploymentError, ScoringServiceError, MlopsError
            A score is not finite; the service does not answer; features or vintage are missing.
        """
        self.client.health()
        require_compatible(self.settings, self.candidate, self.client)
        probe(self.candidate)
        vintage = current_vintage(self.settings)
        feature_version = features_of(self.settings, self.candidate, vintage)
        scores = self._scores(vintage, feature_version, vintage.last_date)
        if scores.empty or not np.isfinite(scores.to_numpy()).all():
            raise DeploymentError(f"{len(scores)} scores of {vintage.last_date}, not all finite; check its features")
        version = self.candidate.version
        log.info("preflight of version %d: %d finite scores on %s", version, len(scores), vintage.last_date)

    def of_service(self) -> ServiceProbe:
        """Prove that every worker of the service serves the candidate, and that it answers with its very scores.

        Raises
        ------
        ScoringServiceError
            It does not, within `serving.deploy_timeout_s`.
        """
        self.client.refresh()
        self._wait_until_serving()
        return self._compare()

    def _wait_until_serving(self) -> None:
        limit = self.settings.serving.deploy_timeout_s
        until = time.monotonic() + limit
        while True:
            health = self.client.health()
            workers = health["workers"]
            if all(each["model_version"] == self.candidate.version and each["newest_date"] for each in workers):
                return
            if time.monotonic() > until:
                errors = "; ".join(health["errors"]) or "it names no error"
                served = " and ".join(dict.fromkeys(str(each["model_version"]) for each in workers))
                raise ScoringServiceError(
                    f"the service serves version {served} after {limit:.0f} s, not {self.candidate.version}: {errors}"
                )
            time.sleep(LOOK_EVERY_S)

    def _compare(self) -> ServiceProbe:
        answer = self.client.score()
        if answer["model_version"] != self.candidate.version:
            raise ScoringServiceError(f"the service answered with version {answer['model_version']}")
        served = scores_of(answer)
        vintage = load_vintage(self.settings, answer["data_version"])
        here = self._scores(vintage, answer["feature_version"], answer["date"])
        if not served.index.equals(here.index):
            raise ScoringServiceError(
                f"the service scores {len(served)} instruments of {answer['date']}, not the artefact's {len(here)}"
            )
        difference = float(np.abs(served.to_numpy() - here.to_numpy()).max())
        limit = self.settings.serving.probe_max_abs_diff
        if not difference <= limit:
            raise ScoringServiceError(
                f"the service's scores differ by up to {difference:g} from the artefact's, limit {limit:g}"
            )
        return {"date": answer["date"], "instruments": len(served), "max_abs_diff": difference}

    def _scores(self, vintage: Vintage, feature_version: str, day: str) -> pd.Series:
        """Scores of all instruments that have a bar on a day, from the artefact, index instrument, sorted."""
        store = FeatureStore(self.settings)
        data = (vintage, feature_version)
        return ModelDay.read(store, data, self.candidate, date.fromisoformat(day), members=False).scores()
