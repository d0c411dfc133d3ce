"""ModelLifecycleManager: which state a registered version is in, and the moves between states."""

import logging
from enum import StrEnum
from typing import Final

from mlops_tasks.config import Settings
from mlops_tasks.errors import RegistryError
from mlops_tasks.registry.client import CHALLENGER, CHAMPION, MODEL_NAME
from mlops_tasks.registry.models import (
    delete_alias,
    get_alias_version,
    get_tags,
    register,
    set_alias,
    set_tags,
)

log = logging.getLogger(__name__)

STATE_TAG: Final = "lifecycle_state"


class LifecycleState(StrEnum):
    """States of a version."""

    CHALLENGER = "challenger"
    CHAMPION = "champion"
    REJECTED = "rejected"
    ARCHIVED = "archived"


class ModelLifecycleManager:
    """Moves versions between states in MLflow, for people who look there.

    Tags follow the alias `champion`, and the alias follows the record of deployments: the state database has what was
    promoted, deployed and withdrawn.

    Every move can be repeated and ends in the same state, even after a kill halfway.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def state(self, version: int) -> LifecycleState:
        """The state of a version."""
        if get_alias_version(self.settings, CHAMPION) == version:
            return LifecycleState.CHAMPION
        recorded = get_tags(self.settings, version).get(STATE_TAG, LifecycleState.CHALLENGER)
        if recorded == LifecycleState.CHAMPION:  # the alias moved before the tag could follow
            return LifecycleState.ARCHIVED
        return LifecycleState(recorded)

    def challenge(self, training_key: str, run_id: str) -> int:
        """Register the model of a training and set the alias `challenger` to it; returns the version."""
        version = register(self.settings, training_key, run_id)
        if STATE_TAG not in get_tags(self.settings, version):
            set_tags(self.settings, version, {STATE_TAG: LifecycleState.CHALLENGER})
        if get_alias_version(self.settings, CHALLENGER) != version:
            set_alias(self.settings, CHALLENGER, version)
        return version

    def promote(self, version: int) -> int | None:
        """Make a version the champion; returns the previous champion, None if there was none.

        Raises
        ------
        RegistryError
            There is no such version.
        """
        get_tags(self.settings, version)  # raises if there is no such version
        champion = get_alias_version(self.settings, CHAMPION)
        if champion != version:
            set_alias(self.settings, CHAMPION, version)
        set_tags(self.settings, version, {STATE_TAG: LifecycleState.CHAMPION})
        if champion not in (None, version):
            set_tags(self.settings, champion, {STATE_TAG: LifecycleState.ARCHIVED})
        return champion

    def restore(self, champion: int | None) -> None:
        """Set the alias back to a version, or remove it; the tags of the version that it leaves stay.

        Raises
        ------
        RegistryError
            There is no such version.
        """
        if champion is None:
            delete_alias(self.settings, CHAMPION)
            return
        if get_alias_version(self.settings, CHAMPION) != champion:
            set_alias(self.settings, CHAMPION, champion)
        set_tags(self.settings, champion, {STATE_TAG: LifecycleState.CHAMPION})

    def reject(self, version: int) -> None:
        """Mark a challenger as rejected.

        Raises
        ------
        RegistryError
            The version is the champion.
        """
        self._leave(version, LifecycleState.REJECTED)

    def archive(self, version: int) -> None:
        """Retire a version. Errors as for `reject`."""
        self._leave(version, LifecycleState.ARCHIVED)

    def _leave(self, version: int, state: LifecycleState) -> None:
        if get_alias_version(self.settings, CHAMPION) == version:
            raise RegistryError(f"{MODEL_NAME} version {version} is the champion; promote another version first")
        set_tags(self.settings, version, {STATE_TAG: state})
