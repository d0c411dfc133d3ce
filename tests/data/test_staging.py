"""Staging keeps what was read and where it came from, through to the vintage."""

from dataclasses import replace
from pathlib import Path

import pandas as pd

from mlops_tasks.config import Settings
from mlops_tasks.data.sources import read_source
from mlops_tasks.data.validation.staging import quarantine_path, read_staging, staging_id, write_staging
from mlops_tasks.data.vintages import load_vintage
from mlops_tasks.files import digest_of_file, read_json
from tests.data.market import make_bars, save, sync


def test_what_is_staged_comes_back(settings: Settings, tmp_path: Path) -> None:
    """Rows, origin, digests and the instruments that failed; none of the latter two names the staging."""
    parsed = read_source(settings, str(save(make_bars(), tmp_path / "bars.parquet")), None)
    parsed = replace(parsed, failed={"S09": "HTTP 404"})
    found = read_staging(settings, write_staging(settings, parsed))
    pd.testing.assert_frame_equal(found.frame, parsed.frame, check_categorical=False, check_dtype=False)
    assert replace(found, frame=parsed.frame) == parsed
    assert staging_id(replace(parsed, raw=(), failed={})) == staging_id(parsed)


def test_lineage_begins_with_the_files(settings: Settings, tmp_path: Path) -> None:
    """Report and manifest name every file that was read, with digest and rows; the version does not depend on it."""
    bars = make_bars()
    paths = [save(bars[:50], tmp_path / "two" / "a.csv"), save(bars[50:], tmp_path / "two" / "b.parquet")]
    result = sync(tmp_path / "two")
    raw = [
        {"name": str(path), "sha256": digest_of_file(path), "rows": rows}
        for path, rows in zip(paths, (50, 70), strict=True)
    ]
    report = read_json(quarantine_path(settings, result["staging"]) / "report.json")
    assert report["raw"] == raw and report["failed"] == {}
    assert load_vintage(settings, result["data_version"]).manifest["raw"] == raw
    assert sync(save(bars, tmp_path / "one.parquet"))["data_version"] == result["data_version"]
