"""Blue-green deployment: prove the candidate, move the alias, prove the service; or put everything back."""

import logging
import time
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
import pandas as pd

from mlops_tasks.columns import DATETIME
from mlops_tasks.config import Settings
from mlops_tasks.data.vintages import current_vintage, load_vintage
from mlops_tasks.errors import DeploymentError, MlopsError
from mlops_tasks.features.store import FeatureStore
from mlops_tasks.registry.approvals import load_approved
from mlops_tasks.registry.client import CHAMPION
from mlops_tasks.registry.lifecycle import LifecycleState, ModelLifecycleManager
from mlops_tasks.registry.model_features import features_of
from mlops_tasks.registry.models import LoadedModel, get_alias_version
from mlops_tasks.serving.client import ScoringClient, ScoringServiceError, scores_of
from mlops_tasks.serving.slots import probe
from mlops_tasks.state.history import latest_deployment, record_deployment, versions_that_served
from mlops_tasks.state.tables import Deployment
from mlops_tasks.training.scoring import FeatureSource

log = logging.getLogger(__name__)

BLUE_GREEN = "blue_green"
LOOK_EVERY_S = 0.25


@dataclass(frozen=True)
class Probe:
    """The service's scores of the newest date against those computed here."""

    date: str
    instruments: int
    max_abs_diff: float


def deploy_blue_green(settings: Settings, version: int) -> dict[str, Any]:
    """Make a registered version the champion in service.

    May be repeated, also after a kill at any point: it ends in the same state. A version that serves already is
    proved again and nothing is changed.

    Raises
    ------
    NotApprovedError
        Neither the gate nor a person has let the version serve.
    DeploymentError
        The candidate or the service failed its proof; the previous champion is in service again, and the reason is
        recorded.
    """
    with ScoringClient(settings) as client:
        run = _Run(settings, client, load_approved(settings, version))
        run.preflight()
        previous = run.switch()
    return {
        "deployed": True,
        "version": version,
        "training_key": run.candidate.training_key,
        "previous_version": previous.version,
        "probe": {
            "date": previous.probe.date,
            "instruments": previous.probe.instruments,
            "max_abs_diff": previous.probe.max_abs_diff,
        },
    }


def roll_back(settings: Settings, version: int | None = None) -> dict[str, Any]:
    """Put the last champion that was not rejected, or the given version, in service, and reject the present one.

    Errors as for `deploy_blue_green`; also DeploymentError when there is nothing to go back to.
    """
    manager, champion = ModelLifecycleManager(settings), get_alias_version(settings, CHAMPION)
    if version is None:
        others = [found for found in versions_that_served(settings) if found != champion]
        version = next((v for v in others if manager.state(v) != LifecycleState.REJECTED), None)
    if version is None:
        raise DeploymentError("no earlier champion is left to go back to; name a version with --version")
    result = deploy_blue_green(settings, version)
    if champion is not None and champion != version:
        manager.reject(champion)
    return {**result, "rejected_version": champion}


@dataclass(frozen=True)
class Switched:
    """How a switch ended."""

    version: int | None
    """The champion before."""
    probe: Probe


@dataclass(frozen=True)
class _Run:
    """One deployment of one candidate."""

    settings: Settings
    client: ScoringClient
    candidate: LoadedModel

    def preflight(self) -> None:
        """Prove the candidate and the service before anything moves."""
        try:
            self.client.health()
            probe(self.candidate)
            vintage = current_vintage(self.settings)
            feature_version = features_of(self.settings, self.candidate, vintage)
            source = FeatureSource(FeatureStore(self.settings), vintage, feature_version)
            scores = local_scores(self.candidate, source, date.fromisoformat(vintage.last_date))
            if scores.empty or not np.isfinite(scores.to_numpy()).all():
                raise DeploymentError(f"{len(scores)} scores of {vintage.last_date}, not all finite; see its features")
        except MlopsError as error:
            self._record("failed", str(error))
            raise DeploymentError(f"version {self.candidate.version} was not deployed: {error}") from error
        log.info(
            "preflight of version %d: %d finite scores on %s",
            self.candidate.version,
            len(scores),
            vintage.last_date,
        )

    def switch(self) -> Switched:
        """Move the alias, wait for the service, compare; undo on any failure."""
        version, manager = self.candidate.version, ModelLifecycleManager(self.settings)
        if not self._is_done():
            self._record("started")
        previous = manager.promote(version)
        try:
            self.client.refresh()
            self._wait_until_serving()
            found = self._compare()
        except MlopsError as error:
            self._roll_back(manager, error)
            raise DeploymentError(
                f"version {version} was rolled back, champion is again {previous or 'none'}: {error}"
            ) from error
        self._record("serving")
        log.info(
            "version %d serves; largest difference of %d scores: %g",
            version,
            found.instruments,
            found.max_abs_diff,
        )
        return Switched(previous, found)

    def _is_done(self) -> bool:
        newest = latest_deployment(self.settings)
        recorded = newest is not None and (newest.model_version, newest.state) == (
            self.candidate.version,
            "serving",
        )
        return recorded and get_alias_version(self.settings, CHAMPION) == self.candidate.version

    def _wait_until_serving(self) -> None:
        limit = self.settings.serving.deploy_timeout_s
        until = time.monotonic() + limit
        while True:
            health = self.client.health()
            if health["model_version"] == self.candidate.version and health["newest_date"] is not None:
                return
            if time.monotonic() > until:
                errors = "; ".join(health["errors"]) or "it names no error"
                raise ScoringServiceError(
                    f"the service serves version {health['model_version']} after {limit:.0f} s, not "
                    f"{self.candidate.version}: {errors}"
                )
            time.sleep(LOOK_EVERY_S)

    def _compare(self) -> Probe:
        answer = self.client.score()
        if answer["model_version"] != self.candidate.version:
            raise ScoringServiceError(f"the service answered with version {answer['model_version']}")
        served = scores_of(answer)
        vintage = load_vintage(self.settings, answer["data_version"])
        source = FeatureSource(FeatureStore(self.settings), vintage, answer["feature_version"])
        here = local_scores(self.candidate, source, date.fromisoformat(answer["date"]))
        if not served.index.equals(here.index):
            raise ScoringServiceError(
                f"the service scores {len(served)} instruments of {answer['date']}, not {len(here)}"
            )
        difference = float(np.abs(served.to_numpy() - here.to_numpy()).max())
        limit = self.settings.serving.probe_max_abs_diff
        if not difference <= limit:
            raise ScoringServiceError(
                f"the service's scores differ by up to {difference:g} from the artefact's, limit {limit:g}"
            )
        return Probe(answer["date"], len(served), difference)

    def _roll_back(self, manager: ModelLifecycleManager, reason: MlopsError) -> None:
        manager.restore(self.candidate.version)
        try:
            self.client.refresh()
        except ScoringServiceError as error:
            log.warning("the service could not be told; it sees the alias when it is back: %s", error)
        self._record("rolled_back", str(reason))

    def _record(self, state: str, reason: str = "") -> None:
        record_deployment(
            self.settings,
            Deployment(
                model_version=self.candidate.version,
                training_key=self.candidate.training_key,
                data_version=self.candidate.tags["data_version"],
                strategy=BLUE_GREEN,
                state=state,
                reason=reason,
            ),
        )


def local_scores(model: LoadedModel, source: FeatureSource, day: date) -> pd.Series:
    """Scores of all instruments of a day from the artefact, index instrument, sorted."""
    rows = source.rows(day, day, model.artefact.window, members=False)
    return model.artefact.score(rows).droplevel(DATETIME).sort_index()
