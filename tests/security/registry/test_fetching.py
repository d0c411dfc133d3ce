"""Nothing is fetched but the model of a version's own run, from our store, up to a size."""

import http.server
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository

from mlops_tasks.config import ModelSettings, Settings
from mlops_tasks.errors import RegistryError
from mlops_tasks.registry.artefact_store import is_below
from mlops_tasks.registry.client import MODEL_NAME, connect
from mlops_tasks.registry.models import claim_of, load_version
from tests.registry.conftest import Operation
from tests.registry.trainings import Spec


@pytest.fixture
def listener() -> Iterator[tuple[str, list[str]]]:
    """A server of somebody else, and the paths that it was asked for."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    server.server_close()
    thread.join()


def version_from(settings: Settings, version: int, source: str) -> int:
    """A version with the tags of another one and a source of its own; the local copy is gone."""
    client = connect(settings)
    known = client.get_model_version(MODEL_NAME, str(version))
    shutil.rmtree(settings.home / "mlflow" / "cache", ignore_errors=True)
    return int(client.create_model_version(MODEL_NAME, source, known.run_id, dict(known.tags)).version)


def logged_model_at(settings: Settings, location: str, run_id: str) -> str:
    """A model that MLflow itself says to lie at a place: its experiment's, for whoever makes one to choose."""
    client = connect(settings)
    experiment = client.create_experiment(f"at {location}", artifact_location=location)
    return str(client.create_logged_model(experiment, name="m", source_run_id=run_id).model_id)


def test_no_address_that_somebody_writes_into_mlflow_is_asked(
    operation: Operation, listener: tuple[str, list[str]], tmp_path: Path
) -> None:
    """Of another scheme or host, a folder of the machine, a logged model that lies elsewhere or is another run's."""
    settings, (url, asked) = operation.settings, listener
    version = operation.register(Spec(key="a" * 16))
    run_id = str(connect(settings).get_model_version(MODEL_NAME, str(version)).run_id)
    stored = load_version(settings, version).artefact.folder
    elsewhere = tmp_path / "elsewhere" / "data" / "model"
    shutil.copytree(stored, elsewhere)  # signed and right: it is the place that is not
    sources = [
        f"{url}/m",
        str(tmp_path / "elsewhere"),
        (tmp_path / "elsewhere").as_uri(),
        f"runs:/{run_id}/m",
        f"mlflow-artifacts://{url.removeprefix('http://')}/m",
        f"models:/{MODEL_NAME}/{version}",
        f"models:/{logged_model_at(settings, f'{url}/store', run_id)}",
        f"models:/{logged_model_at(settings, str(tmp_path / 'store'), run_id)}",
    ]
    other = operation.register(Spec(key="b" * 16, seed=2))
    sources.append(str(connect(settings).get_model_version(MODEL_NAME, str(other)).source))
    for source in sources:
        made = version_from(settings, version, source)
        with pytest.raises(RegistryError, match="is not the model of its own run"):
            load_version(settings, made)
    assert asked == []
    assert not (settings.home / "mlflow" / "cache" / claim_of(settings, version).digest).exists()


def test_an_artefact_that_is_too_large_is_not_fetched(operation: Operation) -> None:
    """The error says how large it is and which setting to raise; nothing of it is left here."""
    version = operation.register(Spec(key="a" * 16))
    tight = operation.settings.model_copy(update={"models": ModelSettings(largest_artefact_mb=0.001)})
    with pytest.raises(RegistryError, match=r"has [\d,]+ bytes, more than 1,000; .*models.largest_artefact_mb"):
        load_version(tight, version)
    assert list((operation.settings.home / "mlflow" / "cache").glob("[!.]*")) == []
    assert load_version(operation.settings, version).version == version


def test_what_is_more_than_files_is_not_fetched(operation: Operation) -> None:
    """A folder among them, or thousands, however small: what it costs to ask for each is limited."""
    settings, version = operation.settings, operation.register(Spec(key="a" * 16))
    (stored,) = (settings.home / "mlflow" / "artifacts").rglob("model.json")
    (stored.parent / "sub").mkdir()
    (stored.parent / "sub" / "file").touch()
    with pytest.raises(RegistryError, match="an artefact is a folder of up to 1000 regular files"):
        load_version(settings, version)
    shutil.rmtree(stored.parent / "sub")
    for number in range(1000):
        (stored.parent / f"{number}").touch()
    with pytest.raises(RegistryError, match="an artefact is a folder of up to 1000 regular files"):
        load_version(settings, version)


def test_files_that_change_while_they_are_fetched_are_refused(
    operation: Operation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is said so, and nobody is sent to a backup; another try has them."""
    settings, version = operation.settings, operation.register(Spec(key="a" * 16))
    honest = LocalArtifactRepository.download_artifacts

    def longer(self: LocalArtifactRepository, artifact_path: str, dst_path: str) -> str:
        found = str(honest(self, artifact_path, dst_path))
        with (Path(found) / "model.json").open("a") as file:
            file.write(" ")
        return found

    with monkeypatch.context() as patch:
        patch.setattr(LocalArtifactRepository, "download_artifacts", longer)
        with pytest.raises(RegistryError, match="its files changed during the download; try again"):
            load_version(settings, version)
    assert load_version(settings, version).version == version


@pytest.mark.parametrize(
    ("location", "root", "below"),
    [
        ("mlflow-artifacts:/1/models/m-1/artifacts", "mlflow-artifacts:/", True),
        ("mlflow-artifacts://other:80/1/models/m-1/artifacts", "mlflow-artifacts:/", False),
        ("http://other/1/models/m-1/artifacts", "mlflow-artifacts:/", False),
        ("mlflow-artifacts:/1/../../x", "mlflow-artifacts:/", False),
        ("mlflow-artifacts:/1/%2e%2e/x", "mlflow-artifacts:/", False),
        ("/srv/mlflow/artifacts/models/m-1", "/srv/mlflow/artifacts", True),
        ("file:///srv/mlflow/artifacts/models/m-1", "/srv/mlflow/artifacts", True),
        ("file://host/srv/mlflow/artifacts/models/m-1", "/srv/mlflow/artifacts", False),
        ("/srv/mlflow/artifacts2/models/m-1", "/srv/mlflow/artifacts", False),
        ("/srv/mlflow/artifacts/../../x", "/srv/mlflow/artifacts", False),
        ("s3://desk/models/1/m-1", "s3://desk/models", True),
        ("s3://desk/models2/1/m-1", "s3://desk/models", False),
        ("s3://other/models/1/m-1", "s3://desk/models", False),
        ("s3://desk/models/1?versionId=2", "s3://desk/models", False),
        ("s3://desk/models/1#2", "s3://desk/models", False),
        ("s3://desk/models/1\\..\\..\\x", "s3://desk/models", False),
    ],
)
def test_what_lies_below_a_place(location: str, root: str, below: bool) -> None:
    """The same kind, host and folder; no detour."""
    assert is_below(location, root) is below
