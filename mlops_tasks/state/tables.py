"""The tables. Each row is a fact; rows are never changed or removed (triggers refuse it).

Answers of the scoring service are never changed either, but are removed after `predictions.kept_days`.
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
    """An aware UTC time on every database; SQLite itself stores no time zone. A naive value is refused."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Convert to UTC, without a time zone if the database stores none."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"{value!r} has no zone; give an aware time, e.g. datetime.now(UTC)")
        utc = value.astimezone(UTC)
        return utc.replace(tzinfo=None) if dialect.name == "sqlite" else utc

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Convert back to an aware UTC time."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def now() -> datetime:
    """The current time, aware, UTC."""
    return datetime.now(UTC)


class Base(MappedAsDataclass, DeclarativeBase, kw_only=True):
    """Root of the tables; rows are dataclasses with keyword arguments."""

    metadata = MetaData(
        naming_convention={"pk": "pk_%(table_name)s", "uq": "uq_%(table_name)s", "ix": "ix_%(column_0_label)s"}
    )
    type_annotation_map = {dict[str, Any]: JSON, datetime: UtcDateTime(), date: Date()}  # noqa: RUF012  (SQLAlchemy's own contract)

    id: Mapped[int] = mapped_column(primary_key=True, init=False, repr=False)
    content_digest: Mapped[str] = mapped_column(String(64), init=False, repr=False)
    """Digest of the columns that a caller gives, except times: defines "equal" when a row is recorded twice."""
    recorded_at: Mapped[datetime] = mapped_column(init=False, default_factory=now)


class GateDecision(Base):
    """The gate's decision on a challenger against a champion (None: there was none)."""

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
    """An approval, by the gate or a person. It covers exactly these bytes of this training."""

    __tablename__ = "model_approval"
    __table_args__ = (UniqueConstraint("training_key", "artefact_digest", "content_digest"),)

    training_key: Mapped[str]
    artefact_digest: Mapped[str] = mapped_column(String(64))
    basis: Mapped[str]
    """A `Basis`."""
    approved_by: Mapped[str]
    """The gate's rule, or the person's name."""
    reason: Mapped[str] = mapped_column(Text)
    certificate: Mapped[str] = mapped_column(default="")
    """Key of the passed leak certificate; empty where a person approved a model without one."""
    revocations: Mapped[int] = mapped_column(init=False, default=0)
    """Number of revocations of these bytes before it; one more ends the approval."""
    at: Mapped[datetime] = mapped_column(default_factory=now)


class ModelRevocation(Base):
    """A revocation: a model may no longer serve. It ends all earlier approvals of these bytes."""

    __tablename__ = "model_revocation"
    __table_args__ = (UniqueConstraint("training_key", "artefact_digest", "number"),)

    training_key: Mapped[str]
    artefact_digest: Mapped[str] = mapped_column(String(64))
    number: Mapped[int] = mapped_column(init=False, default=0)
    """Its number among the revocations of these bytes, from 1."""
    basis: Mapped[str]
    """A `Basis`. What a person or a rule has revoked, the gate does not promote again."""
    revoked_by: Mapped[str]
    """The gate's rule, who the person is, or `probation`."""
    reason: Mapped[str] = mapped_column(Text)
    at: Mapped[datetime] = mapped_column(default_factory=now)


class Deployment(Base):
    """One step of a deployment. A repeated step is one row; a later return to a version is a new one."""

    __tablename__ = "deployment"

    model_version: Mapped[int] = mapped_column(index=True)
    training_key: Mapped[str]
    data_version: Mapped[str]
    strategy: Mapped[str]
    state: Mapped[str] = mapped_column(index=True)
    """A `DeploymentState`."""
    reason: Mapped[str] = mapped_column(default="")
    proven_version: Mapped[int | None] = mapped_column(default=None)
    """The champion that this step started from or ended at; None: there was none (or it was not recorded)."""
    attempt: Mapped[str] = mapped_column(default="")
    """Identifier that all steps of one deployment share."""
    artefact_digest: Mapped[str] = mapped_column(String(64), default="")
    """Digest of the bytes that the attempt is about; empty if nothing was loaded."""
    at: Mapped[datetime] = mapped_column(default_factory=now)


