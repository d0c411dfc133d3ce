"""The tables. Each row is a fact that happened; rows are never changed or removed (triggers refuse it).

What the scoring service has answered is never changed either, and goes after `predictions.kept_days`.
"""

from datetime import UTC, date, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Date,
    DateTime,
    Dialect,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Text,
    TypeDecorator,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, MappedAsDataclass, mapped_column


class UtcDateTime(TypeDecorator[datetime]):
    """An aware UTC time on every database; SQLite itself keeps no zone. A naive value is refused."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """To UTC, without zone where the database keeps none."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"{value!r} has no zone; give an aware time, e.g. datetime.now(UTC)")
        utc = value.astimezone(UTC)
        return utc.replace(tzinfo=None) if dialect.name == "sqlite" else utc

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Back to an aware UTC time."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def now() -> datetime:
    """The present, aware, UTC."""
    return datetime.now(UTC)


class Base(MappedAsDataclass, DeclarativeBase, kw_only=True):
    """Root of the tables; rows are dataclasses with keyword arguments."""

    metadata = MetaData(
        naming_convention={"pk": "pk_%(table_name)s", "uq": "uq_%(table_name)s", "ix": "ix_%(column_0_label)s"}
    )
    type_annotation_map = {dict[str, Any]: JSON, datetime: UtcDateTime(), date: Date()}  # noqa: RUF012  (SQLAlchemy's own contract)

    id: Mapped[int] = mapped_column(primary_key=True, init=False, repr=False)
    content_digest: Mapped[str] = mapped_column(String(64), init=False, repr=False)
    """Digest of the columns that a caller gives, times excepted: what "equal" means when a row is recorded twice."""
    recorded_at: Mapped[datetime] = mapped_column(init=False, default_factory=now)


class GateDecision(Base):
    """What the gate decided about a challenger against a champion (None: there was none)."""

    __tablename__ = "gate_decision"
    __table_args__ = (UniqueConstraint("training_key", "champion_key", "content_digest"),)

    training_key: Mapped[str]
    decision: Mapped[dict[str, Any]]
    """`GateVerdict.to_json()` of `evaluation/gate.py`."""
    champion_version: Mapped[int | None] = mapped_column(default=None)
    model_name: Mapped[str] = mapped_column(default="")
    data_version: Mapped[str] = mapped_column(default="")
    champion_key: Mapped[int] = mapped_column(init=False, default=0, repr=False)
    """`champion_version` or 0, because NULLs are never equal to one another in a unique key."""


class ModelApproval(Base):
    """Why a model may serve: the gate promoted it, or a person let it. Of these very bytes of this training alone."""

    __tablename__ = "model_approval"
    __table_args__ = (UniqueConstraint("training_key", "artefact_digest", "content_digest"),)

    training_key: Mapped[str]
    artefact_digest: Mapped[str] = mapped_column(String(64))
    basis: Mapped[str]
    """A `Basis`."""
    approved_by: Mapped[str]
    """The gate's rule, or who the person is."""
    reason: Mapped[str] = mapped_column(Text)
    certificate: Mapped[str] = mapped_column(default="")
    """Key of the passed leak certificate; empty where a person approved a model without one."""
    revocations: Mapped[int] = mapped_column(init=False, default=0)
    """How many revocations of these bytes came before it; with one more it stands no longer."""
    at: Mapped[datetime] = mapped_column(default_factory=now)


class ModelRevocation(Base):
    """Why a model may serve no longer: ends all approvals of these bytes that were there before it."""

    __tablename__ = "model_revocation"
    __table_args__ = (UniqueConstraint("training_key", "artefact_digest", "number"),)

    training_key: Mapped[str]
    artefact_digest: Mapped[str] = mapped_column(String(64))
    number: Mapped[int] = mapped_column(init=False, default=0)
    """Among the revocations of these bytes, from 1."""
    basis: Mapped[str]
    """A `Basis`. What a person or a rule has revoked, the gate does not promote again."""
    revoked_by: Mapped[str]
    """The gate's rule, who the person is, or `probation`."""
    reason: Mapped[str] = mapped_column(Text)
    at: Mapped[datetime] = mapped_column(default_factory=now)


