"""From a score to its raw rows, on a market that a CSV file was synced into, with a real service and registry."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from mlops_tasks.cli import main
from mlops_tasks.config import PredictionSettings, Settings
from mlops_tasks.data.snapshots import pointer_path
from mlops_tasks.data.vintages import Vintage, load_vintage, vintage_path
from mlops_tasks.features.store import FeatureStore
from mlops_tasks.modeling.environment import lock_digest
from mlops_tasks.registry.client import connect
from mlops_tasks.registry.models import get_run_id
from mlops_tasks.serving.client import ScoringClient
from mlops_tasks.serving.tasks import deploy_model_task, score_newest_date_task
from tests.commands import commands_of
from tests.data.market import make_bars, save, sync
from tests.registry.conftest import Operation, migrated_mlflow, new_home
from tests.registry.trainings import Spec
from tests.serving.conftest import RunningService

__all__ = ["migrated_mlflow"]

NAME, EARLIER = "S03", -5
"""The instrument that is traced, and the place in the calendar of a day that is only served by request."""


@dataclass(frozen=True)
class Chain:
    """What a daily run has left, and what was asked for by request."""

    settings: Settings
    vintage: Vintage
    version: int
    file: Path
    served: float
    """Score of the earlier day."""

    @property
    def day(self) -> str:
        """The newest day."""
        return self.vintage.last_date

    @property
    def earlier(self) -> str:
        """A day before."""
        return str(self.vintage.calendar()[EARLIER].date())


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory, migrated_mlflow: Path) -> Iterator[Chain]:
    """A synced CSV file, a champion that was deployed, its published scores of the newest day, and one request."""
    folder = tmp_path_factory.mktemp("chain")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLOPS_DATA__ALLOWED_FOLDERS", str(folder))
        patch.setenv("MLOPS_DATA__SUITE_PAGES", "false")
        patch.setenv("AIRFLOW_CTX_DAG_ID", "daily_retraining")
        patch.setenv("AIRFLOW_CTX_DAG_RUN_ID", "scheduled__2020-07-01")
        (folder / "home").mkdir()
        settings = new_home(folder / "home", migrated_mlflow, patch)
        settings = settings.model_copy(update={"predictions": PredictionSettings(sync_s=0.05, ship_s=0.05)})
        file = save(make_bars(days=124, instruments=20, start="2020-01-02"), folder / "bars.csv")
        vintage = load_vintage(settings, sync(file)["data_version"])
        feature_version = FeatureStore(settings).compute(vintage).feature_version
        version = Operation(settings, vintage, feature_version).register(Spec(key="a" * 16))
        running = RunningService(settings)
        assert deploy_model_task(version=version, strategy="blue_green")["deployed"]
        score_newest_date_task(data_version=vintage.data_version)
        day = vintage.calendar()[EARLIER].date()
        with ScoringClient(settings) as client:
            (row,) = client.score([NAME], day)["scores"]
        running.stop()
        (settings.home / "secrets" / "scoring_token").write_text("token-of-the-tests")
        yield Chain(settings, vintage, version, file, row["score"])


def traced(capsys: pytest.CaptureFixture[str], *words: str, status: int = 0) -> dict[str, Any]:
    """The JSON answer of a command."""
    found = main([*words, "--json"])
    said = capsys.readouterr().out
    assert found == status, said
    content: dict[str, Any] = json.loads(said.splitlines()[-1])
    return content


def test_a_published_score_leads_to_the_rows_of_the_file(chain: Chain, capsys: pytest.CaptureFixture[str]) -> None:
    """Every step is verified; bars, rows, slot, run, code and lock are those that the test has made."""
    found = traced(capsys, "trace", NAME, chain.day)
    assert found["verified"]
    published = pd.read_parquet(chain.settings.scores_dir / chain.day / f"{chain.version}.parquet")
    score = found["score"]
    assert score["score"] == published.set_index("instrument")["score"][NAME]
    assert (score["version"], score["alias"], score["data_version"]) == (
        chain.version,
        "champion",
        chain.vintage.data_version,
    )
    assert score["slot"] in ("blue", "green")
    assert found["service"]["state"] == "champion"
    assert found["service"]["since"] < score["made_at"]
    lineage = found["lineage"]
    assert lineage["dag_run"] == {"dag_id": "daily_retraining", "run_id": "scheduled__2020-07-01"}
    assert (lineage["seed"], lineage["horizon"]) == (1, 1)
    assert lineage["code"]["commit"] == "3ec27c8a" * 5
    assert lineage["environment"]["lock"] == lock_digest()
    assert lineage["certificate"]["passed"]
    (raw,) = found["vintage"]["raw"]
    assert raw["name"] == str(chain.file)
    stored = FeatureStore(chain.settings).load(found["features"]["feature_version"], chain.day, chain.day)
    assert found["features"]["values"]["ROC5"] == stored["ROC5"].droplevel("datetime")[NAME]
    assert len(found["features"]["values"]) == 158

    rows = pd.read_csv(chain.file)
    bars = found["bars"]["bars"]
    days = [str(day.date()) for day in chain.vintage.calendar()[-61:]]
    assert [bar["date"] for bar in bars] == days  # Alpha158 looks back 60 rows
    for bar in bars:
        row = rows.iloc[bar["source_row"] - 1]
        assert (row["Symbol"], row["Date"], bar["source_file"]) == (NAME, bar["date"], str(chain.file))
        assert (bar["values"]["close"], bar["values"]["volume"]) == (row["Close"], row["Volume"])


def test_a_score_that_was_only_served_is_traced_as_well(chain: Chain, capsys: pytest.CaptureFixture[str]) -> None:
    """The log of predictions has it; its bars end on its day."""
    found = traced(capsys, "trace", NAME, chain.earlier)
    assert found["verified"]
    assert found["score"]["file"] is None
    assert found["score"]["score"] == chain.served
    assert found["score"]["request_id"]
    assert found["bars"]["bars"][-1]["date"] == chain.earlier


def test_a_score_that_nobody_made_is_refused(chain: Chain, capsys: pytest.CaptureFixture[str]) -> None:
    """With where scores are to be found."""
    assert main(["trace", NAME, "2020-01-06"]) == 1
    assert "no score by any version was published" in capsys.readouterr().out


@contextmanager
def away(*paths: Path) -> Iterator[None]:
    """Files or folders that are gone for a while."""
    for path in paths:
        path.rename(path.with_name(f"{path.name}.away"))
    try:
        yield
    finally:
        for path in paths:
            if path.is_dir():
                shutil.rmtree(path)
            path.unlink(missing_ok=True)
            path.with_name(f"{path.name}.away").rename(path)


@contextmanager
def changed(path: Path) -> Iterator[None]:
    """A file with one more byte for a while."""
    before = path.read_bytes()
    path.write_bytes(before + b"\n")
    try:
        yield
    finally:
        path.write_bytes(before)


def unverified(capsys: pytest.CaptureFixture[str], chain: Chain) -> dict[str, str]:
    """Subject to the reason, of what a trace cannot verify."""
    found = traced(capsys, "trace", NAME, chain.day, status=1)
    assert not found["verified"]
    return {each["subject"]: each["said"] for each in found["evidence"] if not each["verified"]}


def test_a_tampered_artefact_is_refused(chain: Chain, capsys: pytest.CaptureFixture[str]) -> None:
    """Neither the stored bytes nor a copy of them are trusted."""
    (stored,) = (chain.settings.home / "mlflow" / "artifacts").rglob("processors.json")
    with away(chain.settings.home / "mlflow" / "cache"), changed(stored):
        found = unverified(capsys, chain)
    assert set(found) == {"artefact"}
    assert "restore MLflow's artefact store from a backup" in found["artefact"]


def test_a_deleted_run_is_refused(chain: Chain, capsys: pytest.CaptureFixture[str]) -> None:
    """What the version was made of cannot be shown until the run is restored, and then can be."""
    run_id = get_run_id(chain.settings, chain.version)
    connect(chain.settings).delete_run(run_id)
    found = unverified(capsys, chain)
    refused = main(["lineage", str(chain.version)])
    said = capsys.readouterr().out
    connect(chain.settings).restore_run(run_id)
    assert set(found) == {"lineage"}
    for text in (found["lineage"], said):
        assert f"mlflow runs restore --run-id {run_id}" in text
    assert refused == 1
    assert traced(capsys, "trace", NAME, chain.day)["verified"]


def test_a_vintage_that_dvc_no_longer_has_is_refused(chain: Chain, capsys: pytest.CaptureFixture[str]) -> None:
    """One that DVC has is restored; without its pointer the source has to be synced again."""
    data_version = chain.vintage.data_version
    folder, pointer = vintage_path(chain.settings, data_version), pointer_path(chain.settings, data_version)
    with away(folder):
        assert traced(capsys, "trace", NAME, chain.day)["verified"]
    with away(folder, pointer):
        found = unverified(capsys, chain)
    assert set(found) == {"vintage"}
    assert f"no vintage {data_version} in DVC either; run sync_market_data on its source" in found["vintage"]


def test_a_source_file_that_has_changed_is_told(chain: Chain, capsys: pytest.CaptureFixture[str]) -> None:
    """The bars are shown still, from the vintage; which rows they were cannot be proven."""
    with changed(chain.file):
        found = unverified(capsys, chain)
    assert set(found) == {"source rows"}
    assert "has changed since: the vintage was made from the file with SHA-256" in found["source rows"]


def test_a_changed_score_file_is_refused(chain: Chain, capsys: pytest.CaptureFixture[str]) -> None:
    """A score that was not published is not explained by a lineage."""
    path = chain.settings.scores_dir / chain.day / f"{chain.version}.parquet"
    before = path.read_bytes()
    frame = pd.read_parquet(path)
    frame.assign(score=frame["score"] + 1e-6).to_parquet(path, index=False)
    try:
        assert main(["trace", NAME, chain.day]) == 1
    finally:
        path.write_bytes(before)
    assert "not what was published" in capsys.readouterr().out


def test_the_commands_of_the_page(chain: Chain, capsys: pytest.CaptureFixture[str]) -> None:
    """As docs/lineage.md writes them, each ends well and says something."""
    own = {
        "AAPL": NAME,
        "2018-02-07": chain.day,
        "2017-03-01": str(chain.vintage.calendar()[70].date()),
        "2017-03-03": str(chain.vintage.calendar()[72].date()),
        "43d116071a2f2fcb": chain.vintage.data_version,
        "98d0371c": str(lock_digest())[:8],
        "7": str(chain.version),
    }
    texts = [each.text for each in commands_of("docs/lineage.md")]
    verbs = [text.split()[1:] for text in texts if text.split()[1] in ("trace", "lineage", "compatibility")]
    assert len(verbs) == 10
    for words in verbs:
        assert main([own.get(word, word) for word in words]) == 0, words
        assert f"version {chain.version}" in capsys.readouterr().out.replace('"version": ', "version "), words
