"""A home with a configured source, beside which strangers' files lie."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from mlops_tasks.config import Settings, load_settings
from mlops_tasks.stack.credentials import ensure_credentials
from mlops_tasks.stack.overlay import Choice, apply, resolve
from tests.data.market import make_bars, save


@dataclass(frozen=True)
class Desk:
    """An operation that `make up SOURCE=<folder>/bars.csv UNIVERSE=<folder>/members.txt` has made."""

    settings: Settings
    folder: Path
    """Where its bars lie; forms may name what else does."""
    outside: Path
    """Where nobody but the shell may look."""


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    """With bars, a universe and secrets."""
    folder, outside = tmp_path / "desk", tmp_path / "outside"
    outside.mkdir()
    save(make_bars(days=3), folder / "bars.csv")
    (folder / "members.txt").write_text("S00\t2019-01-01\t2030-01-01\n")
    monkeypatch.setenv("MLOPS_HOME", str(tmp_path / "home"))
    choice = resolve(Choice(source="bars.csv", universe="members.txt"), folder)
    settings = apply(choice, load_settings())
    ensure_credentials(settings)
    return Desk(settings, folder, outside)