class Deployment(Base):
    """One step of a deployment. The same step twice in a row is one row; a later return to a version is a new one."""

    __tablename__ = "deployment"

    model_version: Mapped[int] = mapped_column(index=True)
    training_key: Mapped[str]
    data_version: Mapped[str]
    strategy: Mapped[str]
    state: Mapped[str] = mapped_column(index=True)
    """A `DeploymentState`."""
    reason: Mapped[str] = mapped_column(default="")
    proven_version: Mapped[int | None] = mapped_column(default=None)
    """The champion that this step started from or ended at; None: there was none (or nobody wrote it down)."""
    attempt: Mapped[str] = mapped_column(default="")
    """The same for all steps of one deployment."""
    artefact_digest: Mapped[str] = mapped_column(String(64), default="")
    """Of the bytes that the attempt is about; empty where nothing was loaded."""
    at: Mapped[datetime] = mapped_column(default_factory=now)


class RolloutStep(Base):
    """One step of a rollout, with all that is known of it by then. Sequence numbers of a rollout: 1, 2, 3, ..."""

    __tablename__ = "rollout_step"
    __table_args__ = (UniqueConstraint("rollout_id", "sequence"),)

    rollout_id: Mapped[str] = mapped_column(String(16))
    sequence: Mapped[int]
    model_version: Mapped[int] = mapped_column(index=True)
    training_key: Mapped[str]
    artefact_digest: Mapped[str] = mapped_column(String(64))
    strategy: Mapped[str]
    """A `Strategy`."""
    plan: Mapped[dict[str, Any]]
    """Its steps and limits, as the settings were when it was asked for."""
    state: Mapped[str]
    """A `RolloutState`."""
    asked_at: Mapped[datetime]
    step: Mapped[int] = mapped_column(default=0)
    """Of the plan's steps, from 0; beyond them, how many deployments of it have failed."""
    champion_version: Mapped[int | None] = mapped_column(default=None)
    """That it is measured against; None: it has not begun, or there was none."""
    reason: Mapped[str] = mapped_column(Text, default="")
    asked_by: Mapped[str] = mapped_column(default="")
    """A DAG, or who the person is; of the last step, who has aborted it."""
    began_at: Mapped[datetime | None] = mapped_column(default=None)
    at: Mapped[datetime] = mapped_column(default_factory=now)


class QualityLook(Base):
    """What a planned look at the rank ICs of a candidate or of a new champion has found. Numbers: 1, 2, 3, ..."""

    __tablename__ = "quality_look"
    __table_args__ = (UniqueConstraint("subject", "number"),)

    subject: Mapped[str] = mapped_column(String(32))
    """The rollout, or the attempt of the deployment, that it is about."""
    number: Mapped[int]
    model_version: Mapped[int]
    rival_version: Mapped[int]
    """That it is compared with: the champion, or the one that it replaced."""
    data_version: Mapped[str]
    worse: Mapped[bool]
    said: Mapped[str] = mapped_column(Text)
    """What it has found, in words about "it"."""
    result: Mapped[dict[str, Any]]
    """`Judgement.to_json()` of `evaluation/worse.py`."""


class ScoreBatch(Base):
    """The scores of one date by one model version."""

    __tablename__ = "score_batch"
    __table_args__ = (UniqueConstraint("date", "model_version", "content_digest"),)

    date: Mapped[date]
    model_version: Mapped[int]
    alias: Mapped[str]
    instruments: Mapped[int]
    """How many instruments have a score."""
    digest: Mapped[str]
    """Digest of the score file's content."""


class DriftReport(Base):
    """A drift report's summary; the report itself lies at `path`, relative to MLOPS_HOME."""

    __tablename__ = "drift_report"
    __table_args__ = (UniqueConstraint("date", "model_version", "data_version", "content_digest"),)

    date: Mapped[date]
    model_version: Mapped[int]
    data_version: Mapped[str]
    psi_max: Mapped[float | None] = mapped_column(Float)
    n_warn: Mapped[int]
    n_alert: Mapped[int]
    path: Mapped[str]


