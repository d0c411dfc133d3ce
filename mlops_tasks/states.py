"""The words in which results and records say how something stands; other modules compare with these and no bare text.

Each is the plain text that databases, files, forms and the API have.
"""

from collections.abc import Mapping
from enum import StrEnum


class Outcome(StrEnum):
    """What the gate decides about a challenger."""

    PROMOTE = "promote"
    KEEP = "keep"
    REJECT = "reject"


class Strategy(StrEnum):
    """What becomes of a challenger that the gate promotes."""

    BLUE_GREEN = "blue_green"
    """It is loaded beside the champion, checked, and switched to; it waits for a rollout that is under way."""
    CANARY = "canary"
    """A growing share of the clients is answered by it, each share for a time; then as `blue_green`."""
    SHADOW = "shadow"
    """It scores what the champion is asked, for a time, and answers nobody."""
    DIRECT = "direct"
    """As `blue_green`, at once: a rollout that is under way is aborted."""


class Intervention(StrEnum):
    """What a person may do by hand about the models that serve, or are to."""

    ROLLBACK = "rollback"
    """The champion is withdrawn, and the one before it, or a named version, serves again."""
    ABORT = "abort"
    """A rollout ends before its decision."""
    ADVANCE = "advance"
    """The steps of rollouts that are due are taken at once."""
    APPROVE = "approve"
    """A version may serve that the gate has not promoted."""
    WITHDRAW = "withdraw"
    """A version may no longer serve."""


class RetrainingStep(StrEnum):
    """How far a retraining is for which drift has asked."""

    ASKED = "asked"
    """It is recorded; Airflow may know its run or not."""
    BEGUN = "begun"
    """Its run has begun."""


class RolloutState(StrEnum):
    """How a rollout stands; the last four are decisions, and stay."""

    WAITING = "waiting"
    """Another one is under way."""
    HOLDING = "holding"
    """It is at one of its steps."""
    PROMOTING = "promoting"
    """Its steps are done, and it is being deployed."""
    PROMOTED = "promoted"
    """It is the champion."""
    COMPLETED = "completed"
    """As a shadow it has stood its time; it does not serve."""
    REJECTED = "rejected"
    """A rule, or its deployment, was against it, or a newer one took its place in the queue."""
    ABORTED = "aborted"
    """A person, or its deadline, has ended it, or the champion that it was measured against serves no longer."""


UNDECIDED = (RolloutState.WAITING, RolloutState.HOLDING, RolloutState.PROMOTING)
"""States that a rollout leaves."""


class QueuePolicy(StrEnum):
    """What becomes of a candidate that comes while another one's rollout is under way."""

    NEWEST_WINS = "newest_wins"
    """It waits; of those that wait, the newest stays."""
    ALL = "all"
    """It waits, and each has its turn."""
    SKIP = "skip"
    """It is rejected."""


class Approval(StrEnum):
    """Whether a person is asked before a candidate is deployed."""

    NONE = "none"
    BEFORE_DEPLOY = "before_deploy"
    """In Airflow, under *Required actions*, before its deployment or its rollout begins."""


class Arm(StrEnum):
    """On which side of a rollout or an experiment a request was answered."""

    CHAMPION = "champion"
    CANARY = "canary"
    """By a candidate."""
    SHADOW = "shadow"
    """By a candidate, and nobody was given the answer."""
    FALLBACK = "fallback"
    """By the champion, since the candidate whose turn it was could not."""
    FAILED = "failed"
    """Not at all: the champion raised an error."""


class Scope(StrEnum):
    """What a key opens of the scoring service."""

    SCORE = "score"
    """Scores of instruments on a date."""
    SCORE_ROWS = "score_rows"
    """Scores of features that the client gives."""
    READ = "read"
    """Health, metrics and the documentation."""
    ADMIN = "admin"
    """All of that, and what changes the service; no rate and no share limits it."""


class RunState(StrEnum):
    """How a training run stands; the last three are also the kinds of the event that ends it."""

    QUEUED = "queued"
    RUNNING = "running"
    PAUSED = "paused"
    FINISHED = "finished"
    FAILED = "failed"
    CANCELLED = "cancelled"


TERMINAL = (RunState.FINISHED, RunState.FAILED, RunState.CANCELLED)
"""States that a run stays in."""


class FitVerdict(StrEnum):
    """What is thought of a training that has ended."""

    UNKNOWN = "unknown"
    UNDERFITTING = "underfitting"
    HEALTHY = "healthy"
    OVERFITTING = "overfitting"


class TrialOutcome(StrEnum):
    """How a trial of a search has ended."""

    COMPLETE = "complete"
    PRUNED = "pruned"
    FAILED = "failed"


class DeploymentState(StrEnum):
    """A step of a deployment."""

    STARTED = "started"
    """The intent, written before anything moves."""
    SERVING = "serving"
    """The version has passed its proof."""
    ROLLED_BACK = "rolled_back"
    """The alias is back at the proven version."""
    RESTORED = "restored"
    """The alias named what no deployment put there, and is back."""
    FAILED = "failed"
    """Nothing has moved."""


