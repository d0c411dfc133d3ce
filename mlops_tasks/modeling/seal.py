"""What makes a folder of files an artefact: a manifest with the digest of each file, and a signature of the manifest.

    model.json       manifest: what the model is, what it was trained on, the SHA-256 of every other file
    signature.json   who made it (`mlops_tasks/signing.py`), over the exact bytes of model.json

Nothing of an artefact is parsed before its signature is verified and its files are exactly those that the manifest
names.
"""

import json
import stat
from pathlib import Path

from mlops_tasks.errors import DigestMismatchError, SignatureError, TrainingError
from mlops_tasks.files import digest_of, digest_of_file, read_json, write_json
from mlops_tasks.modeling.manifest import ArtefactManifest
from mlops_tasks.signing import Signature, SigningKey, VerifyingKeys

MANIFEST, SIGNATURE = "model.json", "signature.json"

PURPOSE = b"alphaops model artefact 1\n"
"""Prefixed to what is signed, so that a signature of the same key for another purpose cannot be taken for this one."""
LARGEST = {MANIFEST: 1 << 22, SIGNATURE: 1 << 12}
"""The most bytes that are read before anything is verified."""


def seal(folder: Path, manifest: ArtefactManifest, key: SigningKey) -> None:
    """Write model.json with the digests of all files that are in the folder, and sign it.

    Raises
    ------
    DigestMismatchError
        The folder holds something other than regular files.
    """
    names = _plain_files(folder) - {MANIFEST, SIGNATURE}
    files = {name: digest_of_file(folder / name) for name in sorted(names)}
    write_json(folder / MANIFEST, {**manifest, "files": files})
    write_json(folder / SIGNATURE, key.sign(PURPOSE + (folder / MANIFEST).read_bytes()).to_json())


def verified_manifest(folder: Path, keys: VerifyingKeys) -> ArtefactManifest:
    """The manifest of an artefact that is signed and complete.

    Raises
    ------
    TrainingError
        The folder holds no manifest.
    SignatureError
        There is no signature, it was not made with one of the keys, or it belongs to another manifest.
    DigestMismatchError
        A file is missing, superfluous, not a regular file, or its SHA-256 differs from the manifest's.
    """
    if not (folder / MANIFEST).is_file():
        raise TrainingError(f"{folder}: no {MANIFEST}; this is not a model artefact")
    names = _plain_files(folder)
    if SIGNATURE not in names:
        raise SignatureError(f"{folder}: no {SIGNATURE}; train again, because unsigned models are not loaded")
    signature, content = _small(folder / SIGNATURE), _small(folder / MANIFEST)
    try:
        keys.verify(Signature.from_json(json.loads(signature)), PURPOSE + content)
    except (SignatureError, ValueError) as error:
        raise SignatureError(f"{folder / SIGNATURE}: {error}; it is not loaded: restore it, or train again") from None
    manifest: ArtefactManifest = json.loads(content)
    named = set(manifest["files"]) | {MANIFEST, SIGNATURE}
    if extra := names - named:
        raise DigestMismatchError(f"{folder}: {min(extra)!a} is not in {MANIFEST}; remove it")
    for name, expected in manifest["files"].items():
        if name not in names or digest_of_file(folder / name) != expected:
            raise DigestMismatchError(
                f"{folder / name}: content is not what {MANIFEST} recorded; restore it or train again"
            )
    return manifest


def unverified_manifest(folder: Path) -> ArtefactManifest:
    """The manifest of an artefact that is only described, not loaded; nothing is checked.

    Raises
    ------
    TrainingError
        The folder holds no manifest.
    """
    if not (folder / MANIFEST).is_file():
        raise TrainingError(f"{folder}: no {MANIFEST}; this is not a model artefact")
    manifest: ArtefactManifest = read_json(folder / MANIFEST)
    return manifest


def artefact_digest(folder: Path) -> str:
    """SHA-256 (64 hex) over the names and digests of all files of an artefact folder.

    Raises
    ------
    DigestMismatchError
        The folder holds something other than regular files.
    """
    return digest_of({name: digest_of_file(folder / name) for name in sorted(_plain_files(folder))}, length=64)


def _plain_files(folder: Path) -> set[str]:
    """Names of the files of a folder; links and folders are errors, because no digest would cover what they lead to."""
    found = list(folder.iterdir())
    for path in found:
        if not stat.S_ISREG(path.lstat().st_mode):
            raise DigestMismatchError(f"{folder}: {path.name!a} is not a regular file; remove it")
    return {path.name for path in found}


def _small(path: Path) -> bytes:
    with path.open("rb") as file:
        content = file.read(LARGEST[path.name] + 1)
    if len(content) > LARGEST[path.name]:
        raise SignatureError(
            f"{path}: is larger than {LARGEST[path.name]:,} bytes; this is not a signed artefact of this project"
        )
    return content
