"""A registered version is trained again from its record, with equal scores; what cannot be is refused with a reason."""

import contextlib
import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient
from sqlalchemy.exc import DBAPIError

from mlops_tasks import cli
from mlops_tasks.config import Settings
from mlops_tasks.data.snapshots import pointer_path
from mlops_tasks.errors import RegistryError, StageError
from mlops_tasks.features.partitions import write_partition
from mlops_tasks.features.store import FeatureStore
from mlops_tasks.files import read_json
from mlops_tasks.machine.admission import Admission, queue_info
from mlops_tasks.machine.memory_need import MemoryNeed
from mlops_tasks.modeling import identity
from mlops_tasks.modeling.seal import artefact_digest
from mlops_tasks.process import stage_function
from mlops_tasks.registry.client import MODEL_NAME, connect
from mlops_tasks.registry.models import get_run_id, set_tags
from mlops_tasks.registry.replay import environment, turns
from mlops_tasks.registry.replay import run as replay_run
from mlops_tasks.registry.replay.compare import compare_scores, verdict_on
from mlops_tasks.registry.replay.report import Compared, Part, ReplayReport, Standing
from mlops_tasks.registry.replay.run import ReplayOrder, replay
from mlops_tasks.registry.replay.sample import choose
from mlops_tasks.registry.replay.scratch import scratch_folder
from mlops_tasks.registry.replay.turns import Pace
from mlops_tasks.stage_process import end_group
from mlops_tasks.state.database import session
from mlops_tasks.state.history import newest_alerts
from mlops_tasks.state.replays import last_replays, replays
from mlops_tasks.states import ReplayRefusal, ReplayVerdict
from mlops_tasks.training_folder import PREDICTION_COLUMNS, TrainingFolder
from tests.operation import make_champion
from tests.registry.replayed import FAMILIES, Chained, chain

SOON = Pace(limit_s=1800, gives_way=False)
SMALL = {"feature_set": "mine", "models": list(FAMILIES), "hyperparameters": dict(FAMILIES)}


@pytest.fixture(scope="module")
def chained(tmp_path_factory: pytest.TempPathFactory, migrated_mlflow: Path) -> Iterator[Chained]:
    """A home with a version of each family."""
    with pytest.MonkeyPatch.context() as patch:
        yield chain(tmp_path_factory.mktemp("replayed") / "home", migrated_mlflow, patch, SMALL)


def replayed(chained: Chained, model: str, pace: Pace = SOON, *, anyway: bool = False) -> ReplayReport:
    """Replay a version; its scratch folder is gone, and what was found is kept."""
    version = chained.versions[model]
    report = replay(chained.settings, ReplayOrder(version, "tests", pace, anyway))
    assert not any(chained.settings.replays_dir.glob("replay.*"))
    assert ReplayReport.from_json(json.loads(json.dumps(report.to_json()))) == report
    newest = replays(chained.settings, version)[0]
    assert (newest.verdict, newest.reason, newest.by) == (report.verdict, report.reason, "tests")
    assert newest.report == json.loads(json.dumps(report.to_json()))
    return report


@contextlib.contextmanager
def changed(path: Path, content: bytes | None) -> Iterator[None]:
    """A file has other content meanwhile, or is not there."""
    before, mode = path.read_bytes(), path.stat().st_mode
    path.unlink()  # files of a vintage are links into DVC's cache
    if content is not None:
        path.write_bytes(content)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        path.write_bytes(before)
        path.chmod(mode)


@contextlib.contextmanager
def moved(*paths: Path) -> Iterator[None]:
    """Files or folders are elsewhere meanwhile."""
    away = [path.with_name(f"{path.name}.away") for path in paths]
    for path, there in zip(paths, away, strict=True):
        path.rename(there)
    try:
        yield
    finally:
        for path, there in zip(paths, away, strict=True):
            if path.is_dir():
                shutil.rmtree(path)
            there.rename(path)


def training_of(chained: Chained, model: str) -> TrainingFolder:
    """The training of a version."""
    tags = connect(chained.settings).get_model_version(MODEL_NAME, str(chained.versions[model])).tags
    return TrainingFolder.of(chained.settings, tags["training_key"])


