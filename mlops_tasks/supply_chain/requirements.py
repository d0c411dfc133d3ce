"""Reads and writes locks in pip's form: one package, its version and the hashes of its files."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LOCK = ROOT / "requirements.txt"
CUDA_LOCK = ROOT / "include" / "supply_chain" / "cuda.txt"
"""What torch's CUDA build needs over the lock."""
WHEELS = ROOT / "include" / "supply_chain" / "wheels_at_hand.txt"
"""Builds that the index does not have, as sha256sum writes them: digest, two spaces, file name."""

NOT_LOCKED = frozenset({"pip", "mlops-tasks"})
"""What installs, and what is installed for."""

_PIN = re.compile(r"^(?P<name>[A-Za-z0-9._-]+)==(?P<version>[^\s;\\]+)")
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")


@dataclass(frozen=True)
class Pin:
    """One package of a lock; the name as the index normalises it, the digests in order."""

    name: str
    version: str
    digests: tuple[str, ...]

    def text(self) -> str:
        """As pip reads it."""
        hashes = "".join(f" \\\n    --hash=sha256:{digest}" for digest in sorted(set(self.digests)))
        return f"{self.name}=={self.version}{hashes}\n"


@dataclass(frozen=True)
class LocalWheel:
    """A wheel with a local version label, such as `+cpu`."""

    file: str
    digest: str

    @property
    def name(self) -> str:
        """Of its package."""
        return normalised(self.file.split("-")[0])

    @property
    def public_version(self) -> str:
        """Without its label."""
        return self.file.split("-")[1].partition("+")[0]

    @property
    def label(self) -> str:
        """What comes after the plus; empty for none."""
        return self.file.split("-")[1].partition("+")[2]


def normalised(name: str) -> str:
    """A package's name as the index compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def read_lock(path: Path) -> dict[str, Pin]:
    """The packages of a lock by name.

    Raises
    ------
    ValueError
        A line is no pinned package; names it.
    """
    pins: dict[str, Pin] = {}
    lines = [line for line in path.read_text().splitlines() if line.strip() and not line.startswith("#")]
    for entry in "\n".join(lines).replace("\\\n", " ").splitlines():
        found = _PIN.match(entry)
        if found is None:
            raise ValueError(f"{path}: {entry.split(' ')[0]!r} is no `name==version`; run `make lock`")
        name = normalised(found["name"])
        pins[name] = Pin(name, found["version"], tuple(_HASH.findall(entry)))
    return pins


def write_lock(path: Path, head: str, pins: Iterable[Pin]) -> None:
    """Replace the lock in one step."""
    new = path.with_name(path.name + ".new")
    new.write_text(head + "".join(pin.text() for pin in sorted(pins, key=lambda pin: pin.name)))
    new.replace(path)


def read_wheels(path: Path = WHEELS) -> list[LocalWheel]:
    """The builds that the index does not have."""
    rows = [line.split("  ") for line in path.read_text().splitlines() if line and not line.startswith("#")]
    return [LocalWheel(file, digest) for digest, file in rows]
