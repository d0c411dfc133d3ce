"""The licences of all that is installed: `python -m mlops_tasks.supply_chain.licences` writes docs/licences.md."""

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageMetadata, distributions
from pathlib import Path
from typing import Any

import yaml

from mlops_tasks.supply_chain.requirements import NOT_LOCKED, ROOT, normalised

PAGE = ROOT / "docs" / "licences.md"
HEAD = """\
# Licences

Of every package in `requirements.txt`, as its own metadata states it; made by `make licences`. What may be here and why
a package is that asks for more than its notice, says `include/supply_chain/licences.yaml`; a test fails on any other.
Packages that torch's CUDA build needs (`include/supply_chain/cuda.txt`, most under NVIDIA's own licence) come only when
somebody asks.

| package | version | licence | accepted because |
| --- | --- | --- | --- |
"""
_WORDS = re.compile(r"\s+(?:AND|OR)\s+|[()]")


@dataclass(frozen=True)
class LicencePolicy:
    """What licences.yaml says."""

    permissive: frozenset[str]
    spellings: Mapping[str, str]
    stated: Mapping[str, str]
    accepted: Mapping[str, str]
    forbidden: tuple[str, ...]

    @classmethod
    def read(cls, path: Path = ROOT / "include" / "supply_chain" / "licences.yaml") -> "LicencePolicy":
        """From the file."""
        content: dict[str, Any] = yaml.safe_load(path.read_text())
        return cls(
            permissive=frozenset(content["permissive"]),
            spellings=content["spellings"],
            stated=content["stated"],
            accepted=content["accepted"],
            forbidden=tuple(content["forbidden"]),
        )

    def objection(self, name: str, licence: str) -> str:
        """Why a package cannot be used; empty when it can."""
        if not licence:
            return f"{name} states no licence; look it up and name it below `stated`"
        if any(word.lower() in licence.lower() for word in self.forbidden):
            return f"{name}: {licence} is never accepted; use another package"
        parts = {part.strip() for part in _WORDS.split(licence) if part.strip()}
        if parts <= self.permissive or name in self.accepted:
            return ""
        unknown = ", ".join(sorted(parts - self.permissive))
        return f"{name}: {unknown} is not permissive; say below `accepted` why it can be used, or use another package"


def licence_of(metadata: PackageMetadata, policy: LicencePolicy) -> str:
    """In SPDX, from the expression, the classifiers or the text of the metadata, in this order; empty for none."""
    name = normalised(metadata["Name"])
    if name in policy.stated:
        return policy.stated[name]
    fields = {key: metadata.get_all(key) or [] for key in ("License-Expression", "Classifier", "License")}
    if fields["License-Expression"]:
        return fields["License-Expression"][0]
    classifiers = [text.split(" :: ")[-1] for text in fields["Classifier"] if text.startswith("License :: ")]
    known = [policy.spellings[text] for text in classifiers if text in policy.spellings]
    if known:
        return " AND ".join(dict.fromkeys(known))
    lines = (fields["License"] or [""])[0].strip().splitlines()
    return policy.spellings.get(lines[0], lines[0]) if lines else ""


def installed(policy: LicencePolicy) -> list[tuple[str, str, str]]:
    """Name, public version and licence of every installed package, by name."""
    rows: dict[str, tuple[str, str, str]] = {}
    for each in distributions():
        name = normalised(each.metadata["Name"])
        rows.setdefault(name, (name, each.version.partition("+")[0], licence_of(each.metadata, policy)))
    return sorted(row for row in rows.values() if row[0] not in NOT_LOCKED)


def page(policy: LicencePolicy) -> str:
    """The text of docs/licences.md."""
    rows = [
        f"| {name} | {version} | {licence} | {policy.accepted.get(name, '')} |"
        for name, version, licence in installed(policy)
    ]
    return HEAD + "\n".join(rows).replace("|  |", "| |") + "\n"


def main() -> int:
    """Write the page; 1 with every objection when there is one."""
    policy = LicencePolicy.read()
    objections = [policy.objection(name, licence) for name, _, licence in installed(policy)]
    sys.stderr.write("".join(f"{objection}\n" for objection in objections if objection))
    PAGE.write_text(page(policy))
    return 1 if any(objections) else 0


if __name__ == "__main__":
    sys.exit(main())