class ModelComparison(Base):
    """A paired comparison of champion and challenger up to a date."""

    __tablename__ = "model_comparison"
    __table_args__ = (UniqueConstraint("champion_version", "challenger_version", "last_date", "content_digest"),)

    champion_version: Mapped[int]
    challenger_version: Mapped[int]
    last_date: Mapped[date]
    result: Mapped[dict[str, Any]]


class DeliveredGain(Base):
    """What the gate promised of the model in service, and what came of it on the days since."""

    __tablename__ = "delivered_gain"
    __table_args__ = (UniqueConstraint("model_version", "rival_version", "last_date", "content_digest"),)

    model_version: Mapped[int]
    rival_version: Mapped[int]
    """That it was compared with."""
    rule: Mapped[str]
    """By which it was promoted."""
    since: Mapped[date]
    """Newest day of the bars that the gate decided on."""
    last_date: Mapped[date]
    promised: Mapped[float] = mapped_column(Float)
    """Mean daily rank IC of the model minus the rival's, as the gate saw it."""
    delivered: Mapped[float] = mapped_column(Float)
    """The same on the labelled days after `since`."""
    result: Mapped[dict[str, Any]]
    """`MeanTest.to_json()` of `delivered`."""


class Publication(Base):
    """A vintage that came into use. The same one twice in a row is one row; a later return to it is a new one."""

    __tablename__ = "publication"

    data_version: Mapped[str]
    at: Mapped[datetime] = mapped_column(default_factory=now, index=True)


class AlertEvent(Base):
    """One step of an alert's episode. Sequence numbers of a kind and subject: 1, 2, 3, ..."""

    __tablename__ = "alert_event"
    __table_args__ = (
        UniqueConstraint("kind", "subject", "sequence"),
        UniqueConstraint("token", name="uq_alert_event_token"),
    )

    kind: Mapped[str]
    """What happened, verb and object in the past (`vintage_rejected`), or the name of a rule."""
    subject: Mapped[str]
    """The identity of what it happened to: a staging, a data version."""
    sequence: Mapped[int]
    episode: Mapped[int]
    """Among the episodes of this kind and subject, from 1."""
    step: Mapped[str]
    """One of `state.alerts.episodes.Step`."""
    severity: Mapped[str]
    message: Mapped[str] = mapped_column(Text)
    tell: Mapped[bool]
    """Whether people are told of this step."""
    token: Mapped[str] = mapped_column(String(32))
    """What a receiver knows a repetition by."""
    sinks: Mapped[str] = mapped_column(default="")
    """Names of those that have to tell it, with blanks between."""
    by: Mapped[str] = mapped_column(default="")
    """Who did it, where a person did."""
    at: Mapped[datetime] = mapped_column(default_factory=now, index=True)


class AlertDelivery(Base):
    """What became of one attempt to tell a step by one sink: claimed before, told or failed after."""

    __tablename__ = "alert_delivery"
    __table_args__ = (UniqueConstraint("event_id", "sink", "attempt", "outcome"),)

    event_id: Mapped[int]
    sink: Mapped[str]
    attempt: Mapped[int]
    """From 1."""
    outcome: Mapped[str]
    """`claimed`, `told`, `failed`, or `refused`: the receiver answered, and did not take it."""
    error: Mapped[str] = mapped_column(default="")
    """Kind of the error, without what it says: that may hold a password."""
    at: Mapped[datetime] = mapped_column(default_factory=now)


class AlertSilence(Base):
    """Nobody is told of a kind, or of one subject of it, until then. The newest row counts."""

    __tablename__ = "alert_silence"

    kind: Mapped[str]
    subject: Mapped[str]
    """Empty: all subjects of the kind."""
    until: Mapped[datetime]
    by: Mapped[str]
    reason: Mapped[str] = mapped_column(Text)
    at: Mapped[datetime] = mapped_column(default_factory=now)