class RolloutStep(Base):
    """One step of a rollout, with everything known about it by then. Sequence numbers of a rollout: 1, 2, 3, ..."""

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
    """Its steps and limits, as in the settings when it was requested."""
    state: Mapped[str]
    """A `RolloutState`."""
    asked_at: Mapped[datetime]
    step: Mapped[int] = mapped_column(default=0)
    """Index into the plan's steps, from 0; beyond them, the number of its deployments that have failed."""
    champion_version: Mapped[int | None] = mapped_column(default=None)
    """Version that it is compared with; None: it has not begun, or there was none."""
    reason: Mapped[str] = mapped_column(Text, default="")
    asked_by: Mapped[str] = mapped_column(default="")
    """A DAG, or the person's name; in the last step, who aborted it."""
    began_at: Mapped[datetime | None] = mapped_column(default=None)
    at: Mapped[datetime] = mapped_column(default_factory=now)


class ModelTransition(Base):
    """A model moved from one state to another. One sequence for all models: 1, 2, 3, ..., with times in its order.

    The row by which a model becomes champion also names the one that it replaces, and what becomes of that. So the
    champion is the model of the newest row that begins or ends a reign, and there are never two.
    """

    __tablename__ = "model_transition"
    __table_args__ = (UniqueConstraint("sequence"),)

    sequence: Mapped[int]
    training_key: Mapped[str] = mapped_column(index=True)
    """Empty where an older record of a deployment does not say it."""
    model_version: Mapped[int | None] = mapped_column(index=True)
    """None: it was not registered yet, or an older record does not say its version."""
    before: Mapped[str]
    """A `ModelState`."""
    after: Mapped[str]
    """A `ModelState`."""
    by: Mapped[str]
    """A DAG, the gate, or the person's name."""
    reason: Mapped[str] = mapped_column(Text)
    replaced_version: Mapped[int | None] = mapped_column(default=None, index=True)
    """The version that stops being champion in favour of this one."""
    replaced_after: Mapped[str] = mapped_column(default="")
    """The state of that version from now on."""
    at: Mapped[datetime] = mapped_column(default_factory=now)


class VersionTag(Base):
    """A tag that a person has given to a version; the newest row of a version and a name counts."""

    __tablename__ = "version_tag"

    model_version: Mapped[int] = mapped_column(index=True)
    name: Mapped[str] = mapped_column(String(64))
    value: Mapped[str] = mapped_column(String(500))
    """Empty: it is taken away."""
    by: Mapped[str]
    at: Mapped[datetime] = mapped_column(default_factory=now)


class ModelReplay(Base):
    """A replay of a version, and what it has found."""

    __tablename__ = "model_replay"

    model_version: Mapped[int] = mapped_column(index=True)
    training_key: Mapped[str] = mapped_column(String(64))
    """Empty where the version names none."""
    verdict: Mapped[str] = mapped_column(String(32))
    """A `ReplayVerdict`."""
    reason: Mapped[str] = mapped_column(Text)
    """Where the first difference is, or why it was refused or is unfinished; empty where all is equal."""
    report: Mapped[dict[str, Any]]
    """`ReplayReport.to_json()` of `registry/replay/report.py`."""
    by: Mapped[str]
    at: Mapped[datetime] = mapped_column(default_factory=now)
    """When it ended."""


class ExperimentLayer(Base):
    """A population of units that experiments share. The newest row of a name counts; only its holdout may differ."""

    __tablename__ = "experiment_layer"

    name: Mapped[str] = mapped_column(String(64), index=True)
    salt: Mapped[str] = mapped_column(String(64))
    unit: Mapped[str] = mapped_column(String(16))
    """A `UnitKind`."""
    held_out: Mapped[str] = mapped_column(String(16))
    """Decimal share of the units that take part in nothing."""
    by: Mapped[str]
    at: Mapped[datetime] = mapped_column(default_factory=now)


