"""A trained model as plain files, every byte of them signed.

model.json, signature.json   see `seal.py`
processors.json              how features are processed before the model sees them
and the files of the model's family, see `model_zoo/`
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from mlops_tasks.columns import DATETIME, INSTRUMENT, SCORE
from mlops_tasks.errors import TrainingError, first_few
from mlops_tasks.files import read_json
from mlops_tasks.modeling.manifest import ArtefactManifest
from mlops_tasks.modeling.model_zoo.families import FAMILIES
from mlops_tasks.modeling.model_zoo.family import Predictor
from mlops_tasks.modeling.own_code import Confinement
from mlops_tasks.modeling.processors import FittedProcessors
from mlops_tasks.modeling.scoring import ScoringRows
from mlops_tasks.modeling.seal import unverified_manifest, verified_manifest
from mlops_tasks.modeling.trust import Trust
from mlops_tasks.modeling.windows import FloatArray, IntArray, PanelWindows

log = logging.getLogger(__name__)

PROCESSORS = "processors.json"

WINDOW_VALUES = 1 << 22
"""Window values that are held at once: 16 MiB of float32."""


@dataclass(frozen=True)
class ModelArtefact:
    """A verified artefact, ready to score."""

    folder: Path
    manifest: ArtefactManifest
    processors: FittedProcessors
    predictor: Predictor

    @classmethod
    def load(cls, folder: Path, trust: Trust, threads: int = 1) -> "ModelArtefact":
        """Read an artefact that is signed and complete.

        A model whose files run code is loaded in a process of its own (`isolation.py`), if the settings allow its
        family to do that.

        Raises
        ------
        TrainingError
            The folder holds no manifest, or its family is unknown.
        SignatureError, DigestMismatchError
            As `verified_manifest`.
        ConfigError, IsolationError
            Its files run code, and `models.unpickling_families` does not name its family, or this machine cannot close
            off the process.
        """
        manifest = verified_manifest(folder, trust.keys)
        if manifest["family"] not in FAMILIES:
            raise TrainingError(f"{folder}: unknown family {manifest['family']!r}; known: {', '.join(FAMILIES)}")
        processors = FittedProcessors.from_json(read_json(folder / PROCESSORS))
        return cls(folder, manifest, processors, trust.predictor(folder, manifest, threads))

    @classmethod
    def unsealed(cls, folder: Path, confinement: Confinement, threads: int = 1) -> "ModelArtefact":
        """Read an artefact that this process has just made for itself: it is not signed, and nothing is verified."""
        manifest = unverified_manifest(folder)
        processors = FittedProcessors.from_json(read_json(folder / PROCESSORS))
        return cls(folder, manifest, processors, confinement.predictor(folder, manifest, threads))

    @property
    def feature_names(self) -> list[str]:
        """Columns that `predict` needs, in the model's order."""
        return list(self.manifest["feature_names"])

    @property
    def window(self) -> int:
        """Trading days that the model sees at once; 1: the row's own."""
        return int(self.manifest.get("window", 1))

    @property
    def is_quick(self) -> bool:
        """Whether a few rows are scored in less than a millisecond, by this project's own code in this process."""
        return bool(getattr(self.predictor, "is_quick", False))

    def score(self, rows: ScoringRows) -> pd.Series:
        """Score the wanted rows; a window model looks back on the rows before them.

        Returns
        -------
        Series `score`, float64, indexed by the wanted rows. A score depends on the row's own instrument and its last
        `window` trading days only.

        Raises
        ------
        TrainingError
            A column is missing or is not numeric, or there are fewer days before a row than its window needs.
        """
        if self.window == 1:
            return self.predict(rows.scored_features())
        parts = [self.predictor.predict(windows) for windows in self.inputs(rows)]
        return _series(np.concatenate(parts) if parts else np.empty(0), rows.index)

    def inputs(self, rows: ScoringRows) -> Iterator[FloatArray]:
        """What the model itself sees of the wanted rows, some at a time, in order: processed features, float32.

        Of shape (n, features), or (n, window, features) where the window is not 1.

        Raises
        ------
        TrainingError
            As `score`.
        """
        if self.window == 1:
            yield self.processors.transform(self._matrix(rows.scored_features()))
            return
        day, instrument = rows.codes(self.window)
        matrix = self.processors.transform(self._matrix(rows.features))
        windows = PanelWindows.of(matrix, day, instrument, self.window)
        width = max(1, WINDOW_VALUES // (self.window * len(self.feature_names)))
        for part in _parts(np.flatnonzero(rows.wanted), width):
            yield windows.gather(part)

    def predict(self, features: pd.DataFrame) -> pd.Series:
        """Score rows of features.

        Parameters
        ----------
        features
            Shape (n, at least the model's features); other columns are ignored. NaN is a value: the processors and the
            model decide what it means. Any index; for a window model (datetime, instrument), with successive trading
            days: the first `window` - 1 of them are only looked back on, rows of the later ones are scored.

        Returns
        -------
        Series `score`, float64, index of the scored rows. A row's score does not depend on other rows (for a window
        model: on rows of other instruments).

        Raises
        ------
        TrainingError
            A column is missing or not numeric; a window model is given another index, or too few days.
        """
        if self.window > 1:
            return self.score(self._rows_after_history(features))
        return _series(self.predict_matrix(self._matrix(features)), features.index)

    def predict_matrix(self, matrix: FloatArray) -> FloatArray:
        """Scores, float64, shape (n,), by a model that sees one day; rows are float32, columns as `feature_names`."""
        scores = self.predictor.predict(self.processors.transform(matrix)) if len(matrix) else np.empty(0)
        return np.asarray(scores, np.float64)

    def _rows_after_history(self, features: pd.DataFrame) -> ScoringRows:
        if features.index.names != [DATETIME, INSTRUMENT]:
            raise TrainingError(
                f"the model sees {self.window} trading days at once: give rows with index ({DATETIME}, {INSTRUMENT}), "
                f"including the {self.window - 1} days before the first day to score"
            )
        features = features.sort_index()
        days = features.index.get_level_values(DATETIME)
        calendar = pd.DatetimeIndex(days.unique())
        if len(calendar) < self.window:
            raise TrainingError(
                f"{len(calendar)} trading days are too few: the model sees {self.window} at once; give earlier ones too"
            )
        return ScoringRows(features, np.asarray(days >= calendar[self.window - 1]), calendar, calendar[0])

    def _matrix(self, features: pd.DataFrame) -> FloatArray:
        missing = [name for name in self.feature_names if name not in features.columns]
        if missing:
            raise TrainingError(
                f"{len(missing)} feature columns are missing: {first_few(missing)}; give all of the model's features"
            )
        try:
            found = features if list(features.columns) == self.feature_names else features[self.feature_names]
            return found.to_numpy(dtype=np.float32)
        except (TypeError, ValueError) as error:
            raise TrainingError(f"features are not numeric: {error}; give numbers or NaN") from error


def _parts(places: IntArray, width: int) -> Iterator[IntArray]:
    for begin in range(0, len(places), width):
        yield places[begin : begin + width]


def _series(scores: FloatArray, index: pd.Index) -> pd.Series:
    return pd.Series(scores, index=index, name=SCORE, dtype=np.float64)
