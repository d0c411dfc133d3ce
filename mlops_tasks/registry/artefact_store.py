"""Fetches the artefact of a registered version: only from where its own run stored it, and only up to a limit of bytes.

Anybody who may write to MLflow can set a version's `source` to any address of any kind. No address is contacted before
it is known to be ours.
"""

import shutil
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

from mlflow import MlflowClient
from mlflow.entities import FileInfo
from mlflow.entities.model_registry import ModelVersion
from mlflow.store.artifact.artifact_repo import ArtifactRepository
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from mlops_tasks.config import Settings
from mlops_tasks.errors import RegistryError
from mlops_tasks.modeling.seal import MANIFEST
from mlops_tasks.registry.client import MODEL_NAME, artifact_root, connect

DATA = "data"
"""In a model of MLflow's pyfunc flavour, the artefact is a folder within this one."""
MODEL = "models:/"
MOST_FILES = 1000


def fetch_artefact(settings: Settings, version: ModelVersion, into: Path) -> None:
    """Copy the files of a version's artefact; their content is not examined.

    Raises
    ------
    RegistryError
        The version's source is not the model of its own run in our store; it has no artefact, or one that is larger
        than `models.largest_artefact_mb` or holds more than plain files.
    """
    name = f"{MODEL_NAME} version {version.version}"
    location = _own_location(settings, version, name)
    store = get_artifact_repository(location, tracking_uri=settings.registry_uri, registry_uri=settings.registry_uri)
    files = _listed(store, name, int(settings.models.largest_artefact_mb * 1e6))
    with tempfile.TemporaryDirectory(prefix="mlops_download_") as folder:
        copy = Path(store.download_artifacts(str(Path(files[0].path).parent), dst_path=folder))
        if {path.name: path.lstat().st_size for path in copy.iterdir()} != {
            Path(file.path).name: file.file_size for file in files
        }:
            raise RegistryError(f"{name}: its files changed during the download; try again")
        shutil.copytree(copy, into, symlinks=True, dirs_exist_ok=True)


def _own_location(settings: Settings, version: ModelVersion, name: str) -> str:
    client: MlflowClient = connect(settings)
    source, root = str(version.source), artifact_root(settings)
    refused = RegistryError(
        f"{name}: its source {source[:200]!a} is not the model of its own run below {root}, and is not fetched; "
        "register it again"
    )
    model_id = source.removeprefix(MODEL)
    if not source.startswith(MODEL) or not model_id.replace("-", "").isalnum():
        raise refused
    stored = client.get_logged_model(model_id)
    if stored.source_run_id != version.run_id or not is_below(stored.artifact_location, root):
        raise refused
    return str(stored.artifact_location)


def is_below(location: str, root: str) -> bool:
    """Whether an address lies below another: with the same scheme and host, and without a step up."""
    parts, base = urlsplit(location), urlsplit(root)
    plain = parts.path.removeprefix("/").split("/")
    if parts.query or parts.fragment or "%" in location or "\\" in location or {"..", "."} & set(plain):
        return False
    if {parts.scheme, base.scheme} <= {"", "file"} and not parts.netloc and not base.netloc:
        return Path(parts.path).resolve().is_relative_to(Path(base.path).resolve())
    same = (parts.scheme, parts.netloc) == (base.scheme, base.netloc)
    return same and parts.path.startswith(base.path.rstrip("/") + "/")


def _listed(store: ArtifactRepository, name: str, limit: int) -> list[FileInfo]:
    """The files of the one folder with a manifest."""
    folders = [each.path for each in store.list_artifacts(DATA) if each.is_dir]
    files = store.list_artifacts(folders[0]) if len(folders) == 1 else []
    if MANIFEST not in {Path(file.path).name for file in files}:
        raise RegistryError(f"{name}: MLflow has no artefact of it; register it again")
    if len(files) > MOST_FILES or any(file.is_dir for file in files):
        raise RegistryError(f"{name}: an artefact is a folder of up to {MOST_FILES} regular files; register it again")
    size = sum(file.file_size for file in files)
    if size > limit:
        raise RegistryError(
            f"{name}: its artefact has {size:,} bytes, more than {limit:,}; if it is right, raise "
            "models.largest_artefact_mb"
        )
    return list(files)