class ExperimentStep(Base):
    """A step of an experiment, with everything known about it by then. Sequence numbers of an experiment: 1, 2, 3, ...

    Its times are in the order of its sequence.
    """

    __tablename__ = "experiment_step"
    __table_args__ = (UniqueConstraint("experiment", "sequence"),)

    experiment: Mapped[str] = mapped_column(String(64))
    sequence: Mapped[int]
    state: Mapped[str]
    """An `ExperimentState`."""
    design: Mapped[dict[str, Any]]
    """What was registered before it began."""
    traffic: Mapped[dict[str, Any]]
    """Which units take part, and with which arm."""
    by: Mapped[str]
    reason: Mapped[str] = mapped_column(Text)
    winner: Mapped[str | None] = mapped_column(String(64), default=None)
    """An arm; None: not decided, or decided that there is none."""
    look: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True), default=None)
    """`Reservation.to_json()` of `evaluation/looks.py`: the gate's look that it has reserved; None: its arms are no
    models, or it has not begun."""
    at: Mapped[datetime] = mapped_column(default_factory=now)


class ExperimentAnalysis(Base):
    """What an experiment had shown by a day."""

    __tablename__ = "experiment_analysis"
    __table_args__ = (UniqueConstraint("experiment", "content_digest"),)

    experiment: Mapped[str] = mapped_column(String(64), index=True)
    days: Mapped[int]
    """With events of the primary metric in every arm."""
    result: Mapped[dict[str, Any]]
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
    """The scores for one date by one model version."""

    __tablename__ = "score_batch"
    __table_args__ = (UniqueConstraint("date", "model_version", "content_digest"),)

    date: Mapped[date]
    model_version: Mapped[int]
    alias: Mapped[str]
    instruments: Mapped[int]
    """Number of instruments with a score."""
    digest: Mapped[str]
    """Digest of the score file's content."""


class DriftReport(Base):
    """The summary of a drift report; the report itself is at `path`, relative to MLOPS_HOME."""

    __tablename__ = "drift_report"
    __table_args__ = (UniqueConstraint("date", "model_version", "data_version", "content_digest"),)

    date: Mapped[date]
    model_version: Mapped[int]
    data_version: Mapped[str]
    psi_max: Mapped[float | None] = mapped_column(Float)
    n_warn: Mapped[int]
    n_alert: Mapped[int]
    path: Mapped[str]
    at_stake: Mapped[float | None] = mapped_column(Float, default=None)
    """Share of the score's importance beyond the limit, 1 if the scores themselves are; None: not known."""


class DriftRetraining(Base):
    """A step of a retraining for which drift has asked."""

    __tablename__ = "drift_retraining"
    __table_args__ = (UniqueConstraint("run_id", "step"),)

    run_id: Mapped[str] = mapped_column(String(64))
    """Of Airflow's run of daily_retraining."""
    step: Mapped[str] = mapped_column(String(16))
    """A `RetrainingStep`."""
    date: Mapped[date]
    """The market day up to which there was drift."""
    model_version: Mapped[int]
    data_version: Mapped[str]
    reason: Mapped[str] = mapped_column(Text)
    form: Mapped[dict[str, Any]]


class ModelComparison(Base):
    """A paired comparison of champion and challenger up to a date."""

    __tablename__ = "model_comparison"
    __table_args__ = (UniqueConstraint("champion_version", "challenger_version", "last_date", "content_digest"),)

    champion_version: Mapped[int]
    challenger_version: Mapped[int]
    last_date: Mapped[date]
    result: Mapped[dict[str, Any]]


class DeliveredGain(Base):
    """The gain that the gate promised for the model in service, and the gain delivered on the days since."""

    __tablename__ = "delivered_gain"
    __table_args__ = (UniqueConstraint("model_version", "rival_version", "last_date", "content_digest"),)

    model_version: Mapped[int]
    rival_version: Mapped[int]
    """Version that it was compared with."""
    rule: Mapped[str]
    """Rule by which it was promoted."""
    since: Mapped[date]
    """Newest day of the bars on which the gate decided."""
    last_date: Mapped[date]
    promised: Mapped[float] = mapped_column(Float)
    """Mean daily rank IC of the model minus the rival's, as seen by the gate."""
    delivered: Mapped[float] = mapped_column(Float)
    """The same on the labelled days after `since`."""
    result: Mapped[dict[str, Any]]
    """`MeanTest.to_json()` of `delivered`."""