@pytest.mark.parametrize("model", FAMILIES)
def test_a_version_of_the_chain_is_reproduced_to_the_last_bit(chained: Chained, model: str) -> None:
    """Its features, learning data, model files and scores; the report is in its MLflow run."""
    report = replayed(chained, model)
    assert report.verdict is ReplayVerdict.EQUAL, "\n".join(report.lines())
    assert [(each.part, each.standing) for each in report.parts] == [(part, Standing.EQUAL) for part in Part]
    assert report.parts[0].values > 10_000 and report.parts[3].values > 500
    assert training_of(chained, model).segment("test")["score"].nunique() > 20
    assert (report.environment, report.reason, report.model) == ((), "", model)
    run_id, client = get_run_id(chained.settings, report.version), MlflowClient(chained.settings.registry_uri)
    (logged,) = client.list_artifacts(run_id, "replays")
    assert read_json(Path(client.download_artifacts(run_id, logged.path))) == json.loads(json.dumps(report.to_json()))
    assert client.get_run(run_id).data.tags["replay"] == f"equal {report.began}"


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_versions_with_all_factors_and_the_models_own_settings_are_reproduced(
    tmp_path: Path, migrated_mlflow: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Alpha158 over three years, and every hyper-parameter as the zoo has it."""
    form = {"models": list(FAMILIES)}
    made = chain(tmp_path / "home", migrated_mlflow, monkeypatch, form, days=700)
    for model in FAMILIES:
        assert replayed(made, model, Pace(1800, gives_way=False)).verdict is ReplayVerdict.EQUAL, model


def test_bars_come_back_from_dvc_and_features_are_rebuilt_where_the_stores_have_none(chained: Chained) -> None:
    """By the definition in the run's lineage, with the same result; the feature store is neither read nor filled."""
    shutil.rmtree(chained.settings.data_dir / "vintages" / chained.data_version)
    with moved(chained.settings.features_dir):
        report = replayed(chained, "lightgbm")
        assert not (chained.settings.features_dir / "partitions").exists()
    assert report.verdict is ReplayVerdict.EQUAL and report.environment == ()
    assert [each.standing for each in report.parts] == [Standing.NOT_COMPARED, *[Standing.EQUAL] * 3]


def test_the_first_difference_of_the_scores_is_named_and_alarms(chained: Chained) -> None:
    """As if the version had scored two rows otherwise, one of them by more than the tolerance."""
    path = training_of(chained, "linear").predictions
    frame = pd.read_parquet(path)
    rows = frame.sort_values(["datetime", "instrument"]).index[[7, 30]]
    before, spread = frame.loc[rows[0], "score"], frame["score"].std(ddof=0)
    frame.loc[rows[0], "score"] += 1e-12 * spread
    frame.loc[rows[1], "score"] += 0.5 * spread
    original = path.read_bytes()
    try:
        frame.to_parquet(path, index=False)
        report = replayed(chained, "linear")
    finally:
        path.write_bytes(original)
    scores = report.parts[-1]
    assert report.verdict is ReplayVerdict.DIFFERENT and report.first_difference is scores
    assert [each.standing for each in report.parts[:3]] == [Standing.EQUAL] * 3
    assert scores.first is not None and scores.first.replayed == before
    assert (scores.first.instrument, scores.first.column) == (frame.loc[rows[0], "instrument"], "score")
    assert scores.first.date == str(frame.loc[rows[0], "datetime"].date())
    assert scores.differing == 2 and scores.relative == pytest.approx(0.5, rel=0.01)
    assert f"version {report.version}" in {
        alert.subject for alert in newest_alerts(chained.settings, 10) if alert.kind == "replay_different"
    }


def test_stored_features_that_are_not_what_is_rebuilt_are_found(chained: Chained) -> None:
    """Two values of the newest year: the first is named and people are told, though the training saw the right ones."""
    store = FeatureStore(chained.settings)
    version = store.get(training_of(chained, "lightgbm").manifest().feature_version)
    newest = version.partitions[-1]
    frame = store.load(version.feature_version, f"{newest.year}-01-01")
    other = frame.copy()
    other.iloc[1000, 1] += 1.0
    other.iloc[1001, 0] = np.nan
    folder = chained.settings.features_dir
    shutil.copytree(folder, folder.with_name("features.before"))
    try:
        path = folder / "partitions" / f"{newest.digest}.parquet"
        write_partition(path, version.names, frame.index, iter([other.to_numpy().T]))
        report = replayed(chained, "lightgbm")
    finally:
        shutil.rmtree(folder)
        folder.with_name("features.before").rename(folder)
    (day, instrument), features = frame.index[1000], report.parts[0]
    assert report.first_difference is features and features.first is not None and features.differing == 2
    first = features.first
    assert (first.date, first.instrument, first.column) == (str(day.date()), instrument, version.names[1])
    assert (first.recorded, first.replayed) == (other.iloc[1000, 1], frame.iloc[1000, 1])
    assert report.verdict is ReplayVerdict.EQUAL and report.is_alarming


def scores(values: list[float], names: str = "ABCD") -> pd.DataFrame:
    """Predictions of one day."""
    rows = [(pd.Timestamp("2024-01-05"), name, "test", value, 0.0) for name, value in zip(names, values, strict=True)]
    return pd.DataFrame(rows, columns=list(PREDICTION_COLUMNS))


@pytest.mark.parametrize(
    ("again", "verdict"),
    [
        ([1.0, 2.0, 3.0, 4.0], ReplayVerdict.EQUAL),
        ([1.0, 2.0, 3.0 + 1e-9, 4.0], ReplayVerdict.WITHIN_TOLERANCE),
        ([1.0, 2.0, 3.0 + 1e-5, 4.0], ReplayVerdict.DIFFERENT),
        ([1.0, 2.0, np.nan, 4.0], ReplayVerdict.DIFFERENT),
    ],
)
def test_a_difference_is_judged_by_the_spread_of_the_scores(again: list[float], verdict: ReplayVerdict) -> None:
    """Of 1.118 here; a score that is missing is beyond every tolerance."""
    compared = compare_scores(scores([1.0, 2.0, 3.0, 4.0]), scores(again))
    assert verdict_on(compared, 1e-6) is verdict
    if verdict is ReplayVerdict.WITHIN_TOLERANCE:
        assert compared.relative == pytest.approx(1e-9 / np.sqrt(1.25), rel=1e-3)


def test_a_row_that_only_one_side_has_is_a_difference() -> None:
    """Whatever the others are."""
    compared = compare_scores(scores([1.0, 2.0, 3.0, 4.0]), scores([1.0, 2.0, 3.0], "ABC"))
    assert verdict_on(compared, 1e9) is ReplayVerdict.DIFFERENT
    assert compared.first is not None and (compared.first.instrument, compared.first.column) == ("D", None)


def refused(chained: Chained, model: str, refusal: ReplayRefusal, *words: str) -> ReplayReport:
    """Replay a version that is refused, with these words; damage raises an alert."""
    report = replayed(chained, model)
    assert (report.verdict, report.refusal) == (ReplayVerdict.REFUSED, refusal), "\n".join(report.lines())
    for word in words:
        assert word in report.why, report.why
    assert report.parts == () or refusal is ReplayRefusal.RECORD_DAMAGED
    told = {alert.kind for alert in newest_alerts(chained.settings, 50) if alert.message.endswith(report.why)}
    assert told == ({"replay_impossible"} if report.is_alarming else set())
    return report


def stored_artefact(chained: Chained, model: str) -> Path:
    """The folder of a version's artefact in MLflow's store."""
    client = connect(chained.settings)
    source = client.get_model_version(MODEL_NAME, str(chained.versions[model])).source
    location = Path(client.get_logged_model(source.removeprefix("models:/")).artifact_location)
    return next((location / "data").iterdir())


def test_a_tampered_artefact_is_refused_although_the_local_copy_is_whole(chained: Chained) -> None:
    """A changed file, one that is gone, and one that was added."""
    path = stored_artefact(chained, "linear") / "linear.json"
    with changed(path, path.read_bytes().replace(b"0", b"1", 1)):
        refused(chained, "linear", ReplayRefusal.ARTEFACT_DAMAGED, "restore MLflow's artefact store from a backup")
    with changed(path, None):
        refused(chained, "linear", ReplayRefusal.ARTEFACT_DAMAGED, "digest")


def test_an_artefact_that_nobody_signed_is_refused(chained: Chained) -> None:
    """Though the registry was told its digest."""
    folder, version = stored_artefact(chained, "xgboost"), chained.versions["xgboost"]
    before = artefact_digest(folder)
    manifest = (folder / "model.json").read_bytes()
    with changed(folder / "model.json", manifest.replace(b'"seed": 42', b'"seed": 43')):
        set_tags(chained.settings, version, {"digest": artefact_digest(folder)})
        refused(chained, "xgboost", ReplayRefusal.ARTEFACT_DAMAGED, "signed")
    set_tags(chained.settings, version, {"digest": before})


def edited(path: Path, edit: Callable[[dict[str, object]], object]) -> bytes:
    """A JSON file's content, edited."""
    content = read_json(path)
    edit(content)
    return json.dumps(content).encode()


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda plan: plan.update(seed=7), "its seed is not what was signed"),
        (lambda plan: plan["segments"]["train"].reverse(), "its segments is not what was signed"),
        (lambda plan: plan["model_config"].update(class_path="os:system"), "class_path"),
        (lambda plan: plan["model_config"]["hyperparameters"].update(num_leaves=9), "num_leaves"),
        (lambda plan: plan["model_config"].update(family="qlib"), "family"),
        (lambda plan: plan["identity"].update(threads=3, libraries={}), "libraries"),
        (lambda plan: plan.update(identity=7), "identity"),
    ],
)
def test_a_record_that_was_changed_is_refused(
    chained: Chained, edit: Callable[[dict[str, object]], object], words: str
) -> None:
    """It is held against the signed manifest and MLflow's parameters before anything runs; what both lack, such as the
    libraries, is no longer the environment of now."""
    path = training_of(chained, "lightgbm").path / "plan.json"
    with changed(path, edited(path, edit)):
        report = replayed(chained, "lightgbm")
    assert report.verdict is ReplayVerdict.REFUSED
    assert report.refusal in (ReplayRefusal.RECORD_DAMAGED, ReplayRefusal.OTHER_ENVIRONMENT)
    assert words in report.why or report.refusal is ReplayRefusal.OTHER_ENVIRONMENT
    assert report.parts == ()


