"""One exception root; each error also inherits the builtin that fits. Messages name the remedy."""

from collections.abc import Iterable
from difflib import get_close_matches
from enum import StrEnum


class ErrorKind(StrEnum):
    """What stands behind an error; `error_policy.py` says what follows from it."""

    TRANSIENT = "transient"
    """Something does not answer, is busy, full or was killed: the same may succeed later."""
    DATA = "data"
    """What was received or stored is wrong: the same fails until it is other data."""
    CONFIGURATION = "configuration"
    """What was set or asked for cannot be done: the same fails until it is set or asked for otherwise."""
    BUG = "bug"
    """The code is wrong, ours or a model's own: the same fails until it is corrected."""
    DECIDED = "decided"
    """Nothing is wrong: a person, or what has happened since, has decided otherwise."""


class MlopsError(Exception):
    """Root of every error that this library raises on purpose. Each class right below it says its kind."""

    kind: ErrorKind = ErrorKind.BUG


class ConfigError(MlopsError, ValueError):
    """A setting is missing, unknown or out of range."""

    kind = ErrorKind.CONFIGURATION


class SourceError(MlopsError, ValueError):
    """A source cannot be read as bars: a missing column, an empty table, an unreadable file."""

    kind = ErrorKind.DATA


class SourceUnavailableError(SourceError):
    """A source does not answer now, or was changed while it was read; another try may find it well."""

    kind = ErrorKind.TRANSIENT


class SourceNotFoundError(SourceError, FileNotFoundError):
    """The source file or folder does not exist."""


class VintageRejectedError(MlopsError, ValueError):
    """The received bars break a rule that makes the whole vintage unusable; the last good one stays in use."""

    kind = ErrorKind.DATA


class StoreError(MlopsError, RuntimeError):
    """A store lacks what was asked of it, or cannot be written."""

    kind = ErrorKind.TRANSIENT


class DamagedFileError(StoreError):
    """A stored file is not what was written: damaged, or changed by hand; nothing of it is used."""

    kind = ErrorKind.DATA


class DamagedJsonError(DamagedFileError, ValueError):
    """A stored file is no JSON."""


class OvertakenVintageError(StoreError):
    """Another vintage is in use than the one that a new one was compared with; nothing was changed."""


class BusyFolderError(StoreError):
    """Another process is at work in a folder of a store, and a person does not wait for it."""


class TrainingError(MlopsError, ValueError):
    """A training cannot be run as it was configured."""

    kind = ErrorKind.CONFIGURATION


class CapacityError(TrainingError, MemoryError):
    """A training needs more memory than this machine can give it; no process was started."""


class TrainingCancelledError(MlopsError, RuntimeError):
    """Somebody ended a training before its time; nothing of it is kept but its events and its newest checkpoint."""

    kind = ErrorKind.DECIDED


class LeakError(TrainingError):
    """Features, labels or processors know what was not known on their day; nothing of it is promoted."""


class TransitionError(MlopsError, ValueError):
    """A model cannot go from its present state to the wanted one; nothing was recorded."""

    kind = ErrorKind.DECIDED


class ExplanationError(MlopsError, ValueError):
    """A model's scores cannot be explained as asked."""

    kind = ErrorKind.CONFIGURATION


class RegistryError(MlopsError, RuntimeError):
    """The model registry lacks what was asked of it, or contradicts itself."""

    kind = ErrorKind.TRANSIENT


class LineageError(RegistryError):
    """What a version was made of cannot be shown, or not proven, any more."""

    kind = ErrorKind.DATA


class DigestMismatchError(RegistryError):
    """An artefact's content is not what the registry recorded; it is not loaded."""

    kind = ErrorKind.DATA


class SignatureError(DigestMismatchError):
    """An artefact was signed by no key that is accepted, or says something else than was signed; it is not loaded."""


class CompatibilityError(RegistryError):
    """Something about a version differs from where it is to serve, and could change its scores; it is not deployed."""

    kind = ErrorKind.CONFIGURATION


class NotApprovedError(RegistryError, PermissionError):
    """Neither the gate nor a person has let a model serve; it does not."""

    kind = ErrorKind.DECIDED


class RecordMismatchError(RegistryError):
    """What MLflow says of a version is not what was deployed under its number; it does not serve."""

    kind = ErrorKind.DATA


class IsolationError(MlopsError, RuntimeError):
    """The process that a model's own code runs in cannot be closed off, or did not do what was asked of it."""

    kind = ErrorKind.TRANSIENT


class DeploymentError(MlopsError, RuntimeError):
    """A deployment failed; the previous champion is in service again."""

    kind = ErrorKind.TRANSIENT


class OvertakenError(DeploymentError):
    """What was asked for is overtaken by what has happened since; nothing was done."""

    kind = ErrorKind.DECIDED


class ExperimentError(MlopsError, ValueError):
    """An experiment cannot be planned, run or analysed as asked."""

    kind = ErrorKind.CONFIGURATION


class NoExperimentError(ExperimentError, LookupError):
    """There is no experiment of this name."""


class AccountError(MlopsError, ValueError):
    """An account cannot be made or changed as it was asked."""

    kind = ErrorKind.CONFIGURATION


class StageError(MlopsError, RuntimeError):
    """A stage's process failed; its own error is in the log above. It has the kind of that error."""

    def __init__(self, message: str, kind: ErrorKind = ErrorKind.TRANSIENT) -> None:
        super().__init__(message)
        self.kind = kind


class StageCancelledError(StageError):
    """Somebody cancelled what a stage did; that is its end."""

    def __init__(self, message: str) -> None:
        super().__init__(message, ErrorKind.DECIDED)


class StageTimeoutError(StageError, TimeoutError):
    """A stage's process ran past its time limit and was ended with its whole process group."""


class StackError(MlopsError, RuntimeError):
    """The stack cannot be started or stopped as asked."""

    kind = ErrorKind.CONFIGURATION


def excerpt(text: str, limit: int = 40) -> str:
    """Foreign text as a message may quote it: in quotes, what does not print escaped, cut at `limit` characters.

    Quoted from a file is a single cell at most, and that only of a table whose columns were recognised.
    """
    shown = repr(text[: limit + 1])
    return shown if len(shown) <= limit + 2 else f"{shown[: limit - 2]}...{shown[0]}"


FEW = 5
"""Names that a message lists before it only counts the others."""


def first_few(names: Iterable[str], few: int = FEW, *, of: int | None = None) -> str:
    """The first few names of a list, as a message tells them: `A, B, C, D, E and 12 more`.

    `of` says how many names there are where the list holds only the first ones.
    Names that come from outside go through `excerpt` first: `first_few(map(excerpt, names))`.
    """
    listed = list(names)
    more = (len(listed) if of is None else of) - len(listed[:few])
    return ", ".join(listed[:few]) + (f" and {more} more" if more > 0 else "")


def hint(given: str, known: Iterable[str]) -> str:
    """What to say after naming something unknown: the known names most like it, or all of them."""
    by_lower = {name.lower(): name for name in sorted(known)}
    close = [by_lower[each] for each in get_close_matches(given.lower(), by_lower)]
    return f"did you mean {' or '.join(close)}?" if close else f"known: {', '.join(by_lower.values())}"