class Publication(Base):
    """A vintage that came into use. A repetition is one row; a later return to a vintage is a new one."""

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
    """Identity of the object concerned: a staging, a data version."""
    sequence: Mapped[int]
    episode: Mapped[int]
    """Its number among the episodes of this kind and subject, from 1."""
    step: Mapped[str]
    """One of `state.alerts.episodes.Step`."""
    severity: Mapped[str]
    message: Mapped[str] = mapped_column(Text)
    tell: Mapped[bool]
    """Whether this step is reported to people."""
    token: Mapped[str] = mapped_column(String(32))
    """Identifier by which a receiver recognises a repetition."""
    sinks: Mapped[str] = mapped_column(default="")
    """Space-separated names of the sinks that have to deliver it."""
    by: Mapped[str] = mapped_column(default="")
    """The person who did it, if any."""
    at: Mapped[datetime] = mapped_column(default_factory=now, index=True)


class AlertDelivery(Base):
    """One attempt to deliver a step through one sink: claimed before, told or failed after."""

    __tablename__ = "alert_delivery"
    __table_args__ = (UniqueConstraint("event_id", "sink", "attempt", "outcome"),)

    event_id: Mapped[int]
    sink: Mapped[str]
    attempt: Mapped[int]
    """From 1."""
    outcome: Mapped[str]
    """`claimed`, `told`, `failed`, or `refused`: the receiver answered, but did not accept it."""
    error: Mapped[str] = mapped_column(default="")
    """Kind of the error, without its message, which may contain a password."""
    at: Mapped[datetime] = mapped_column(default_factory=now)


class AlertSilence(Base):
    """Notifications of a kind, or of one of its subjects, are suppressed until then. The newest row counts."""

    __tablename__ = "alert_silence"

    kind: Mapped[str]
    subject: Mapped[str]
    """Empty: all subjects of the kind."""
    until: Mapped[datetime]
    by: Mapped[str]
    reason: Mapped[str] = mapped_column(Text)
    at: Mapped[datetime] = mapped_column(default_factory=now)


class TrainingRun(Base):
    """One attempt at training one model; its history is in its events."""

    __tablename__ = "training_run"
    __table_args__ = (UniqueConstraint("run_id"),)

    run_id: Mapped[str]
    model: Mapped[str]
    data_version: Mapped[str]
    owner: Mapped[str]
    """Who requested it; the queue shares the machine among owners."""
    priority: Mapped[int]
    request: Mapped[dict[str, Any]]
    """Plan, feature version, configuration, the requesting process and its DAG run."""
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
    """A person's command to a training run: pause, resume, cancel."""

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
    """One configuration that was tried, with its results; the gate deflates by their number and spread."""

    __tablename__ = "trial"
    __table_args__ = (UniqueConstraint("study", "number"),)

    study: Mapped[str]
    number: Mapped[int]
    """Its number within the study, from 0."""
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
    """The results of several seeds of one configuration on one vintage: the noise due to the seed."""

    __tablename__ = "seed_noise"
    __table_args__ = (UniqueConstraint("configuration", "data_version", "content_digest"),)

    configuration: Mapped[str]
    """`evaluation.seed_noise.configuration_key`."""
    model: Mapped[str]
    data_version: Mapped[str]
    result: Mapped[dict[str, Any]]
    """Maps each metric to the values of the seeds: `{"test_rank_ic_mean": {"0": 0.031, "1": 0.029}}`."""


class ScoringKey(Base):
    """A key of a client of the scoring service. Its secret is not stored."""

    __tablename__ = "scoring_key"
    __table_args__ = (UniqueConstraint("key_id"),)

    key_id: Mapped[str] = mapped_column(String(16))
    """The public part of the key."""
    name: Mapped[str] = mapped_column(String(64))
    """Name of the client; two of its keys may be valid at once."""
    secret_digest: Mapped[str] = mapped_column(String(64))
    """SHA-256 of the secret, which is random and as long as the digest, so it cannot be guessed."""
    scopes: Mapped[str]
    """Space-separated `Scope` values."""
    requests_per_minute: Mapped[int]
    expires_at: Mapped[datetime | None]
    """None: never."""
    made_by: Mapped[str]
    at: Mapped[datetime] = mapped_column(default_factory=now)


