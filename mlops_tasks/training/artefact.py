"""A trained model as plain files: no pickle, every byte under a digest.

model.json        manifest: what the model is, what it was trained on, the SHA-256 of every other file
processors.json   what is done to features before the model sees them
and the files of the model's family, see `model_zoo/`
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mlops_tasks.columns import SCORE
from mlops_tasks.errors import DigestMismatchError, TrainingError
from mlops_tasks.files import digest_of, digest_of_file, read_json, write_json
from mlops_tasks.training.model_zoo.family import FAMILIES, Predictor, find_family
from mlops_tasks.training.processors import FittedProcessors

log = logging.getLogger(__name__)

MANIFEST = "model.json"
PROCESSORS = "processors.json"


@dataclass(frozen=True)
class ModelArtefact:
    """A verified artefact, ready to score."""

    folder: Path
    manifest: Mapping[str, Any]
    processors: FittedProcessors
    predictor: Predictor

    @classmethod
    def load(cls, folder: Path, threads: int = 1) -> "ModelArtefact":
        """Read an artefact whose files are what its manifest says.

        Raises
        ------
        TrainingError
            The folder holds no manifest, or a family that is not known.
        DigestMismatchError
            A file is missing or its SHA-256 differs from the manifest's.
        """
        if not (folder / MANIFEST).is_file():
            raise TrainingError(f"{folder}: no {MANIFEST}; this is not a model artefact")
        manifest = read_json(folder / MANIFEST)
        for name, expected in manifest["files"].items():
            path = folder / name
            if not path.is_file() or digest_of_file(path) != expected:
                raise DigestMismatchError(f"{path}: content is not what {MANIFEST} recorded; restore it or train again")
        if manifest["family"] not in FAMILIES:
            raise TrainingError(f"{folder}: unknown family {manifest['family']!r}; known: {', '.join(FAMILIES)}")
        processors = FittedProcessors.from_json(read_json(folder / PROCESSORS))
        return cls(folder, manifest, processors, find_family(manifest["family"]).load(folder, manifest, threads))

    @property
    def feature_names(self) -> list[str]:
        """Columns that `predict` needs, in the model's order."""
        return list(self.manifest["feature_names"])

    def predict(self, features: pd.DataFrame) -> pd.Series:
        """Score rows of features.

        Parameters
        ----------
        features
            Shape (n, at least the model's features), any index; other columns are ignored. NaN is a value: the
            processors and the model decide what it means.

        Returns
        -------
        Series `score`, float64, index of `features`. A row's score does not depend on the other rows.

        Raises
        ------
        TrainingError
            A column is missing or is not numeric.
        """
        missing = [name for name in self.feature_names if name not in features.columns]
        if missing:
            raise TrainingError(
                f"{len(missing)} feature columns are missing, first {missing[:5]}; give all of the model's features"
            )
        try:
            matrix = features[self.feature_names].to_numpy(dtype=np.float32)
        except (TypeError, ValueError) as error:
            raise TrainingError(f"features are not numeric: {error}; give numbers or NaN") from error
        scores = self.predictor.predict(self.processors.transform(matrix)) if len(matrix) else np.empty(0)
        return pd.Series(scores, index=features.index, name=SCORE, dtype=np.float64)


def write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Write model.json with the digests of all files that are in the folder."""
    files = {p.name: digest_of_file(p) for p in sorted(folder.iterdir()) if p.is_file() and p.name != MANIFEST}
    write_json(folder / MANIFEST, {**manifest, "files": files})


def artefact_digest(folder: Path) -> str:
    """SHA-256 (64 hex) over the names and digests of all files of an artefact folder."""
    return digest_of({p.name: digest_of_file(p) for p in sorted(folder.iterdir()) if p.is_file()}, length=64)
