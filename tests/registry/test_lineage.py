"""From a registered version to the digest of the raw file, and back."""

from pathlib import Path

from mlflow.artifacts import load_dict

from mlops_tasks.config import Settings
from mlops_tasks.data.vintage_files import MANIFEST
from mlops_tasks.data.vintages import vintage_path, write_vintage
from mlops_tasks.features.store import FeatureStore
from mlops_tasks.files import digest_of_file, read_json
from mlops_tasks.registry.client import connect
from mlops_tasks.registry.lineage import LineageTracker
from mlops_tasks.registry.lineage_document import LINEAGE_FILE
from mlops_tasks.registry.models import get_run_id
from mlops_tasks.registry.origins import search_origins
from mlops_tasks.registry.runs import RAW_DATASETS
from mlops_tasks.state.version_origins import OriginSearch
from tests.operation import bars, register_model
from tests.registry.conftest import Operation
from tests.registry.trainings import Spec


def raw_files(folder: Path, count: int, rows: int) -> list[dict[str, object]]:
    """Files on disk, as a manifest lists what was read."""
    folder.mkdir(exist_ok=True)
    paths = [folder / f"bars-{number}.csv" for number in range(count)]
    for path in paths:
        path.write_text(f"{path.name}: {rows} rows")
    return [{"name": str(path), "sha256": digest_of_file(path), "rows": rows} for path in paths]


def register(settings: Settings, key: str, raw: list[dict[str, object]]) -> int:
    """A version on a vintage that was read from `raw`; three rows of it are in quarantine."""
    planted = bars()
    provenance = {"source": "vendor", "received": len(planted) + 3, "quarantined": 3, "raw": raw}
    vintage = write_vintage(settings, planted, None, provenance)
    feature_version = FeatureStore(settings).compute(vintage).feature_version
    return register_model(settings, Spec(key=key), vintage, feature_version)


def made_of(settings: Settings, digest: str) -> list[int]:
    """Versions made of a raw file, by its SHA-256, or of a vintage."""
    wanted = OriginSearch(file=digest), OriginSearch(data_version=digest)
    return sorted({each.version for search in wanted for each in search_origins(settings, search)})


def test_a_version_leads_to_its_raw_file_and_the_raw_file_to_its_versions(settings: Settings, tmp_path: Path) -> None:
    """The SHA-256 of what was read is behind every version made of it, and leads to those and no others."""
    first, second = (raw_files(tmp_path / name, count=1, rows=rows) for name, rows in (("a", 2600), ("b", 2601)))
    one = register(settings, "a" * 16, first)
    two = register(settings, "b" * 16, first)
    tracker = LineageTracker(settings)
    traced = tracker.trace(one)
    (raw,) = traced.raw
    assert raw["sha256"] == digest_of_file(tmp_path / "a" / "bars-0.csv")
    assert traced.source == "vendor"
    assert made_of(settings, str(raw["sha256"])) == [one, two]
    assert made_of(settings, traced.data_version) == [one, two]
    assert made_of(settings, str(second[0]["sha256"])) == []
    assert traced.to_json()["raw"] == first


def test_lineage_outlives_the_vintage(settings: Settings, tmp_path: Path) -> None:
    """What a version was made of is in MLflow: it is told after the vintage is gone."""
    version = register(settings, "a" * 16, raw_files(tmp_path / "a", count=2, rows=1300))
    tracker = LineageTracker(settings)
    before = tracker.trace(version)
    (vintage_path(settings, before.data_version) / MANIFEST).unlink()
    assert tracker.trace(version) == before
    assert made_of(settings, str(before.raw[1]["sha256"])) == [version]


