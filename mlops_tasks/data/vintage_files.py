"""The files of a vintage, none of which is read before it was verified against the data version.

The name of a vintage's folder is its data version, the digest of the digests of its bars, year by year, and of its
membership. So the name vouches for the manifest's digests, and these for the files. Nothing else has to be trusted, and
a vintage that was written before file digests were recorded is verified as well. New manifests also record the SHA-256
of each file and of themselves: any changed byte is refused, not only a changed bar.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mlops_tasks.columns import INSTRUMENT
from mlops_tasks.data.bar_files import YearOfBars
from mlops_tasks.errors import DamagedFileError
from mlops_tasks.files import digest_of, digest_of_file, read_json
from mlops_tasks.verified import VerifiedFiles

LAYOUT = 1
"""Part of every data version: a change of what the digest covers gives new versions."""

MANIFEST = "manifest.json"
UNIVERSE = "universe.txt"
INSTRUMENTS = "instruments.txt"
BARS = "bars"

_FILES, _SEAL = "files", "manifest_digest"
"""Keys of a manifest: digests of the other files, and of the manifest without this one."""


def version_of(years: Mapping[str, Mapping[str, Any]], universe_digest: str) -> str:
    """The data version (16 hex digits) of year digests and a membership."""
    return digest_of({"layout": LAYOUT, "years": years, "universe": universe_digest})


def seal(folder: Path, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """A manifest with the digests of all files that are in the folder, and its own."""
    files = {p.relative_to(folder).as_posix(): digest_of_file(p) for p in sorted(folder.rglob("*")) if p.is_file()}
    whole = {**manifest, _FILES: files}
    return {**whole, _SEAL: digest_of(whole, length=64)}


@dataclass(frozen=True, eq=False)
class VintageFiles:
    """Paths to the files of one vintage, each verified once, and again when it changes.

    Every method raises DamagedFileError where a file is not what was written.
    """

    folder: Path
    data_version: str
    manifest: dict[str, Any]
    memory: VerifiedFiles

    @classmethod
    def open(cls, folder: Path, data_version: str, memory: VerifiedFiles) -> "VintageFiles":
        """The files of a complete vintage; its manifest and the names of its files are verified."""
        files = cls(folder, data_version, read_json(folder / MANIFEST), memory)
        try:
            wrong = files._wrong_manifest()
        except (KeyError, TypeError, AttributeError) as error:
            wrong = f"no manifest: {error}"
        if wrong:
            raise files._damaged(folder / MANIFEST, wrong)
        named = {folder / MANIFEST, folder / UNIVERSE, folder / INSTRUMENTS, *map(files._bars, files._years)}
        for path in sorted(folder.rglob("*")):
            if path not in named and path != folder / BARS:
                raise files._damaged(path, "it was added")
        return files

    def bars(self, year: str) -> Path:
        """The parquet file of a year."""
        path, content = self._bars(year), self._of_year(year)
        return self._verified(path, str(content), lambda: content.lies_in(path))

    def universe(self) -> Path:
        """The membership."""
        path, expected = self.folder / UNIVERSE, self.manifest["universe_digest"]
        return self._verified(path, f"membership {expected}", lambda: digest_of_file(path).startswith(expected))

    def instruments(self) -> Path:
        """The names that have bars."""
        names = f"names of {digest_of(self.manifest['years'])}"
        path = self.folder / INSTRUMENTS
        return self._verified(path, names, lambda: path.read_text().splitlines() == self._names())

    def verify(self) -> None:
        """Verify every file."""
        self.universe()
        for year in self._years:
            self.bars(year)
        self.instruments()

    @property
    def _years(self) -> list[str]:
        return sorted(self.manifest["years"])

    def _bars(self, year: str) -> Path:
        return self.folder / BARS / f"{year}.parquet"

    def _of_year(self, year: str) -> YearOfBars:
        content = self.manifest["years"][year]
        return YearOfBars(
            year,
            content["digest"],
            content["rows"],
            self.manifest["first_date"] if year == self._years[0] else "",
            self.manifest["last_date"] if year == self._years[-1] else "",
        )

    def _names(self) -> list[str]:
        """Names that have bars, sorted, from the bars themselves."""
        found: set[str] = set()
        for year in self._years:
            names = pq.read_table(self.bars(year), columns=[INSTRUMENT])[INSTRUMENT]
            found |= set(names.unique().to_pylist())
        return sorted(found)

    def _wrong_manifest(self) -> str:
        """What is wrong with the manifest. Empty where nothing is."""
        whole = {name: value for name, value in self.manifest.items() if name != _SEAL}
        years = self.manifest["years"]
        if version_of(years, self.manifest["universe_digest"]) != self.data_version:
            return f"its digests are not those of {self.data_version}"
        if self.manifest["data_version"] != self.data_version:
            return f"it belongs to {self.manifest['data_version']}"
        if sum(year["rows"] for year in years.values()) != self.manifest["rows"]:
            return "rows is not the sum of the years' rows"
        if _SEAL in self.manifest and digest_of(whole, length=64) != self.manifest[_SEAL]:
            return "it was changed"
        return ""

    def _verified(self, path: Path, fact: str, look: Callable[[], bool]) -> Path:
        """The path of a file with the recorded SHA-256, if there is one, whose content `look` confirms."""
        recorded = self.manifest.get(_FILES, {}).get(path.relative_to(self.folder).as_posix())
        try:
            if recorded and not self.memory.has(path, recorded):
                raise self._damaged(path, f"its SHA-256 is not {recorded}")
            digest = recorded or self.memory.digest(path)
            if not self.memory.holds(digest, fact, look):
                raise self._damaged(path, f"its content is not {fact}")
        except (OSError, ValueError, KeyError, pa.ArrowException) as error:
            raise self._damaged(path, str(error)) from error
        return path

    def _damaged(self, path: Path, why: str) -> DamagedFileError:
        return DamagedFileError(
            f"{path}: not what was written ({why}); nothing of vintage {self.data_version} is used. Restore it from "
            f"DVC: alphaops checkout {self.data_version}"
        )