class TrainingRun(Base):
    """One attempt at training one model; what happens to it are its events."""

    __tablename__ = "training_run"
    __table_args__ = (UniqueConstraint("run_id"),)

    run_id: Mapped[str]
    model: Mapped[str]
    data_version: Mapped[str]
    owner: Mapped[str]
    """Who asked for it; the queue shares between owners."""
    priority: Mapped[int]
    request: Mapped[dict[str, Any]]
    """Plan, feature version, configuration, the process that asked for it and its DAG's run."""
    at: Mapped[datetime] = mapped_column(default_factory=now, index=True)


class TrainingEvent(Base):
    """One step of a training run. Sequence numbers: 1, 2, 3, ...; the last event, and only it, is terminal."""

    __tablename__ = "training_event"
    __table_args__ = (
        UniqueConstraint("run_id", "sequence"),
        Index(
            "uq_training_event_terminal",
            "run_id",
            unique=True,
            sqlite_where=text("terminal"),
            postgresql_where=text("terminal"),
        ),
    )

    run_id: Mapped[str]
    sequence: Mapped[int]
    kind: Mapped[str]
    terminal: Mapped[bool]
    payload: Mapped[dict[str, Any]]
    at: Mapped[datetime] = mapped_column(default_factory=now)


class TrainingCommand(Base):
    """What a person asked of a training run: pause, resume, cancel."""

    __tablename__ = "training_command"

    run_id: Mapped[str] = mapped_column(index=True)
    command: Mapped[str]
    asked_by: Mapped[str]
    at: Mapped[datetime] = mapped_column(default_factory=now)


class ResourceEvent(Base):
    """A step of a request for computing resources: requested, granted, renewed, released."""

    __tablename__ = "resource_event"

    request_id: Mapped[str] = mapped_column(index=True)
    kind: Mapped[str]
    owner: Mapped[str]
    payload: Mapped[dict[str, Any]]
    at: Mapped[datetime] = mapped_column(default_factory=now)


class Trial(Base):
    """One configuration that was tried, with what it reached; the gate deflates by their number and spread."""

    __tablename__ = "trial"
    __table_args__ = (UniqueConstraint("study", "number"),)

    study: Mapped[str]
    number: Mapped[int]
    """Within the study, from 0."""
    model: Mapped[str]
    data_version: Mapped[str]
    horizon: Mapped[int]
    state: Mapped[str]
    """`complete`, `pruned` or `failed`."""
    configuration: Mapped[dict[str, Any]]
    result: Mapped[dict[str, Any]]
    """Metrics of the validation segment, and `daily`: its rank IC day by day."""
    at: Mapped[datetime] = mapped_column(default_factory=now)


class SeedNoise(Base):
    """What several seeds of one configuration reached on one vintage: how much of a difference is the seed's."""

    __tablename__ = "seed_noise"
    __table_args__ = (UniqueConstraint("configuration", "data_version", "content_digest"),)

    configuration: Mapped[str]
    """`evaluation.seed_noise.configuration_key`."""
    model: Mapped[str]
    data_version: Mapped[str]
    result: Mapped[dict[str, Any]]
    """Metric to the value of each seed: `{"test_rank_ic_mean": {"0": 0.031, "1": 0.029}}`."""


class ScoringKey(Base):
    """A key that a client of the scoring service was given. Its secret is kept by nobody here."""

    __tablename__ = "scoring_key"
    __table_args__ = (UniqueConstraint("key_id"),)

    key_id: Mapped[str] = mapped_column(String(16))
    """A part of the key that is no secret."""
    name: Mapped[str] = mapped_column(String(64))
    """Of the client; two of its keys may be valid at once."""
    secret_digest: Mapped[str] = mapped_column(String(64))
    """SHA-256 of the secret, which is as long as the digest and was drawn at random: it cannot be guessed."""
    scopes: Mapped[str]
    """Each a `Scope`, with blanks between."""
    requests_per_minute: Mapped[int]
    expires_at: Mapped[datetime | None]
    """None: never."""
    made_by: Mapped[str]
    at: Mapped[datetime] = mapped_column(default_factory=now)


