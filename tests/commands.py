"""The commands that a page of the documentation shows, as they are written."""

import re
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from mlops_tasks.config import PROJECT

_CONSOLE = re.compile(r"^```console\n(.*?)^```", re.DOTALL | re.MULTILINE)
_FENCED = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
_INLINE = re.compile(r"`((?:alphaops|make) [^`]+)`")
_PLACEHOLDER = re.compile(r"<([a-z_]+)>")
_COMMENT = re.compile(r"\s+# .*")


@dataclass(frozen=True)
class Command:
    """One command of a page, without its comment; continued lines are one."""

    page: str
    text: str

    def placeholders(self) -> list[str]:
        """Such as `version`, which is written `<version>`."""
        return _PLACEHOLDER.findall(self.text)

    def filled(self, values: Mapping[str, str]) -> str:
        """With a value for each placeholder."""
        return _PLACEHOLDER.sub(lambda found: values[found[1]], self.text)


def commands_of(page: str) -> list[Command]:
    """Those of the console blocks, after each `$`, and those in the text that begin with `alphaops` or `make`."""
    content = (PROJECT / page).read_text()
    found = [text for block in _CONSOLE.findall(content) for text in _lines(block)]
    found += [" ".join(text.split()) for text in _INLINE.findall(_FENCED.sub("", content))]
    return [Command(page, text) for text in dict.fromkeys(found)]


def _lines(block: str) -> Iterator[str]:
    """Its commands; other lines are what they print."""
    for line in block.replace("\\\n", " ").splitlines():
        if line.startswith("$ "):
            yield _COMMENT.sub("", line[2:]).strip()


def in_bash(script: str, folder: Path) -> str:
    """What commands print in a folder; they have to succeed."""
    done = subprocess.run(["bash", "-ec", script], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (script, done.stdout, done.stderr)
    return done.stdout
