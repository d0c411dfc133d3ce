"""The scoring service follows the champion alias and the vintage; a real server, a real registry."""

import itertools
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest

from mlops_tasks.config import Settings
from mlops_tasks.errors import ConfigError
from mlops_tasks.modeling.artefact import ModelArtefact
from mlops_tasks.registry.client import CHAMPION
from mlops_tasks.registry.models import claim_of, get_alias_version, load_version, set_alias
from mlops_tasks.serving.app import create_app
from mlops_tasks.serving.client import ScoringClient, ScoringServiceError, scores_of
from mlops_tasks.serving.poller import Poller
from mlops_tasks.serving.reconciliation import LEASE
from mlops_tasks.serving.slots import ModelSlots, Slot
from mlops_tasks.state.history import record_deployment
from mlops_tasks.state.lease import lease
from mlops_tasks.state.tables import Deployment
from mlops_tasks.states import DeploymentState
from tests.operation import make_champion, publish_vintage
from tests.registry.conftest import OFTEN_S, Operation
from tests.registry.trainings import DAYS, INSTRUMENTS, Spec
from tests.serving.conftest import RunningService, scores_here

POLL_S = OFTEN_S


@pytest.fixture
def champion(operation: Operation) -> int:
    """A champion; the service is not told."""
    version = operation.register(Spec(key="a" * 16))
    make_champion(operation.settings, version)
    return version


@pytest.fixture
def raw(client: ScoringClient) -> httpx.Client:
    """The client's own HTTP connection, for bodies that the client would not send."""
    return client._http


def test_a_look_that_fails_is_not_the_last() -> None:
    """Whatever it has met: without looks the service would follow no champion, and take no key back."""
    looks = list[int]()

    def look() -> None:
        looks.append(1)
        if len(looks) == 3:
            poller.stop()
        raise RuntimeError("nobody has thought of it")

    poller = Poller(look, 0.0)
    poller.run()
    assert len(looks) == 3


