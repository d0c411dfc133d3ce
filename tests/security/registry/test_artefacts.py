"""An artefact is loaded if an accepted key has signed its very bytes; nothing of any other one is parsed."""

import base64
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from mlops_tasks.config import ModelSettings, Settings
from mlops_tasks.errors import ConfigError, DigestMismatchError, SignatureError
from mlops_tasks.modeling.artefact import ModelArtefact
from mlops_tasks.modeling.seal import LARGEST, seal
from mlops_tasks.modeling.trust import Trust
from mlops_tasks.signing import SigningKey, VerifyingKeys, ensure_signing_key
from mlops_tasks.stack.credentials import ensure_credentials
from mlops_tasks.stack.services import services
from tests.registry.trainings import Spec, load_training, make_training
from tests.security.registry.hostile import Payload, write_manifest, write_pickle

OURS, THEIRS = SigningKey(bytes(32)), SigningKey(b"x" * 32)
TRUST = Trust(VerifyingKeys.of(OURS.public), ModelSettings(unpickling_families=("qlib",)), Path("/nonexistent"))


def signed(folder: Path, mark: Path, key: SigningKey = OURS, training_key: str = "e" * 16) -> None:
    seal(folder, write_pickle(folder, Payload(mark), training_key), key)


def replace_file(folder: Path, mark: Path) -> None:
    (folder / "model.pkl").write_bytes((folder / "model.pkl").read_bytes() + b"\n")


def replace_file_and_digests(folder: Path, mark: Path) -> None:
    replace_file(folder, mark)
    write_manifest(folder, json.loads((folder / "model.json").read_text()))


def sign_by_another(folder: Path, mark: Path) -> None:
    signed(folder, mark, THEIRS)


def name_another_signer(folder: Path, mark: Path) -> None:
    signature = json.loads((folder / "signature.json").read_text())
    (folder / "signature.json").write_text(json.dumps({**signature, "key_id": THEIRS.key_id}))


def forge_the_signers_name(folder: Path, mark: Path) -> None:
    signed(folder, mark, THEIRS)
    signature = json.loads((folder / "signature.json").read_text())
    (folder / "signature.json").write_text(json.dumps({**signature, "key_id": OURS.key_id}))


def sign_for_another_purpose(folder: Path, mark: Path) -> None:
    signature = OURS.sign((folder / "model.json").read_bytes())
    (folder / "signature.json").write_text(json.dumps(signature.to_json()))


def take_another_signature(folder: Path, mark: Path) -> None:
    signed(folder.with_name("other"), mark, training_key="f" * 16)
    shutil.copy(folder.with_name("other") / "signature.json", folder)


def reformat_the_manifest(folder: Path, mark: Path) -> None:
    (folder / "model.json").write_text(json.dumps(json.loads((folder / "model.json").read_text())))


def link_a_file(folder: Path, mark: Path) -> None:
    (folder / "model.pkl").rename(folder.with_name("model.pkl"))
    (folder / "model.pkl").symlink_to(folder.with_name("model.pkl"))


TAMPERINGS: dict[str, tuple[type[Exception], str, Callable[[Path, Path], object]]] = {
    "no signature": (SignatureError, "no signature.json", lambda f, m: (f / "signature.json").unlink()),
    "an empty signature": (SignatureError, "not loaded", lambda f, m: (f / "signature.json").write_text("")),
    "a signature of null": (SignatureError, "no signature", lambda f, m: (f / "signature.json").write_text("null")),
    "a signature in letters": (
        *(SignatureError, "no signature"),
        lambda f, m: (f / "signature.json").write_text('{"key_id": "a", "signature": "?"}'),
    ),
    "a signature without end": (
        *(SignatureError, "is larger than"),
        lambda f, m: (f / "signature.json").write_text(" " * (LARGEST["signature.json"] + 1)),
    ),
    "another key": (SignatureError, f"by key '{THEIRS.key_id}', accepted are {OURS.key_id}", sign_by_another),
    "another signer's name": (SignatureError, "accepted are", name_another_signer),
    "our name on another's signature": (SignatureError, "was not signed by key", forge_the_signers_name),
    "a manifest without end": (
        *(SignatureError, "is larger than"),
        lambda f, m: (f / "model.json").write_bytes(b" " * (LARGEST["model.json"] + 1)),
    ),
    "our signature for another purpose": (SignatureError, "was not signed by key", sign_for_another_purpose),
    "the signature of another artefact": (SignatureError, "was not signed by key", take_another_signature),
    "a manifest that is written anew": (SignatureError, "was not signed by key", reformat_the_manifest),
    "a file with its new digest": (SignatureError, "was not signed by key", replace_file_and_digests),
    "a changed file": (DigestMismatchError, r"model\.pkl: content is not", replace_file),
    "a missing file": (DigestMismatchError, r"model\.pkl: content is not", lambda f, m: (f / "model.pkl").unlink()),
    "one more file": (DigestMismatchError, "'a.py' is not in model.json", lambda f, m: (f / "a.py").write_text("")),
    "a hidden file": (DigestMismatchError, "'.a' is not in model.json", lambda f, m: (f / ".a").write_text("")),
    "a folder": (DigestMismatchError, "'a' is not a regular file", lambda f, m: (f / "a").mkdir()),
    "a link": (DigestMismatchError, r"'model\.pkl' is not a regular file", link_a_file),
    "a pipe": (DigestMismatchError, "'a' is not a regular file", lambda f, m: os.mkfifo(f / "a")),
}


