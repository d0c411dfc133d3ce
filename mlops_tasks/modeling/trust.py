"""What a process is willing to load: whose artefacts, and which families' artefacts that run code."""

from dataclasses import dataclass
from pathlib import Path

from mlops_tasks.config import ModelSettings, Settings
from mlops_tasks.errors import ConfigError
from mlops_tasks.modeling.identity import own_source
from mlops_tasks.modeling.manifest import ArtefactManifest
from mlops_tasks.modeling.model_zoo.family import Predictor, find_family
from mlops_tasks.modeling.model_zoo.zoo import check_unpickling
from mlops_tasks.modeling.own_code import Confinement, runs_foreign_code
from mlops_tasks.signing import VerifyingKeys


@dataclass(frozen=True)
class Trust:
    """Accepted keys, and the treatment of models that bring their own code."""

    keys: VerifyingKeys
    models: ModelSettings
    home: Path
    """The process of such a model sees nothing of it but the artefact."""

    @classmethod
    def of(cls, settings: Settings) -> "Trust":
        """According to a home's settings.

        Raises
        ------
        ConfigError
            The home has no verifying key.
        """
        return cls(VerifyingKeys.read(settings), settings.models, settings.home)

    def predictor(self, folder: Path, manifest: ArtefactManifest, threads: int) -> Predictor:
        """The predictor of a verified artefact.

        A model of a user's own class, or whose files run code, gets a process that sees nothing but the artefact.

        Raises
        ------
        ConfigError
            Its files run code, and the settings do not allow this to its family; or its own class was edited since it
            was trained.
        IsolationError
            It needs a process of its own, which cannot be closed off.
        """
        if find_family(manifest["family"]).runs_code(folder):
            check_unpickling(self.models, manifest["family"], str(folder))
        if runs_foreign_code(folder, manifest):
            _check_source(folder, manifest)
        return Confinement(self.home, self.models.isolated_memory_mb).predictor(folder, manifest, threads)


def _check_source(folder: Path, manifest: ArtefactManifest) -> None:
    """Check that a user's own class is still the one that was trained."""
    trained = manifest.get("own_source")
    if trained is not None and own_source(manifest["class_path"]) != trained:
        raise ConfigError(
            f"{folder}: the code of {manifest['class_path']} is not what the model was trained with, so it would be "
            "another model: restore the code, or train again"
        )
