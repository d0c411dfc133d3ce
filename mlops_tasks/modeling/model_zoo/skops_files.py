"""skops files whose bytes depend on the estimator alone, so that equal trainings leave equal files."""

import io
import json
import zipfile
from typing import Any

SCHEMA = "schema.json"


def canonical(content: bytes) -> bytes:
    """A skops file without memory addresses, random names and times.

    skops tells objects apart by their memory addresses and gives arrays random names; here both are numbered in the
    order in which the schema mentions them.
    """
    with zipfile.ZipFile(io.BytesIO(content)) as source:
        names = _Names({name for name in source.namelist() if name != SCHEMA})
        schema = names.renamed(json.loads(source.read(SCHEMA)))
        written = io.BytesIO()
        with zipfile.ZipFile(written, "w") as target:
            for old, new in names.files.items():
                target.writestr(zipfile.ZipInfo(new), source.read(old))  # ZipInfo's own time is 1980
            target.writestr(zipfile.ZipInfo(SCHEMA), json.dumps(schema))
    return written.getvalue()


class _Names:
    """Numbers names in the order of appearance."""

    def __init__(self, members: set[str]) -> None:
        self.members = members
        self.files: dict[str, str] = {}
        self.ids: dict[int, int] = {}

    def renamed(self, node: Any) -> Any:
        """A part of the schema with new names."""
        if isinstance(node, dict):
            return {key: self._value(key, value) for key, value in node.items()}
        return [self.renamed(each) for each in node] if isinstance(node, list) else node

    def _value(self, key: str, value: Any) -> Any:
        if key == "__id__":
            return self.ids.setdefault(value, len(self.ids))
        if key == "file" and value in self.members:
            return self.files.setdefault(value, f"{len(self.files)}.{value.rpartition('.')[2]}")
        return self.renamed(value)