@pytest.mark.parametrize("name", TAMPERINGS)
def test_what_is_not_signed_and_whole_is_not_unpickled(tmp_path: Path, name: str) -> None:
    """Whatever is done to an artefact, it is refused with the reason, and its pickle never runs."""
    error, said, tamper = TAMPERINGS[name]
    mark = tmp_path / "mark"
    signed(tmp_path / "model", mark)
    tamper(tmp_path / "model", mark)
    with pytest.raises(error, match=said):
        ModelArtefact.load(tmp_path / "model", TRUST)
    assert not mark.exists()


def test_a_home_makes_its_own_key_and_says_it_to_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first training makes it (0600); it is in no repr, and not in the variables of MLflow or the service."""
    home = Settings(home=tmp_path)
    make_training(home, Spec(model="linear"))
    secret = (tmp_path / "secrets" / "signing_key").read_text().strip()
    assert (tmp_path / "secrets" / "signing_key").stat().st_mode & 0o777 == 0o600
    assert secret not in repr(SigningKey.of(home))
    monkeypatch.setenv("MLOPS_SIGNING_KEY", secret)  # as in the shell of whoever starts the stack
    credentials = ensure_credentials(home)
    assert (tmp_path / "secrets" / "signing_key").read_text().strip() == secret
    for service in services(home):
        shown = [*service.command, *service.environment(home, credentials).values()]
        assert (secret in shown) == service.name.startswith("airflow")  # whose tasks train


def test_what_is_no_key_or_one_that_nobody_accepts_signs_nothing(tmp_path: Path) -> None:
    """It is said before hours of training, with the remedy."""
    home = Settings(home=tmp_path)
    SigningKey.of(home)
    stranger = base64.b64encode(bytes(32)).decode()
    with pytest.raises(ConfigError, match=r"not among the accepted ones .*add its public half"):
        SigningKey.of(home, {"MLOPS_SIGNING_KEY": stranger})
    (tmp_path / "secrets" / "signing_key").write_text("short")
    with pytest.raises(ConfigError, match="signing key is not 32 bytes in base64"):
        SigningKey.of(home)


def test_a_new_key_signs_and_the_old_one_is_accepted_until_its_line_goes(tmp_path: Path) -> None:
    """Removing the private key is all that a rotation takes."""
    home = Settings(home=tmp_path)
    make_training(home, Spec(key="a" * 16, model="linear"))
    (tmp_path / "secrets" / "signing_key").unlink()
    make_training(home, Spec(key="b" * 16, model="linear"))
    keys = tmp_path / "secrets" / "verifying_keys"
    assert len(keys.read_text().split()) == 2
    for key in ("a" * 16, "b" * 16):
        load_training(home, key)
    keys.write_text(keys.read_text().split()[1])
    with pytest.raises(SignatureError, match="train again"):
        load_training(home, "a" * 16)
    load_training(home, "b" * 16)


def test_who_has_the_public_half_alone_loads_and_cannot_sign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a scoring service on another machine does; without any key it loads nothing."""
    trainer, server = Settings(home=tmp_path / "trainer"), Settings(home=tmp_path / "server")
    make_training(trainer, Spec(model="linear"))
    shutil.copytree(trainer.training_dir, server.training_dir)
    with pytest.raises(ConfigError, match="no verifying key: set MLOPS_VERIFYING_KEYS"):
        load_training(server, Spec().key)
    public = (trainer.secrets_dir / "verifying_keys").read_text().strip()
    monkeypatch.setenv("MLOPS_VERIFYING_KEYS", public)
    load_training(server, Spec().key)
    assert not server.secrets_dir.exists()
    with pytest.raises(ConfigError, match="not among the accepted ones"):
        SigningKey.of(server)


def test_of_many_that_make_the_key_at_once_one_does(tmp_path: Path) -> None:
    """Two trainings that begin together sign by one key."""
    pids = []
    for _ in range(8):
        pid = os.fork()
        if pid == 0:
            ensure_signing_key(Settings(home=tmp_path))
            os._exit(0)
        pids.append(pid)
    assert [os.waitpid(pid, 0)[1] for pid in pids] == [0] * 8
    assert (tmp_path / "secrets" / "verifying_keys").read_text() == SigningKey.of(
        Settings(home=tmp_path)
    ).public_text + "\n"
    assert sorted(path.name for path in (tmp_path / "secrets").iterdir()) == ["signing_key", "verifying_keys"]
