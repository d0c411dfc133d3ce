"""Where several machines keep the same objects: a folder that all of them mount, or a bucket of an S3 store.

Both write an object in one step: it is there as a whole, or not at all. boto3 is used as it is: a conditional write
needs the content and the tag of one answer, and no thread or cache of a file system stands between.
"""

import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from mlops_tasks.config import SharedSettings
from mlops_tasks.errors import StoreError
from mlops_tasks.files import sync

CREDENTIALS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
"""Variables that may hold the secrets of an S3 store."""

_ABSENT = {"404", "NoSuchKey"}
_OVERTAKEN = {*_ABSENT, "412", "PreconditionFailed", "409", "ConditionalRequestConflict"}
"""S3's words for an object that is not there, and for one that is not, or no longer, what the writer took it for."""


@dataclass(frozen=True)
class Found:
    """A small object, and what the store calls this state of it."""

    content: bytes
    tag: str


class ObjectStore(Protocol):
    """What the two have in common; every method raises StoreError where the store does not answer."""

    def address(self, name: str) -> str:
        """What a person finds the object under."""

    def size(self, name: str) -> int | None:
        """Bytes of an object; None where there is none."""

    def upload(self, path: Path, name: str) -> None:
        """Store a file, in place of what is there."""

    def download(self, name: str, path: Path) -> None:
        """Write an object to a file that nobody reads yet; FileNotFoundError where there is none."""

    def read(self, name: str) -> Found | None:
        """A small object; None where there is none."""

    def write(self, name: str, content: bytes) -> None:
        """Store a small object, in place of what is there."""

    def write_if(self, name: str, content: bytes, tag: str | None) -> bool:
        """The same if the object still is what `read` found: this tag, or None, nothing. Returns whether it was."""


def object_store(shared: SharedSettings) -> ObjectStore:
    """The store that the settings name."""
    if not shared.is_bucket:
        return _Folder(Path(shared.store))
    address = urlsplit(shared.store)
    return _Bucket(address.netloc, address.path.strip("/"), shared.endpoint_url)


@contextmanager
def _answering(address: str) -> Iterator[None]:
    """Say which store does not answer, whatever library met it."""
    try:
        yield
    except (StoreError, FileNotFoundError):
        raise
    except Exception as error:
        raise StoreError(
            f"{address}: the shared store does not do it ({type(error).__name__}: {error}); check shared.store, "
            "shared.endpoint_url, and the rights and credentials of this process, then run this again"
        ) from error


class _Folder:
    """A folder on a file system that all machines mount, which has atomic renames and locks (NFS 4 has both)."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def address(self, name: str) -> str:
        return str(self.root / name)

    def size(self, name: str) -> int | None:
        path = self._path(name)
        with _answering(str(path)):
            return path.stat().st_size if path.is_file() else None

    def upload(self, path: Path, name: str) -> None:
        with self._new(name) as beside:
            shutil.copyfile(path, beside)

    def download(self, name: str, path: Path) -> None:
        source = self._path(name)
        with _answering(str(source)):
            shutil.copyfile(source, path)

    def read(self, name: str) -> Found | None:
        path = self._path(name)
        with _answering(str(path)):
            try:
                content = path.read_bytes()
            except FileNotFoundError:
                return None
        return Found(content, hashlib.sha256(content).hexdigest())

    def write(self, name: str, content: bytes) -> None:
        with self._new(name) as beside:
            beside.write_bytes(content)

    def write_if(self, name: str, content: bytes, tag: str | None) -> bool:
        with self._locked():
            found = self.read(name)
            if (None if found is None else found.tag) != tag:
                return False
            self.write(name, content)
            return True

    def _path(self, name: str) -> Path:
        """A folder that is missing is not made: where it should be mounted, every machine would have its own."""
        if not self.root.is_dir():
            raise StoreError(f"{self.root}: shared.store is not there; mount it, or make it where it is new")
        return self.root / name

    @contextmanager
    def _new(self, name: str) -> Iterator[Path]:
        """A file of a name that no other machine uses, which becomes the object when the block ends."""
        target = self._path(name)
        with _answering(str(target)):
            incoming = self.root / "incoming"
            for folder in (incoming, target.parent):
                folder.mkdir(parents=True, exist_ok=True)
            handle, beside = tempfile.mkstemp(dir=incoming)
            os.close(handle)
            try:
                yield Path(beside)
                sync(Path(beside))
                Path(beside).replace(target)
                sync(target.parent)
            finally:
                Path(beside).unlink(missing_ok=True)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        lock = self._path(".lock")
        with _answering(str(lock)), lock.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


class _Bucket:
    """A bucket, or what lies below a prefix in it."""

    def __init__(self, bucket: str, prefix: str, endpoint_url: str | None) -> None:
        self.bucket, self.prefix, self.endpoint_url = bucket, prefix, endpoint_url

    def address(self, name: str) -> str:
        return f"s3://{self.bucket}/{self._key(name)}"

    def size(self, name: str) -> int | None:
        with _answering(self.address(name)):
            try:
                return int(self._client.head_object(**self._object(name))["ContentLength"])
            except self._client.exceptions.ClientError as error:
                if _code(error) in _ABSENT:
                    return None
                raise

    def upload(self, path: Path, name: str) -> None:
        with _answering(self.address(name)):
            self._client.upload_file(str(path), self.bucket, self._key(name))

    def download(self, name: str, path: Path) -> None:
        with _answering(self.address(name)):
            try:
                self._client.download_file(self.bucket, self._key(name), str(path))
            except self._client.exceptions.ClientError as error:
                if _code(error) in _ABSENT:
                    raise FileNotFoundError(self.address(name)) from error
                raise

    def read(self, name: str) -> Found | None:
        with _answering(self.address(name)):
            try:
                answer = self._client.get_object(**self._object(name))
                return Found(answer["Body"].read(), answer["ETag"])
            except self._client.exceptions.ClientError as error:
                if _code(error) in _ABSENT:
                    return None
                raise

    def write(self, name: str, content: bytes) -> None:
        with _answering(self.address(name)):
            self._client.put_object(**self._object(name), Body=content)

    def write_if(self, name: str, content: bytes, tag: str | None) -> bool:
        condition = {"IfNoneMatch": "*"} if tag is None else {"IfMatch": tag}
        with _answering(self.address(name)):
            try:
                self._client.put_object(**self._object(name), Body=content, **condition)
            except self._client.exceptions.ClientError as error:
                if _code(error) in _OVERTAKEN:
                    return False
                raise
            return True

    def _key(self, name: str) -> str:
        return f"{self.prefix}/{name}" if self.prefix else name

    def _object(self, name: str) -> dict[str, str]:
        return {"Bucket": self.bucket, "Key": self._key(name)}

    @property
    def _client(self) -> Any:
        return _client(self.endpoint_url, os.getpid())


def _code(error: Any) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


@lru_cache(maxsize=2)
def _client(endpoint_url: str | None, process: int) -> Any:
    """One for all threads of a process; its connections are no other process's, also not a forked one's."""
    import boto3
    from botocore.config import Config

    limits = Config(connect_timeout=5, read_timeout=60, retries={"mode": "standard", "max_attempts": 3})
    return boto3.session.Session().client("s3", endpoint_url=endpoint_url, config=limits)
