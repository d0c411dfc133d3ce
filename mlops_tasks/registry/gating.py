"""The adapter between the registry and the pure gate: gathers the evidence, records the decision."""

import logging
from dataclasses import dataclass, replace
from datetime import date
from typing import Any

import numpy as np
import pandas as pd

from mlops_tasks.columns import DATETIME, LABEL, SCORE
from mlops_tasks.config import Settings
from mlops_tasks.data.vintages import Vintage, load_vintage
from mlops_tasks.errors import RegistryError
from mlops_tasks.evaluation.gate import CandidateEvidence, GateDecision, evidence, should_promote
from mlops_tasks.features.store import FeatureStore
from mlops_tasks.registry.approvals import approve_by_gate
from mlops_tasks.registry.client import CHAMPION
from mlops_tasks.registry.lifecycle import LifecycleState, ModelLifecycleManager
from mlops_tasks.registry.model_features import features_of
from mlops_tasks.registry.models import LoadedModel, load_alias, load_version, set_tags
from mlops_tasks.registry.trial_evidence import (
    fit_warning_of,
    predictions_of,
    search_evidence_of,
    seed_noise_of,
)
from mlops_tasks.state.history import record_gate_decision
from mlops_tasks.state.tables import GateDecision as GateDecisionRow
from mlops_tasks.state.trials import studies_of
from mlops_tasks.training.certificate import certificate_of
from mlops_tasks.training.scoring import FeatureSource

log = logging.getLogger(__name__)

DECISION_TAG = "gate_decision"
WITHDRAWN = "withdrawn"


@dataclass(frozen=True)
class GateResult:
    """A decision and whom it is about."""

    challenger: LoadedModel
    champion: LoadedModel | None
    decision: GateDecision
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """What the gate task returns."""
        manifest = self.challenger.artefact.manifest
        content = self.decision.to_json()
        return {
            **content,
            "reasons": [*content["reasons"], *self.notes],
            "version": self.challenger.version,
            "training_key": self.challenger.training_key,
            "model": manifest["model"],
            "data_version": manifest["data_version"],
            "feature_version": manifest["feature_version"],
            "champion_version": None if self.champion is None else self.champion.version,
        }


def gate(settings: Settings, version: int) -> GateResult:
    """Decide whether a registered version replaces the champion, and record the decision.

    Both models are judged on the challenger's test dates and vintage, on the same rows: point-in-time members of the
    universe, each model on the features of its own set. Days that the champion has learned from are left out.

    Raises
    ------
    RegistryError, DigestMismatchError
        A version is unknown, or its artefact is not what was registered.
    """
    challenger, champion = load_version(settings, version), load_alias(settings, CHAMPION)
    if is_withdrawn(settings, challenger):
        reason = f"version {version} was taken out of service by hand; the same training is not promoted again"
        result = GateResult(challenger, champion, GateDecision("keep", WITHDRAWN, (reason,)))
    else:
        result = _decide(settings, challenger, champion)
        result = replace(result, notes=(*unproven_of(settings, challenger), *result.notes))
    _record(settings, result)
    log.info("version %d: %s by rule %s", version, result.decision.decision, result.decision.rule)
    for reason in result.to_json()["reasons"]:
        log.info("  %s", reason)
    return result


def is_withdrawn(settings: Settings, model: LoadedModel) -> bool:
    """Whether a person rejected the version, as a rollback does; a rejection by the gate is judged anew."""
    rejected = ModelLifecycleManager(settings).state(model.version) == LifecycleState.REJECTED
    return rejected and model.tags.get(DECISION_TAG) != "reject"


