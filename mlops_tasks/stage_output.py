"""What a stage's process tells the one that started it: its log, record by record, and why it failed."""

import json
import logging
from dataclasses import asdict, dataclass
from pathlib import Path

from mlops_tasks.error_policy import kind_of
from mlops_tasks.errors import ErrorKind, StageCancelledError, StageError, TrainingCancelledError
from mlops_tasks.files import read_json, write_json

PRINTED = "mlops_tasks.printed"
"""Logger of what libraries print."""


class RecordFormatter(logging.Formatter):
    """Writes each record as one line, its traceback included, which `StageLine.parse` reads."""

    def format(self, record: logging.LogRecord) -> str:
        """A JSON object."""
        return json.dumps({"level": record.levelno, "logger": record.name, "text": super().format(record)})


@dataclass(frozen=True)
class StageLine:
    """A record of a stage's log, or a line that a library has printed."""

    text: str
    level: int = logging.INFO
    logger: str = PRINTED

    @classmethod
    def parse(cls, line: str) -> "StageLine":
        """From a line of the process's output."""
        try:
            content = json.loads(line) if line.startswith('{"level": ') else {}
            text, level, logger = content["text"], content["level"], content["logger"]
        except (ValueError, KeyError):
            return cls(line)
        if not (isinstance(text, str) and isinstance(level, int) and isinstance(logger, str)):
            return cls(line)
        return cls(text, level, logger)

    def relay(self) -> None:
        """Log it in this process as the stage did: under the same name, at the same level."""
        logging.getLogger(self.logger).log(self.level, "%s", self.text)


@dataclass(frozen=True)
class StageFailure:
    """The error that a stage ended with."""

    error_class: str
    """Name of its class."""
    message: str
    kind: ErrorKind

    @classmethod
    def of(cls, error: Exception) -> "StageFailure":
        """From the error itself, whoever raised it."""
        return cls(type(error).__name__, str(error), kind_of(error))

    def write(self, result: Path) -> None:
        """Leave it beside where the result would have been."""
        write_json(_beside(result), asdict(self))

    @classmethod
    def read(cls, result: Path) -> "StageFailure | None":
        """What the stage has left; None where its process ended without a word."""
        path = _beside(result)
        if not path.is_file():
            return None
        content = read_json(path)
        return cls(content["error_class"], content["message"], ErrorKind(content["kind"]))

    def error(self, stage: str) -> StageError:
        """The error for those who started the stage."""
        message = f"{stage}: {self.error_class}: {self.message}"
        if self.error_class == TrainingCancelledError.__name__:
            return StageCancelledError(message)
        return StageError(message, self.kind)


def _beside(result: Path) -> Path:
    return result.with_suffix(".failure")
