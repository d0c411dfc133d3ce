"""How a model's process and its owner talk: in fixed binary frames, so that neither runs what the other sends.

    request   rows, window, columns (three uint32), then as many float32; window 0: rows without windows
    answer    OK or ERROR (one byte), length (uint32), then float64 scores, or a message in UTF-8

All little-endian. The frames' sizes are checked before anything is read into memory.
"""

import struct
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:  # NumPy starts threads, and a process closes itself off before there are any
    from mlops_tasks.modeling.windows import FloatArray

OK, ERROR = 0, 1
LARGEST_MESSAGE = 2000
"""Bytes of an error's text."""

_REQUEST, _ANSWER = struct.Struct("<III"), struct.Struct("<BI")


def write_matrix(stream: IO[bytes], matrix: "FloatArray") -> None:
    """Send rows of float32, shape (rows, columns) or (rows, window, columns)."""
    rows, *window, columns = matrix.shape
    stream.write(_REQUEST.pack(rows, window[0] if window else 0, columns))
    stream.write(matrix.astype("<f4", order="C", copy=False).tobytes())
    stream.flush()


def read_matrix(stream: IO[bytes]) -> "FloatArray | None":
    """The next request; None when the other side has closed."""
    import numpy as np

    head = stream.read(_REQUEST.size)
    if len(head) < _REQUEST.size:
        return None
    rows, window, columns = _REQUEST.unpack(head)
    shape = (rows, window, columns) if window else (rows, columns)
    expected = 4 * rows * max(window, 1) * columns
    content = stream.read(expected)
    if len(content) < expected:
        return None
    return np.frombuffer(content, dtype="<f4").reshape(shape)


def write_answer(stream: IO[bytes], status: int, content: bytes) -> None:
    """Send an answer; a message is cut to the length that is read."""
    content = content if status == OK else content[:LARGEST_MESSAGE]
    stream.write(_ANSWER.pack(status, len(content)))
    stream.write(content)
    stream.flush()


def read_answer(stream: IO[bytes], expected: int) -> tuple[int, bytes]:
    """Status and content of an answer; the content of an OK answer has the expected length.

    Raises
    ------
    EOFError
        The other side has closed.
    ValueError
        The answer breaks the protocol.
    """
    head = stream.read(_ANSWER.size)
    if len(head) < _ANSWER.size:
        raise EOFError
    status, length = _ANSWER.unpack(head)
    if status not in (OK, ERROR) or (status == OK and length != expected) or length > max(expected, LARGEST_MESSAGE):
        raise ValueError(f"an answer of status {status} and {length} bytes, where scores have {expected}")
    content = stream.read(length)
    if len(content) < length:
        raise EOFError
    return status, content
