"""Files below `<home>/secrets`: made once, for their owner's eyes only; and the variables that may stand in."""

import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from mlops_tasks.config import Settings
from mlops_tasks.errors import ConfigError
from mlops_tasks.files import write_text
from mlops_tasks.private import private_folder


@dataclass(frozen=True)
class SecretSource:
    """Where a process finds a secret: the variable wins over the file."""

    what: str
    variable: str
    file: str

    @property
    def where(self) -> str:
        """For messages."""
        return f"it is in the variable {self.variable} or in <MLOPS_HOME>/secrets/{self.file}"

    def read(self, settings: Settings, environ: Mapping[str, str] = os.environ) -> str:
        """The secret, from the variable or from the file (mode 0600).

        Raises
        ------
        ConfigError
            There is none, or the file can be read by others, or is empty.
        """
        given = environ.get(self.variable, "").strip()
        if given:
            return given
        path = settings.secrets_dir / self.file
        if not path.is_file():
            raise ConfigError(f"no {self.what}: set {self.variable} or write one into {path} (mode 0600)")
        if path.stat().st_mode & 0o077:
            raise ConfigError(f"{path} can be read by others; run: chmod 600 {path}")
        text = path.read_text().strip()
        if not text:
            raise ConfigError(f"{path} is empty; write a {self.what} into it, or set {self.variable}")
        return text


def make_once(path: Path, make: Callable[[], str]) -> None:
    """Write what `make` gives, unless the file is there: of several processes at once, one writes it."""
    if not path.exists():
        handle, beside = tempfile.mkstemp(dir=private_folder(path.parent), prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "w") as file:
                file.write(make() + "\n")
                file.flush()
                os.fsync(file.fileno())
            os.link(beside, path)
        except FileExistsError:
            pass
        finally:
            Path(beside).unlink()
    path.chmod(0o600)


def write_private(path: Path, text: str) -> None:
    """Replace the file unless it holds `text`; temporary files are born with mode 0600, so `path` has it too."""
    if not path.exists() or path.read_text() != text:
        write_text(path, text)
    path.chmod(0o600)
