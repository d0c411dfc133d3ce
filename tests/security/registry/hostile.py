"""Artefacts of somebody who would like to run code where models are loaded."""

import json
import pickle
from pathlib import Path
from typing import Any

from mlops_tasks.files import digest_of_file, write_json

NAMES = ["KMID", "ROC5", "STD20"]


class Payload:
    """Leaves a mark when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


def write_pickle(folder: Path, model: object, key: str = "e" * 16) -> dict[str, Any]:
    """The files of a pickling family but for manifest and signature; returns what its manifest would say."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.pkl").write_bytes(pickle.dumps(model))
    write_json(folder / "qlib.json", {"class_path": "any:Any", "sha256": digest_of_file(folder / "model.pkl")})
    write_json(folder / "processors.json", {"kind": "none"})
    segments = {name: ["2020-01-01", "2020-02-01"] for name in ("train", "valid", "test")}
    lineage = {"feature_version": "f", "data_version": "d", "feature_set": "alpha158", "horizon": 1, "seed": 1}
    described = {"family": "qlib", "model": "mine", "feature_names": NAMES, "window": 1, "segments": segments}
    return {"training_key": key, **lineage, **described}


def write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    """A manifest whose digests are right, unsigned: what anybody can make."""
    names = {path.name for path in folder.iterdir() if path.is_file()} - {"model.json", "signature.json"}
    files = {name: digest_of_file(folder / name) for name in sorted(names)}
    (folder / "model.json").write_text(json.dumps({**manifest, "files": files}))
