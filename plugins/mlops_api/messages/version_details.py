"""What the API says of one registered version, and of several side by side."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field

from mlops_api.messages.versions import Origin, Version
from mlops_tasks.provenance.known_version import KnownVersion
from mlops_tasks.reports import Report
from mlops_tasks.state.model_index import FoundVersion
from mlops_tasks.state.tables import GateDecision, ModelApproval, ModelReplay, ModelRevocation, VintageInput
from mlops_tasks.states import Basis, Outcome, ReplayVerdict


class RawFile(BaseModel):
    """A file, or an answer of a database or vendor, that a vintage was made from."""

    name: str
    sha256: str
    rows: int

    @classmethod
    def of(cls, row: VintageInput) -> Self:
        """From a row."""
        return cls.model_validate(row, from_attributes=True)


class GateVerdict(BaseModel):
    """What the gate has said of a version."""

    decision: Outcome
    rule: str
    reasons: list[str]
    champion: int | None = Field(description="That it was compared with.")
    at: datetime

    @classmethod
    def of(cls, row: GateDecision) -> Self:
        """From a row."""
        decided = row.decision
        return cls(
            decision=decided["decision"],
            rule=decided["rule"],
            reasons=list(decided.get("reasons", ())),
            champion=row.champion_version,
            at=row.recorded_at,
        )


class Permission(BaseModel):
    """Who lets a version serve, or wants that it serves no longer."""

    basis: Basis
    by: str
    reason: str
    at: datetime

    @classmethod
    def of(cls, row: ModelApproval | ModelRevocation) -> Self:
        """From a row."""
        by = row.approved_by if isinstance(row, ModelApproval) else row.revoked_by
        return cls(basis=Basis(row.basis), by=by, reason=row.reason, at=row.at)


class VersionDetail(Version):
    """A version, and what the state database and its training's folder know of it; nothing here is verified."""

    approval: Permission | None = Field(description="By which it may serve. null: it may not.")
    revocation: Permission | None = Field(description="The newest one; an approval may have come after it.")
    gate: list[GateVerdict] = Field(description="Oldest first.")
    training_run: str | None = Field(description="Whose events tell how it was trained.")
    dag_id: str | None
    dag_run_id: str | None

    @classmethod
    def of_known(cls, known: KnownVersion) -> Self:
        """From what is known."""
        dag_run = known.dag_run
        return cls(
            **Version.of(known.version).model_dump(),
            approval=None if known.approval is None else Permission.of(known.approval),
            revocation=None if known.revocation is None else Permission.of(known.revocation),
            gate=list(map(GateVerdict.of, known.gate)),
            training_run=known.run_id,
            dag_id=None if dag_run is None else dag_run.dag_id,
            dag_run_id=None if dag_run is None else dag_run.run_id,
        )


class VersionLineage(BaseModel):
    """What a version was made of: `alphaops lineage` and `alphaops trace` verify it."""

    version: int
    origin: Origin | None = Field(description="null: it is not recorded.")
    files: list[RawFile] = Field(description="The first of its vintage, by name.")
    factors: list[str]
    model: str | None = Field(description="Name in the zoo. null, as in what follows: the training's folder is gone.")
    feature_set: str | None
    seed: int | None
    configuration: dict[str, Any] | None

    @classmethod
    def of(cls, known: KnownVersion) -> Self:
        """From what is known."""
        origin, manifest = known.origin, None if known.trained is None else known.trained.manifest
        return cls(
            version=known.version.version,
            origin=None if origin is None else Origin.model_validate(origin, from_attributes=True),
            files=list(map(RawFile.of, known.files)),
            factors=list(known.factors),
            model=None if manifest is None else manifest.model,
            feature_set=None if manifest is None else manifest.feature_set,
            seed=None if manifest is None else manifest.seed,
            configuration=None if manifest is None else dict(manifest.model_config),
        )


class VersionReport(BaseModel):
    """A report about a version."""

    name: str
    day: str
    said: str = Field(description="What came out, in a line.")
    files: list[str] = Field(description="Below /mlops/ui/reports/<kind>/<name>/files/.")

    @classmethod
    def of(cls, report: Report) -> Self:
        """From the library's own."""
        return cls(name=report.name, day=report.day, said=report.said, files=report.files)


class ExplanationList(BaseModel):
    """The explanations of a version, the newest first."""

    explanations: list[VersionReport]


class Replay(BaseModel):
    """A version that was trained again from its record."""

    version: int
    verdict: ReplayVerdict
    reason: str = Field(description="Where the first difference is, or why it was refused. Empty: all is equal.")
    by: str
    at: datetime
    report: dict[str, Any] = Field(description="Part by part; docs/replay.md describes it.")

    @classmethod
    def of(cls, row: ModelReplay) -> Self:
        """From a row."""
        plain = {name: getattr(row, name) for name in ("verdict", "reason", "by", "at", "report")}
        return cls(version=row.model_version, **plain)


class ReplayList(BaseModel):
    """Replays, the newest first."""

    total: int
    replays: list[Replay]


class ReplayAsked(BaseModel):
    """How a version is to be replayed."""

    model_config = ConfigDict(extra="forbid")

    anyway: bool = Field(False, strict=True, description="Also in another environment than that of its training.")


class ComparedMetric(BaseModel):
    """A metric of several versions."""

    name: str
    values: list[float | None] = Field(description="In the order of the versions. null: it has none.")


class VersionComparison(BaseModel):
    """Versions side by side."""

    versions: list[Version]
    metrics: list[ComparedMetric] = Field(description="Every metric that one of them has, by name.")

    @classmethod
    def of(cls, found: Sequence[FoundVersion]) -> Self:
        """From versions of the index, in their order."""
        names = sorted({name for each in found for name in each.metrics})
        return cls(
            versions=list(map(Version.of, found)),
            metrics=[ComparedMetric(name=name, values=[each.metrics.get(name) for each in found]) for name in names],
        )