class Basis(StrEnum):
    """Who let a model serve, or wants that it serves no longer."""

    GATE = "gate"
    PERSON = "person"
    RULE = "rule"
    """One about the champion, after its promotion: it lets nothing serve."""


class ReplayVerdict(StrEnum):
    """How a replay of a version has ended."""

    EQUAL = "equal"
    """Every score has the same bits."""
    WITHIN_TOLERANCE = "within_tolerance"
    DIFFERENT = "different"
    REFUSED = "refused"
    """It was not tried, for a `ReplayRefusal`."""
    UNFINISHED = "unfinished"
    """Its time was up; nothing was found out."""


class ReplayRefusal(StrEnum):
    """Why a version is not replayed."""

    NO_RECORD = "no_record"
    """It does not say, or nobody knows any more, how it was trained."""
    RUN_DELETED = "run_deleted"
    """Its MLflow run is deleted."""
    ARTEFACT_DAMAGED = "artefact_damaged"
    """MLflow's copy of its artefact is missing, is not what was registered, or is not signed."""
    RECORD_DAMAGED = "record_damaged"
    """What is recorded of its training contradicts what was signed, or itself."""
    VINTAGE_GONE = "vintage_gone"
    """Its vintage is neither on disk nor in DVC, or damaged in both."""
    OTHER_ENVIRONMENT = "other_environment"
    """It was trained with other libraries, engines or hardware, which can change a model."""
    NOT_ALLOWED = "not_allowed"
    """The settings do not let its code be trained any more."""


DAMAGE = frozenset(ReplayRefusal) - {ReplayRefusal.OTHER_ENVIRONMENT, ReplayRefusal.NOT_ALLOWED}
"""Refusals that mean that something was lost or changed which should be there."""


class ModelState(StrEnum):
    """The state of a model, from its training to its end."""

    TRAINING = "training"
    TRAINED = "trained"
    FAILED = "failed"
    """Its training failed or was cancelled."""
    VALIDATED = "validated"
    """It is evaluated, and logged with its leak certificate."""
    CHALLENGER = "challenger"
    """It is registered. The gate may judge it, and if it may serve, it can be deployed."""
    CANARY = "canary"
    """Its rollout has begun: it answers a share of the clients, or scores beside the champion as a shadow."""
    CHAMPION = "champion"
    RETIRED = "retired"
    """It was champion, and another one took its place; it may come back."""
    REJECTED = "rejected"
    """By the gate, a rule or a person. A later approval, or a person's deployment, may bring it back."""


_CANDIDATES = frozenset((ModelState.CANARY, ModelState.CHAMPION, ModelState.REJECTED))
TRANSITIONS: Mapping[ModelState, frozenset[ModelState]] = {
    ModelState.TRAINING: frozenset((ModelState.TRAINED, ModelState.FAILED)),
    ModelState.TRAINED: frozenset((ModelState.VALIDATED,)),
    ModelState.FAILED: frozenset(),
    ModelState.VALIDATED: frozenset((ModelState.CHALLENGER,)),
    ModelState.CHALLENGER: _CANDIDATES,
    ModelState.CANARY: frozenset((ModelState.CHALLENGER, ModelState.CHAMPION, ModelState.REJECTED)),
    ModelState.CHAMPION: frozenset((ModelState.RETIRED, ModelState.REJECTED)),
    ModelState.RETIRED: _CANDIDATES,
    ModelState.REJECTED: frozenset((ModelState.CHALLENGER, ModelState.CANARY, ModelState.CHAMPION)),
}
"""The legal transitions of a model. It becomes champion, and stops being it, by a step of a deployment only."""


class ExperimentState(StrEnum):
    """How an experiment stands."""

    DRAFT = "draft"
    """Its units are reserved, and nobody is assigned yet."""
    RUNNING = "running"
    PAUSED = "paused"
    """Nobody is assigned, and nothing is measured; when it goes on, each unit has the arm that it had."""
    STOPPED = "stopped"
    """It measures nothing new; late events of its time still count."""
    DECIDED = "decided"
    """A winner is named, or that there is none: by a person, or by the analysis where the arms are models."""


EXPERIMENT_TRANSITIONS: Mapping[ExperimentState, frozenset[ExperimentState]] = {
    ExperimentState.DRAFT: frozenset((ExperimentState.RUNNING, ExperimentState.STOPPED)),
    ExperimentState.RUNNING: frozenset((ExperimentState.PAUSED, ExperimentState.STOPPED)),
    ExperimentState.PAUSED: frozenset((ExperimentState.RUNNING, ExperimentState.STOPPED)),
    ExperimentState.STOPPED: frozenset((ExperimentState.DECIDED,)),
    ExperimentState.DECIDED: frozenset(),
}
"""The legal transitions of an experiment. Its traffic may also change within `DRAFT`, `RUNNING` and `PAUSED`."""


class UnitKind(StrEnum):
    """What an experiment assigns to its arms."""

    CLIENT = "client"
    ACCOUNT = "account"
    INSTRUMENT = "instrument"
    SLEEVE = "sleeve"
    """A part of the capital."""
    DAY = "day"
