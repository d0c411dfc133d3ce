"""Whether a version can serve somewhere as it was trained: checked before every deployment.

What differs and can change a score is refused, with the remedy. What differs and cannot is a warning, with the reason
why it cannot. Whether the service then gives the very scores of the artefact is proven by `serving/proof.py`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from enum import StrEnum
from typing import Any

import numpy as np
import pandas as pd

from mlops_tasks.columns import SCORE
from mlops_tasks.config import Settings
from mlops_tasks.data.vintages import Vintage, load_vintage
from mlops_tasks.errors import CompatibilityError, LineageError, MlopsError, RegistryError, StoreError, first_few
from mlops_tasks.features.store import FeatureStore
from mlops_tasks.modeling.environment import COMPUTING, Environment
from mlops_tasks.modeling.model_zoo.families import PACKAGES
from mlops_tasks.modeling.scoring import FeatureSource
from mlops_tasks.registry.lineage import LineageTracker
from mlops_tasks.registry.model_features import feature_set_of, features_of
from mlops_tasks.registry.models import LoadedModel, load_version
from mlops_tasks.training_folder import TrainingFolder

FEATURE_TYPE = np.dtype(np.float32)
"""In which features are stored, learned from and scored."""
ROUNDING = 1e-5
"""Share of the spread of a day's scores by which they may differ from those of the training: float32's rounding, where
rows are scored in other groups."""


class Check(StrEnum):
    """What is compared."""

    RUN = "run"
    ARTEFACT = "artefact"
    PYTHON = "python"
    PACKAGES = "packages"
    LOCK = "lock"
    FEATURES = "features"
    SCORES = "scores"


class Judgement(StrEnum):
    """What a comparison comes to."""

    EQUAL = "equal"
    WARNING = "warning"
    """It differs, or was not recorded, and that cannot change a score."""
    REFUSED = "refused"


@dataclass(frozen=True)
class Finding:
    """One comparison."""

    check: Check
    judgement: Judgement
    said: str
    """What was found; of a warning, also why it changes no score."""
    remedy: str = ""

    @property
    def text(self) -> str:
        """In a sentence."""
        return f"{self.check}: {self.said}" + (f"; {self.remedy}" if self.remedy else "")


@dataclass(frozen=True)
class Compatibility:
    """All comparisons of a version with the place where it is to serve."""

    version: int
    findings: tuple[Finding, ...]

    @property
    def refusals(self) -> tuple[Finding, ...]:
        """What forbids a deployment."""
        return tuple(each for each in self.findings if each.judgement is Judgement.REFUSED)

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """What differs and changes no score."""
        return tuple(each for each in self.findings if each.judgement is Judgement.WARNING)

    def require(self) -> None:
        """Raise CompatibilityError with all refusals, if there are any."""
        if self.refusals:
            told = ". ".join(each.text for each in self.refusals)
            raise CompatibilityError(f"version {self.version} is not compatible: {told}")

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return {
            "version": self.version,
            "compatible": not self.refusals,
            "findings": [asdict(each) for each in self.findings],
        }


def compatibility_of(settings: Settings, version: int, serving: Environment, vintage: Vintage) -> Compatibility:
    """All comparisons of a registered version; an artefact that cannot be loaded is one of the refusals.

    Raises
    ------
    RegistryError
        There is no such version, or MLflow does not answer.
    """
    run = _run(settings, version)
    try:
        model = load_version(settings, version)
    except MlopsError as error:
        return Compatibility(version, (run, Finding(Check.ARTEFACT, Judgement.REFUSED, str(error))))
    return compatibility_of_model(settings, model, serving, vintage)


def compatibility_of_model(
    settings: Settings, model: LoadedModel, serving: Environment, vintage: Vintage
) -> Compatibility:
    """All comparisons of a version whose artefact is loaded, and so verified.

    Parameters
    ----------
    serving
        Of the process that is to serve it.
    vintage
        Whose newest day it is to score; missing features are computed.
    """
    manifest = model.artefact.manifest
    recorded = manifest.get("environment")
    trained = None if recorded is None else Environment.from_json(recorded)
    findings = (
        _run(settings, model.version),
        Finding(Check.ARTEFACT, Judgement.EQUAL, f"signed, and its digest is {model.digest}"),
        *environment_findings(trained, serving, manifest["family"]),
        _features(settings, model, vintage),
        _scores(settings, model),
    )
    return Compatibility(model.version, findings)


def environment_findings(trained: Environment | None, serving: Environment, family: str) -> Iterator[Finding]:
    """The comparison of two environments for models of a family."""
    if trained is None:
        said = "not recorded, as by earlier releases: the scores of the training are compared instead"
        yield Finding(Check.PACKAGES, Judgement.WARNING, said)
        return
    yield _python(trained.python, serving.python)
    packages = list(_packages(trained.packages, serving.packages, (*PACKAGES[family], *COMPUTING)))
    yield from packages or [Finding(Check.PACKAGES, Judgement.EQUAL, f"{len(trained.packages)} have the same versions")]
    refused = any(each.judgement is Judgement.REFUSED for each in packages)
    yield _lock(trained.lock, serving.lock, refused=refused)


def _python(trained: str, serving: str) -> Finding:
    if trained == serving:
        return Finding(Check.PYTHON, Judgement.EQUAL, trained)
    told = f"trained by Python {trained}, and {serving} serves"
    if trained.split(".")[:2] == serving.split(".")[:2]:
        said = f"{told}: releases of one minor version compute alike"
        return Finding(Check.PYTHON, Judgement.WARNING, said)
    return Finding(Check.PYTHON, Judgement.REFUSED, told, f"train it again here, or serve by Python {trained}")


def _packages(trained: Mapping[str, str], serving: Mapping[str, str], scoring: Sequence[str]) -> Iterator[Finding]:
    """What differs, package by package."""
    for name, version in sorted(trained.items()):
        there = serving.get(name, "no version")
        if version == there:
            continue
        told = f"{name} {version} trained it, and {there} serves"
        if name not in scoring:
            yield Finding(Check.PACKAGES, Judgement.WARNING, f"{told}: it takes part in trainings, and in no score")
        elif version.partition("+")[0] == there.partition("+")[0]:
            said = f"{told}: other builds of one version, whose scores are compared below"
            yield Finding(Check.PACKAGES, Judgement.WARNING, said)
        else:
            remedy = f"train it again here, or install {name}=={version} where it serves (its lock has it)"
            yield Finding(Check.PACKAGES, Judgement.REFUSED, told, remedy)


def _lock(trained: str | None, serving: str | None, *, refused: bool) -> Finding:
    if trained == serving:
        return Finding(Check.LOCK, Judgement.EQUAL, f"requirements.txt is {trained or 'absent in both'}")
    told = f"trained with requirements.txt {_short(trained)}, and {_short(serving)} serves"
    if refused:
        remedy = (
            "train it again with the present lock, or serve with the lock of its training (`alphaops lineage` has it)"
        )
        return Finding(Check.LOCK, Judgement.REFUSED, f"{told}, with other packages that score", remedy)
    return Finding(Check.LOCK, Judgement.WARNING, f"{told}: no package that scores differs")


def _short(lock: str | None) -> str:
    return "none" if lock is None else lock[:16]


def _run(settings: Settings, version: int) -> Finding:
    try:
        run = LineageTracker(settings).run(version)
    except LineageError as error:
        return Finding(Check.RUN, Judgement.REFUSED, str(error))
    return Finding(Check.RUN, Judgement.EQUAL, f"{run.info.run_id} is in MLflow")


def _features(settings: Settings, model: LoadedModel, vintage: Vintage) -> Finding:
    """The features that it would score now: its columns in its order, of its definition and type."""
    try:
        store, definition = FeatureStore(settings), feature_set_of(settings, model)
        feature_version = features_of(settings, model, vintage)
        frame = store.load(feature_version, vintage.last_date, vintage.last_date)
        recorded = _definition(settings, model.version)
    except (RegistryError, StoreError) as error:
        return Finding(Check.FEATURES, Judgement.REFUSED, str(error))
    known = {name: dtype for name, dtype in frame.dtypes.items() if name in set(model.artefact.feature_names)}
    wrong = _wrong_columns(model.artefact.feature_names, list(known))
    other = first_few(f"{name} ({dtype})" for name, dtype in known.items() if dtype != FEATURE_TYPE)
    if other and not wrong:
        wrong = f"it learned from {FEATURE_TYPE}, and these are of another type: {other}"
    if not wrong and recorded not in (None, definition.digest):
        wrong = (
            f"it was trained on the definition {recorded} of {definition.name}, whose features are gone, and the set "
            f"of that name is {definition.digest} now"
        )
    if wrong:
        remedy = f"give the set {definition.name} its definition of then, or train another model"
        return Finding(Check.FEATURES, Judgement.REFUSED, wrong, remedy)
    said = f"{len(known)} columns of {definition.name}, in the model's order, {FEATURE_TYPE}"
    return Finding(Check.FEATURES, Judgement.EQUAL, said)


def _definition(settings: Settings, version: int) -> str | None:
    """Digest of the definition that a version was trained on; None: not recorded, or lost with its run."""
    try:
        return LineageTracker(settings).trace(version).definition
    except LineageError:
        return None


def _wrong_columns(needed: Sequence[str], found: Sequence[str]) -> str:
    """What is wrong with columns; empty: nothing is."""
    if missing := [name for name in needed if name not in found]:
        return f"{len(missing)} features are missing: {first_few(missing)}"
    for place, (own, other) in enumerate(zip(needed, found, strict=True), 1):
        if own != other:
            return f"the features have another order: {own} was number {place} in the training, and {other} is now"
    return ""


def _scores(settings: Settings, model: LoadedModel) -> Finding:
    """The scores of the training's newest day, scored here once more."""
    manifest = model.artefact.manifest
    try:
        then = TrainingFolder.of(settings, model.training_key).segment("test")[SCORE]
        day: date = then.index[-1][0].date()
        source = FeatureSource(
            FeatureStore(settings), load_vintage(settings, manifest["data_version"]), manifest["feature_version"]
        )
        now = model.artefact.score(source.rows(day, day, model.artefact.window))
    except (MlopsError, OSError, IndexError) as error:
        said = f"those of its training cannot be compared ({error}); the service's are, before it takes over"
        return Finding(Check.SCORES, Judgement.WARNING, said)
    return compare_scores(then.loc[pd.Timestamp(day) : pd.Timestamp(day)], now, settings.serving.probe_max_abs_diff)


def compare_scores(then: pd.Series, now: pd.Series, limit: float) -> Finding:
    """A day's scores as the training left them, and as they come out now; both indexed by (datetime, instrument).

    They may differ by `limit`, or by `ROUNDING` of their spread, whichever is more.
    """
    day = then.index[-1][0].date()
    remedy = "find out which code or library has changed since, or train it again here"
    now = now.reindex(then.index)
    if now.isna().any():
        said = f"{int(now.isna().sum())} of {len(then)} scores of {day}, which its training made, are missing now"
        return Finding(Check.SCORES, Judgement.REFUSED, said, remedy)
    largest = float((now - then).abs().max())
    if largest <= max(limit, ROUNDING * float(then.std(ddof=0))):
        said = f"{len(then)} of {day} are those of its training; largest difference {largest:g}"
        return Finding(Check.SCORES, Judgement.EQUAL, said)
    said = f"{len(then)} of {day} differ from those of its training by up to {largest:g}"
    return Finding(Check.SCORES, Judgement.REFUSED, said, remedy)
