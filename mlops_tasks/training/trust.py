"""What a process is willing to load: artefacts by whom, and of which families those that run code."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlops_tasks.config import ModelSettings, Settings
from mlops_tasks.signing import VerifyingKeys
from mlops_tasks.training.isolation import IsolatedPredictor, Isolation
from mlops_tasks.training.model_zoo.catalogue import check_unpickling
from mlops_tasks.training.model_zoo.family import Predictor, find_family


@dataclass(frozen=True)
class Trust:
    """Accepted keys, and what is done with models that bring code along."""

    keys: VerifyingKeys
    models: ModelSettings
    home: Path
    """What the process of such a model sees nothing of, but the artefact."""

    @classmethod
    def of(cls, settings: Settings) -> "Trust":
        """As a home's settings say.

        Raises
        ------
        ConfigError
            The home has no verifying key.
        """
        return cls(VerifyingKeys.read(settings), settings.models, settings.home)

    def predictor(self, folder: Path, manifest: Mapping[str, Any], threads: int) -> Predictor:
        """What scores from a verified artefact.

        Raises
        ------
        ConfigError
            Its files run code, and its family may not.
        IsolationError
            They may, and its process cannot be closed off.
        """
        family = find_family(manifest["family"])
        if not family.runs_code(folder):
            return family.load(folder, manifest, threads)
        check_unpickling(self.models, manifest["family"], str(folder))
        return IsolatedPredictor(Isolation(folder, manifest, threads, self.models.isolated_memory_mb, self.home))