class ScoringKeyRevocation(Base):
    """Revokes a key, permanently from this time on."""

    __tablename__ = "scoring_key_revocation"
    __table_args__ = (UniqueConstraint("key_id"),)

    key_id: Mapped[str] = mapped_column(String(16))
    revoked_by: Mapped[str]
    reason: Mapped[str] = mapped_column(Text)
    at: Mapped[datetime] = mapped_column(default_factory=now)


class LogBase(MappedAsDataclass, DeclarativeBase, kw_only=True):
    """Root of the tables of a log: many rows per second, identified by their writer, removed after some time."""

    metadata = Base.metadata
    type_annotation_map = Base.type_annotation_map


_BIG = BigInteger().with_variant(Integer(), "sqlite")


class Prediction(LogBase):
    """A request that the scoring service has answered, or on which the champion has failed. A writer numbers them
    1, 2, 3, ...: a number missing between others belongs to one that could not be logged."""

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
    """Given by the client, or generated by the service; a client that retries may send the same one."""
    key_name: Mapped[str] = mapped_column(String(64))
    """Name of the client's key."""
    model_version: Mapped[int]
    training_key: Mapped[str] = mapped_column(String(64))
    slot: Mapped[str] = mapped_column(String(16))
    arm: Mapped[str] = mapped_column(String(32))
    """An `Arm`."""
    date: Mapped[date | None]
    """None: the client sent the features."""
    data_version: Mapped[str] = mapped_column(String(64))
    feature_version: Mapped[str] = mapped_column(String(64))
    scores: Mapped[str] = mapped_column(String(32), index=True)
    """Digest of a `PredictionScores`."""
    chosen: Mapped[bytes | None] = mapped_column(LargeBinary)
    """Which of its instruments were returned, one bit each, the first is the highest; None: all of them."""
    instruments: Mapped[int]
    """Number of scores returned."""
    missing: Mapped[int]
    """Number of further instruments that were requested but have no score."""
    latency_ms: Mapped[float] = mapped_column(Float)
    """Time from the request's headers to the answer's."""


class PredictionScores(LogBase):
    """Scores that were returned, stored once however many answers contain them."""

    __tablename__ = "prediction_scores"
    __table_args__ = (UniqueConstraint("digest"),)

    id: Mapped[int] = mapped_column(primary_key=True, init=False, repr=False)
    digest: Mapped[str] = mapped_column(String(32))
    """Digest of the other columns."""
    instruments: Mapped[str] = mapped_column(Text)
    """A JSON list."""
    scores: Mapped[bytes] = mapped_column(LargeBinary)
    """One little-endian float64 per instrument."""
    recorded_at: Mapped[datetime] = mapped_column(default_factory=now)


class IndexedVersion(LogBase):
    """A registered version as the search knows it: copied from MLflow, and from there made anew at any time."""

    __tablename__ = "indexed_version"

    version: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    changed: Mapped[int] = mapped_column(index=True)
    """Number of the `IndexRevision` that wrote the row last."""
    state: Mapped[str]
    """A `ModelState`; changed in the transaction of each `ModelTransition`."""
    document: Mapped[str] = mapped_column(Text)
    """All else that is known of it, as JSON (`state/model_index.py`)."""


class IndexRevision(LogBase):
    """One of the newest changes of the index of versions: 1, 2, 3, ..."""

    __tablename__ = "index_revision"

    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    token: Mapped[str] = mapped_column(String(16))
    """Random."""


