"""Who made an artefact: Ed25519 signatures (RFC 8032), by a key that only those hold who train.

    secrets/signing_key      the private key, made by the first training or by `make up`; for processes that train
    secrets/verifying_keys   one public key a line, the newest last; for all who load a model

Both may come in variables instead. A new key: remove `signing_key`, and the next training makes one; what the old key
signed is accepted for as long as its line stays in `verifying_keys`.
"""

import base64
import binascii
import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from mlops_tasks.config import Settings
from mlops_tasks.errors import ConfigError, SignatureError
from mlops_tasks.private import private_folder
from mlops_tasks.secret_files import SecretSource, make_once, write_private

PRIVATE = SecretSource("signing key", "MLOPS_SIGNING_KEY", "signing_key")
PUBLIC = SecretSource("verifying key", "MLOPS_VERIFYING_KEYS", "verifying_keys")

KEY_BYTES = 32


@dataclass(frozen=True)
class Signature:
    """A signature, and by which key."""

    key_id: str
    value: bytes

    def to_json(self) -> dict[str, str]:
        """Plain JSON."""
        return {"key_id": self.key_id, "signature": base64.b64encode(self.value).decode()}

    @classmethod
    def from_json(cls, content: Any) -> "Signature":
        """The inverse of `to_json`.

        Raises
        ------
        SignatureError
            It is none.
        """
        try:
            return cls(str(content["key_id"]), base64.b64decode(content["signature"], validate=True))
        except (TypeError, KeyError, ValueError):
            raise SignatureError("it is no signature") from None


@dataclass(frozen=True)
class VerifyingKeys:
    """The public keys whose signatures are accepted, by their ids."""

    keys: Mapping[str, bytes]

    @classmethod
    def of(cls, *raw: bytes) -> Self:
        """From public keys of 32 bytes."""
        return cls({key_id(key): key for key in raw})

    @classmethod
    def read(cls, settings: Settings, environ: Mapping[str, str] = os.environ) -> Self:
        """The keys of a home: from the variable, separated by commas, or from the file.

        Raises
        ------
        ConfigError
            There is none, others can write the file, or a line is no key.
        """
        return cls.of(*(_decoded(word, PUBLIC) for word in PUBLIC.read(settings, environ).replace(",", " ").split()))

    def verify(self, signature: Signature, message: bytes) -> None:
        """Check that a message was signed by one of the keys.

        Raises
        ------
        SignatureError
            The key is not among these, or it signed another message.
        """
        if signature.key_id not in self.keys:
            raise SignatureError(
                f"it is signed by key {signature.key_id[:40]!a}, accepted are {', '.join(self.keys) or 'none'}"
            )
        try:
            Ed25519PublicKey.from_public_bytes(self.keys[signature.key_id]).verify(signature.value, message)
        except InvalidSignature:
            raise SignatureError(f"what it says was not signed by key {signature.key_id}") from None


@dataclass(frozen=True)
class SigningKey:
    """The private half; its repr shows nothing of it."""

    raw: bytes = field(repr=False)

    @classmethod
    def generate(cls) -> Self:
        """A new key."""
        return cls(os.urandom(KEY_BYTES))

    @classmethod
    def of(cls, settings: Settings, environ: Mapping[str, str] = os.environ) -> Self:
        """The key of a process that trains; a home without one gets its own.

        Raises
        ------
        ConfigError
            The key is none, others can read it, or nobody would accept what it signs.
        """
        if not environ.get(PRIVATE.variable, "").strip():
            ensure_signing_key(settings)
        key = cls(_decoded(PRIVATE.read(settings, environ), PRIVATE))
        if key.key_id not in VerifyingKeys.read(settings, environ).keys:
            raise ConfigError(
                f"key {key.key_id} signs, and it is not among the accepted ones ({PUBLIC.where}); add its public half "
                f"{key.public_text}"
            )
        return key

    def sign(self, message: bytes) -> Signature:
        """The signature of a message; equal for equal messages."""
        return Signature(self.key_id, self._private.sign(message))

    @property
    def _private(self) -> Ed25519PrivateKey:
        return Ed25519PrivateKey.from_private_bytes(self.raw)

    @property
    def public(self) -> bytes:
        """The public half, 32 bytes."""
        return self._private.public_key().public_bytes_raw()

    @property
    def public_text(self) -> str:
        """The public half as a line of `verifying_keys`."""
        return base64.b64encode(self.public).decode()

    @property
    def key_id(self) -> str:
        """What the key is called in signatures."""
        return key_id(self.public)


def key_id(public: bytes) -> str:
    """The name of a public key: the first 16 hex digits of its SHA-256."""
    return hashlib.sha256(public).hexdigest()[:16]


def ensure_signing_key(settings: Settings) -> None:
    """Make the home's key unless it has one, and list its public half among the accepted ones.

    Raises
    ------
    ConfigError
        The key's file, or a line of the other one, holds no key.
    """
    folder = private_folder(settings.secrets_dir)
    make_once(folder / PRIVATE.file, lambda: base64.b64encode(SigningKey.generate().raw).decode())
    public = SigningKey(_decoded(PRIVATE.read(settings, {}), PRIVATE)).public_text
    path = folder / PUBLIC.file
    lines = path.read_text().split() if path.exists() else []
    write_private(path, "\n".join([*lines, *([] if public in lines else [public])]) + "\n")


def _decoded(text: str, source: SecretSource) -> bytes:
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    if len(raw) != KEY_BYTES:
        raise ConfigError(f"the {source.what} is not {KEY_BYTES} bytes in base64; correct it: {source.where}")
    return raw
