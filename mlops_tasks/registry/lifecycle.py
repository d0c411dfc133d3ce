"""ModelLifecycleManager: the states of models, kept in the state database and shown in MLflow."""

import logging
import re
from typing import Final

from mlops_tasks.config import Settings
from mlops_tasks.registry.client import CHALLENGER, CHAMPION, EXPERIMENT, connect, experiment_id, registry_errors
from mlops_tasks.registry.models import (
    delete_alias,
    find_tags,
    get_alias_version,
    get_tags,
    register,
    set_alias,
    set_tags,
)
from mlops_tasks.state.lease import awaited_lease
from mlops_tasks.state.model_history import Model, newest_sequence, record_transition, state_of, states_moved_since
from mlops_tasks.state.model_index import newest_tag, tags_since
from mlops_tasks.states import ModelState

log = logging.getLogger(__name__)

STATE_TAG: Final = "lifecycle_state"
"""Tag of a version: its state."""
SHOWN_TAG: Final = "history_shown"
"""Tag of the experiment of trainings: how much of the history, and of people's tags, the versions' tags show."""
_SHOWN = re.compile("([0-9]+) ([0-9]+)")
_NOTHING = (0, 0)
LEASE = "history_shown"
WAIT_S = 10.0
"""How long to wait for another process that sets the tags."""


class ModelLifecycleManager:
    """Moves models between states, and shows the states in MLflow, for those who look there.

    The history in the state database is what counts (`state/model_history.py`). Deployments, rollouts, the gate and
    approvals write it themselves, in the same transaction as their own records. MLflow's tags follow the history, and
    its alias `champion` follows the record of deployments. If a process is killed in between, the next one that calls
    `show_history` sets the missing tags; nothing is ever read from them.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def state(self, version: int) -> ModelState:
        """The state of a version.

        Raises
        ------
        RegistryError
            There is no such version.
        """
        return state_of(self.settings, self._model(version))

    def validate(self, training_key: str, reason: str) -> None:
        """Record that a training is evaluated and logged; harmless if that is known."""
        model = Model(training_key, None)
        if state_of(self.settings, model) == ModelState.TRAINED:
            record_transition(self.settings, model, ModelState.VALIDATED, reason)

    def challenge(self, training_key: str, run_id: str) -> int:
        """Register the model of a training and let the alias `challenger` name it; returns the version."""
        self.validate(training_key, f"evaluated and logged as MLflow's run {run_id}")
        version = register(self.settings, training_key, run_id)
        model = Model(training_key, version)
        if state_of(self.settings, model) == ModelState.VALIDATED:
            record_transition(self.settings, model, ModelState.CHALLENGER, f"registered as version {version}")
        if get_alias_version(self.settings, CHALLENGER) != version:
            set_alias(self.settings, CHALLENGER, version)
        self.show_history()
        return version

    def restore(self, champion: int | None) -> None:
        """Put the alias `champion` back to a version, or remove it.

        Raises
        ------
        RegistryError
            There is no such version.
        """
        if champion is None:
            delete_alias(self.settings, CHAMPION)
        elif get_alias_version(self.settings, CHAMPION) != champion:
            set_alias(self.settings, CHAMPION, champion)

    @registry_errors
    def show_history(self) -> None:
        """Set the tags of all versions that have moved, or were tagged by a person, since the last time.

        Versions that were deleted are left out. One process at a time does so. Killed at any point, the next one sets
        them again.

        Raises
        ------
        RegistryError
            MLflow does not answer, or accepts no changes.
        """
        newest = self._newest()
        if newest in (_NOTHING, self._shown()):
            return
        with awaited_lease(self.settings, LEASE, WAIT_S) as taken:
            if not taken:
                return
            newest, (transition, tag) = self._newest(), self._shown()
            changed = tags_since(self.settings, tag)
            for version, state in states_moved_since(self.settings, transition).items():
                changed.setdefault(version, {})[STATE_TAG] = state.value
            for version, tags in changed.items():
                if find_tags(self.settings, version) is not None:
                    set_tags(self.settings, version, tags)
            said = " ".join(map(str, newest))
            connect(self.settings).set_experiment_tag(experiment_id(self.settings), SHOWN_TAG, said)

    def _newest(self) -> tuple[int, int]:
        """Numbers of the newest transition, and of the newest tag that a person has given."""
        return newest_sequence(self.settings), newest_tag(self.settings)

    def _shown(self) -> tuple[int, int]:
        """The same of those that MLflow shows. Reading a registered model would load all its versions."""
        experiment = connect(self.settings).get_experiment_by_name(EXPERIMENT)
        said = _SHOWN.fullmatch("" if experiment is None else experiment.tags.get(SHOWN_TAG, ""))
        return _NOTHING if said is None else (int(said[1]), int(said[2]))

    def _model(self, version: int) -> Model:
        return Model(get_tags(self.settings, version).get("training_key", ""), version)


def try_to_show_history(settings: Settings) -> None:
    """`show_history`; what fails is logged, since the tags are only for people who read MLflow."""
    try:
        ModelLifecycleManager(settings).show_history()
    except Exception as error:
        log.warning("the tags in MLflow do not show the newest states yet: %s: %s", type(error).__name__, error)
