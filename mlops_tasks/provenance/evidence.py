"""What was verified of a statement, or why it cannot be any more."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from mlops_tasks.errors import MlopsError


@dataclass(frozen=True)
class Evidence:
    """One verification."""

    subject: str
    """What it is about: score, slot, artefact, ..."""
    verified: bool
    said: str
    """By what it is verified, or why it is not, with the remedy."""

    @property
    def text(self) -> str:
        """In a sentence."""
        return f"{self.subject}: {'verified' if self.verified else 'not verified'}: {self.said}"


@dataclass
class EvidenceBook:
    """Collects the verifications of a trace."""

    entries: list[Evidence] = field(default_factory=list)

    def proven(self, subject: str, said: str) -> None:
        """Note what is verified."""
        self.entries.append(Evidence(subject, True, said))

    def unproven(self, subject: str, said: str) -> None:
        """Note what cannot be verified."""
        self.entries.append(Evidence(subject, False, said))

    @contextmanager
    def verifying(self, subject: str) -> Iterator[None]:
        """Let the trace go on where a step of it fails, and note why."""
        try:
            yield
        except MlopsError as error:
            self.unproven(subject, str(error))
