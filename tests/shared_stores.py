"""Shared stores for tests: a folder, and a bucket of an S3 server of this process, reached over HTTP."""

import contextlib
import logging
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest

from mlops_tasks.config import Settings, SharedSettings

KEYS = {"AWS_ACCESS_KEY_ID": "tests", "AWS_SECRET_ACCESS_KEY": "s3cret", "AWS_DEFAULT_REGION": "us-east-1"}


@lru_cache
def s3_server() -> str:
    """Address of the process's S3 server, which lives as long as it does."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    return f"http://{host}:{port}"


@lru_cache
def s3_client() -> Any:
    """A client of it, beside those of the code under test."""
    import boto3

    names = ("aws_access_key_id", "aws_secret_access_key", "region_name")
    return boto3.client("s3", endpoint_url=s3_server(), **dict(zip(names, KEYS.values(), strict=True)))


@dataclass(frozen=True)
class Shared:
    """A shared store, and the homes of the machines that share it."""

    settings: SharedSettings
    homes: Path

    def machine(self, name: str) -> Settings:
        """The settings of one of the machines."""
        home = self.homes / name
        home.mkdir(exist_ok=True)
        return Settings(home=home, shared=self.settings)

    def objects(self) -> dict[str, bytes]:
        """All that is in the store, by name."""
        if not self.settings.is_bucket:
            root = Path(self.settings.store)
            paths = [path for path in root.rglob("*") if path.is_file() and path.name != ".lock"]
            return {path.relative_to(root).as_posix(): path.read_bytes() for path in paths}
        bucket, _, prefix = self.settings.store.removeprefix("s3://").partition("/")
        listed = s3_client().list_objects_v2(Bucket=bucket, Prefix=prefix).get("Contents", [])
        read = {each["Key"]: s3_client().get_object(Bucket=bucket, Key=each["Key"])["Body"].read() for each in listed}
        return {key.removeprefix(f"{prefix}/"): content for key, content in read.items()}

    def change(self, name: str, content: bytes | None) -> None:
        """Put other bytes in an object's place, or none, as no writer of ours would."""
        if not self.settings.is_bucket:
            path = Path(self.settings.store) / name
            path.unlink() if content is None else path.write_bytes(content)
            return
        bucket, _, prefix = self.settings.store.removeprefix("s3://").partition("/")
        place = {"Bucket": bucket, "Key": f"{prefix}/{name}"}
        s3_client().delete_object(**place) if content is None else s3_client().put_object(**place, Body=content)


@contextlib.contextmanager
def shared_store(kind: str, folder: Path) -> Iterator[Shared]:
    """A new store: `folder`, or `bucket` with the variables that its clients need."""
    if kind == "folder":
        (folder / "mounted").mkdir()
        yield Shared(SharedSettings(store=str(folder / "mounted")), folder)
        return
    bucket = f"tests-{secrets.token_hex(6)}"
    s3_client().create_bucket(Bucket=bucket)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in KEYS.items():
            patch.setenv(name, value)
        yield Shared(SharedSettings(store=f"s3://{bucket}/desk/alphaops", endpoint_url=s3_server()), folder)
