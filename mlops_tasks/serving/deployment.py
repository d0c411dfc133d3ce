"""Blue-green deployment: record the intent, prove the candidate, move the alias, prove the service; or undo it all."""

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from mlops_tasks.config import Settings
from mlops_tasks.data.vintages import current_vintage
from mlops_tasks.errors import DeploymentError, MlopsError, RecordMismatchError
from mlops_tasks.registry.approvals import candidate_permit, load_recorded, revocation_by_person, revocation_by_rule
from mlops_tasks.registry.client import CHAMPION
from mlops_tasks.registry.lifecycle import try_to_show_history
from mlops_tasks.registry.models import LoadedModel, set_alias
from mlops_tasks.serving.champion import Action
from mlops_tasks.serving.client import ScoringClient
from mlops_tasks.serving.proof import Proof
from mlops_tasks.serving.reconciliation import (
    LEASE,
    Reconciled,
    following,
    named,
    new_attempt,
    put_right,
    reconcile,
    still_approved,
)
from mlops_tasks.serving.score_files import newest_day
from mlops_tasks.serving.speed import measure_speed
from mlops_tasks.stage_results import DeployedModel, ServiceProbe, SpeedComparison, VersionSpeed
from mlops_tasks.state.alerts import raise_daily_alert
from mlops_tasks.state.approvals import record_revocation
from mlops_tasks.state.deployments import record_deployment, settle_attempt
from mlops_tasks.state.history import latest_deployment
from mlops_tasks.state.lease import awaited_lease
from mlops_tasks.state.tables import Deployment, ModelRevocation
from mlops_tasks.states import DeploymentState, Strategy

log = logging.getLogger(__name__)

WAIT_S = 10.0
"""How long to wait for a reconciliation, which holds the lease briefly; a deployment takes longer than this."""


@dataclass(frozen=True)
class Order:
    """What a deployment belongs to, for the record."""

    strategy: Strategy = Strategy.BLUE_GREEN
    """What it is the end of."""
    reason: str = ""
    """Why it is wanted; kept with the step that ends it well, and with a withdrawal."""
    by: str = ""
    """Who wants it; empty: the DAG that this process works for, or the system's user."""


_NO_ORDER = Order()


def deploy_blue_green(
    settings: Settings,
    version: int,
    digest: str | None = None,
    order: Order = _NO_ORDER,
) -> DeployedModel:
    """Make a registered version the champion in service.

    May be repeated, also after a kill at any point: it ends in the same state. A version that serves already is
    proved again and nothing is changed.

    Parameters
    ----------
    digest
        Of the artefact that is meant, as the gate saw it; None: whatever the version is, if that may serve.
    order
        What it belongs to, for the record.

    Raises
    ------
    DeploymentError
        The candidate may not serve or is another one; it or the service failed its proof, or something else has,
        whatever it was; the previous champion is in service again, and the reason is recorded. Or another deployment is
        at work.
    """
    return _Deployment(settings, version, digest, order).run()


def roll_back(
    settings: Settings, version: int | None = None, reason: str = "", condemned: int | None = None, by: str = ""
) -> DeployedModel:
    """Put the last champion that may still serve, or the given version, in service, and withdraw the present one.

    The withdrawal is part of the deployment: where that is undone, the present one stays champion and is not withdrawn.
    The reason is kept with the step that puts the other one in service.

    Parameters
    ----------
    condemned
        The champion that is to go: where another one serves by now, nothing is done. None: whichever serves.
    by
        The person who is against it, for the record. Empty: a rule is, where one is condemned; otherwise the system's
        user.

    Raises
    ------
    DeploymentError
        As `deploy_blue_green`; there is nothing to go back to; the champion is not the one that is condemned.
    """
    try:
        version = _predecessor(settings) if version is None else version
    except Exception as error:
        raise DeploymentError(f"the rollback has not begun: {said(error)}") from error
    if version is None:
        raise DeploymentError("no earlier champion is left to go back to; name a version with --version")
    order = Order(reason=reason, by=by)
    result = _Deployment(settings, version, order=order, withdraws=True, condemned=condemned).run()
    return {**result, "rejected_version": result["previous_version"]}


