"""What a person does by hand about the models that serve: rollback, abort, advance, approve, withdraw.

Each is asked for at a time, and means what stood then. So it may be killed at any point and tried again, also days
later: what is done already is told and not done twice, and what somebody has undone since stays undone.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

from mlops_tasks.config import Settings
from mlops_tasks.errors import ConfigError, OvertakenError
from mlops_tasks.registry.approvals import approve_model
from mlops_tasks.registry.models import claim_of
from mlops_tasks.serving.deployment import roll_back, withdraw_model
from mlops_tasks.serving.reconciliation import named
from mlops_tasks.serving.rollout_plan import describe
from mlops_tasks.serving.strategies import abort, advance_rollouts, is_meant
from mlops_tasks.stage_results import Operated
from mlops_tasks.state.approvals import latest_revocation, standing_approval
from mlops_tasks.state.deployments import recorded_champion
from mlops_tasks.state.model_history import Model, Tenure, live_at, state_of
from mlops_tasks.state.rollouts import Rollout, rollouts_decided_since
from mlops_tasks.states import Intervention, ModelState, RolloutState

NAMES_A_VERSION = (Intervention.APPROVE, Intervention.WITHDRAW)
"""Actions that are always about one version."""


@dataclass(frozen=True)
class Asked:
    """What somebody asks for.

    Attributes
    ----------
    at
        When; aware.
    version
        Of a rollback: the version that is to serve; None: the champion before. Of an abort: the candidate; None: the
        one whose rollout had begun.
    reason
        Why; kept with the name.
    by
        Who; not empty.
    """

    action: Intervention
    at: datetime
    version: int | None
    reason: str
    by: str


def operate(settings: Settings, asked: Asked) -> Operated:
    """Do it, unless it is done.

    Raises
    ------
    ConfigError
        The reason or the version is missing, or there is one too many; the champion is to be rolled back to itself.
    OvertakenError
        It was undone since, or something else has happened to what was meant; names the present state and the remedy.
    MlopsError
        As `roll_back`, `abort`, `advance_rollouts`, `approve_model`, `withdraw_model`.
    """
    _check(asked)
    return _ACTIONS[asked.action](settings, asked)


def _check(asked: Asked) -> None:
    if "\0" in asked.reason:
        raise ConfigError("reason: it has a NUL character; leave it out")
    if asked.action is Intervention.ADVANCE:
        if asked.version is not None:
            raise ConfigError("version: rollouts are advanced all together; leave it empty")
        return
    if not asked.reason.strip():
        raise ConfigError("reason: it is empty; say why, the history records it with your name")
    if asked.version is None and asked.action in NAMES_A_VERSION:
        raise ConfigError(f"version: it is empty; say which version to {asked.action}")


def _roll_back(settings: Settings, asked: Asked) -> Operated:
    tenure = live_at(settings, asked.at)
    if tenure is None:
        raise OvertakenError(f"there was no champion at {asked.at:%F %T %Z}; there is nothing to roll back")
    if tenure.version == asked.version:
        raise ConfigError(f"version: {asked.version} is the champion itself; name an earlier one, or none")
    if recorded_champion(settings) != tenure.version:
        return _rolled_back_already(settings, asked, tenure)
    reason = f"{asked.by}: {asked.reason.strip()}"
    done = roll_back(settings, asked.version, reason, condemned=tenure.version, by=asked.by)
    return _told(asked, done["version"], f"{named(done['version'])} serves; {named(tenure.version)} is withdrawn")


def _rolled_back_already(settings: Settings, asked: Asked, tenure: Tenure) -> Operated:
    serves, bad = recorded_champion(settings), named(tenure.version)
    withdrawn = state_of(settings, Model(tenure.training_key, tenure.version)) is ModelState.REJECTED
    if not withdrawn or asked.version not in (None, serves):
        raise OvertakenError(
            f"{bad} was to be rolled back, and {named(serves)} serves by now; nothing was done: look at the present "
            "champion, and ask anew"
        )
    return _told(asked, serves, f"{named(serves)} serves; {bad} is withdrawn already")


def _abort(settings: Settings, asked: Asked) -> Operated:
    over = next((each for each in rollouts_decided_since(settings, asked.at) if _is_meant(each, asked)), None)
    if over is None:
        over = abort(settings, asked.reason, asked.version, asked.by, asked.at)
    elif over.state is not RolloutState.ABORTED:
        raise OvertakenError(f"it was decided before it could be aborted: {describe(over)}")
    return _told(asked, over.version, describe(over))


def _is_meant(rollout: Rollout, asked: Asked) -> bool:
    return is_meant(rollout, asked.version, asked.at)


def _advance(settings: Settings, asked: Asked) -> Operated:
    found = advance_rollouts(settings)
    taken = [*found["steps"], *(f"under way: {each}" for each in found["under_way"])]
    return _told(asked, None, "; ".join(taken) or "no rollout is under way")


def _approve(settings: Settings, asked: Asked) -> Operated:
    version = _version(asked)
    revoked = latest_revocation(settings, claim_of(settings, version).training_key)
    if revoked is not None and revoked.at > asked.at:
        raise OvertakenError(
            f"version {version} was withdrawn by {revoked.revoked_by} after its approval was asked for: "
            f"{revoked.reason}; if it may serve nevertheless, ask anew"
        )
    approve_model(settings, version, asked.reason, asked.by)
    return _told(asked, version, f"version {version} may serve; deploy_model puts it into service")


def _withdraw(settings: Settings, asked: Asked) -> Operated:
    version = _version(asked)
    claim = claim_of(settings, version)
    approved = standing_approval(settings, claim.training_key, claim.digest)
    if approved is not None and approved.at > asked.at:
        raise OvertakenError(
            f"version {version} was approved by {approved.approved_by} after its withdrawal was asked for: "
            f"{approved.reason}; if it may not serve nevertheless, ask anew"
        )
    withdraw_model(settings, version, asked.reason, asked.by)
    return _told(asked, version, f"version {version} may no longer serve, and the gate does not promote it again")


def _version(asked: Asked) -> int:
    assert asked.version is not None
    return asked.version


def _told(asked: Asked, version: int | None, said: str) -> Operated:
    return {"action": asked.action.value, "version": version, "run_note": said}


_ACTIONS: Mapping[Intervention, Callable[[Settings, Asked], Operated]] = {
    Intervention.ROLLBACK: _roll_back,
    Intervention.ABORT: _abort,
    Intervention.ADVANCE: _advance,
    Intervention.APPROVE: _approve,
    Intervention.WITHDRAW: _withdraw,
}