def test_a_run_records_the_chain_from_raw_files_to_the_model(settings: Settings, tmp_path: Path) -> None:
    """Inputs are raw files, vintage and features; `lineage.json` adds counts, and fields and past rows of a feature."""
    raw = raw_files(tmp_path / "a", count=2, rows=1300)
    version = register(settings, "a" * 16, raw)
    lineage = LineageTracker(settings).trace(version)
    run = connect(settings).get_run(lineage.run_id)
    inputs = {(each.tags[0].value, each.dataset.name): each.dataset.digest for each in run.inputs.dataset_inputs}
    assert {name: digest for (context, name), digest in inputs.items() if context == "raw"} == {
        each["name"]: str(each["sha256"])[:36] for each in raw
    }
    assert inputs["source", "bars"] == lineage.data_version

    document = load_dict(f"runs:/{lineage.run_id}/{LINEAGE_FILE}")
    manifest = read_json(vintage_path(settings, lineage.data_version) / MANIFEST)
    assert document["raw"] == raw
    vintage = document["vintage"]
    assert vintage["received"] == vintage["accepted"] + vintage["quarantined"]
    assert vintage["universe_digest"] == manifest["universe_digest"]
    features = document["features"]
    assert features["feature_version"] == lineage.feature_version
    assert len(features["depends_on"]) == 158
    assert features["depends_on"]["CORD5"]["rows_back"] == {"close": 5, "volume": 5}
    assert features["depends_on"]["RSV60"]["rows_back"] == {"close": 0, "high": 59, "low": 59}
    assert document["model"]["digest"] == lineage.digest


def test_indicators_and_factors_of_other_instruments_tell_what_they_read(operation: Operation) -> None:
    """An indicator reads all bars since the first one; a factor of another instrument names it."""
    (operation.settings.home / "feature_sets.yaml").write_text(
        "mine:\n  version: 1\n  owner: Desk A\n  description: Mine.\n"
        "  factors:\n    ROC5: Ref($close, 1)/$close*ChangeInstrument('S001', Mean($close, 5)/$close)\n"
        "  indicators: [{indicator: rsi, name: RSI14}]\n"
    )
    version = operation.register(Spec(), "mine")
    document = load_dict(f"runs:/{get_run_id(operation.settings, version)}/{LINEAGE_FILE}")
    assert document["features"]["feature_set"] == "mine"
    assert document["features"]["depends_on"] == {
        "ROC5": {
            "expression": "Ref($close, 1)/$close*ChangeInstrument('S001', Mean($close, 5)/$close)",
            "rows_back": {"close": 1},
            "other_instruments": {"S001": {"close": 4}},
        },
        "RSI14": {
            "indicator": {"indicator": "rsi", "name": "RSI14", "window": 14},
            "rows_back": {"close": "all"},
        },
    }


def test_many_raw_files_are_one_input(settings: Settings, tmp_path: Path) -> None:
    """A vendor's thousands of answers do not become thousands of MLflow inputs, and each still leads to the version."""
    raw = raw_files(tmp_path / "a", count=RAW_DATASETS + 1, rows=10)
    version = register(settings, "a" * 16, raw)
    run = connect(settings).get_run(get_run_id(settings, version))
    contexts = [each.tags[0].value for each in run.inputs.dataset_inputs]
    assert sorted(contexts) == ["raw", "source", "test", "train", "valid"]
    assert made_of(settings, str(raw[-1]["sha256"])) == [version]


def test_a_run_without_a_record_is_told_from_the_manifest(settings: Settings, tmp_path: Path) -> None:
    """Where a run lacks `lineage.json`, as those of older releases do, the vintage's manifest answers."""
    raw = raw_files(tmp_path / "a", count=1, rows=2600)
    version = register(settings, "a" * 16, raw)
    tracker = LineageTracker(settings)
    before = tracker.trace(version)
    (record,) = (settings.home / "mlflow" / "artifacts").rglob(LINEAGE_FILE)
    record.unlink()
    assert tracker.trace(version) == before
    assert made_of(settings, str(raw[0]["sha256"])) == [version]
    (vintage_path(settings, before.data_version) / MANIFEST).unlink()
    assert tracker.trace(version).raw == ()
    assert made_of(settings, before.data_version) == [version]
