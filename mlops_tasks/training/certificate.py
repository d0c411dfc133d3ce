"""The leak certificate: evidence that nothing a run's models learn or see depends on later days.

Its first half covers the data (`certify`), its second half each trained model (`certify_model`). Neither waits for the
other; the gate requires both (`certificate_of`).
"""

import logging
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from mlops_tasks.config import Settings
from mlops_tasks.data.sources.membership import LAST_DATE
from mlops_tasks.data.vintages import Vintage, load_vintage
from mlops_tasks.errors import ConfigError, LeakError, StoreError
from mlops_tasks.features.sets import ENGINE_VERSION as FEATURES_VERSION
from mlops_tasks.features.sets import FeatureSet
from mlops_tasks.features.store import FeatureStore
from mlops_tasks.files import digest_of, plain_name, read_json, write_json
from mlops_tasks.modeling.column_health import ColumnHealth
from mlops_tasks.modeling.identity import certified_code
from mlops_tasks.modeling.manifest import ArtefactManifest
from mlops_tasks.modeling.model_zoo.zoo import zoo_entry
from mlops_tasks.modeling.seal import artefact_digest
from mlops_tasks.shared_store import pull, push
from mlops_tasks.training.checks import check_columns
from mlops_tasks.training.fit import ENGINE_VERSION as TRAINING_VERSION
from mlops_tasks.training.leaks.checks import Check, CheckedPipeline, Processing
from mlops_tasks.training.leaks.known import cut_days
from mlops_tasks.training.leaks.pipeline import production
from mlops_tasks.training.leaks.scores import check_scores
from mlops_tasks.training.plan import RunPlan
from mlops_tasks.training_folder import ModelCertificate, TrainingFolder

log = logging.getLogger(__name__)

CERTIFICATE_VERSION = 2
"""Raise it when the checks change: earlier certificates are then no longer found for the same data."""


@dataclass(frozen=True)
class CertificateSubject:
    """What a certificate is about; its digest is the certificate's key.

    Attributes
    ----------
    definition
        Digest of the feature set.
    models
        The models whose processors were checked.
    cuts
        Days after whose close the data was cut off.
    versions
        Of the checks, the feature engine and the training engine.
    """

    data_version: str
    feature_version: str
    feature_set: str
    definition: str
    horizon: int
    segments: dict[str, tuple[str, str]]
    models: tuple[str, ...]
    feature_processors: tuple[tuple[str, ...], ...]
    label_processors: tuple[str, ...]
    cuts: tuple[str, ...]
    versions: dict[str, int]
    code: str = ""
    """Digest of the code and the libraries that were checked (`identity.certified_code`)."""

    @property
    def key(self) -> str:
        """Identifies what is certified: equal keys stand for the same question."""
        return digest_of(asdict(self))

    @property
    def cut_days(self) -> pd.DatetimeIndex:
        """The cuts as days."""
        return pd.DatetimeIndex(self.cuts)

    def differing(self, model: str, manifest: ArtefactManifest) -> list[str]:
        """The fields in which a trained model's manifest differs from what the certificate is about."""
        own = {
            **{name: getattr(self, name) for name in ("data_version", "feature_version", "feature_set", "horizon")},
            "segments": {name: list(days) for name, days in self.segments.items()},
        }
        other = [name for name, value in own.items() if dict(manifest)[name] != value]
        return other if model in self.models else ["model", *other]


@dataclass(frozen=True)
class Certificate:
    """What was checked, and the outcome."""

    subject: CertificateSubject
    checks: tuple[dict[str, Any], ...]
    created: str
    """Time of creation, UTC, ISO 8601."""
    duration_s: float
    unproven: tuple[str, ...] = ()
    """What no check can prove, in words: warnings."""
    columns: Mapping[str, Any] = field(default_factory=dict)
    """Columns of the training segment from which nothing can be learned (`ColumnHealth.to_json`)."""
    artefact: str | None = None
    """Digest of the model whose scores were checked too; None where no scores were."""

    @property
    def key(self) -> str:
        """The subject's identity, and the stored file's name."""
        return self.subject.key

    @property
    def passed(self) -> bool:
        """Whether every check found something to compare and no difference."""
        return bool(self.checks) and all(check["passed"] for check in self.checks)

    @property
    def values(self) -> int:
        """How many values were compared."""
        return sum(int(check["values"]) for check in self.checks)

    def to_json(self) -> dict[str, Any]:
        """As it is stored."""
        return {"key": self.key, "passed": self.passed, "values": self.values, **asdict(self)}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Certificate":
        """The inverse of `to_json`."""
        subject = dict(content["subject"])
        subject["segments"] = {name: tuple(days) for name, days in subject["segments"].items()}
        subject["feature_processors"] = tuple(map(tuple, subject["feature_processors"]))
        for name in ("models", "label_processors", "cuts"):
            subject[name] = tuple(subject[name])
        names = ("created", "duration_s", "artefact", "columns")
        rest = {name: content[name] for name in names if name in content}
        return cls(
            CertificateSubject(**subject), tuple(content["checks"]), unproven=tuple(content.get("unproven", ())), **rest
        )