def test_a_record_that_both_witnesses_agree_on_is_held_against_the_training_key(chained: Chained) -> None:
    """Where somebody has changed plan.json in what neither the manifest nor MLflow has: nothing is trained by it."""
    path = training_of(chained, "lightgbm").path / "plan.json"
    with changed(path, edited(path, lambda plan: plan["identity"].update(threads=1))):  # LightGBM's are None
        report = refused(chained, "lightgbm", ReplayRefusal.RECORD_DAMAGED, "training key")
    assert [each.part for each in report.parts] == [Part.FEATURES]


def test_a_training_whose_folder_is_gone_is_refused(chained: Chained) -> None:
    """Its configuration is nowhere else."""
    with moved(training_of(chained, "lightgbm").path):
        refused(chained, "lightgbm", ReplayRefusal.NO_RECORD, "is gone", "backup")


def test_a_vintage_that_dvc_no_longer_has_is_refused(chained: Chained) -> None:
    """Neither on disk nor in the cache; nothing is left half restored."""
    folder = chained.settings.data_dir
    vintage = folder / "vintages" / chained.data_version
    with moved(vintage, pointer_path(chained.settings, chained.data_version)):
        refused(chained, "lightgbm", ReplayRefusal.VINTAGE_GONE, "run sync_market_data on its source")
        assert not vintage.exists()


