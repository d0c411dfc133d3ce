"""The words in which results and records say how something stands; other modules compare with these and no bare text.

Each is the plain text that databases, files, forms and the API have.
"""

from enum import StrEnum


class Outcome(StrEnum):
    """What the gate decides about a challenger."""

    PROMOTE = "promote"
    KEEP = "keep"
    REJECT = "reject"


class Strategy(StrEnum):
    """What becomes of a challenger that the gate promotes."""

    BLUE_GREEN = "blue_green"
    """It is loaded beside the champion, checked, and switched to."""
    SHADOW = "shadow"
    """It is registered and scored, and never serves."""


class Arm(StrEnum):
    """On which side of a rollout or an experiment a request was answered."""

    CHAMPION = "champion"


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
    """Who let a model serve."""

    GATE = "gate"
    PERSON = "person"