def test_the_service_refuses_to_start_without_a_token(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """No token, an empty one or one that others can read: the error names the variable, the file and the remedy."""
    monkeypatch.delenv("MLOPS_SCORING_TOKEN")
    with pytest.raises(ConfigError, match="set MLOPS_SCORING_TOKEN or write one into"):
        create_app(settings)
    path = settings.secrets_dir / "scoring_token"
    path.parent.mkdir()
    path.write_text("secret")
    path.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        create_app(settings)
    path.chmod(0o600)
    create_app(settings)
    path.write_text("")
    with pytest.raises(ConfigError, match="is empty"):
        create_app(settings)


def test_without_a_champion_health_is_503(raw: httpx.Client) -> None:
    """Before the first promotion the service says what is missing."""
    health = raw.get("/health")
    assert health.status_code == 503
    assert health.json()["status"] == "no_model"
    score = raw.post("/v1/score", json={})
    assert score.status_code == 503
    assert "run daily_retraining" in score.json()["detail"]


def test_the_poller_finds_a_new_champion(operation: Operation, champion: int, client: ScoringClient) -> None:
    """Without being told, the service follows the alias into the other slot, and back."""
    wait_for(client, champion)
    while (first := client.health())["newest_date"] is None:  # the vintage is adopted right after the model
        time.sleep(0.05)
    assert (first["status"], first["slot"], first["newest_date"]) == ("ok", "blue", "2020-06-30")
    other = operation.register(Spec(key="b" * 16, seed=2))
    make_champion(operation.settings, other)
    wait_for(client, other)
    assert client.health()["slot"] == "green"
    make_champion(operation.settings, champion)
    wait_for(client, champion)
    assert client.health()["slot"] == "blue"


def test_no_request_fails_during_switches(operation: Operation, champion: int, client: ScoringClient) -> None:
    """While the alias moves forth and back, every answer is whole and is one model's."""
    other = operation.register(Spec(key="b" * 16, seed=2))
    client.refresh()
    expected = {version: scores_here(operation, version) for version in (champion, other)}
    stop = threading.Event()

    def ask() -> set[int]:
        seen = set()
        with ScoringClient(operation.settings) as mine:
            while not stop.is_set():
                reply = mine._http.post("/v1/score", json={})
                assert reply.status_code == 200, reply.text
                answer = reply.json()
                seen.add(answer["model_version"])
                assert scores_of(answer).to_dict() == expected[answer["model_version"]]
        return seen

    with ThreadPoolExecutor(4) as pool:
        asking = [pool.submit(ask) for _ in range(4)]
        for version in (other, champion) * 5:
            make_champion(operation.settings, version)
            assert client.refresh()["model_version"] == version
        stop.set()
        seen = set.union(*(a.result() for a in asking))
    assert seen == {champion, other}


def test_a_request_is_answered_by_the_model_that_it_has_found(
    operation: Operation, champion: int, service: RunningService, raw: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A switch between a request's look for its data and its plan, to a model whose data nobody has looked for yet."""
    raw.post("/v1/refresh")
    found = service.scoring.slots.active
    assert found is not None
    version = operation.register(Spec(key="b" * 16, seed=2))
    unseen = Slot("green", load_version(operation.settings, version))
    looks = itertools.chain([found], itertools.repeat(unseen))

    def active(_: ModelSlots) -> Slot:
        return found if threading.current_thread().name == "poller" else next(looks)

    monkeypatch.setattr(ModelSlots, "active", property(active, lambda _, value: None), raising=False)
    answers = [raw.post("/v1/score", json={}) for _ in range(2)]
    assert [each.status_code for each in answers] == [200, 200], answers[0].text
    assert [each.json()["model_version"] for each in answers] == [champion, version]


def test_a_damaged_candidate_leaves_the_old_model_in_service(
    operation: Operation, champion: int, raw: httpx.Client
) -> None:
    """A version whose bytes changed is not served; health and metrics say so, scores go on, and recovery is seen."""
    raw.post("/v1/refresh")
    other = operation.register(Spec(key="b" * 16, seed=2))
    stored = max(
        (operation.settings.home / "mlflow" / "artifacts").rglob("model.txt"), key=lambda path: path.stat().st_mtime
    )
    content = stored.read_bytes()
    stored.write_bytes(content.replace(b"tree", b"TREE", 1))
    shutil.rmtree(operation.settings.home / "mlflow" / "cache")  # what was checked before is at hand no more
    make_champion(operation.settings, other)
    health = raw.post("/v1/refresh").json()
    assert (health["status"], health["model_version"]) == ("degraded", champion)
    assert "DigestMismatchError" in health["errors"][0]
    assert raw.post("/v1/score", json={}).json()["model_version"] == champion
    metrics = raw.get("/metrics").text
    assert float(metrics.split("\nalphaops_model_load_failures ")[1].split("\n")[0]) >= 1
    stored.write_bytes(content)
    health = raw.post("/v1/refresh").json()
    assert (health["status"], health["model_version"]) == ("ok", other)


def test_a_model_that_scores_no_number_is_not_served(
    operation: Operation, client: ScoringClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The service itself probes what it has loaded, whoever has proven it where."""
    version, honest = operation.register(Spec(key="a" * 16)), ModelArtefact.predict
    with monkeypatch.context() as patch:
        patch.setattr(ModelArtefact, "predict", lambda self, features: honest(self, features) * np.nan)
        make_champion(operation.settings, version)
        health = client.refresh()
        assert health["status"] == "no_model" and "scores probe rows with [nan, nan]" in health["errors"][0]
    assert client.refresh()["model_version"] == version


def test_an_undone_first_deployment_ends_the_service_of_the_model(operation: Operation, client: ScoringClient) -> None:
    """While it is at work its candidate is served; when it ends without a proof, there is no model again."""
    settings, version = operation.settings, operation.register(Spec(key="a" * 16))
    claim = claim_of(settings, version)
    start = Deployment(
        model_version=version,
        training_key=claim.training_key,
        artefact_digest=claim.digest,
        data_version="d",
        strategy="blue_green",
        state=DeploymentState.STARTED,
    )
    with lease(settings, LEASE):
        record_deployment(settings, start)
        set_alias(settings, CHAMPION, version)
        assert client.refresh()["model_version"] == version
    assert client.refresh()["status"] == "no_model"
    assert get_alias_version(settings, CHAMPION) is None


def test_a_new_vintage_is_served_once_its_features_are_there(
    operation: Operation, champion: int, client: ScoringClient
) -> None:
    """One more day of bars: the newest date follows; until its features exist, the day before is served."""
    client.refresh()
    longer = DAYS.append(DAYS[-1:] + (DAYS[-1] - DAYS[-2]))
    pointers = operation.settings.features_dir / "by_vintage"
    hidden = pointers.rename(pointers.with_name("hidden"))
    vintage, _ = publish_vintage(operation.settings, longer)
    made = pointers.rename(pointers.with_name("made"))
    health = client.refresh()
    assert (health["status"], health["newest_date"]) == ("degraded", "2020-06-30")
    assert "run features.compute" in health["errors"][0]
    assert client.score()["date"] == "2020-06-30"
    made.rename(pointers)
    assert hidden.exists()
    assert client.refresh()["newest_date"] == vintage.last_date == "2020-07-01"
    assert len(client.score()["scores"]) == len(INSTRUMENTS)


def test_the_client_names_a_service_that_is_not_there(settings: Settings) -> None:
    """After its repetitions the client says the address and how to start the service."""
    with (
        ScoringClient(settings) as client,
        pytest.raises(ScoringServiceError, match=f"{settings.scoring_url} does not answer.*make up"),
    ):
        client.health()


def wait_for(client: ScoringClient, version: int) -> None:
    until = time.monotonic() + 60
    while client.health()["model_version"] != version:
        assert time.monotonic() < until, client.health()
        time.sleep(0.05)
