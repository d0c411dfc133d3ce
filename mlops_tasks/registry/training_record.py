"""The contents of a finished training's folder, as the registry needs them."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from mlops_tasks.columns import SEGMENTS
from mlops_tasks.config import Settings
from mlops_tasks.errors import RegistryError, StoreError, TrainingError
from mlops_tasks.files import digest_of
from mlops_tasks.modeling.environment import CodeState
from mlops_tasks.modeling.manifest import ArtefactManifest
from mlops_tasks.modeling.seal import artefact_digest, unverified_manifest
from mlops_tasks.training.certificate import Certificate, certificate_of
from mlops_tasks.training_folder import Curves, FitRecord, TrainingFolder, TrainingManifest

TAG_LENGTH = 5000
"""Characters of a tag that MLflow keeps."""
CERTIFICATE_KEY_TAG, UNPROVEN_TAG = "leak_certificate_key", "leak_unproven"
CODE_TAG, PYTHON_TAG, LOCK_TAG = "code_version", "python_version", "lock"


@dataclass(frozen=True)
class TrainingRecord:
    """The contents of a training folder."""

    folder: TrainingFolder
    trained: TrainingManifest
    manifest: ArtefactManifest
    evaluation: Mapping[str, float]
    """Finite metrics of the evaluation."""
    training_metrics: Mapping[str, float]
    fit: FitRecord | None
    """How the training went; None if that was not recorded."""
    curves: Curves
    certificate: Certificate | None
    """The leak certificate that it was trained under."""
    run_id: str | None
    """The training run whose events show how it went; None if that was not recorded."""

    @classmethod
    def load(cls, settings: Settings, training_key: str) -> "TrainingRecord":
        """Read `<home>/training/<training_key>/`.

        Raises
        ------
        RegistryError
            The training or its evaluation is missing; the error names the file.
        """
        folder = TrainingFolder.of(settings, training_key)
        try:
            metrics = folder.metrics()
            return cls(
                folder=folder,
                trained=folder.manifest(),
                manifest=unverified_manifest(folder.model),
                evaluation=finite(folder.evaluation.read().metrics),
                training_metrics=finite({**metrics.numbers, "fit_gap": metrics.fit and metrics.fit.kept_gap}),
                fit=metrics.fit,
                curves=folder.curves(),
                certificate=certificate_of(settings, training_key),
                run_id=metrics.run_id,
            )
        except (StoreError, TrainingError) as error:
            raise RegistryError(str(error)) from error

    @property
    def key(self) -> str:
        """The training key."""
        return self.folder.key

    @property
    def model(self) -> str:
        """Name of the model in the zoo: lightgbm, linear."""
        return self.trained.model

    @property
    def name(self) -> str:
        """The model and the newest date that it may have seen; the name of MLflow's run adds a number to it."""
        return f"{self.model} {self.trained.last_date}"

    @property
    def artefact(self) -> Path:
        """The artefact folder."""
        return self.folder.model

    @property
    def columns_file(self) -> Path:
        """The file of columns from which nothing can be learned (`modeling/column_health.py`)."""
        return self.folder.columns

    @cached_property
    def digest(self) -> str:
        """Digest of the artefact's bytes."""
        return artefact_digest(self.artefact)

    @property
    def evaluation_digest(self) -> str:
        """Digest of the evaluation's metrics."""
        return digest_of(dict(self.evaluation))

    @property
    def identity(self) -> dict[str, str]:
        """The tags that lead from a run or a version back to its data."""
        return {
            "training_key": self.key,
            "model": self.model,
            "feature_version": str(self.manifest["feature_version"]),
            "data_version": str(self.manifest["data_version"]),
        }

    @property
    def made_by(self) -> dict[str, str]:
        """Tags of a run and a version: the code, the lock and the interpreter; those that were recorded."""
        code, environment = self.trained.more.get("code"), self.manifest.get("environment")
        tags = {} if code is None else {CODE_TAG: CodeState(**code).text}
        if environment is not None:
            tags |= {PYTHON_TAG: environment["python"], LOCK_TAG: environment["lock"] or "none"}
        return tags

    @property
    def certificate_tags(self) -> dict[str, str]:
        """The leak certificate's verdict and key, and what it cannot prove; empty if there is none."""
        if self.certificate is None:
            return {}
        verdict = "passed" if self.certificate.passed else "failed"
        unproven = "; ".join(self.certificate.unproven)[:TAG_LENGTH] or "nothing"
        return {"leak_certificate": verdict, CERTIFICATE_KEY_TAG: self.certificate.key, UNPROVEN_TAG: unproven}

    @property
    def description(self) -> str:
        """The text at the top of the registry's page: the run's name, and what the leak certificate cannot prove."""
        unproven = () if self.certificate is None else self.certificate.unproven
        return "\n\n".join([self.name, *(f"Warning: not proven: {each}." for each in unproven)])

    @property
    def fit_tags(self) -> dict[str, str]:
        """The verdict on the training, in a word and in full; empty if none was recorded."""
        if self.fit is None:
            return {}
        return {"fit_verdict": self.fit.verdict, "fit_explanation": self.fit.explanation[:TAG_LENGTH]}

    @property
    def parameters(self) -> dict[str, str]:
        """Run parameters: the model's configuration flattened, and what else defines the training."""
        segments = {f"segment.{name}": " to ".join(map(str, self.manifest["segments"][name])) for name in SEGMENTS}
        fixed = {
            name: str(value)
            for name, value in self.manifest.items()
            if name in ("feature_set", "horizon", "label", "seed")
        }
        config = {f"model.{name}": str(value) for name, value in flatten(self.trained.model_config)}
        return {"model": self.model, **fixed, **segments, **config}

    @property
    def plots(self) -> list[Path]:
        """The evaluation's plots."""
        return self.folder.evaluation.plot_files()


def finite(metrics: Mapping[str, object]) -> dict[str, float]:
    """The numeric, finite entries of `metrics`; what could not be computed (None) is left out."""
    numbers = {name: value for name, value in metrics.items() if isinstance(value, int | float)}
    return {name: float(value) for name, value in sorted(numbers.items()) if math.isfinite(value)}


def flatten(content: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested mappings as (dotted name, value) pairs, sorted by name."""
    for name, value in sorted(content.items()):
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
