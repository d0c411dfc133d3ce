"""What a sync is working on, and what it concluded.

`data/staging/<staging>/` holds the parsed rows. It is removed when its vintage is published.
`data/quarantine/<staging>/` permanently holds rows.parquet, warnings.parquet, the data docs with their evidence, and
report.json, so that a later sync of the same content under the same rules finds its conclusion there and does not
repeat the work.
"""

import hashlib
import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from mlops_tasks.columns import BAR_FIELDS, DATETIME, INSTRUMENT
from mlops_tasks.config import Settings
from mlops_tasks.data.sources import ParsedBars, RawFile
from mlops_tasks.data.sources.membership import format_membership, read_membership
from mlops_tasks.data.sources.parsed import OPTIONAL_COLUMNS, PARSE_ERROR, SOURCE_FILE, columns_of
from mlops_tasks.data.validation.data_docs import Evidence
from mlops_tasks.data.validation.expectations import DROPPED, VINTAGE, WARNING
from mlops_tasks.data.validation.rules import Validation
from mlops_tasks.errors import StoreError
from mlops_tasks.files import new_folder, plain_name, read_json, write_json, write_text

log = logging.getLogger(__name__)

PARSED_FILE = "parsed.parquet"
META_FILE = "meta.json"
UNIVERSE_FILE = "universe.txt"
REPORT_FILE = "report.json"
ROWS_FILE = "rows.parquet"
WARNINGS_FILE = "warnings.parquet"
DOCS_FOLDER = "docs"
EVIDENCE_FOLDER, EVIDENCE_FILE = "evidence", "evidence.json"

UNFINISHED = (
    ".current.json.*",
    "staging/.*",
    "quarantine/.*",
    "quarantine/*/.*",
    "releases/.*",
    "diffs/.*",
    "approvals/*/.*",
    "vintages/.*",
    "qlib/.*",
    ".dvc/.config.*",
    ".dvc/cache/files/md5/*/.*",
)
"""What a killed writer may leave: everything is written under a hidden name first."""


@dataclass(frozen=True)
class ValidationReport:
    """The conclusion of a validation. `received == accepted + quarantined`; `data_version` is empty until known."""

    staging: str
    source: str
    rules_digest: str
    received: int
    accepted: int
    quarantined: int
    rules: dict[str, int]
    warnings: dict[str, int]
    rejected: str = ""
    """The message that rejected the vintage; empty when it was not."""
    data_version: str = ""
    instruments: dict[str, list[str]] = field(default_factory=dict)
    """Instrument that is quarantined, whole or before a date, to the rules that say so."""
    calendars: dict[str, int] = field(default_factory=dict)
    """Calendar to the number of instruments that follow it."""
    fatal: dict[str, int] = field(default_factory=dict)
    """Rule that rejects the vintage, to the number of rows, instruments or sessions that break it."""
    released: dict[str, int] = field(default_factory=dict)
    """Rule to the number of rows or instruments that were released from it by hand."""
    raw: list[dict[str, Any]] = field(default_factory=list)
    """What was read (name, sha256, rows): the beginning of the lineage."""
    failed: dict[str, str] = field(default_factory=dict)
    """Instruments that a network source could not fetch, each with its reason."""


def staging_id(parsed: ParsedBars) -> str:
    """Digest of every parsed cell, where it came from, and the membership."""
    frame = parsed.frame
    digest = hashlib.sha256(parsed.source.encode())
    for name in (INSTRUMENT, SOURCE_FILE, PARSE_ERROR):
        codes, words = pd.factorize(frame[name])
        digest.update("\n".join(map(str, words)).encode())
        digest.update(codes.astype("<i8").tobytes())
    digest.update(frame[DATETIME].to_numpy().astype("datetime64[D]").astype("<i8").tobytes())
    for name in (*BAR_FIELDS, *(name for name in OPTIONAL_COLUMNS if name in frame)):
        digest.update(name.encode() if name in OPTIONAL_COLUMNS else b"")
        digest.update(frame[name].to_numpy().astype("<f8").tobytes())
    if parsed.universe is not None:
        digest.update(format_membership(parsed.universe).encode())
    return digest.hexdigest()[:16]


def staging_path(settings: Settings, staging: str) -> Path:
    """The folder of a sync's parsed rows."""
    return settings.data_dir / "staging" / plain_name(staging, "staging")


def quarantine_path(settings: Settings, staging: str) -> Path:
    """The folder of a sync's rejected rows and report."""
    return settings.data_dir / "quarantine" / plain_name(staging, "staging")


def write_staging(settings: Settings, parsed: ParsedBars) -> str:
    """Store the parsed rows under their digest, or find them there; return it. The caller holds the data lock."""
    staging = staging_id(parsed)
    target = staging_path(settings, staging)
    if not target.is_dir():
        with new_folder(target) as folder:
            table = pa.Table.from_pandas(parsed.frame, preserve_index=False)
            pq.write_table(table, folder / PARSED_FILE, compression="zstd", compression_level=1)
            if parsed.universe is not None:
                write_text(folder / UNIVERSE_FILE, format_membership(parsed.universe))
            write_json(folder / META_FILE, {"source": parsed.source, "rows": len(parsed.frame)} | origin_of(parsed))
    return staging


def origin_of(parsed: ParsedBars) -> dict[str, Any]:
    """`raw` and `failed` as JSON."""
    return {"raw": [asdict(raw) for raw in parsed.raw], "failed": dict(parsed.failed)}


