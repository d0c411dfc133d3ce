"""From one score of one instrument on one day back to the raw rows, each step verified, or with why it is not.

score > version and slot > training (DAG run, seeds, configuration, code, lock, study, certificate, gate) > features of
the day > vintage and its raw files > the bars in the look-back window, with their rows in the source.
"""

from dataclasses import asdict, dataclass, replace
from datetime import date
from typing import Any

from mlops_tasks.config import Settings
from mlops_tasks.data.snapshots import checkout_vintage
from mlops_tasks.data.vintages import Vintage
from mlops_tasks.errors import LineageError
from mlops_tasks.modeling.environment import Environment
from mlops_tasks.provenance.bars import TracedBars, find_bars, window_of
from mlops_tasks.provenance.evidence import Evidence, EvidenceBook
from mlops_tasks.provenance.rescored import TracedFeatures, find_features
from mlops_tasks.provenance.score import TracedScore, find_score
from mlops_tasks.provenance.service import TracedService, find_service
from mlops_tasks.registry.lineage import Lineage, LineageTracker
from mlops_tasks.registry.models import LoadedModel, load_version
from mlops_tasks.training_folder import TrainingFolder


@dataclass(frozen=True)
class Trace:
    """The chain behind one score; None and empty: that step could not be taken, and the evidence says why."""

    score: TracedScore
    service: TracedService
    lineage: Lineage | None
    vintage: Vintage | None
    """That the score was made on, which is newer than the one that the model was trained on."""
    features: TracedFeatures | None
    bars: TracedBars | None
    evidence: tuple[Evidence, ...]

    @property
    def verified(self) -> bool:
        """Whether every step was taken, and verified."""
        return all(each.verified for each in self.evidence)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        vintage, features = self.vintage, self.features
        return {
            "verified": self.verified,
            "score": _plain(asdict(self.score)),
            "service": _plain(asdict(self.service)),
            "lineage": None if self.lineage is None else self.lineage.to_json(),
            "vintage": None if vintage is None else {"data_version": vintage.data_version, **_described(vintage)},
            "features": None
            if features is None
            else {
                "feature_version": features.feature_version,
                "feature_set": features.feature_set,
                "definition": features.definition.digest,
                "values": dict(features.values),
            },
            "bars": None if self.bars is None else _plain(asdict(self.bars)),
            "evidence": [asdict(each) for each in self.evidence],
        }


def trace(settings: Settings, instrument: str, day: date, version: int | None = None) -> Trace:
    """Trace a score: of the champion, unless a version is named.

    Raises
    ------
    LineageError
        There is no such score, or its file is not what was published. Whatever else cannot be shown or verified is
        told in the trace's evidence, with the reason and the remedy.
    """
    book = EvidenceBook()
    score = find_score(settings, instrument, day, version, book)
    service = find_service(settings, score, book)
    lineage = _lineage(settings, score.version, book)
    model = _model(settings, score.version, book)
    if lineage is not None and model is not None and lineage.environment is not None:
        _verify_environment(lineage.environment, model, book)
    vintage = _vintage(settings, score, book)
    features, bars = None, None
    if model is not None and vintage is not None:
        with book.verifying("features"):
            features = find_features(settings, score, model, vintage, book)
    if features is not None and model is not None and vintage is not None:
        with book.verifying("bars"):
            artefact = model.artefact
            window = window_of(vintage, features.definition, artefact.feature_names, artefact.window, day)
            bars = find_bars(settings, vintage, instrument, window, book)
            others = (*sorted(features.definition.foreign), *(["*"] if features.definition.market else []))
            bars = replace(bars, also_read=others)
    return Trace(score, service, lineage, vintage, features, bars, tuple(book.entries))


def _lineage(settings: Settings, version: int, book: EvidenceBook) -> Lineage | None:
    """The version's lineage, compared with what lies in the training's folder."""
    with book.verifying("lineage"):
        found = LineageTracker(settings).trace(version)
        book.proven("lineage", f"MLflow's run {found.run_id} and the version agree")
        with book.verifying("training"):
            trained = TrainingFolder.of(settings, found.training_key).manifest()
            code = None if found.code is None else found.code.to_json()
            own = (trained.data_version, trained.feature_version, trained.seed, trained.more.get("code"))
            logged = (found.data_version, found.feature_version, found.seed, code)
            if own != logged:
                raise LineageError(
                    f"the folder of training {found.training_key} says {own}, and MLflow {logged}; restore what was "
                    "changed"
                )
            book.proven("training", f"the folder of training {found.training_key} says the same")
        _verify_certificate(found, book)
        return found
    return None


def _verify_certificate(lineage: Lineage, book: EvidenceBook) -> None:
    certificate = lineage.certificate
    if certificate is None:
        book.unproven(
            "certificate", "there is none: the model was trained without, or its file is gone; train it again"
        )
    elif certificate.artefact not in (None, lineage.digest):
        book.unproven(
            "certificate",
            f"{certificate.key} is about the artefact {certificate.artefact}, not {lineage.digest}; certify the "
            "training again (clear certify_learning_data and train_model of its run)",
        )
    else:
        verdict = "passed" if certificate.passed else "failed"
        book.proven("certificate", f"{certificate.key}, named by what it compared, {verdict}")


def _model(settings: Settings, version: int, book: EvidenceBook) -> LoadedModel | None:
    with book.verifying("artefact"):
        model = load_version(settings, version)
        book.proven("artefact", f"signed, and its bytes have the digest that is registered, {model.digest}")
        return model
    return None


def _verify_environment(logged: Environment, model: LoadedModel, book: EvidenceBook) -> None:
    if logged.to_json() == model.artefact.manifest.get("environment"):
        book.proven("environment", "Python, packages and lock are those in the artefact's signed manifest")
    else:
        book.unproven(
            "environment", "MLflow's differs from the one in the artefact's signed manifest; restore it there"
        )


def _vintage(settings: Settings, score: TracedScore, book: EvidenceBook) -> Vintage | None:
    """The vintage that was scored, from DVC where it is not on the disk as it was written."""
    with book.verifying("vintage"):
        if score.data_version is None:
            raise LineageError(
                "which vintage was in use then is not recorded, and no answer with this score is in the log of "
                "predictions: name a version or day whose answer is there (`alphaops predictions list`)"
            )
        vintage = checkout_vintage(settings, score.data_version)
        book.proven("vintage", f"every file of {vintage.data_version} is as it was written")
        return vintage
    return None


def _described(vintage: Vintage) -> dict[str, Any]:
    names = ("source", "received", "quarantined", "rows", "instruments", "first_date", "last_date", "raw")
    return {name: vintage.manifest.get(name) for name in names}


def _plain(content: Any) -> Any:
    """With dates as ISO texts."""
    if isinstance(content, dict):
        return {name: _plain(value) for name, value in content.items()}
    if isinstance(content, list | tuple):
        return [_plain(value) for value in content]
    return content.isoformat() if isinstance(content, date) else content