def certify(settings: Settings, plan: RunPlan, feature_version: str) -> Certificate:
    """Check what a plan's models will learn from and see; a certificate that has passed is reused.

    Raises
    ------
    LeakError
        Something depends on what was not yet known on its day. The error names the column, the instrument, the date,
        and the file that lists every check.
    ConfigError
        There is nothing to compare: for example, no member of the universe has rows and labels in the segments. Or no
        model of the plan can take the columns that it would learn from.
    StoreError
        The vintage or the features are missing.
    """
    started = time.monotonic()
    subject = subject_of(settings, plan, feature_version)
    found = find_certificate(settings, subject.key)
    if found is not None and found.passed:
        log.info("certificate %s: found", subject.key)
        push(settings, certificate_path(settings, subject.key))
        return found
    vintage = load_vintage(settings, plan.data_version)
    definition = FeatureStore(settings).definition(feature_version)
    spec = plan.learning_spec(feature_version)
    pipeline = production(settings, spec, definition)
    processing = Processing(subject.feature_processors, subject.label_processors)
    trial = CheckedPipeline(pipeline, vintage, spec, processing, subject.cut_days)
    health = ColumnHealth.of(trial.data.learned_features(), list(trial.data.features.columns))
    for said in health.warnings():
        log.warning("%s", said)
    _check_columns_of(plan, settings, health)
    checks = []
    for check in trial.find_leaks():
        log.log(logging.INFO if check.passed else logging.ERROR, "%s", check)
        checks.append(check)
    certificate = Certificate(
        subject=subject,
        checks=tuple(check.to_json() for check in checks),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        duration_s=round(time.monotonic() - started, 3),
        unproven=tuple(_unproven(vintage, definition)),
        columns=health.to_json(),
    )
    path = certificate_path(settings, subject.key)
    write_json(path, certificate.to_json())
    push(settings, path)
    _refuse_leaks(checks, path)
    log.info("certificate %s: %s values are equal, cut at %s", subject.key, certificate.values, ", ".join(subject.cuts))
    return certificate


def _check_columns_of(plan: RunPlan, settings: Settings, health: ColumnHealth) -> None:
    """Warn of models that cannot take the columns; raise the first one's error where no model can."""
    refused = []
    for model in plan.models:
        try:
            check_columns(plan.config(model, settings), health)
        except ConfigError as error:
            log.warning("%s", error)
            refused.append(error)
    if refused and len(refused) == len(plan.models):
        raise refused[0]


def subject_of(settings: Settings, plan: RunPlan, feature_version: str) -> CertificateSubject:
    """What a plan's certificate is about.

    Raises
    ------
    StoreError
        The vintage or the features are missing.
    """
    vintage = load_vintage(settings, plan.data_version)
    definition = FeatureStore(settings).definition(feature_version)
    entries = [zoo_entry(model, settings) for model in plan.models]
    cuts = cut_days(plan.learning_spec(feature_version), vintage.calendar(), settings.certificate.cuts)
    return CertificateSubject(
        data_version=plan.data_version,
        feature_version=feature_version,
        feature_set=plan.feature_set,
        definition=definition.digest,
        horizon=plan.horizon,
        segments={str(name): (str(first), str(last)) for name, (first, last) in plan.segments.items()},
        models=tuple(sorted(plan.models)),
        feature_processors=tuple(sorted({tuple(entry.feature_processors) for entry in entries})),
        label_processors=tuple(sorted({entry.label_processor for entry in entries})),
        cuts=tuple(str(day.date()) for day in cuts),
        versions={"certificate": CERTIFICATE_VERSION, "features": FEATURES_VERSION, "training": TRAINING_VERSION},
        code=certified_code(),
    )