def read_staging(settings: Settings, staging: str) -> ParsedBars:
    """The parsed rows of a sync.

    Raises
    ------
    StoreError
        They are not there, or no longer there.
    """
    folder = staging_path(settings, staging)
    if not (folder / META_FILE).is_file():
        raise StoreError(
            f"{folder}: no such staging (it is removed once its vintage is published); run data.read_source again"
        )
    frame = pq.read_table(folder / PARSED_FILE).to_pandas()
    frame = frame[columns_of(frame.columns)]
    frame[DATETIME] = frame[DATETIME].astype("datetime64[ns]")
    universe = read_membership(folder / UNIVERSE_FILE) if (folder / UNIVERSE_FILE).is_file() else None
    meta = read_json(folder / META_FILE)
    return ParsedBars(frame, meta["source"], universe, tuple(RawFile(**raw) for raw in meta["raw"]), meta["failed"])


def accepted_rows(settings: Settings, staging: str) -> tuple[ParsedBars, Any]:
    """The parsed rows and a bool array of those that no rule of the report rejected."""
    parsed = read_staging(settings, staging)
    rows = pq.read_table(quarantine_path(settings, staging) / ROWS_FILE, columns=["position"])
    accepted = np.ones(len(parsed.frame), dtype=bool)
    accepted[rows["position"].to_numpy()] = False
    return parsed, accepted


def find_report(settings: Settings, staging: str, rules: str) -> ValidationReport | None:
    """The conclusion about these rows under these rules, if there is one."""
    path = quarantine_path(settings, staging) / REPORT_FILE
    if not path.is_file():
        return None
    report = ValidationReport(**read_json(path))
    return report if report.rules_digest == rules else None


def write_quarantine(
    settings: Settings,
    report: ValidationReport,
    validation: Validation,
    docs: Mapping[str, str],
    evidence: Sequence[Evidence] = (),
) -> None:
    """Write rejected rows, warnings, data docs (file name to HTML), evidence for more of them and report, in place of
    those under older rules.

    The caller holds the data folder's lock.
    """
    target = quarantine_path(settings, report.staging)
    shutil.rmtree(target, ignore_errors=True)
    with new_folder(target) as folder:
        parts = validation.failures()
        first = next(parts)
        with pq.ParquetWriter(folder / ROWS_FILE, first.schema, compression="zstd") as writer:
            writer.write_table(first)
            for part in parts:
                writer.write_table(part)
        warnings = pa.Table.from_pandas(validation.notes(DROPPED, WARNING, VINTAGE), preserve_index=False)
        pq.write_table(warnings, folder / WARNINGS_FILE, compression="zstd")
        for name, page in docs.items():
            write_text(folder / DOCS_FOLDER / name, page)
        for found in evidence:
            (folder / EVIDENCE_FOLDER).mkdir(exist_ok=True)
            found.rows.to_parquet(folder / EVIDENCE_FOLDER / f"{found.suite}.parquet")
        facts = {found.suite: [found.count, dict(found.broken), found.verdict] for found in evidence}
        write_json(folder / EVIDENCE_FOLDER / EVIDENCE_FILE, facts)
        write_json(folder / REPORT_FILE, asdict(report))


def read_evidence(settings: Settings, staging: str) -> list[Evidence]:
    """The evidence that a conclusion left.

    Raises
    ------
    StoreError
        There is no conclusion about these rows.
    """
    folder = quarantine_path(settings, staging) / EVIDENCE_FOLDER
    if not (folder / EVIDENCE_FILE).is_file():
        raise StoreError(f"{folder}: there is no evidence to render; run data.validate_bars first")
    facts: dict[str, Any] = read_json(folder / EVIDENCE_FILE)
    return [
        Evidence(suite, pq.read_table(folder / f"{suite}.parquet").to_pandas(), *about)
        for suite, about in facts.items()
    ]


def has_docs(settings: Settings, staging: str, evidence: Sequence[Evidence]) -> bool:
    """Whether the pages of this evidence are there: a new conclusion removes them."""
    folder = quarantine_path(settings, staging) / DOCS_FOLDER
    return all((folder / found.page).is_file() for found in evidence)


def add_docs(settings: Settings, staging: str, evidence: Sequence[Evidence], pages: Mapping[str, str]) -> bool:
    """Add pages to a conclusion's data docs. Return whether it is still the conclusion that the evidence belongs to.

    The caller holds the data folder's lock.
    """
    present = [(found.suite, found.count, found.broken, found.verdict) for found in read_evidence(settings, staging)]
    if present != [(found.suite, found.count, found.broken, found.verdict) for found in evidence]:
        return False
    for name, page in pages.items():
        write_text(quarantine_path(settings, staging) / DOCS_FOLDER / name, page)
    return True


def write_report(settings: Settings, report: ValidationReport) -> None:
    """Replace the report in one step."""
    write_json(quarantine_path(settings, report.staging) / REPORT_FILE, asdict(report))


def clean_staging(settings: Settings, data_version: str) -> None:
    """Remove the staging of this vintage and of rejected ones, and what killed writers left half written.

    The caller holds the data folder's lock, so that nobody else is writing there now.
    """
    for folder in settings.data_dir.glob("staging/[!.]*"):
        path = quarantine_path(settings, folder.name) / REPORT_FILE
        report = ValidationReport(**read_json(path)) if path.is_file() else None
        if report is not None and (report.rejected or report.data_version == data_version):
            shutil.rmtree(folder)
            log.info("staging %s is removed", folder.name)
    for pattern in UNFINISHED:
        for path in settings.data_dir.glob(pattern):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
