"""A training's folder, `<home>/training/<training_key>/`: which files it holds and what they say.

    plan.json            what was trained, and on what (`TrainingManifest`)
    model/               the artefact (`modeling/artefact.py`)
    predictions.parquet  datetime, instrument, segment, score, label of valid and test
    curves.json          metric -> segment -> value of each iteration
    importance.json      feature -> importance (of trees: total gain)
    columns.json         columns from which nothing can be learned
    metrics.json         how the training went, and what it took (`TrainingMetrics`)
    certificate.json     what certifies the model (`ModelCertificate`); written after the training
    evaluation/          evaluation.json (`EvaluationRecord`), daily.parquet, plots/*.png; written after the training

No other module names these files. Everything but the certificate and the evaluation is written once and never again.
Several machines may share them (`shared_store.py`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlops_tasks.columns import DATETIME, INSTRUMENT, LABEL, SCORE, SEGMENT
from mlops_tasks.config import Settings
from mlops_tasks.errors import StoreError
from mlops_tasks.files import read_json, write_json
from mlops_tasks.shared_store import Kind, fetch, publish, pull, refresh

if TYPE_CHECKING:
    import pandas as pd

Days = tuple[str, str]
"""First and last day, ISO dates."""
Curves = dict[str, dict[str, list[float | None]]]
"""metric -> segment -> value of each iteration; None where it was not computed or is undefined."""
Metrics = dict[str, float | None]
"""Metric to value; None where it is undefined."""

PREDICTION_COLUMNS = (DATETIME, INSTRUMENT, SEGMENT, SCORE, LABEL)

_TRAIN, _EVALUATE = "training.train", "evaluation.evaluate"
"""The stages that write the files, for messages about missing ones."""


@dataclass(frozen=True, kw_only=True)
class TrainingManifest:
    """plan.json: all that decides what a training learns."""

    training_key: str = ""
    """Empty for a peer's training, which is no model of ours."""
    model: str
    data_version: str
    last_date: str
    """Newest day of the vintage, ISO date."""
    feature_set: str
    feature_version: str
    horizon: int
    segments: Mapping[str, Days]
    seed: int
    model_config: Mapping[str, Any] = field(default_factory=dict)
    """A `TrainingConfig` as JSON; empty in the folders of the first version."""
    more: Mapping[str, Any] = field(default_factory=dict)
    """Whatever else the run's plan and the engine recorded, under the names that plan.json has for it."""

    def to_json(self) -> dict[str, Any]:
        """The content of plan.json."""
        known = {name: getattr(self, name) for name in _KNOWN}
        for absent in ("training_key", "model_config"):
            if not known[absent]:
                del known[absent]
        return {**self.more, **known, "segments": {name: list(days) for name, days in self.segments.items()}}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "TrainingManifest":
        """The inverse of `to_json`.

        Raises
        ------
        KeyError
            A field is missing.
        """
        required = ("model", "data_version", "last_date", "feature_set", "feature_version", "horizon", "seed")
        return cls(
            **{name: content[name] for name in required},
            training_key=content.get("training_key", ""),
            segments={name: (first, last) for name, (first, last) in content["segments"].items()},
            model_config=content.get("model_config", {}),
            more={name: value for name, value in content.items() if name not in _KNOWN},
        )


_KNOWN = tuple(each.name for each in fields(TrainingManifest) if each.name != "more")


@dataclass(frozen=True)
class FitRecord:
    """The verdict on a training that has ended."""

    verdict: str
    """A `FitVerdict`."""
    explanation: str
    kept_iteration: int = 0
    kept_gap: float | None = None
    """Lead of train over validation at the iteration that is kept; None: not known."""


@dataclass(frozen=True)
class TrainingMetrics:
    """metrics.json: how a training went, and what it took."""

    numbers: Mapping[str, float | None]
    """train_seconds, best_iteration, train_rows, valid_rows, peak_memory_mb, ...; earlier versions wrote fewer."""
    fit: FitRecord | None = None
    """None in the folders of earlier versions."""
    run_id: str | None = None
    """The training run whose events tell how it went; None in the folders of earlier versions."""

    def to_json(self) -> dict[str, Any]:
        """The content of metrics.json."""
        told = {"run_id": self.run_id, "fit": None if self.fit is None else dict(vars(self.fit))}
        return {**self.numbers, **{name: value for name, value in told.items() if value is not None}}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "TrainingMetrics":
        """The inverse of `to_json`."""
        numbers = {name: value for name, value in content.items() if name not in ("fit", "run_id")}
        fit = content.get("fit")
        return cls(numbers, FitRecord(**fit) if fit else None, content.get("run_id"))