def _decide(settings: Settings, challenger: LoadedModel, champion: LoadedModel | None) -> GateResult:
    key = challenger.training_key
    test, studies = predictions_of(settings, key, "test"), studies_of(settings, key)
    ours = replace(
        evidence(key, test[SCORE], test[LABEL], last_training_date(challenger)),
        uncertified=why_uncertified(settings, challenger),
        studies=studies,
        search=search_evidence_of(settings, key, studies) if studies else None,
        seed_noise=seed_noise_of(settings, key),
        fit_warning=fit_warning_of(settings, key),
    )
    if champion is None or champion.training_key == challenger.training_key:
        decision = should_promote(ours, None if champion is None else ours, settings.gate)
        return GateResult(challenger, champion, decision)
    vintage = load_vintage(settings, challenger.artefact.manifest["data_version"])
    try:
        feature_version = features_of(settings, champion, vintage)
    except RegistryError as error:
        reason = f"the champion cannot be scored on these dates: {error}"
        return GateResult(challenger, champion, GateDecision("keep", "not_comparable", (reason,)))
    theirs, notes = champion_evidence(settings, champion, (vintage, feature_version), test[LABEL])
    return GateResult(challenger, champion, should_promote(ours, theirs, settings.gate, vintage.calendar()), notes)


def why_uncertified(settings: Settings, model: LoadedModel) -> str | None:
    """Why no passed leak certificate covers what a model has learned from; None where one does."""
    certificate = certificate_of(settings, model.training_key)
    remedy = "run daily_retraining, or the stages training.certify and training.train, on its plan"
    if certificate is None:
        return f"training {model.training_key} has no leak certificate; {remedy}"
    if not certificate.passed:
        return f"leak certificate {certificate.key} has not passed: correct what it names, then {remedy}"
    manifest = model.artefact.manifest
    if certificate.artefact != model.digest:
        return f"leak certificate {certificate.key} says nothing of this model's scores; {remedy}"
    other = certificate.subject.differing(manifest["model"], manifest)
    if other:
        return f"leak certificate {certificate.key} is about another {', '.join(other)} than the training's; {remedy}"
    return None


def unproven_of(settings: Settings, model: LoadedModel) -> tuple[str, ...]:
    """Warnings of what a model's leak certificate cannot prove."""
    certificate = certificate_of(settings, model.training_key)
    return () if certificate is None else tuple(f"warning: not proven: {each}" for each in certificate.unproven)


def last_training_date(model: LoadedModel) -> date:
    """Last day of a model's train segment."""
    return date.fromisoformat(model.artefact.manifest["segments"]["train"][1])


def champion_evidence(
    settings: Settings, champion: LoadedModel, data: tuple[Vintage, str], label: pd.Series
) -> tuple[CandidateEvidence, tuple[str, ...]]:
    """The champion's evidence on the challenger's test rows, and what is to be said about it.

    `data` are the challenger's vintage and the version of the champion's features over it.
    """
    vintage, feature_version = data
    days = label.index.get_level_values(DATETIME)
    source = FeatureSource(FeatureStore(settings), vintage, feature_version)
    score = champion.artefact.score(source.rows(days.min(), days.max(), champion.artefact.window))
    key = champion.training_key
    measured = evidence(key, score, label, last_training_date(champion))
    found = replace(measured, seed_noise=seed_noise_of(settings, key))
    learned_until = pd.Timestamp(champion.artefact.manifest["segments"]["valid"][1])
    seen = found.rank_ic.index <= learned_until
    if not seen.any():
        return found, ()
    note = f"{int(seen.sum())} test days up to {learned_until.date()} are left out: the champion has learned from them"
    return replace(found, rank_ic=found.rank_ic.where(~seen, np.nan)), (note,)


def _record(settings: Settings, result: GateResult) -> None:
    content, version = result.to_json(), result.challenger.version
    if result.champion is not None and result.champion.version == version:
        return  # nothing was decided; its tags and the history tell how it became champion
    record_gate_decision(
        settings,
        GateDecisionRow(
            training_key=result.challenger.training_key,
            decision={name: content[name] for name in result.decision.to_json()},
            champion_version=content["champion_version"],
            model_name=content["model"],
            data_version=content["data_version"],
        ),
    )
    if result.decision.promotes:
        approve_by_gate(settings, result.challenger, result.decision.rule)
    if result.decision.rule == WITHDRAWN:
        return
    tags = {DECISION_TAG: result.decision.decision, "gate_rule": result.decision.rule}
    set_tags(settings, version, {**tags, "gate_champion": str(content["champion_version"] or "none")})
    if result.decision.decision == "reject":
        ModelLifecycleManager(settings).reject(version)
