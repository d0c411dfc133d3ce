"""`python -m mlops_tasks.modeling.isolated`: the process that one model's own code runs in; `isolation.py` starts it.

It closes itself off, loads the model, and scores what comes in. The other side does not trust its answers.
"""

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import IO, Any

from mlops_tasks.modeling.frames import ERROR, OK, read_matrix, write_answer
from mlops_tasks.modeling.sandbox import close_off


def main() -> int:
    """Serve until the other side closes."""
    given = json.loads(sys.argv[1])
    folder, home = Path(given["folder"]), Path(given["home"])
    requests, answers = _taken(0, "rb"), _taken(1, "wb")
    tempfile.tempdir = os.devnull  # libraries ask for a folder when they are imported, and there is none to write to
    try:
        close_off(folder, home, given["memory_mb"])
        predictor = _load(folder, given["threads"])
    except Exception as error:
        write_answer(answers, ERROR, _said(error))
        return 1
    write_answer(answers, OK, b"")
    while (matrix := read_matrix(requests)) is not None:
        try:
            scores = predictor.predict(matrix)
        except Exception as error:
            write_answer(answers, ERROR, _said(error))
        else:
            write_answer(answers, OK, scores.astype("<f8").tobytes())
    return 0


def _load(folder: Path, threads: int) -> Any:
    from mlops_tasks.modeling.model_zoo.family import find_family

    manifest = json.loads((folder / "model.json").read_text())
    return find_family(manifest["family"]).load(folder, manifest, threads)


def _taken(number: int, mode: str) -> IO[bytes]:
    """A standard stream for the protocol alone; what the model's code prints is discarded."""
    own = os.fdopen(os.dup(number), mode)
    empty = os.open(os.devnull, os.O_RDWR)
    os.dup2(empty, number)
    os.close(empty)
    return own


def _said(error: Exception) -> bytes:
    return f"{type(error).__name__}: {error}".encode(errors="replace")


if __name__ == "__main__":
    sys.exit(main())