@dataclass(frozen=True)
class ModelCertificate:
    """certificate.json: under which certificate a model was trained, and what was checked of its scores."""

    key: str
    """Of the leak certificate of the learning data."""
    checks: Sequence[Mapping[str, Any]] = ()
    """Each a check as JSON (`training/leaks/checks.py`)."""
    artefact: str | None = None
    """Digest of the model that was checked."""


@dataclass(frozen=True)
class EvaluationRecord:
    """evaluation.json: what was measured of a training."""

    training_key: str
    model: str
    data_version: str
    identity: str
    """Digest of everything that the figures follow from (`evaluation/identity.py`)."""
    metrics: Metrics
    portfolio: Mapping[str, int]
    """`topk` and `n_drop` as they were held."""
    plots: Sequence[str]
    """File names."""


@dataclass(frozen=True)
class EvaluationFolder:
    """The folder of an evaluation, finished or in the making."""

    path: Path

    @property
    def plots(self) -> Path:
        """The folder of the plots."""
        return self.path / "plots"

    def write(self, record: EvaluationRecord, daily: "pd.DataFrame") -> None:
        """Write evaluation.json, and the daily series (index datetime) as daily.parquet."""
        daily.reset_index().to_parquet(self.path / "daily.parquet", index=False)
        write_json(self.path / "evaluation.json", {**vars(record), "plots": list(record.plots)})

    def find(self) -> EvaluationRecord | None:
        """The record; None before the training is evaluated."""
        path = self.path / "evaluation.json"
        if not path.is_file():
            return None
        content = read_json(path)
        names = ("training_key", "model", "data_version", "identity")
        return EvaluationRecord(
            **{name: content.get(name, "") for name in names},
            metrics=content["metrics"],
            portfolio=content.get("portfolio", {}),
            plots=content.get("plots", []),
        )

    def read(self) -> EvaluationRecord:
        """The record.

        Raises
        ------
        StoreError
            The training is not evaluated.
        """
        found = self.find()
        if found is None:
            raise _missing(self.path / "evaluation.json", _EVALUATE)
        return found

    def find_daily(self) -> "pd.DataFrame | None":
        """The daily series, by datetime; None before the training is evaluated."""
        import pandas as pd

        path = self.path / "daily.parquet"
        return pd.read_parquet(path).set_index(DATETIME) if path.is_file() else None

    def plot_files(self) -> list[Path]:
        """The plots that are there, by name."""
        return sorted(self.plots.glob("*.png"))


