"""The adapter between the registry and the pure gate: gathers the evidence, records the decision."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import cast

import numpy as np
import pandas as pd

from mlops_tasks.columns import DATETIME, LABEL, SCORE
from mlops_tasks.config import Settings
from mlops_tasks.data.vintages import Vintage, load_vintage
from mlops_tasks.errors import ErrorKind, MlopsError, RegistryError
from mlops_tasks.evaluation.gate import (
    BETWEEN_LOOKS,
    REFRESH,
    CandidateEvidence,
    Champion,
    GateVerdict,
    evidence,
    should_promote,
)
from mlops_tasks.evaluation.looks import Entry, Look, LookSubject, MarketDays, Wait, plan_look
from mlops_tasks.features.store import FeatureStore
from mlops_tasks.modeling.scoring import FeatureSource
from mlops_tasks.process import RUN_NOTE
from mlops_tasks.registry.approvals import (
    approve_by_gate,
    is_withdrawn,
    load_champion,
    load_recorded,
    revoke_by_gate,
)
from mlops_tasks.registry.lifecycle import ModelLifecycleManager
from mlops_tasks.registry.looks_ledger import ledger, ledger_of, market_today
from mlops_tasks.registry.model_features import features_of
from mlops_tasks.registry.model_index import index_model
from mlops_tasks.registry.models import LoadedModel, load_version, set_tags
from mlops_tasks.registry.trial_evidence import fit_warning_of, search_evidence_of, seed_noise_of
from mlops_tasks.stage_results import Judged
from mlops_tasks.state.approvals import standing_approval
from mlops_tasks.state.history import gate_decisions, record_gate_decision
from mlops_tasks.state.looks import LookRows
from mlops_tasks.state.tables import GateDecision
from mlops_tasks.state.trials import studies_of
from mlops_tasks.states import Basis, Outcome
from mlops_tasks.training.certificate import Certificate, certificate_of
from mlops_tasks.training_folder import TrainingFolder

log = logging.getLogger(__name__)

WITHDRAWN = "withdrawn"
_TRIES = 5


@dataclass(frozen=True)
class ExperimentWinner:
    """That a version is the winner of an experiment, which has reserved a look for it."""

    experiment: str
    arms: int
    """Besides the control."""


class _LedgerMovedError(MlopsError, RuntimeError):
    """Another process has taken or reserved a look since this one was planned."""

    kind = ErrorKind.TRANSIENT


@dataclass(frozen=True)
class GateResult:
    """A decision, and the models that it concerns."""

    challenger: LoadedModel
    champion: LoadedModel | None
    decision: GateVerdict
    notes: tuple[str, ...] = ()

    def to_json(self) -> Judged:
        """What the gate task returns."""
        manifest = self.challenger.artefact.manifest
        content = self.decision.to_json()
        result = {
            **content,
            "reasons": [*content["reasons"], *self.notes],
            "version": self.challenger.version,
            "training_key": self.challenger.training_key,
            "digest": self.challenger.digest,
            "model": manifest["model"],
            "data_version": manifest["data_version"],
            "feature_version": manifest["feature_version"],
            "champion_version": None if self.champion is None else self.champion.version,
            RUN_NOTE: self.sentence,
        }
        return cast("Judged", result)

    @property
    def sentence(self) -> str:
        """The decision in a sentence."""
        model = f"version {self.challenger.version} ({self.challenger.artefact.manifest['model']})"
        outcome = {Outcome.PROMOTE: f"{model} is promoted", Outcome.REJECT: f"{model} is rejected"}
        kept = f"{model} is not promoted"
        if self.champion is not None:
            kept = f"version {self.champion.version} stays the champion, {kept}"
        decided = outcome.get(self.decision.decision, kept)
        return f"{decided} by rule {self.decision.rule}: {'; '.join(self.decision.reasons)}"


def gate(settings: Settings, version: int, winner_of: ExperimentWinner | None = None) -> GateResult:
    """Decide whether a registered version replaces the champion, and record the decision.

    Both models are judged on the challenger's test dates and vintage, on the same rows: point-in-time members of the
    universe, each model on the features of its own set. Days that the champion has learned from are left out. The
    challenger is compared with the champion's anchor (`evaluation/gate.py`), and only on a look
    (`evaluation/looks.py`). Champion and anchor are those in the record of deployments, whatever the registry's alias
    names.

    Parameters
    ----------
    winner_of
        The experiment whose reserved look this is; None: a look of the daily trainings.

    Raises
    ------
    RegistryError, DigestMismatchError
        A version is unknown, or its artefact is not what was registered.
    RecordMismatchError, NotApprovedError
        As `load_champion`: without the champion nothing is compared or promoted.
    StoreError
        Nothing is published yet by whose days the look of an experiment could be counted.
    ValueError
        The experiment has reserved no look, or has used it.
    """
    challenger = load_version(settings, version)
    certificate = certificate_of(settings, challenger.training_key)
    for tries in range(1, _TRIES + 1):
        champion, past = load_champion(settings), ledger(settings)
        if is_withdrawn(settings, challenger):
            reason = f"version {version} was taken out of service; the same training is not promoted again"
            result = GateResult(challenger, champion, GateVerdict(Outcome.KEEP, WITHDRAWN, (reason,)))
        else:
            looks = _Looks(past, winner_of)
            result = _decide(settings, (challenger, champion), why_uncertified(challenger, certificate), looks)
            result = replace(result, notes=(*unproven_of(certificate), *result.notes))
        try:
            _record(settings, result, certificate, past)
            break
        except _LedgerMovedError:
            if tries == _TRIES:
                raise
            log.info("version %d: somebody else has taken or reserved a look meanwhile; judged again", version)
    log.info("%s", result.sentence)
    for note in result.notes:
        log.info("  %s", note)
    return result


@dataclass(frozen=True)
class _Looks:
    """What a look is planned with."""

    past: Sequence[Entry]
    winner_of: ExperimentWinner | None


def _decide(
    settings: Settings, models: tuple[LoadedModel, LoadedModel | None], uncertified: str | None, looks: _Looks
) -> GateResult:
    challenger, champion = models
    key = challenger.training_key
    test, studies = TrainingFolder.of(settings, key).segment("test"), studies_of(settings, key)
    ours = replace(
        evidence(key, test[SCORE], test[LABEL]),
        uncertified=uncertified,
        studies=studies,
        search=search_evidence_of(settings, key, studies) if studies else None,
        seed_noise=seed_noise_of(settings, key),
        fit_warning=fit_warning_of(settings, key),
    )
    vintage = load_vintage(settings, challenger.artefact.manifest["data_version"])
    market = MarketDays(vintage.calendar())
    subject = LookSubject(key, date.fromisoformat(vintage.last_date), 0 if champion is None else champion.version)
    if (winner := looks.winner_of) is not None:
        market, today = market_today(settings)
        subject = replace(subject, day=today, experiment=winner.experiment, arms=winner.arms)
    unbeaten = champion is not None and not champion.provisional
    look = plan_look(subject, "gain" if unbeaten else "skill", looks.past, market, settings.gate)
    if winner is not None and isinstance(look, Wait):  # also where any other model would serve without proof
        return GateResult(challenger, champion, GateVerdict(Outcome.KEEP, BETWEEN_LOOKS, (look.said(),), wait=look))
    if champion is None:
        return GateResult(challenger, None, should_promote(ours, None, settings.gate, look))
    reign = reign_of(settings, champion)
    serving = Champion(
        champion.training_key,
        provisional=champion.provisional,
        age_days=None if reign.since is None else market.between(reign.since, subject.day),
    )
    if isinstance(look, Wait) or look.kind == "skill" or champion.training_key == key:
        return GateResult(challenger, champion, should_promote(ours, serving, settings.gate, look))
    try:
        anchor, theirs, notes = _anchor_evidence(settings, (champion, reign.anchor), vintage, test[LABEL])
    except RegistryError as error:
        reason = f"the champion cannot be scored on these dates: {error}"
        return GateResult(challenger, champion, GateVerdict(Outcome.KEEP, "not_comparable", (reason,)))
    decision = should_promote(ours, replace(serving, anchor=theirs), settings.gate, look)
    return GateResult(challenger, champion, replace(decision, anchor_version=anchor.version), notes)


@dataclass(frozen=True)
class Reign:
    """How a version came into service."""

    anchor: int
    """The version that its challengers are compared with: itself, or the one that it refreshed."""
    since: date | None = None
    """Newest day of the bars with which the gate promoted it; None: the gate did not promote it."""
    promotion: GateDecision | None = None


def reign_of(settings: Settings, model: LoadedModel) -> Reign:
    """How a version came into service, according to the records of the gate and of people."""
    approval = standing_approval(settings, model.training_key, model.digest)
    promoted = [
        row for row in gate_decisions(settings, model.training_key) if row.decision["decision"] == Outcome.PROMOTE
    ]
    if not promoted or (approval is not None and approval.basis == Basis.PERSON):
        return Reign(model.version)
    decision = promoted[-1].decision
    look = decision.get("look")
    return Reign(
        anchor=(decision.get("anchor_version") if decision["rule"] == REFRESH else None) or model.version,
        since=None if look is None else Look.from_json(look).subject.day,
        promotion=promoted[-1],
    )


def _anchor_evidence(
    settings: Settings, versions: tuple[LoadedModel, int], vintage: Vintage, label: pd.Series
) -> tuple[LoadedModel, CandidateEvidence, tuple[str, ...]]:
    """The anchor with its evidence and notes; the champion itself if its anchor cannot be scored."""
    champion, anchor = versions
    if anchor != champion.version:
        try:
            return _measured(settings, load_recorded(settings, anchor), vintage, label)
        except MlopsError as error:
            log.warning("version %d, which the champion refreshed, cannot be scored: %s", anchor, error)
    return _measured(settings, champion, vintage, label)


def _measured(
    settings: Settings, model: LoadedModel, vintage: Vintage, label: pd.Series
) -> tuple[LoadedModel, CandidateEvidence, tuple[str, ...]]:
    return model, *champion_evidence(settings, model, (vintage, features_of(settings, model, vintage)), label)


def why_uncertified(model: LoadedModel, certificate: Certificate | None) -> str | None:
    """Why a leak certificate does not cover what a model has learned from; None if it does."""
    remedy = "run daily_retraining or tune_models, or the stages training.certify and training.train on its plan"
    if certificate is None:
        return f"training {model.training_key} has no leak certificate; {remedy}"
    if not certificate.passed:
        return f"leak certificate {certificate.key} has not passed: correct what it names, then {remedy}"
    manifest = model.artefact.manifest
    if certificate.artefact != model.digest:
        return f"leak certificate {certificate.key} does not cover this model's scores; {remedy}"
    other = certificate.subject.differing(manifest["model"], manifest)
    if other:
        return f"leak certificate {certificate.key} has another {', '.join(other)} than the training; {remedy}"
    return None


def unproven_of(certificate: Certificate | None) -> tuple[str, ...]:
    """Warnings of what a leak certificate cannot prove."""
    return () if certificate is None else tuple(f"warning: not proven: {each}" for each in certificate.unproven)


def champion_evidence(
    settings: Settings, champion: LoadedModel, data: tuple[Vintage, str], label: pd.Series
) -> tuple[CandidateEvidence, tuple[str, ...]]:
    """The champion's evidence on the challenger's test rows, with notes.

    `data` are the challenger's vintage and the version of the champion's features over it.
    """
    vintage, feature_version = data
    days = label.index.get_level_values(DATETIME)
    source = FeatureSource(FeatureStore(settings), vintage, feature_version)
    score = champion.artefact.score(source.rows(days.min(), days.max(), champion.artefact.window))
    key = champion.training_key
    measured = evidence(key, score, label)
    found = replace(measured, seed_noise=seed_noise_of(settings, key))
    learned_until = pd.Timestamp(champion.artefact.manifest["segments"]["valid"][1])
    seen = found.rank_ic.index <= learned_until
    if not seen.any():
        return found, ()
    note = f"{int(seen.sum())} test days up to {learned_until.date()} are left out: the champion has learned from them"
    return replace(found, rank_ic=found.rank_ic.where(~seen, np.nan)), (note,)


def _record(
    settings: Settings, result: GateResult, certificate: Certificate | None, planned_with: Sequence[Entry]
) -> None:
    content, version = result.to_json(), result.challenger.version

    def check(rows: LookRows) -> None:
        if ledger_of(rows) != planned_with:
            raise _LedgerMovedError(f"version {version}: others take looks all the time; judge it again")

    if result.champion is not None and result.champion.version == version:
        return  # nothing was decided; its tags and the history show how it became champion
    record_gate_decision(
        settings,
        GateDecision(
            training_key=result.challenger.training_key,
            decision={**result.decision.to_json(), "reasons": content["reasons"]},
            champion_version=content["champion_version"],
            model_name=content["model"],
            data_version=content["data_version"],
        ),
        version,
        None if result.decision.look is None else check,
    )
    if result.decision.promotes:
        approve_by_gate(settings, result.challenger, result.decision.rule, certificate)
    if result.decision.rule == WITHDRAWN:
        return
    tags = {"gate_decision": result.decision.decision.value, "gate_rule": result.decision.rule}
    set_tags(settings, version, {**tags, "gate_champion": str(content["champion_version"] or "none")})
    if result.decision.decision is Outcome.REJECT:
        revoke_by_gate(settings, result.challenger, result.decision.rule)
    ModelLifecycleManager(settings).show_history()
    index_model(settings, version)