def test_a_deleted_run_is_refused(chained: Chained) -> None:
    """With how to restore it."""
    client, run_id = connect(chained.settings), get_run_id(chained.settings, chained.versions["xgboost"])
    client.delete_run(run_id)
    try:
        refused(chained, "xgboost", ReplayRefusal.RUN_DELETED, f"mlflow runs restore --run-id {run_id}")
    finally:
        client.restore_run(run_id)


def test_a_version_that_was_registered_by_hand_is_refused(chained: Chained) -> None:
    """It has no lineage; one that does not exist is an error, and leaves no record."""
    client = connect(chained.settings)
    of_another = client.get_model_version(MODEL_NAME, str(chained.versions["linear"]))
    made = client.create_model_version(MODEL_NAME, source=of_another.source, run_id=of_another.run_id)
    by_hand = Chained(chained.settings, {"by hand": int(made.version)}, chained.data_version)
    refused(by_hand, "by hand", ReplayRefusal.NO_RECORD, "not registered by this project")
    count = len(replays(chained.settings))
    with pytest.raises(RegistryError, match="has no version 99"):
        replay(chained.settings, ReplayOrder(99, "tests", SOON))
    assert len(replays(chained.settings)) == count
    client.delete_model_version(MODEL_NAME, made.version)


def test_another_environment_is_refused_unless_asked_for(chained: Chained, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each library that trains it is named, as it was and as it is; anyway, it is replayed, and the report says so."""
    version_of = identity.package_version
    monkeypatch.setattr(identity, "package_version", lambda name: "0.1" if name == "lightgbm" else version_of(name))
    words = f"lightgbm: {version_of('lightgbm')} then, 0.1 now"
    report = refused(chained, "lightgbm", ReplayRefusal.OTHER_ENVIRONMENT, words, "--anyway", "make env")
    assert not report.is_alarming
    report = replayed(chained, "lightgbm", anyway=True)
    assert report.verdict is ReplayVerdict.EQUAL and report.anyway
    assert [str(each) for each in report.environment if each.decisive] == [words]


def test_other_code_of_the_same_engines_is_replayed_and_named(
    chained: Chained, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the certificate that the version was trained under; another engine is refused."""
    monkeypatch.setattr(environment, "certified_code", lambda: "f" * 16)
    report = replayed(chained, "linear")
    assert report.verdict is ReplayVerdict.EQUAL
    assert [(each.what, each.decisive) for each in report.environment] == [("code", False)]
    monkeypatch.setattr(environment, "TRAINING_VERSION", 99)
    refused(chained, "linear", ReplayRefusal.OTHER_ENVIRONMENT, "training engine")


def test_a_killed_replay_leaves_nothing_that_the_next_one_does_not_remove(chained: Chained) -> None:
    """Killed while it holds its folder; one that still runs keeps its own."""
    root = chained.settings.replays_dir
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        with scratch_folder(chained.settings) as scratch:
            (scratch.path / "half").write_text("of something")
            os.write(writer, b"!")
            signal.pause()
    os.read(reader, 1)
    (left,) = root.glob("replay.*")
    with scratch_folder(chained.settings) as scratch:
        assert left.is_dir() and scratch.path != left
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert (left / "half").exists()
    with scratch_folder(chained.settings) as scratch:
        assert [*root.glob("replay.*")] == [scratch.path]
    assert not any(root.glob("replay.*"))


def test_of_a_replay_whose_process_dies_nothing_is_kept(chained: Chained, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed in the middle of its work: an error and no report; the machine's queue has its place back."""
    count, start = len(replays(chained.settings)), turns.run_stage

    def killed(*words: object, on_start: Callable[[object], None], **more: object) -> object:
        def begun(process: object) -> None:
            on_start(process)
            threading.Timer(0.3, end_group, (process,)).start()

        return start(*words, on_start=begun, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(turns, "run_stage", killed)
    with pytest.raises(StageError):
        replay(chained.settings, ReplayOrder(chained.versions["lightgbm"], "tests", SOON))
    assert len(replays(chained.settings)) == count
    assert queue_info(chained.settings)["running"] == [] and not any(chained.settings.replays_dir.glob("replay.*"))


@contextlib.contextmanager
def busy(settings: Settings, *, waits: bool) -> Iterator[Admission]:
    """All slots are held by one training, and another one waits for them if asked for."""
    need = MemoryNeed(1, 1, 1.0, 0.0, 0.0)
    holder, waiting = Admission(settings, "holder", "daily"), Admission(settings, "waiting", "daily")
    assert holder.ask(need).granted
    if waits:
        assert not waiting.ask(need).granted
    try:
        yield holder
    finally:
        waiting.leave()
        holder.leave()


@pytest.fixture
def narrow(chained: Chained, monkeypatch: pytest.MonkeyPatch) -> Chained:
    """The same home, on a machine with room for one training."""
    monkeypatch.setenv("MLOPS_TRAINING__SLOTS", "1")
    training = chained.settings.training.model_copy(update={"slots": 1})
    settings = chained.settings.model_copy(update={"training": training})
    return Chained(settings, chained.versions, chained.data_version)


def test_a_replay_whose_time_is_up_says_so_and_ends(narrow: Chained) -> None:
    """While it waits for the machine; nothing is found out, and nobody is alarmed."""
    with busy(narrow.settings, waits=False):
        report = replayed(narrow, "lightgbm", Pace(limit_s=1.0, gives_way=True))
    assert report.verdict is ReplayVerdict.UNFINISHED and not report.is_alarming
    assert "replay.time_limit_s" in report.why


def test_a_scheduled_replay_gives_way_and_continues(narrow: Chained, monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends its turn when a training begins to wait, lets that one go first, and comes to the same result."""
    monkeypatch.setattr(turns, "LOOK_S", 0.05)
    training = Admission(narrow.settings, "a training", "daily")
    begun, order = threading.Event(), []
    start = turns.run_stage

    def followed(*words: object, on_start: Callable[[object], None], **more: object) -> object:
        order.append("turn")

        def remembered(process: object) -> None:
            on_start(process)
            begun.set()

        return start(*words, on_start=remembered, **more)  # type: ignore[arg-type]

    def train() -> None:
        begun.wait(120)
        training.wait(MemoryNeed(1, 1, 1.0, 0.0, 0.0), lambda place: None)
        order.append("training")
        time.sleep(0.5)
        training.leave()

    monkeypatch.setattr(turns, "run_stage", followed)
    other = threading.Thread(target=train)
    other.start()
    report = replayed(narrow, "lightgbm", Pace(limit_s=1800, gives_way=True))
    other.join()
    assert order == ["turn", "training", "turn"]
    assert report.verdict is ReplayVerdict.EQUAL


def test_the_sample_is_the_champion_and_who_has_waited_longest() -> None:
    """Never replayed first, the oldest version first; a version that was just tried waits for all others."""
    day = {number: datetime(2024, 1, number, tzinfo=UTC) for number in range(1, 10)}
    assert choose([], None, {}, 2) == []
    assert choose([1, 2, 3], None, {}, 2) == [1, 2]
    assert choose([1, 2, 3], 2, {2: day[1]}, 1) == [2, 1]
    assert choose([1, 2, 3, 4], 4, {1: day[5], 2: day[3]}, 2) == [4, 3, 2]
    assert choose([1, 2, 3], None, {1: day[2], 2: day[9], 3: day[1]}, 0) == []
    last: dict[int, datetime] = {}
    seen = []
    for turn in range(1, 9):
        (chosen,) = choose([1, 2, 3, 4], None, last, 1)
        last[chosen] = day[turn]
        seen.append(chosen)
    assert seen == [1, 2, 3, 4, 1, 2, 3, 4]


def test_the_stages_of_the_dag_replay_the_sample_or_the_version_of_the_form(chained: Chained) -> None:
    """The champion is among the sample; a replay's note says what is not equal."""
    champion = chained.versions["xgboost"]
    make_champion(chained.settings, champion)
    choose_replays, run = stage_function("registry.choose_replays"), stage_function("registry.replay")
    asked = choose_replays(version=None, anyway=False)["replays"]
    assert asked[0] == {"version": champion, "anyway": False, "gives_way": True}
    assert len(asked) == 1 + chained.settings.replay.sample
    (one,) = choose_replays(version=champion, anyway=True)["replays"]
    assert one == {"version": champion, "anyway": True, "gives_way": False}
    result = run(**one, asked_by="ann")
    assert (result["verdict"], result["reason"]) == ("equal", "") and "run_note" not in result
    assert replays(chained.settings, champion)[0].by == "ann"
    assert last_replays(chained.settings)[champion] == replays(chained.settings, champion)[0].at


def test_a_replay_that_was_recorded_stays_as_it_is(chained: Chained) -> None:
    """The database refuses to change or remove it."""
    assert replays(chained.settings)
    for change in ("UPDATE model_replay SET verdict = 'equal'", "DELETE FROM model_replay"):
        with pytest.raises(DBAPIError, match="append-only"), session(chained.settings) as active:
            active.connection().exec_driver_sql(change)


def test_the_command_line_says_what_was_found(chained: Chained, capsys: pytest.CaptureFixture[str]) -> None:
    """As text and as JSON, with an exit status for scripts; without a version it lists the replays."""
    number = str(chained.versions["linear"])
    assert cli.main(["replay", number]) == 0
    assert capsys.readouterr().out.startswith(f"version {number} (linear, vintage {chained.data_version}): equal, ")
    with moved(training_of(chained, "linear").path):
        assert cli.main(["replay", number, "--json"]) == 1
        assert json.loads(capsys.readouterr().out)["refusal"] == "no_record"
    assert cli.main(["replay"]) == 0
    newest, before, *_ = capsys.readouterr().out.splitlines()
    assert f"version {number}: refused, by " in newest and f"version {number}: equal, by " in before
    assert cli.main(["replay", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["verdict"] == "refused"
    assert cli.main(["replay", "99"]) == 1
    assert "has no version 99" in capsys.readouterr().out


def test_a_different_replay_has_an_exit_status_of_its_own(
    chained: Chained, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """3, so that a script tells it from a failure."""
    different = ReplayReport(
        version=1,
        training_key="k",
        model="linear",
        data_version="d",
        verdict=ReplayVerdict.DIFFERENT,
        by="ann",
        began="",
        seconds=1.0,
        parts=(Compared(Part.SCORES, Standing.DIFFERENT),),
    )
    monkeypatch.setattr(replay_run, "replay", lambda settings, order: different)
    assert cli.main(["replay", "1"]) == 3
    assert "version 1 (linear, vintage d): different" in capsys.readouterr().out