@dataclass(frozen=True)
class TrainingFolder:
    """A training's folder, finished or in the making."""

    path: Path

    @classmethod
    def of(cls, settings: Settings, training_key: str) -> "TrainingFolder":
        """Where a training is, or would be; StoreError where the key is none.

        Of a training in the shared store it is here then, with the certificate and the evaluation that it has by now.
        """
        folder = cls(settings.training_folder(training_key))
        if folder.exists or fetch(settings, Kind.TRAININGS, training_key, folder.path):
            pull(settings, folder.certificate)
            refresh(settings, Kind.EVALUATIONS, training_key, folder.evaluation.path)
        return folder

    def share(self, settings: Settings) -> None:
        """Publish a finished training to the shared store.

        Where another machine was first, its files take the place of these: what is registered, certified and evaluated
        anywhere is then of the same bytes.
        """
        own = [path for path in self.path.rglob("*") if path.is_file() and path != self.certificate]
        names = [path.relative_to(self.path).as_posix() for path in own if self.evaluation.path not in path.parents]
        publish(settings, Kind.TRAININGS, self.key, self.path, names)
        refresh(settings, Kind.TRAININGS, self.key, self.path)

    def share_evaluation(self, settings: Settings) -> None:
        """Publish its evaluation to the shared store, in place of an earlier one."""
        publish(settings, Kind.EVALUATIONS, self.key, self.evaluation.path)

    @property
    def key(self) -> str:
        """The training key, which names the folder."""
        return self.path.name

    @property
    def exists(self) -> bool:
        """Whether the training is complete: its folder appears in one step."""
        return self.path.is_dir()

    @property
    def model(self) -> Path:
        """The folder of the artefact."""
        return self.path / "model"

    @property
    def evaluation(self) -> EvaluationFolder:
        """Where its evaluation is, or would be."""
        return EvaluationFolder(self.path / "evaluation")

    @property
    def columns(self) -> Path:
        """columns.json; the folders of earlier versions have none."""
        return self.path / "columns.json"

    @property
    def certificate(self) -> Path:
        """certificate.json, whether it is there or not."""
        return self.path / "certificate.json"

    @property
    def predictions(self) -> Path:
        """predictions.parquet.

        Raises
        ------
        StoreError
            It is missing.
        """
        return self._present("predictions.parquet")

    def manifest(self) -> TrainingManifest:
        """What was trained.

        Raises
        ------
        StoreError
            There is no such training.
        """
        found = self.find_manifest()
        if found is None:
            raise StoreError(f"{self.path}: no such training; run the stage {_TRAIN} first")
        return found

    def find_manifest(self) -> TrainingManifest | None:
        """The same; None where there is no such training."""
        path = self.path / "plan.json"
        return TrainingManifest.from_json(read_json(path)) if path.is_file() else None

    def metrics(self) -> TrainingMetrics:
        """How the training went; StoreError where the file is missing."""
        return TrainingMetrics.from_json(read_json(self._present("metrics.json")))

    def find_metrics(self) -> TrainingMetrics | None:
        """The same; None where the file is missing."""
        return self.metrics() if (self.path / "metrics.json").is_file() else None

    def curves(self) -> Curves:
        """Of a model without iterations, or where the training recorded none: empty."""
        return self._optional("curves.json")

    def importance(self) -> dict[str, float]:
        """By feature; empty where the training recorded none."""
        return self._optional("importance.json")

    def find_certificate(self) -> ModelCertificate | None:
        """What certifies the model; None where nothing does."""
        if not self.certificate.is_file():
            return None
        content = read_json(self.certificate)
        return ModelCertificate(content["key"], tuple(content.get("checks", ())), content.get("artefact"))

    def segment(self, segment: str) -> "pd.DataFrame":
        """Scores and labels of segment valid or test.

        Returns
        -------
        Columns score and label, MultiIndex (datetime, instrument), sorted; no rows where the segment has none.

        Raises
        ------
        StoreError
            The predictions are missing.
        """
        import pandas as pd

        frame = pd.read_parquet(self.predictions, filters=[(SEGMENT, "==", segment)])
        return frame.set_index([DATETIME, INSTRUMENT])[[SCORE, LABEL]].sort_index()

    def segments(self) -> "dict[str, pd.DataFrame]":
        """Segment to its scores and labels, as `segment` gives them.

        Raises
        ------
        StoreError
            The predictions are missing, lack a column, or have no row of the segment test.
        """
        import pandas as pd

        path = self.predictions
        frame = pd.read_parquet(path)
        if missing := [name for name in PREDICTION_COLUMNS if name not in frame.columns]:
            raise StoreError(f"{path}: columns {missing} are missing; run the stage {_TRAIN} again")
        indexed = frame.set_index([DATETIME, INSTRUMENT])
        found = {str(name): rows[[SCORE, LABEL]].sort_index() for name, rows in indexed.groupby(SEGMENT)}
        if "test" not in found:
            raise StoreError(f"{path}: no rows of the segment test; choose dates that the vintage has and train again")
        return found

    def write_predictions(self, predictions: "pd.DataFrame") -> None:
        """Write predictions.parquet, with the columns of `PREDICTION_COLUMNS`."""
        predictions.to_parquet(self.path / "predictions.parquet", index=False)

    def write_manifest(self, manifest: TrainingManifest) -> None:
        """Write plan.json."""
        write_json(self.path / "plan.json", manifest.to_json())

    def write_metrics(self, metrics: TrainingMetrics) -> None:
        """Write metrics.json."""
        write_json(self.path / "metrics.json", metrics.to_json())

    def write_curves(self, curves: Curves) -> None:
        """Write curves.json."""
        write_json(self.path / "curves.json", curves)

    def write_importance(self, importance: Mapping[str, float]) -> None:
        """Write importance.json."""
        write_json(self.path / "importance.json", dict(importance))

    def write_columns(self, columns: Mapping[str, Any]) -> None:
        """Write columns.json."""
        write_json(self.columns, dict(columns))

    def write_certificate(self, certificate: ModelCertificate) -> None:
        """Write certificate.json."""
        write_json(self.certificate, {**vars(certificate), "checks": list(certificate.checks)})

    def _present(self, name: str) -> Path:
        path = self.path / name
        if not path.is_file():
            raise _missing(path, _TRAIN)
        return path

    def _optional(self, name: str) -> Any:
        path = self.path / name
        return read_json(path) if path.is_file() else {}


def _missing(path: Path, stage: str) -> StoreError:
    return StoreError(f"{path} is missing; run the stage {stage} for this training first")