def certificate_path(settings: Settings, key: str) -> Path:
    """Where a certificate is, or would be."""
    return settings.home / "certificates" / f"{plain_name(key, 'certificate key')}.json"


def find_certificate(settings: Settings, key: str) -> Certificate | None:
    """A stored certificate, passed or not; None when there is none with that key."""
    path = certificate_path(settings, key)
    pull(settings, path)
    return Certificate.from_json(read_json(path)) if path.is_file() else None


def certificate_subject(settings: Settings, key: str) -> CertificateSubject:
    """What a stored certificate is about.

    Raises
    ------
    StoreError
        There is none with that key, or other code made it, as before an upgrade.
    """
    found = find_certificate(settings, key)
    if found is None:
        raise StoreError(f"{certificate_path(settings, key)}: no leak certificate {key}; run training.certify first")
    if found.subject.code != certified_code():
        raise StoreError(
            f"{certificate_path(settings, key)}: made by another version of the code; run training.certify again"
        )
    return found.subject


def certify_model(settings: Settings, training: TrainingFolder, subject: CertificateSubject) -> None:
    """Check the scores of a trained model, once, and note in its folder which certificate covers its data.

    The first note stays as long as that certificate has passed and the code is the same.

    Raises
    ------
    LeakError
        The model gives other scores when there are no later data.
    TrainingError, SignatureError, DigestMismatchError, IsolationError
        As `check_scores`.
    """
    known = certificate_of(settings, training.key)
    if known is not None and known.artefact is not None and known.passed and known.subject.code == certified_code():
        push(settings, training.certificate)
        return
    checks = list(check_scores(settings, training, list(subject.cut_days)))
    content = [check.to_json() for check in checks]
    training.write_certificate(ModelCertificate(subject.key, content, artefact_digest(training.model)))
    push(settings, training.certificate)
    for check in checks:
        log.log(logging.INFO if check.passed else logging.ERROR, "%s", check)
    _refuse_leaks(checks, training.certificate)


def certificate_of(settings: Settings, training_key: str) -> Certificate | None:
    """The certificate that a training was made under, with the checks of its model; None where there is none."""
    record = TrainingFolder.of(settings, training_key).find_certificate()
    found = None if record is None else find_certificate(settings, record.key)
    return None if found is None or record is None else _with_scores(found, record)


def _with_scores(learned: Certificate, record: ModelCertificate) -> Certificate:
    checks = tuple(dict(check) for check in record.checks)
    return replace(learned, checks=(*learned.checks, *checks), artefact=record.artefact if checks else None)


def _unproven(vintage: Vintage, definition: FeatureSet) -> Iterator[str]:
    """What a vintage cannot prove about itself."""
    yield (
        f"vendor stamps: that {', '.join(definition.fields)} were known at the close of the day that the source dates "
        "them; a field that it dates too early looks no different"
    )
    spells = vintage.members()
    if not (spells[LAST_DATE] < pd.Timestamp(vintage.last_date)).any():
        yield (
            f"membership: no spell of the universe ends before the last day, {vintage.last_date}, so it may list only "
            "those that survived; give membership as of each day (data.universe)"
        )


def _refuse_leaks(checks: list[Check], path: Path) -> None:
    """Raise the fitting error unless all checks have passed: a check that found nothing to compare is no leak."""
    failed = [check for check in checks if check.difference is not None]
    if not failed:
        _refuse_emptiness([check for check in checks if not check.passed], len(checks), path)
        return
    others = f"\n  and {len(failed) - 3} more checks" if len(failed) > 3 else ""
    told = "".join(f"\n  {check}" for check in failed[:3])
    raise LeakError(
        f"{path}: {len(failed)} of {len(checks)} checks failed; nothing trained on this data is promoted:{told}{others}"
    )


def _refuse_emptiness(empty: list[Check], count: int, path: Path) -> None:
    if empty:
        raise ConfigError(
            f"{path}: {len(empty)} of {count} checks found nothing to compare, so nothing is certified: {empty[0]}, or "
            "a data.universe whose members have bars there"
        )