class VersionOrigin(LogBase):
    """What a registered version was made of: copied from its run in MLflow, and kept where that is deleted."""

    __tablename__ = "version_origin"

    version: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    training_key: Mapped[str]
    data_version: Mapped[str] = mapped_column(index=True)
    feature_version: Mapped[str]
    definition: Mapped[str] = mapped_column(index=True)
    """Digest of the feature set's definition; empty: not recorded. This holds of the next ones too."""
    code: Mapped[str] = mapped_column(index=True)
    """The commit."""
    dirty: Mapped[bool | None]
    lock: Mapped[str] = mapped_column(String(64), index=True)
    horizon: Mapped[int]
    segments: Mapped[dict[str, Any]]
    """Name to first and last day, ISO dates."""


class VintageInput(LogBase):
    """A file, or an answer of a database or vendor, that a vintage was made from."""

    __tablename__ = "vintage_input"

    data_version: Mapped[str] = mapped_column(primary_key=True)
    sha256: Mapped[str] = mapped_column(String(64), primary_key=True, index=True)
    name: Mapped[str] = mapped_column(Text)
    rows: Mapped[int]


class FactorInput(LogBase):
    """A field that a factor of a feature set's definition reads."""

    __tablename__ = "factor_input"

    definition: Mapped[str] = mapped_column(primary_key=True)
    factor: Mapped[str] = mapped_column(primary_key=True, index=True)
    field: Mapped[str] = mapped_column(primary_key=True)
    instrument: Mapped[str] = mapped_column(primary_key=True)
    """Whose: empty: the row's own, `*`: all of them, else this one's."""
    rows_back: Mapped[int]
    """Calendar rows before the current one; -1: back to the first."""
    expression: Mapped[str] = mapped_column(Text)


class MetricEvent(LogBase):
    """A business metric's value for a unit of an experiment. Its sender identifies it, and it counts once however often
    it is sent."""

    __tablename__ = "metric_event"

    experiment: Mapped[str] = mapped_column(String(64), primary_key=True)
    event_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    unit: Mapped[str] = mapped_column(String(128))
    arm: Mapped[str] = mapped_column(String(64))
    metric: Mapped[str] = mapped_column(String(64))
    value: Mapped[int] = mapped_column(_BIG)
    """In units of 1e-9."""
    day: Mapped[date]
    """In UTC, of `at`."""
    counted: Mapped[bool]
    """False: a person chose the unit's arm, so that it is left out of the sums."""
    at: Mapped[datetime]
    received_at: Mapped[datetime] = mapped_column(default_factory=now)


class RefusedMetricEvent(LogBase):
    """A metric event that was refused, as it was sent, with the reason."""

    __tablename__ = "refused_metric_event"

    id: Mapped[int] = mapped_column(_BIG, primary_key=True, init=False, repr=False)
    experiment: Mapped[str] = mapped_column(String(64), index=True)
    """Empty: it named none."""
    event: Mapped[str] = mapped_column(Text)
    reason: Mapped[str] = mapped_column(Text)
    received_at: Mapped[datetime] = mapped_column(default_factory=now)


class MetricSum(LogBase):
    """Number, sum and sum of squares of a metric's counted events, of a day or a unit in an arm; always up to date."""

    __tablename__ = "metric_sum"

    experiment: Mapped[str] = mapped_column(String(64), primary_key=True)
    metric: Mapped[str] = mapped_column(String(64), primary_key=True)
    arm: Mapped[str] = mapped_column(String(64), primary_key=True)
    of: Mapped[str] = mapped_column(String(8), primary_key=True)
    """`day` or `unit`."""
    name: Mapped[str] = mapped_column(String(128), primary_key=True)
    """The day (YYYY-MM-DD) or the unit."""
    n: Mapped[int] = mapped_column(_BIG)
    total: Mapped[str] = mapped_column(Text)
    """A whole number, in units of 1e-9."""
    squares: Mapped[str] = mapped_column(Text)
    """A whole number, in units of 1e-18."""


TABLES: tuple[type[Base], ...] = (
    GateDecision,
    ModelApproval,
    ModelRevocation,
    Deployment,
    RolloutStep,
    ModelTransition,
    VersionTag,
    ModelReplay,
    ExperimentLayer,
    ExperimentStep,
    ExperimentAnalysis,
    QualityLook,
    ScoreBatch,
    DriftReport,
    DriftRetraining,
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
