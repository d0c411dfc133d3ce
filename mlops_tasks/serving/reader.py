"""Large bodies that are not plain, and Arrow streams, are read in a separate process: checking one closely holds the
GIL for as long as a hundred of the newest day's requests take, and Arrow is read by native code. The process has no
secrets, and limits on its memory and on the time per body; a body that kills it is refused, and the next body gets a
new process.

`python -m mlops_tasks.serving.reader <rows> <names>` reads bodies from its input until that ends.
"""

import logging
import os
import resource
import signal
import struct
import subprocess
import sys
import threading
from datetime import date
from pathlib import Path
from typing import IO, Any

import numpy as np
from pydantic_core import from_json, to_json

from mlops_tasks.serving.arrow_requests import ArrowReader
from mlops_tasks.serving.media_types import ARROW, JSON
from mlops_tasks.serving.plain import read_plain
from mlops_tasks.serving.reading import (
    BadRequestError,
    DayAsked,
    FeaturesGiven,
    RequestLimits,
    read_request,
)

log = logging.getLogger(__name__)

LARGE_BYTES = 16 * 2**10
"""Smaller bodies are read where they arrive, which takes less than a millisecond."""
MEMORY_BYTES = 512 * 2**20
BODY_S = 10
NICENESS = 5
PIPE_BYTES = 2**20
_LENGTH = struct.Struct("<Q")
_FROM_CALLER = ("PATH", "LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH", "VIRTUAL_ENV")


class RequestReader:
    """Reads bodies, large ones one at a time; thread-safe."""

    def __init__(self, limits: RequestLimits) -> None:
        self.limits = limits
        self._process: subprocess.Popen[bytes] | None = None
        self._lock, self._plain_lock = threading.Lock(), threading.Lock()

    def start(self) -> None:
        """Start the process if there is none, so that no request has to wait for it."""
        with self._lock:
            self._running()

    def read(self, body: bytes, kind: str = JSON) -> DayAsked | FeaturesGiven:
        """Parse the request in a body of a media type. Errors as for `read_request`."""
        if kind == ARROW:
            return self._read_beside(body, kind)
        if len(body) <= LARGE_BYTES:
            return read_request(body, self.limits)
        with self._plain_lock:
            plain = read_plain(body, self.limits)
        return plain or self._read_beside(body, kind)

    def _read_beside(self, body: bytes, kind: str) -> DayAsked | FeaturesGiven:
        with self._lock:
            process = self._running()
            assert process.stdin is not None and process.stdout is not None
            try:
                _write(process.stdin, kind.encode())
                _write(process.stdin, body)
                header, values = from_json(_read(process.stdout)), _read(process.stdout)
            except (OSError, EOFError, ValueError, OverflowError, MemoryError):  # it may say anything
                self._end()
                raise BadRequestError(
                    f"the body of {len(body)} bytes could not be read within {BODY_S} s and {MEMORY_BYTES >> 20} MiB; "
                    "send fewer rows at a time",
                    status=413,
                ) from None
        return _asked(header, values)

    def stop(self) -> None:
        """End the process."""
        with self._lock:
            self._end()

    def _running(self) -> "subprocess.Popen[bytes]":
        if self._process is None or self._process.poll() is not None:
            self._end()
            command = [sys.executable, "-m", __name__, str(self.limits.rows), str(self.limits.names)]
            environ = {name: os.environ[name] for name in _FROM_CALLER if name in os.environ}
            # Arrow's own memory pool needs more address space than the process may have.
            environ |= {
                "OPENBLAS_NUM_THREADS": "1",
                "ARROW_DEFAULT_MEMORY_POOL": "system",
                "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            }
            self._process = subprocess.Popen(
                command, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, pipesize=PIPE_BYTES
            )
        return self._process

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            log.info("the reader of large bodies ended")
        self._process = None


def _asked(header: dict[str, Any], values: bytes) -> DayAsked | FeaturesGiven:
    if "problems" in header:
        raise BadRequestError(*header["problems"], status=header["status"])
    if "names" not in header:
        return DayAsked(header["instruments"], header["date"] and date.fromisoformat(header["date"]))
    shape = (len(header["instruments"]), len(header["names"]))
    matrix = np.frombuffer(bytearray(values), dtype=np.float32).reshape(shape)
    return FeaturesGiven(header["instruments"], header["names"], matrix)


def _answer(body: bytes, kind: str, streams: ArrowReader) -> tuple[dict[str, Any], bytes]:
    try:
        asked = streams.read(body) if kind == ARROW else read_request(body, streams.limits)
    except BadRequestError as error:
        return {"problems": error.problems, "status": error.status}, b""
    if isinstance(asked, DayAsked):
        return {"instruments": asked.instruments, "date": asked.date}, b""
    return {"instruments": asked.instruments, "names": asked.names}, asked.values.tobytes()


def _write(pipe: IO[bytes], content: bytes) -> None:
    pipe.write(_LENGTH.pack(len(content)))
    pipe.write(content)
    pipe.flush()


def _read(pipe: IO[bytes]) -> bytes:
    (length,) = _LENGTH.unpack(_exactly(pipe, _LENGTH.size))
    return _exactly(pipe, length)


def _exactly(pipe: IO[bytes], length: int) -> bytes:
    content = pipe.read(length)
    if len(content) < length:
        raise EOFError
    return content


def main(limits: RequestLimits) -> None:
    """Read bodies until the input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's goes to the service too, which ends this
    os.nice(NICENESS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY_BYTES, used + MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    source, sink, streams = sys.stdin.buffer, sys.stdout.buffer, ArrowReader(limits)
    while True:
        try:
            kind, body = _read(source).decode(), _read(source)
        except EOFError:
            return
        signal.alarm(BODY_S)  # kills this process, whatever native code it is in
        header, values = _answer(body, kind, streams)
        signal.alarm(0)
        _write(sink, to_json(header))
        _write(sink, values)


if __name__ == "__main__":
    main(RequestLimits(*map(int, sys.argv[1:3])))