def withdraw_model(settings: Settings, version: int, reason: str, by: str | None = None) -> ModelRevocation:
    """Forbid a version to serve, by a deployment or as the target of a rollback; the gate does not promote it again.

    Parameters
    ----------
    reason
        Why; not empty.
    by
        Who; default: the system's user.

    Raises
    ------
    DeploymentError
        It is the champion, which `roll_back` withdraws; or a deployment is running.
    RegistryError
        The reason is empty; there is no such version.
    """
    with _only_one(settings):
        if put_right(settings).champion == version:
            raise DeploymentError(
                f"version {version} is the champion; `alphaops rollback` withdraws it and puts another one in service"
            )
        row = revocation_by_person(settings, version, reason, by)
        record_revocation(settings, row, version)
    try_to_show_history(settings)
    return row


def _predecessor(settings: Settings) -> int | None:
    champion = reconcile(settings).champion
    return next((each.version for each in still_approved(settings) if each.version != champion), None)


@dataclass(frozen=True)
class _Deployment:
    """One deployment of one version."""

    settings: Settings
    version: int
    digest: str | None = None
    """Digest of the intended artefact; None: whatever the version is."""
    order: Order = _NO_ORDER
    withdraws: bool = False
    """Whether the champion that it replaces may no longer serve."""
    condemned: int | None = None
    """The champion that is to be replaced, and no other; None: whichever serves."""

    def run(self) -> DeployedModel:
        """Run it exclusively; returns the result of the stage."""
        with ExitStack() as held:
            try:
                held.enter_context(_only_one(self.settings))
                champion = self._champion()
                if self.condemned not in (None, champion):
                    raise DeploymentError(f"it was to replace {named(self.condemned)}; {named(champion)} serves by now")
                client = held.enter_context(ScoringClient(self.settings))
                proof = Proof(self.settings, client, self._candidate())
                proof.preflight()
                proven = self._proven(proof.candidate) if champion == self.version else None
                found = None if proven is None else proof.of_service()
                outgoing = None if champion in (None, self.version) else self._speed(client, champion)
            except Exception as error:
                raise self._failed(error) from error
            speed: SpeedComparison | None = None
            if proven is not None and found is not None:
                previous = proven.proven_version
            else:  # a champion that was not proven here is no target for a rollback
                previous = None if champion == self.version else champion
                found = self._switch(proof, previous)
                speed = {"incoming": self._speed(client, self.version, proof.candidate), "outgoing": outgoing}
            try_to_show_history(self.settings)
        log.info(
            "version %d serves; largest difference of %d scores: %g",
            self.version,
            found["instruments"],
            found["max_abs_diff"],
        )
        done: DeployedModel = {
            "deployed": True,
            "version": self.version,
            "training_key": proof.candidate.training_key,
            "previous_version": previous,
            "probe": found,
        }
        return done if speed is None else {**done, "speed": speed}

    def _speed(self, client: ScoringClient, version: int, model: LoadedModel | None = None) -> VersionSpeed | None:
        """How fast a version is; None, with a line in the log, if that cannot be measured, which fails no deployment:
        the state of the outgoing version may be the reason for it."""
        try:
            measured = model or load_recorded(self.settings, version)
            speed = measure_speed(client, newest_day(self.settings, measured, current_vintage(self.settings)))
        except Exception as error:
            log.warning("the speed of version %d could not be measured: %s", version, said(error))
            return None
        log.info(
            "version %d: %d requests for the newest day, median %.1f ms, 99%% within %.1f ms, %.0f a second; it scores "
            "the day in %.1f ms",
            *(speed[name] for name in ("version", "requests", "p50_ms", "p99_ms", "requests_per_s", "day_ms")),
        )
        return speed

    def _champion(self) -> int | None:
        """The champion, after cleaning up an earlier deployment."""
        found = put_right(self.settings)
        if found.error is not None:
            raise DeploymentError(found.error)
        return found.champion

    def _candidate(self) -> LoadedModel:
        permit = candidate_permit(self.settings, self.version)
        found = permit.claim.digest
        if self.digest not in (None, found):
            raise RecordMismatchError(
                f"the gate judged the artefact {self.digest}, but in MLflow version {self.version} is now {found}: "
                "somebody has changed its tags; restore them, and check who may write to MLflow"
            )
        return permit.load(self.settings)

    def _proven(self, candidate: LoadedModel) -> Deployment | None:
        """The step by which exactly these bytes were proven; older records do not name the bytes."""
        row = latest_deployment(self.settings, self.version, DeploymentState.SERVING)
        return row if row is not None and row.artefact_digest == candidate.digest else None

    def _switch(self, proof: Proof, previous: int | None) -> ServiceProbe:
        """Move the alias between the intent and its end; undo this if anything fails in between."""
        start, found = self._step(DeploymentState.STARTED, proof.candidate, previous), None
        try:
            record_deployment(self.settings, start)
            set_alias(self.settings, CHAMPION, self.version)
            found = proof.of_service()
            served = following(start, DeploymentState.SERVING, previous, self.order.reason)
            if not settle_attempt(self.settings, served, self._withdrawal(previous), self.order.by):
                raise DeploymentError(
                    "it was undone in the meantime, because its lease was lost; see the state database"
                )
        except BaseException as error:
            end = self._put_back(start, error)
            self._tell_service(proof.client)
            if not isinstance(error, Exception):
                raise
            if end.action is Action.KEEP and end.champion != self.version:
                raise self._failed(error) from error  # not even the intent was recorded
            if end.action is not Action.KEEP or found is None:
                raise DeploymentError(
                    f"version {self.version} was rolled back, champion is again {end.champion or 'none'}: {said(error)}"
                ) from error
            log.warning("version %d is proven, and that is recorded, in spite of: %s", self.version, said(error))
        return found

    def _put_back(self, start: Deployment, error: BaseException) -> Reconciled:
        try:
            end = put_right(self.settings, start.attempt, said(error))
            if end.error is None:
                return end
            problem = end.error
        except Exception as failure:
            problem = said(failure)
        message = (
            f"version {self.version} failed ({said(error)}), and so did the rollback ({problem}); the scoring service, "
            "`alphaops status` and the next deployment move the alias back as soon as they can"
        )
        raise_daily_alert(self.settings, kind="deployment_failed", cause=named(self.version), message=message)
        raise DeploymentError(message) from error

    def _withdrawal(self, previous: int | None) -> ModelRevocation | None:
        if previous is None or not self.withdraws:
            return None
        reason = f"rolled back to version {self.version}" + (f", {self.order.reason}" if self.order.reason else "")
        if self.condemned is not None and not self.order.by:
            return revocation_by_rule(self.settings, previous, reason)
        return revocation_by_person(self.settings, previous, reason, self.order.by or None)

    def _tell_service(self, client: ScoringClient) -> None:
        try:
            client.refresh()
        except Exception as error:
            log.warning("the service could not be notified; it reads the alias when it is back: %s", said(error))

    def _failed(self, error: Exception) -> DeploymentError:
        """Record and report that nothing has changed."""
        message = f"version {self.version} was not deployed: {said(error)}"
        try:
            record_deployment(self.settings, self._step(DeploymentState.FAILED, None, None, said(error)))
        except Exception as failure:
            log.error("the failure is not recorded: %s", said(failure))
        raise_daily_alert(self.settings, kind="deployment_failed", cause=named(self.version), message=message)
        return DeploymentError(message)

    def _step(self, state: str, candidate: LoadedModel | None, proven: int | None, reason: str = "") -> Deployment:
        return Deployment(
            model_version=self.version,
            training_key="" if candidate is None else candidate.training_key,
            artefact_digest="" if candidate is None else candidate.digest,
            data_version="" if candidate is None else candidate.tags["data_version"],
            strategy=self.order.strategy.value,
            state=state,
            reason=reason,
            proven_version=proven,
            attempt=new_attempt(),
        )


@contextmanager
def _only_one(settings: Settings) -> Iterator[None]:
    """Hold the lease of deployments.

    Raises
    ------
    DeploymentError
        Another deployment holds it.
    """
    with awaited_lease(settings, LEASE, WAIT_S) as taken:
        if not taken:
            raise DeploymentError("another deployment is at work; wait for its end and try again")
        yield


def said(error: BaseException) -> str:
    """An error's message, preceded by its kind if it is not the library's own error."""
    return str(error) if isinstance(error, MlopsError) else f"{type(error).__name__}: {error}"