class ScoringKeyRevocation(Base):
    """Ends a key, from this moment on and for good."""

    __tablename__ = "scoring_key_revocation"
    __table_args__ = (UniqueConstraint("key_id"),)

    key_id: Mapped[str] = mapped_column(String(16))
    revoked_by: Mapped[str]
    reason: Mapped[str] = mapped_column(Text)
    at: Mapped[datetime] = mapped_column(default_factory=now)


class LogBase(MappedAsDataclass, DeclarativeBase, kw_only=True):
    """Root of the tables of a log: many rows a second, told apart by who wrote them, and removed after a time."""

    metadata = Base.metadata
    type_annotation_map = Base.type_annotation_map


_BIG = BigInteger().with_variant(Integer(), "sqlite")


class Prediction(LogBase):
    """A request that the scoring service has answered. The same writer's numbers are 1, 2, 3, ...: one that is missing
    between others was given to an answer that could not be logged."""

    __tablename__ = "prediction"
    __table_args__ = (
        UniqueConstraint("writer", "sequence"),
        Index("ix_prediction_date", "date", "model_version", "arm"),
    )

    id: Mapped[int] = mapped_column(_BIG, primary_key=True, init=False, repr=False)
    writer: Mapped[str] = mapped_column(String(16))
    """The process that answered."""
    sequence: Mapped[int] = mapped_column(_BIG)
    at: Mapped[datetime] = mapped_column(index=True)
    request_id: Mapped[str] = mapped_column(String(64), index=True)
    """The client's, or the service's own; a client that asks again may give the same."""
    key_name: Mapped[str] = mapped_column(String(64))
    """Of the key that the client has shown."""
    model_version: Mapped[int]
    training_key: Mapped[str] = mapped_column(String(64))
    slot: Mapped[str] = mapped_column(String(16))
    arm: Mapped[str] = mapped_column(String(32))
    """An `Arm`."""
    date: Mapped[date | None]
    """None: the client gave the features."""
    data_version: Mapped[str] = mapped_column(String(64))
    feature_version: Mapped[str] = mapped_column(String(64))
    scores: Mapped[str] = mapped_column(String(32), index=True)
    """Digest of a `PredictionScores`."""
    chosen: Mapped[bytes | None] = mapped_column(LargeBinary)
    """Which of its instruments were answered, a bit each, the first is the highest; None: all of them."""
    instruments: Mapped[int]
    """How many."""
    missing: Mapped[int]
    """How many more were asked for and have no score."""
    latency_ms: Mapped[float] = mapped_column(Float)
    """From the request's headers to the answer's."""


class PredictionScores(LogBase):
    """Scores that were answered, once however many requests were answered with them."""

    __tablename__ = "prediction_scores"
    __table_args__ = (UniqueConstraint("digest"),)

    id: Mapped[int] = mapped_column(primary_key=True, init=False, repr=False)
    digest: Mapped[str] = mapped_column(String(32))
    """Of the other columns."""
    instruments: Mapped[str] = mapped_column(Text)
    """A JSON list."""
    scores: Mapped[bytes] = mapped_column(LargeBinary)
    """A little-endian float64 for each."""
    recorded_at: Mapped[datetime] = mapped_column(default_factory=now)


TABLES: tuple[type[Base], ...] = (
    GateDecision,
    ModelApproval,
    ModelRevocation,
    Deployment,
    RolloutStep,
    QualityLook,
    ScoreBatch,
    DriftReport,
    ModelComparison,
    DeliveredGain,
    Publication,
    AlertEvent,
    AlertDelivery,
    AlertSilence,
    TrainingRun,
    TrainingEvent,
    TrainingCommand,
    ResourceEvent,
    Trial,
    SeedNoise,
    ScoringKey,
    ScoringKeyRevocation,
)
