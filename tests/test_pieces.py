"""Pieces of a benchmark are kept as long as the code that they measure stays as it is."""

from pathlib import Path

import pytest

from tests.benchmarks import pieces
from tests.benchmarks.pieces import Pieces


def test_a_piece_is_measured_once_and_anew_for_other_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also by a later process; a piece that fails leaves nothing behind."""
    monkeypatch.setattr(pieces, "FOLDER", tmp_path / "pieces")
    code, measured = tmp_path / "code.py", []
    code.write_text("one")

    def get() -> object:
        return Pieces.of("any", [code]).get("first", lambda: measured.append(code.read_text()) or [1.5])

    assert [get(), get()] == [[1.5], [1.5]] and measured == ["one"]
    code.write_text("two")
    assert get() == [1.5] and measured == ["one", "two"]
    with pytest.raises(ZeroDivisionError):
        Pieces.of("any", [code]).get("second", lambda: 1 / 0)
    assert Pieces.of("any", [code]).get("second", lambda: 2) == 2
